"""Two texts compared by a model: which of A and B is the better one, asked in both orders.

Source: arXiv 2306.17563 (pairwise ranking prompting), with questions of our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from adjudge.evaluation.asking import Asker, Mode
from adjudge.evaluation.ranking import TIE
from adjudge.tasks.reading.same_text import hash_share, normal_text
from adjudge.tasks.scoring.metrics import positive_index
from adjudge.tasks.spec import Source, TaskSpec
from adjudge.tasks.template import compiled
from adjudge.types import Example, Prediction

A, B = "A", "B"
TEMPLATE = "{% if query %}{{ query }}\n{% endif %}A: {{ first }}\nB: {{ second }}"
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Pair(NamedTuple):
    """Two candidates, and the text that both are candidates for."""

    query: str
    first: str
    second: str


def pair_task(spec: TaskSpec, question: str | None = None) -> TaskSpec:
    """Return the task of comparing two candidates for an answer of `spec`, with the words A and B.

    Its instruction is that of `spec` without the sentences that name its answers, and then the `question`.
    """
    if question is None:
        question = _question(spec)
    sentences = _SENTENCE.split(spec.instruction.strip())
    kept = [sentence for sentence in sentences if not any(f'"{word}"' in sentence for word in spec.words)]
    comparison = f'Two candidates follow, A and B. {question} Answer "{A}" or "{B}".'
    return TaskSpec(
        name=spec.name,
        title=spec.title,
        fields={"query": "query", "first": "first", "second": "second"},
        optional=("query", "first", "second"),
        instruction=f"{' '.join(kept or sentences)}\n{comparison}",
        template=TEMPLATE,
        labels={A: A, B: B},
        metrics=("accuracy",),
        source=Source(),
    )


def _question(spec: TaskSpec) -> str:
    if spec.number is not None:
        return "Which of the two gets the higher number?"
    if spec.choices:
        return "Which of the two is the better answer?"
    return f'Which of the two is more likely to get the answer "{spec.words[positive_index(spec)]}"?'


def row_text(row: Example, spec: TaskSpec) -> str:
    """Return a row as its task's template writes it."""
    values = {name: str(value).strip() for name, value in row.fields.items()}
    return str(compiled(spec.template, tuple(spec.fields)).render(values)).strip()


def group_texts(rows: Sequence[Example]) -> tuple[str, list[str]]:
    """Return what the rows of a group have in common, and what each has of its own, field by field."""
    names = list(rows[0].fields)
    shared = [name for name in names if len({row.fields[name] for row in rows}) == 1]
    differing = [name for name in names if name not in shared]
    return _lines(rows[0], shared), [_lines(row, differing) for row in rows]


def choice_texts(row: Example, spec: TaskSpec) -> tuple[str, list[str]]:
    """Return the text of a row without its choices, and the choices."""
    query = _lines(row, [name for name in row.fields if name not in spec.choices])
    return query, [row.fields[name].strip() or "(empty)" for name in spec.choices]


def _lines(row: Example, names: Sequence[str]) -> str:
    return "\n".join(f"{name}: {row.fields[name].strip() or '(empty)'}" for name in names)


class Comparer:
    """Compares candidates with one model, and counts the pairs whose two answers contradict each other."""

    def __init__(
        self,
        asker: Asker,
        task: TaskSpec,
        mode: Mode,
        *,
        orders: Literal["both", "random"] = "both",
        wins: Literal["agreed", "probability"] = "agreed",
        seed: int = 0,
    ) -> None:
        self.asker, self.task, self._mode = asker, task, mode
        self._orders, self._wins, self._seed = orders, wins, seed
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self._counts = dict.fromkeys(("pairs", "conflicts", "unreadable_pairs", "ties"), 0)

    def counts(self) -> dict[str, int]:
        """Return the counts of pairs: compared, with a conflict, with an unreadable answer, and all ties."""
        return dict(self._counts)

    def outcomes(self, pairs: Sequence[Pair], title: str) -> list[float]:
        """Return the share of a win that the first candidate of each pair gets.

        Both orders must agree for a win, else it is a tie, and so it is for an unreadable answer. With
        ``wins="probability"`` it is the mean probability of the first one over the orders. Equal texts tie, unasked.
        """
        questions: list[Example] = []
        places: list[list[tuple[int, bool]]] = []
        for pair in pairs:
            directions = [] if normal_text(pair.first) == normal_text(pair.second) else self._directions(pair)
            places.append([(len(questions) + number, swapped) for number, swapped in enumerate(directions)])
            questions += [_question_row(len(questions) + n, pair, s) for n, s in enumerate(directions)]
        answers = self.asker.ask(self.task, questions, self._mode, title)
        return [self._outcome([_first_wins(answers[i], swapped) for i, swapped in where]) for where in places]

    def _directions(self, pair: Pair) -> list[bool]:
        if self._orders == "both":
            return [False, True]
        return [hash_share("\x1f".join(pair), self._seed) < TIE]

    def _outcome(self, answers: Sequence[tuple[float | None, float]]) -> float:
        """Return the outcome of one pair from its answers: whether the first one won, and its probability."""
        if not answers:
            return TIE
        won = [win for win, _ in answers if win is not None]
        unreadable, conflict = len(won) < len(answers), 0.0 in won and 1.0 in won
        outcome = won[0] if len(set(won)) == 1 and not unreadable else TIE
        if self._wins == "probability":
            outcome = sum(share for _, share in answers) / len(answers)
        for name, count in (("pairs", True), ("conflicts", conflict), ("unreadable_pairs", unreadable)):
            self._counts[name] += count
        self._counts["ties"] += outcome == TIE
        return outcome


def _question_row(number: int, pair: Pair, swapped: bool) -> Example:
    first, second = (pair.second, pair.first) if swapped else (pair.first, pair.second)
    return Example(f"pair {number}", {"query": pair.query, "first": first, "second": second})


def _first_wins(answer: Prediction, swapped: bool) -> tuple[float | None, float]:
    """Return 1 when the answer prefers the pair's first candidate, 0 for the second, None if unreadable.

    Beside it stands the probability of the first candidate: that of the answer where there is none. Equal probabilities
    are a tie.
    """
    if answer.value is None:
        return None, TIE
    wanted = B if swapped else A
    if answer.probabilities:
        share = answer.probabilities[wanted]
        other = answer.probabilities[A if swapped else B]
        return (TIE if share == other else float(share > other)), share
    return float(answer.value == wanted), float(answer.value == wanted)
