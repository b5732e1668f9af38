"""An analysis beside the judgement: the parts of the form one after the other.

The slot of each part is opened for the model, as the prompt opens the first one: after an analysis stand ``</Analysis>`` and
``<Judgement>``, after a judgement ``</Judgement>`` and ``<Analysis>``. What of them the model has not written is written for it, since a
small one ends its turn after the first part. So a part is known by its place and never searched for: tags in data or in an analysis
are mere text.

Shapes: ``B`` prompts, ``R`` response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adjudge.models.policy import Policy
from adjudge.prompts.answers import CLOSING_ANALYSIS, CLOSING_TAG, OPENING_ANALYSIS, OPENING_TAG
from adjudge.rollout.answer_end import AnalysisEnd, AnswerEnd
from adjudge.rollout.sampler import Responses, Sampling, respond


@dataclass(frozen=True, slots=True)
class Opened:
    """Prompts grown by one part of the form and the opened slot of the next."""

    prompts: list[list[int]]
    texts: list[str]
    """The part and the tags after it, as they stand there."""
    kept: list[int]
    """Tokens of each part that the policy wrote and that stand there."""
    template: list[int]
    """Tokens after them which the form wrote."""


def open_next(end: AnswerEnd | AnalysisEnd, prompts: Sequence[Sequence[int]], parts: Sequence[Sequence[int]]) -> Opened:
    """Close the part that `parts` are the tokens of, one a prompt, and open the slot of the other part."""
    analysed = isinstance(end, AnalysisEnd)
    closing, opening = (CLOSING_ANALYSIS, OPENING_TAG) if analysed else (CLOSING_TAG, OPENING_ANALYSIS)
    opened = Opened([], [], [], [])
    for prompt, part in zip(prompts, parts, strict=True):
        kept = end.inside(part)
        text = end.text(kept)
        tags = f"{_missing(text, closing)}\n{opening}"
        template_ids = list(end.tokenizer(tags, add_special_tokens=False).input_ids)
        opened.prompts.append([*prompt, *kept, *template_ids])
        opened.texts.append(text + tags)
        opened.kept.append(len(kept))
        opened.template.append(len(template_ids))
    return opened


def analyse(
    policy: Policy, prompts: Sequence[Sequence[int]], end: AnalysisEnd, sampling: Sampling
) -> tuple[Responses, Opened]:
    """Draw an analysis for each prompt that ends in its opened slot, and open the slot of the judgement."""
    analyses = respond(policy, policy.prefill(prompts), end, sampling)
    return analyses, open_next(end, prompts, analyses.ids)


def respond_after_analysis(
    policy: Policy, prompts: Sequence[Sequence[int]], first: AnalysisEnd, end: AnswerEnd, sampling: Sampling
) -> Responses:
    """Draw analysis and judgement as one response; `texts` are those of the judgements, which is what is read.

    A token that ended an analysis and does not stand in the form (the end of the turn) is no part of the response.
    """
    analyses, opened = analyse(policy, prompts, first, sampling)
    judged = respond(policy, policy.prefill(opened.prompts), end, sampling)
    ids = [
        [*grown[len(prompt) :], *answer]
        for prompt, grown, answer in zip(prompts, opened.prompts, judged.ids, strict=True)
    ]
    kept_BR = torch.arange(analyses.mask_BR.shape[1]) < torch.tensor(opened.kept)[:, None]
    mask_BR = torch.cat([kept_BR, judged.mask_BR], dim=1)
    order_BR = mask_BR.int().argsort(dim=1, descending=True, stable=True)[:, : int(mask_BR.sum(1).max())]

    def joined(analysis_BR: Tensor, judgement_BR: Tensor) -> Tensor:
        return torch.cat([analysis_BR * kept_BR, judgement_BR], dim=1).gather(1, order_BR)

    return Responses(
        ids=ids,
        texts=judged.texts,
        logp_BR=joined(analyses.logp_BR, judged.logp_BR),
        value_BR=joined(analyses.value_BR, judged.value_BR),
        entropy_BR=joined(analyses.entropy_BR, judged.entropy_BR),
        mask_BR=mask_BR.gather(1, order_BR),
        template_spans=[range(kept, kept + tags) for kept, tags in zip(opened.kept, opened.template, strict=True)],
    )


def _missing(text: str, closing: str) -> str:
    """What of the closing tag is still to be written after `text`: the limit may have cut it in the middle."""
    return next((closing[length:] for length in range(len(closing), 0, -1) if text.endswith(closing[:length])), closing)
