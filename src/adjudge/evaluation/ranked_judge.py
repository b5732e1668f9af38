"""The judge that compares: the candidates of a group or a row with each other, or a row with anchors."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from adjudge.config import PrpConfig
from adjudge.evaluation.asking import Spent
from adjudge.evaluation.pairwise import Comparer, Pair, choice_texts, group_texts, row_text
from adjudge.evaluation.ranking import Ranker, Ranking, advance, allpair, heapsort, sliding
from adjudge.system.console import note, warn
from adjudge.tasks.reading.groups import by_unit
from adjudge.tasks.scoring.metrics import positive_index
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

Kind = Literal["choices", "groups", "anchors"]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was set on training rows: how scores from 0 to 1 become answers."""

    kind: Kind
    anchors: Sequence[str] = ()
    """The texts that rows are compared with."""
    top: bool = False
    """Whether the best of a group is positive, and no other."""
    cut: float = 0.0
    """The score from which on a row is positive."""
    curve: Sequence[tuple[float, float]] = field(default_factory=tuple)
    """Of a number task: points from score to number, between which it is interpolated."""


class RankedJudge:
    """Judges rows by comparing them; see `Judge`."""

    def __init__(self, comparer: Comparer, spec: TaskSpec, settings: PrpConfig, fitted: Fitted) -> None:
        self.comparer, self.spec, self.fitted = comparer, spec, fitted
        self._settings = settings
        self.spent: dict[str, Any] = {}
        """What the latest judging took, and how many pairs got answers that contradict each other."""

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row; see `Judge.judge`.

        The probabilities of labels are scaled scores, in the order of these. A row alone in its group is compared with
        nothing and scores ½. Raises what asking the model raises.
        """
        asker = self.comparer.asker
        asker.spent = Spent()
        self.comparer.forget()
        if self.fitted.kind == "choices":
            predictions = self._chosen(examples, title)
        elif self.fitted.kind == "groups":
            predictions = self._grouped(examples, title)
        else:
            scores = anchor_scores(self.comparer, examples, self.fitted.anchors, self.spec, title)
            predictions = [self._answered(row, score) for row, score in zip(examples, scores, strict=True)]
        self.spent = {**asker.spent.record(asker.config), **self.comparer.counts()}
        report_conflicts(self.spec.name, self.comparer.counts())
        if probabilities and not self.spec.is_number:
            return predictions
        return [replace(each, probabilities={}) for each in predictions]

    def _chosen(self, examples: Sequence[Example], title: str) -> list[Prediction]:
        texts = [choice_texts(row, self.spec) for row in examples]
        predictions = []
        for row, ranking in zip(examples, rank(self.comparer, texts, self._settings, title), strict=True):
            word = self.spec.words[ranking.order[0]]
            shares = _shares(ranking, self.spec.words)
            predictions.append(Prediction.of(row, word, word, shares))
        return predictions

    def _grouped(self, examples: Sequence[Example], title: str) -> list[Prediction]:
        units = list(by_unit(examples).values())
        alone = sum(len(unit) == 1 for unit in units)
        if alone:
            note(f"{self.spec.name}: {alone} of {len(units)} groups have one row, which is compared with nothing")
        texts = [group_texts([examples[index] for index in unit]) for unit in units]
        predictions: dict[int, Prediction] = {}
        for unit, ranking in zip(units, rank(self.comparer, texts, self._settings, title), strict=True):
            for item, index in enumerate(unit):
                best = item == ranking.order[0] and len(unit) > 1
                predictions[index] = self._answered(examples[index], ranking.score[item], best=best)
        return [predictions[index] for index in range(len(examples))]

    def _answered(self, row: Example, score: float, *, best: bool = False) -> Prediction:
        if self.spec.number is not None:
            value = interpolated(self.fitted.curve, score)
            return Prediction.of(row, f"{value:.{self.spec.number.decimals}f}", value)
        share = 0.5 * score + 0.5 * best if self.fitted.top else scaled_share(score, self.fitted.cut)
        is_positive = best if self.fitted.top else score >= self.fitted.cut
        at = positive_index(self.spec)
        word = self.spec.words[at if is_positive else 1 - at]
        shares = {each: share if index == at else 1 - share for index, each in enumerate(self.spec.words)}
        return Prediction.of(row, word, word, shares)


def rank(
    comparer: Comparer, groups: Sequence[tuple[str, Sequence[str]]], settings: PrpConfig, title: str
) -> list[Ranking]:
    """Rank the candidates of each group, given as its common text and its candidates in initial order."""

    def compare(wanted: list[tuple[int, tuple[int, int]]]) -> list[float]:
        pairs = [Pair(groups[at][0], groups[at][1][first], groups[at][1][second]) for at, (first, second) in wanted]
        return comparer.outcomes(pairs, title)

    return advance([_ranker(len(candidates), settings) for _, candidates in groups], compare)


def _ranker(count: int, settings: PrpConfig) -> Ranker:
    if settings.ranking == "allpair":
        return allpair(count)
    return heapsort(count) if settings.ranking == "sorting" else sliding(count, settings.passes)


def anchor_scores(
    comparer: Comparer, rows: Sequence[Example], anchors: Sequence[str], spec: TaskSpec, title: str
) -> list[float]:
    """Return each row's share of wins against the anchors, with a tie as half a win.

    It does not depend on the other rows.
    """
    texts = [row_text(row, spec) for row in rows]
    outcomes = comparer.outcomes([Pair("", text, anchor) for text in texts for anchor in anchors], title)
    count = len(anchors)
    return [sum(outcomes[row * count : (row + 1) * count]) / count for row in range(len(rows))]


def interpolated(curve: Sequence[tuple[float, float]], score: float) -> float:
    """Return a score's number on the line through the curve's points; beyond an end, that of the end."""
    at = bisect_right(curve, score, key=lambda point: point[0])
    if at == 0:
        return curve[0][1]
    if at == len(curve):
        return curve[-1][1]
    (left, low), (right, high) = curve[at - 1], curve[at]
    return low + (high - low) * (score - left) / (right - left)


def scaled_share(score: float, cut: float) -> float:
    """Return a share that rises with the score, and is ½ at the cut."""
    if score >= cut:
        return 0.5 + 0.5 * (score - cut) / (1 - cut) if cut < 1 else 0.5
    return 0.5 * score / cut


def report_conflicts(name: str, counts: dict[str, int]) -> None:
    """Say how many pairs got answers that contradict each other; warn where no pair was decided."""
    pairs = counts["pairs"]
    if not pairs:
        return
    shares = f"{counts['conflicts'] / pairs:.0%} of {pairs:,} pairs got another answer in the other order"
    if counts["ties"] == pairs:
        warn(
            f"{name}: {shares}, and every pair is a tie, so nothing was compared. Use a larger model, or "
            "prp.wins=probability runtime.dtype=float32."
        )
    else:
        note(f"{name}: {shares}; {counts['ties'] / pairs:.0%} are ties")


def _shares(ranking: Ranking, words: Sequence[str]) -> dict[str, float]:
    total = sum(ranking.score)
    return {word: score / total if total else 1 / len(words) for word, score in zip(words, ranking.score, strict=True)}
