"""An analysis before or after the judgement: the parts of the form are answered one by one.

The prompt opens the first part, and the form opens the next: ``</Analysis>`` and ``<Judgement>`` after an analysis,
``</Judgement>`` and ``<Analysis>`` after a judgement. Tags the model left out are added for it, since a small model
ends its turn after the first part. A part is therefore known by its position and never searched for, and tags in data
or in an analysis are plain text.

Shapes: ``B`` prompts, ``R`` response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adjudge.models.plain_text import PlainText
from adjudge.models.policy import Policy
from adjudge.prompts.answers import CLOSING_ANALYSIS, CLOSING_TAG, OPENING_ANALYSIS, OPENING_TAG
from adjudge.rollout.answer_end import AnalysisEnd, AnswerEnd
from adjudge.rollout.sampler import Responses, Sampling, respond


@dataclass(frozen=True, slots=True)
class Opened:
    """Prompts extended by one part of the form and the opening tag of the next."""

    prompts: list[list[int]]
    texts: list[str]
    """The part and the tags after it, as in the prompt."""
    kept: list[int]
    """Number of each part's tokens which the policy wrote and the prompt keeps."""
    template: list[int]
    """Number of tokens after them which the form wrote."""


def open_next(end: AnswerEnd | AnalysisEnd, prompts: Sequence[Sequence[int]], parts: Sequence[Sequence[int]]) -> Opened:
    """Append each prompt's part (token ids in `parts`), close it, and open the other part."""
    analysed = isinstance(end, AnalysisEnd)
    closing, opening = (CLOSING_ANALYSIS, OPENING_TAG) if analysed else (CLOSING_TAG, OPENING_ANALYSIS)
    opened = Opened([], [], [], [])
    for prompt, part in zip(prompts, parts, strict=True):
        kept = end.inside(part)
        text = end.text(kept)
        tags = f"{missing(text, closing)}\n{opening}"
        template_ids = PlainText(end.tokenizer).following(tags)
        opened.prompts.append([*prompt, *kept, *template_ids])
        opened.texts.append(text + tags)
        opened.kept.append(len(kept))
        opened.template.append(len(template_ids))
    return opened


def analyse(
    policy: Policy, prompts: Sequence[Sequence[int]], end: AnalysisEnd, sampling: Sampling
) -> tuple[Responses, Opened]:
    """Draw an analysis for each prompt, which must end with its opening tag, and open the judgement."""
    analyses = respond(policy, policy.prefill(prompts), end, sampling)
    return analyses, open_next(end, prompts, analyses.ids)


def respond_after_analysis(
    policy: Policy, prompts: Sequence[Sequence[int]], first: AnalysisEnd, end: AnswerEnd, sampling: Sampling
) -> Responses:
    """Draw analysis and judgement as one response. Its `texts` hold only the judgements.

    A token that ended an analysis but is not part of the form (the end of the turn) is dropped from the response.
    """
    analyses, opened = analyse(policy, prompts, first, sampling)
    judgements = respond(policy, policy.prefill(opened.prompts), end, sampling)
    ids = [
        [*extended[len(prompt) :], *answer]
        for prompt, extended, answer in zip(prompts, opened.prompts, judgements.ids, strict=True)
    ]
    kept_BR = torch.arange(analyses.mask_BR.shape[1]) < torch.tensor(opened.kept)[:, None]
    mask_BR = torch.cat([kept_BR, judgements.mask_BR], dim=1)
    order_BR = mask_BR.int().argsort(dim=1, descending=True, stable=True)[:, : int(mask_BR.sum(1).max())]

    def joined(analysis_BR: Tensor, judgement_BR: Tensor) -> Tensor:
        return torch.cat([analysis_BR * kept_BR, judgement_BR], dim=1).gather(1, order_BR)

    return Responses(
        ids=ids,
        texts=judgements.texts,
        logp_BR=joined(analyses.logp_BR, judgements.logp_BR),
        value_BR=joined(analyses.value_BR, judgements.value_BR),
        entropy_BR=joined(analyses.entropy_BR, judgements.entropy_BR),
        mask_BR=mask_BR.gather(1, order_BR),
        template_spans=[range(kept, kept + tags) for kept, tags in zip(opened.kept, opened.template, strict=True)],
    )


def missing(text: str, closing: str) -> str:
    """Return what `text` lacks of the `closing` tag; the token limit may have cut it inside the tag."""
    return next((closing[length:] for length in range(len(closing), 0, -1) if text.endswith(closing[:length])), closing)
