"""Answer a batch of prompts: greedily, with the likeliest label or the mean number, with any analysis.

Shapes: ``B`` prompts, ``L`` labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch

from adjudge.models.engine.prefix import Prefilled
from adjudge.prompts.answers import answer_text, every_answer, read_answer
from adjudge.rollout.analysis import analyse, open_next
from adjudge.rollout.answer_end import AnalysisEnd
from adjudge.rollout.label_scoring import expected_answers, label_logps, labels_of
from adjudge.rollout.prompted import PromptedTask
from adjudge.rollout.sampler import Sampling, respond
from adjudge.types import Value


@dataclass(frozen=True, slots=True)
class Answer:
    """One prompt's answer: its text, the value read from it, and its token ids.

    `probabilities` is per label word, or empty.
    """

    text: str
    value: Value | None
    ids: list[int]
    probabilities: dict[str, float]


class _Asked(NamedTuple):
    """A prompt as a row."""

    ids: Sequence[int]


def answer(
    task: PromptedTask,
    prompts: Sequence[Sequence[int]],
    *,
    decode: Literal["greedy", "labels", "mean"] = "greedy",
    probabilities: bool = False,
) -> list[Answer]:
    """Answer each prompt, in order.

    ``decode="labels"`` takes the likeliest label word, and ``decode="mean"`` also the mean number (`_means`); numbers
    are greedy else. Too many sets of labels have no probabilities. The task's prior changes label probabilities, and
    nothing of a greedy answer. With an analysis the texts hold the whole form, and the value comes from the judgement
    alone. Raises NotFiniteError.
    """
    by_label = decode != "greedy" and not task.spec.is_number
    analyses = [""] * len(prompts)
    if task.analysis_before is not None:
        _, opened = analyse(task.policy, prompts, task.analysis_before, Sampling())
        prompts, analyses = opened.prompts, opened.texts
    scored = by_label or (probabilities and task.spec.lists_all)
    if decode == "mean" and task.spec.is_number:
        answers = _means(task, prompts)
    else:
        state = task.policy.prefill(prompts, expected=expected_answers(task, scored=scored))
        shares = _label_probabilities(task, state) if scored else [{} for _ in prompts]
        answers = _likeliest(task, shares) if by_label else _greedy(task, state, shares)
    if task.analysis_after is not None:
        answers = _explained(task, prompts, answers, task.analysis_after)
    return [replace(each, text=before + each.text) for before, each in zip(analyses, answers, strict=True)]


def _label_probabilities(task: PromptedTask, state: Prefilled) -> list[dict[str, float]]:
    """Return the probability of each label word, divided by the task's prior and scaled to sum to 1."""
    logp_BL = label_logps(task.policy, state, task.end.label_ids(task.spec))
    if task.prior is not None:
        prior_L = torch.tensor([task.prior[word] for word in task.spec.words], dtype=logp_BL.dtype)
        smallest = torch.finfo(logp_BL.dtype).tiny  # a probability that was rounded to 0 is not impossible
        logp_BL = logp_BL - prior_L.clamp(min=smallest).log().to(logp_BL.device)
    return [dict(zip(task.spec.words, row, strict=True)) for row in logp_BL.softmax(-1).tolist()]


def _likeliest(task: PromptedTask, shares: Sequence[dict[str, float]]) -> list[Answer]:
    ids_of = dict(zip(task.spec.words, task.end.label_ids(task.spec), strict=True))
    words = [max(share, key=lambda word: share[word]) for share in shares]
    return [Answer(word, word, ids_of[word], share) for word, share in zip(words, shares, strict=True)]


def _means(task: PromptedTask, prompts: Sequence[Sequence[int]]) -> list[Answer]:
    """Answer with the mean of the numbers that can be listed, weighed by their probabilities.

    No other answer has a smaller expected squared error (arXiv 2403.04182). The text has the task's decimals, and the
    value is not rounded.
    """
    number_L = torch.tensor([float(answer.text) for answer in every_answer(task.spec)], dtype=torch.float64)
    logp_BL = labels_of(task, [_Asked(prompt) for prompt in prompts], temperature=1.0)
    mean_B = logp_BL.cpu().double().softmax(-1) @ number_L
    values = mean_B.clamp(number_L[0], number_L[-1]).tolist()  # rounded sums may end beyond the range
    return [Answer(answer_text(value, task.spec), value, task.end.taught_ids(value, task.spec), {}) for value in values]


def _greedy(task: PromptedTask, state: Prefilled, shares: Sequence[dict[str, float]]) -> list[Answer]:
    responses = respond(task.policy, state, task.end, Sampling())
    judgements = [read_answer(text, task.spec, task.end.stop) for text in responses.texts]
    return [
        Answer(judgement.text, judgement.value, ids, share)
        for judgement, ids, share in zip(judgements, responses.ids, shares, strict=True)
    ]


def _explained(
    task: PromptedTask, prompts: Sequence[Sequence[int]], answers: Sequence[Answer], end: AnalysisEnd
) -> list[Answer]:
    """Return each answer with the analysis that the model writes after it."""
    opened = open_next(task.end, prompts, [each.ids for each in answers])
    analyses = respond(task.policy, task.policy.prefill(opened.prompts), end, Sampling())
    return [
        replace(each, text=text + end.text(end.inside(ids)))
        for each, text, ids in zip(answers, opened.texts, analyses.ids, strict=True)
    ]
