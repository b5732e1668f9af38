"""Pairs of answers with an analysis before the judgement, sampled from a model before it learns.

The model then learns from them. Shapes: ``N`` answers, ``T`` tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from adjudge.errors import DataError
from adjudge.models.policy import Policy
from adjudge.rollout.collect import Rollout, sample
from adjudge.rollout.forward import token_figures
from adjudge.rollout.pairs import gold_labels
from adjudge.rollout.prompted import PromptedTask, PromptRow
from adjudge.rollout.sampler import Sampling
from adjudge.system.console import note
from adjudge.system.timing import stage

Kind = Literal["label", "rationale"]
"""What the answers of a pair differ in: the label, or the analysis before the same label."""

ROWS_AT_ONCE = 16


class AnswerPair(NamedTuple):
    """A better and a worse answer to a prompt: analysis, tags, label and end, as token ids."""

    chosen: list[int]
    rejected: list[int]
    swapped: bool = False
    """True if the worse one is the better one's analysis with another label."""


class AnalysedPairs:
    """The pairs of all rows, part of a run's state. A row without one, a *tie*, has None.

    A label pair has a right answer and a wrong one, each with its own analysis. Where all samples agree, it has one
    analysis with the right label and with another. A rationale pair has two right answers: after the better analysis
    the right label is likelier.
    """

    def __init__(self, kind: Kind, samples: int) -> None:
        self._kind, self._samples = kind, samples
        self._pairs: list[dict[str, AnswerPair | None]] = []

    @property
    def is_built(self) -> bool:
        """True once answers were sampled."""
        return bool(self._pairs)

    def build(
        self, tasks: Sequence[PromptedTask], rows: Sequence[Sequence[PromptRow]], generator: torch.Generator
    ) -> None:
        """Sample answers to the rows of each task, and report how many pairs they make.

        Raises DataError for a row without a right answer, and when there is no pair.
        """
        for task, part in zip(tasks, rows, strict=True):
            pairs: dict[str, AnswerPair | None] = {}
            for start in range(0, len(part), ROWS_AT_ONCE):
                pairs |= self._some(task, part[start : start + ROWS_AT_ONCE], generator)
            self._pairs.append(pairs)
        by_row = [pair for pairs in self._pairs for pair in pairs.values()]
        made = [pair for pair in by_row if pair is not None]
        if not made:
            raise DataError(
                f"None of the {len(by_row)} rows has a pair: no two analyses of a row led to the right answer. "
                "Raise reward_model.samples, start from a run that is right more often (init), or use "
                "reward_model.pairs=label."
            )
        swapped = sum(pair.swapped for pair in made)
        note(f"{len(made)} {self._kind} pairs from {len(by_row)} rows, {swapped} of them one analysis with two labels.")

    def of(self, task_index: int, rows: Sequence[PromptRow]) -> list[AnswerPair | None]:
        """Return the pair of each row."""
        return [self._pairs[task_index][row.id] for row in rows]

    def state_dict(self) -> list[dict[str, Any]]:
        """Return all pairs."""
        return [{row: None if pair is None else list(pair) for row, pair in pairs.items()} for pairs in self._pairs]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Restore what `state_dict` returned."""
        self._pairs = [
            {row: None if pair is None else AnswerPair(*pair) for row, pair in pairs.items()} for pairs in state
        ]

    def _some(
        self, task: PromptedTask, rows: Sequence[PromptRow], generator: torch.Generator
    ) -> dict[str, AnswerPair | None]:
        golds = gold_labels(task, rows)
        rollout = sample(task, rows, Sampling(generator), samples=self._samples)
        pairs: dict[str, AnswerPair | None] = {}
        for index, (row, gold) in enumerate(zip(rows, golds, strict=True)):
            answers = range(index * self._samples, (index + 1) * self._samples)
            make = _label_pair if self._kind == "label" else _rationale_pair
            pairs[row.id] = make(task, row, task.spec.words[gold], rollout, answers)
        return pairs


def answer_values(policy: Policy, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Tensor:
    """Return the value after each token of each answer, ``[N, T]``; gradients flow where enabled.

    After its last token a shorter answer keeps its last value, so ``[:, -1]`` is the reward of each.
    """
    # Values are those of the states that predict a token, so a token is added which is not fed.
    batch = policy.batch(prompts, [[*ids, 0] for ids in answers])
    mask_NR = batch.response_mask_BR
    value_NR = torch.zeros(mask_NR.shape, device=policy.device)
    value_NT = value_NR.masked_scatter(mask_NR, policy.value(policy.hidden(batch)))[:, 1:]
    last_N = torch.tensor([len(ids) - 1 for ids in answers], device=policy.device)
    return value_NT.gather(1, torch.arange(value_NT.shape[1], device=policy.device).minimum(last_N[:, None]))


def _label_pair(task: PromptedTask, row: PromptRow, gold: str, rollout: Rollout, answers: range) -> AnswerPair | None:
    readable = [answer for answer in answers if rollout.judgements[answer].value is not None]
    right = [answer for answer in readable if rollout.judgements[answer].value == gold]
    wrong = [answer for answer in readable if rollout.judgements[answer].value != gold]
    if right and wrong:
        return AnswerPair(
            _answer(task, rollout, right[0], gold), _answer(task, rollout, wrong[0], rollout.judgements[wrong[0]].value)
        )
    first = (readable or answers)[0]
    others = [word for word in task.spec.words if word != gold]
    other = others[answers.start // len(answers) % len(others)]
    return AnswerPair(_answer(task, rollout, first, gold), _answer(task, rollout, first, other), swapped=True)


def _rationale_pair(
    task: PromptedTask, row: PromptRow, gold: str, rollout: Rollout, answers: range
) -> AnswerPair | None:
    right = [answer for answer in answers if rollout.judgements[answer].value == gold]
    openings = list(dict.fromkeys(tuple(rollout.openings[answer]) for answer in right))
    if len(openings) < 2:
        return None
    label = task.end.taught_ids(gold, task.spec)
    with torch.no_grad(), stage("reference"):
        figures = token_figures(task.policy, [[*row.ids, *each] for each in openings], [label] * len(openings), 1.0)
    logps = figures.logp_BR.sum(1).tolist()
    best, worst = (openings[logps.index(pick(logps))] for pick in (max, min))
    return None if best == worst else AnswerPair([*best, *label], [*worst, *label])


def _answer(task: PromptedTask, rollout: Rollout, answer: int, label: Any) -> list[int]:
    return [*rollout.openings[answer], *task.end.taught_ids(label, task.spec)]
