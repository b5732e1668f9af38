"""Which written texts become rows: no copies, none that is judged, and the likeliest of the rest."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from adjudge.generation.decoding import EMPTY, QUOTES, UNFINISHED
from adjudge.generation.plan import Plan
from adjudge.tasks.reading.same_text import normal_text, text_key

REPEATED, TWO_LABELS, JUDGED, COPIED = "repeated", "two_labels", "in_dev", "copied"
"""Why a whole text is dropped."""

REASONS = {
    UNFINISHED: "without the end of a sentence",
    QUOTES: "with quotes",
    EMPTY: "without words",
    COPIED: "that copy the first text",
    REPEATED: "that repeat another",
    TWO_LABELS: "that were written for two labels",
    JUDGED: "that are dev rows",
}
"""What is said of the texts that were dropped for a reason."""


@dataclass(frozen=True, slots=True)
class Written:
    """One text as it was written."""

    word: str
    given: str
    text: str
    dropped: str | None
    """Why it is no sentence; None if it is one."""
    score: float
    """Mean log-probability of its tokens under the model itself, nats."""
    tokens: int
    """Number of tokens that were written for it."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows, and what became of the other texts."""

    rows: list[Written]
    """Label by label in turn; of each label in the order of their scores."""
    dropped: dict[str, int]
    """Number of texts by the reason for which they were dropped."""
    passed: dict[str, int]
    """Number of different texts of each label, among which rows are chosen."""


def fields_of(plan: Plan, written: Written) -> dict[str, str]:
    """Return the row's fields."""
    return dict(zip(plan.fields, [written.given, written.text] if plan.given else [written.text], strict=True))


def usable(plan: Plan, texts: Iterable[Written], judged: Collection[str]) -> tuple[list[Written], Counter[str]]:
    """Return the texts that may become rows, and how many were dropped for which reason.

    `judged` are the keys of the rows that are judged (`text_key`). Of equal texts of a label the likeliest stays. A
    text that was written for two labels is dropped for both: nobody knows which is right.
    """
    dropped: Counter[str] = Counter()
    best: dict[tuple[str, str], Written] = {}
    for written in texts:
        reason = written.dropped
        key = text_key(fields_of(plan, written))
        if reason is None and plan.given and normal_text(written.given) == normal_text(written.text):
            reason = COPIED
        if reason is None and key in judged:
            reason = JUDGED
        if reason is not None:
            dropped[reason] += 1
            continue
        if (before := best.get((key, written.word))) is not None:
            dropped[REPEATED] += 1
            if written.score <= before.score:
                continue
        best[key, written.word] = written
    labels = Counter(key for key, _ in best)
    dropped[TWO_LABELS] += sum(labels[key] > 1 for key, _ in best)
    return [written for (key, _), written in best.items() if labels[key] == 1], dropped


def shares(words: Sequence[str], rows: int) -> dict[str, int]:
    """Return how many of the rows each label gets: as many as the others, up to one."""
    return {word: rows // len(words) + (index < rows % len(words)) for index, word in enumerate(words)}


def select(
    plan: Plan, texts: Iterable[Written], judged: Collection[str], rows: int, seed: int, *, at_random: bool = False
) -> Selection:
    """Return the rows: of each label those with the highest scores, or drawn at random.

    They are drawn with `at_random`, or where the label's block says so.
    """
    kept, dropped = usable(plan, texts, judged)
    chosen: dict[str, list[Written]] = {}
    for word, count in shares(plan.words, rows).items():
        of_label = [written for written in kept if written.word == word]
        if at_random or plan.how.labels[word].choose == "random":
            of_label = random.Random(f"{seed} {word}").sample(of_label, min(count, len(of_label)))
        chosen[word] = sorted(of_label, key=lambda written: -written.score)[:count]
    longest = max(map(len, chosen.values()))
    in_turn = [part[index] for index in range(longest) for part in chosen.values() if index < len(part)]
    passed = {word: sum(written.word == word for written in kept) for word in plan.words}
    return Selection(in_turn, {reason: count for reason, count in dropped.items() if count}, passed)


def distinct_2(texts: Sequence[str]) -> float:
    """Return the share of different pairs of neighbouring words among all of them; 0 without any."""
    pairs = [pair for text in texts for pair in itertools.pairwise(normal_text(text).split())]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def mean_scores(rows: Sequence[Written], words: Sequence[str]) -> Mapping[str, float | None]:
    """Return each label's mean score; None without a row."""
    return {
        word: sum(scores) / len(scores) if (scores := [row.score for row in rows if row.word == word]) else None
        for word in words
    }
