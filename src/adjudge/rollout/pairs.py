"""Pairs of answers to a prompt: the right one, and one that should become less likely.

The reference is asked once about each training row: for the log-probability of every label, and where pairs are made
with the model's own answers, for an answer. A row whose own answer is right is a *tie*: it has no pair.

Shapes: ``B`` prompts, ``A`` answers to each, labels first; ``K`` distinct answers, ``L`` labels, ``N`` rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from adjudge.errors import DataError
from adjudge.models.policy import Policy
from adjudge.prompts.answers import every_answer
from adjudge.rl.losses import token_logp_and_entropy
from adjudge.rollout.collect import sample
from adjudge.rollout.label_scoring import labels_of, rows_at_once
from adjudge.rollout.prompted import PromptedTask, PromptRow
from adjudge.rollout.sampler import Sampling
from adjudge.rollout.several import AnswerStates, several_states
from adjudge.system.console import note
from adjudge.system.timing import stage

Kind = Literal["hardest", "sampled", "all", "labels"]
"""What the right answer is paired with: the reference's likeliest wrong label, its sampled answer, each wrong label, or
each wrong label weighted by the reference's probability of it (what sampling gives on average)."""


class AnswerPass(NamedTuple):
    """A pass over several answers to each prompt."""

    logp_BA: Tensor
    """Log-probability of each answer with its end, summed over its tokens."""
    states: AnswerStates
    index_BA: Tensor
    """Where each answer is among the distinct ones of `states`."""


class PairedRow(NamedTuple):
    """A row with answers to it: every label, then sampled ones."""

    row: PromptRow
    answers: list[list[int]]
    ref_logp: list[float]
    """The reference's log-probability of each answer."""
    gold: int
    """Index of the right answer."""
    rejected: list[tuple[int, float]]
    """Index and weight of each answer that it is paired with. Weights sum to at most 1; the rest is tied."""


@dataclass(slots=True)
class _Asked:
    """What the reference answers to the rows of one task."""

    ids: list[str]
    ref_logp_NL: Tensor
    own: list[list[tuple[list[int], float, bool]]]
    """Per row its own answers, newest first: tokens, log-probability, whether it is right."""
    place: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.place = {row: index for index, row in enumerate(self.ids)}


class Pairs:
    """The pairs of all training rows, part of a run's state.

    With `mix_previous`, a row's sampled answer of the last `build` stays beside the new one. `otherwise` says in an
    error what to do when no row has a pair.
    """

    def __init__(self, kind: Kind, *, mix_previous: bool = False, otherwise: str) -> None:
        self._kind, self._otherwise = kind, otherwise
        self._mix = mix_previous and kind == "sampled"
        self._asked: list[_Asked] = []

    @property
    def is_built(self) -> bool:
        """True once the reference was asked."""
        return bool(self._asked)

    def build(
        self, tasks: Sequence[PromptedTask], rows: Sequence[Sequence[PromptRow]], generator: torch.Generator
    ) -> None:
        """Ask the reference about the rows of each task, and report how many pairs that makes.

        Raises DataError for a row without a right answer, or when the first of all builds makes no pair.
        """
        before, self._asked = self._asked, []
        for index, (task, part) in enumerate(zip(tasks, rows, strict=True)):
            gold_labels(task, part)
            replies = self._ask(task, part, generator)
            if self._mix and before:
                _keep_wrong(task, part, replies, before[index])
            self._asked.append(replies)
        paired = [self.of(index, tasks[index], part) for index, part in enumerate(rows)]
        pairs = sum(len(row.rejected) for part in paired for row in part)
        ties, count = sum(not row.rejected for part in paired for row in part), sum(map(len, rows))
        if pairs == 0 and not before:
            raise DataError(
                f"None of the {count} training rows has a pair: the model's own answer is right for each, so there is "
                f"nothing to learn. Take rows that it was not trained on, or {self._otherwise}."
            )
        why = "; in the others the model's own answer is right" if ties else ""
        note(f"{pairs} pairs from {count - ties} of {count} rows{why}.")

    def of(self, task_index: int, task: PromptedTask, rows: Sequence[PromptRow]) -> list[PairedRow]:
        """Return the pairs of some rows of a task."""
        replies = self._asked[task_index]
        labels = task.taught_labels()
        paired = []
        for row, gold in zip(rows, gold_labels(task, rows), strict=True):
            index = replies.place[row.id]
            own_answers, ref_logp = replies.own[index], replies.ref_logp_NL[index].tolist()
            answers = [*labels, *(ids for ids, _, _ in own_answers)]
            rejected = self._rejected(gold, ref_logp, [right for _, _, right in own_answers])
            paired.append(PairedRow(row, answers, [*ref_logp, *(logp for _, logp, _ in own_answers)], gold, rejected))
        return paired

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what the reference answered."""
        return [{"ids": replies.ids, "ref_logp": replies.ref_logp_NL, "own": replies.own} for replies in self._asked]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Restore what `state_dict` returned."""
        self._asked = [_Asked(list(saved["ids"]), saved["ref_logp"], _as_tuples(saved["own"])) for saved in state]

    def _rejected(self, gold: int, ref_logp: Sequence[float], own_right: Sequence[bool]) -> list[tuple[int, float]]:
        wrong = [label for label in range(len(ref_logp)) if label != gold]
        if self._kind == "hardest":
            return [(max(wrong, key=lambda label: ref_logp[label]), 1.0)]
        if self._kind == "all":
            return [(label, 1 / len(wrong)) for label in wrong]
        if self._kind == "labels":
            return [(label, math.exp(ref_logp[label])) for label in wrong]
        return [(len(ref_logp) + index, 1 / len(own_right)) for index, right in enumerate(own_right) if not right]

    def _ask(self, task: PromptedTask, rows: Sequence[PromptRow], generator: torch.Generator) -> _Asked:
        ids = [row.id for row in rows]
        if self._kind != "sampled":
            with stage("reference"), task.policy.reference():
                return _Asked(ids, labels_of(task, rows, 1.0).cpu(), [[] for _ in rows])
        size = rows_at_once(every_answer(task.spec))
        ref_logps: list[Tensor] = []
        own_answers: list[list[tuple[list[int], float, bool]]] = []
        with task.policy.reference():
            for start in range(0, len(rows), size):
                rollout = sample(task, rows[start : start + size], Sampling(generator), score_labels=True)
                assert rollout.label_logp_PL is not None
                ref_logps.append(rollout.label_logp_PL)
                logps = rollout.logp_BR.sum(1).tolist()
                own_answers += [[answer] for answer in zip(rollout.responses, logps, rollout.right, strict=True)]
        return _Asked(ids, torch.cat(ref_logps), own_answers)


def gold_labels(task: PromptedTask, rows: Sequence[PromptRow]) -> list[int]:
    """Return the index of each row's right label. Raises DataError for a row without one."""
    for row in rows:
        if row.example.gold is None:
            raise DataError(f"{row.id}: has no gold answer to learn from.")
    return [task.spec.words.index(str(row.example.gold)) for row in rows]


def run_answers(policy: Policy, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[list[int]]]) -> AnswerPass:
    """Run some answers to each prompt in one pass; gradients flow where they are enabled.

    A prompt with fewer answers than another has its first one repeated in ``logp_BA``, which costs nothing.
    """
    width = max(map(len, answers))
    padded = [[*some, *[some[0]] * (width - len(some))] for some in answers]
    states = several_states(
        policy,
        [prompt for prompt in prompts for _ in range(width)],
        [answer for some in padded for answer in some],
    )
    mask_KR = states.mask_KR
    logp_M, _ = token_logp_and_entropy(policy.logits(states.hidden_KRD[mask_KR]), states.ids_KR[mask_KR])
    logp_K = torch.zeros(mask_KR.shape, device=policy.device).masked_scatter(mask_KR, logp_M).sum(1)
    index_BA = states.index_N.reshape(len(prompts), width)
    return AnswerPass(logp_K[index_BA], states, index_BA)


def _keep_wrong(task: PromptedTask, rows: Sequence[PromptRow], replies: _Asked, before: _Asked) -> None:
    """Add each row's last own answer.

    The reference has moved, so it is asked again about those that were wrong.
    """
    last = [before.own[before.place[row.id]][0] for row in rows]
    again = [index for index, (_, _, right) in enumerate(last) if not right]
    logps = [0.0] * len(rows)
    size = rows_at_once(every_answer(task.spec))
    with stage("reference"), torch.no_grad(), task.policy.reference():
        for part in (again[start : start + size] for start in range(0, len(again), size)):
            passed = run_answers(task.policy, [rows[index].ids for index in part], [[last[index][0]] for index in part])
            for index, logp in zip(part, passed.logp_BA[:, 0].tolist(), strict=True):
                logps[index] = logp
    for row_answers, (ids, _, right), logp in zip(replies.own, last, logps, strict=True):
        row_answers.append((ids, logp, right))


def _as_tuples(rows: Sequence[Any]) -> list[list[tuple[list[int], float, bool]]]:
    return [[(list(ids), float(logp), bool(right)) for ids, logp, right in answers] for answers in rows]
