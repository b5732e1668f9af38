"""What is done with a judge's probabilities: hold doubtful answers back, or answer what costs least.

An answer that is held back has the value None and is `abstained`. It is not unreadable: its text is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adjudge.errors import ConfigError, DataError, nearest
from adjudge.tasks import read_table
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

ABSTAIN = "abstain"
"""Column of a cost matrix with the cost of no answer."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What each answer costs, by gold label and then by answer."""

    of: Mapping[str, Mapping[str, float]]
    abstain: Mapping[str, float] | None = None
    """What no answer costs, by gold label; None where every row is answered."""


@dataclass(frozen=True, slots=True)
class Decision:
    """When an answer is given. At most one of the three is set; none of them gives every answer."""

    minimum: Mapping[str, float] | None = None
    """Least probability of an answer, by answer word."""
    abstain_share: float | None = None
    """Share of the rows, the least sure ones, without an answer."""
    costs: Costs | None = None

    def __bool__(self) -> bool:
        return (self.minimum, self.abstain_share, self.costs) != (None, None, None)


ALWAYS = Decision()


def read_decision(
    spec: TaskSpec,
    min_confidence: float | Mapping[str, float] | Sequence[str] | None = None,
    abstain_share: float | None = None,
    costs: str | Path | Mapping[str, Mapping[str, float]] | None = None,
) -> Decision:
    """Return the rule a user asked for.

    `min_confidence` is a probability for all labels, a mapping by label, or texts as on the command line: ``0.9`` for
    all labels and ``LABEL=0.8`` for one. `costs` is a file (see `read_costs`) or the mapping itself. Raises ConfigError
    for a number task, several rules, an unknown label, and values out of range; DataError for a wrong file.
    """
    given = {"min_confidence": min_confidence, "abstain_share": abstain_share, "costs": costs}
    names = [name for name, value in given.items() if value is not None and value != []]
    if names and spec.is_number:
        raise ConfigError(f"{spec.name} is answered with numbers, without probabilities: {names[0]} is for labels.")
    if names and spec.several:
        raise ConfigError(
            f"{spec.name} is answered with sets of labels: {names[0]} is for tasks with one label per row."
        )
    if len(names) > 1:
        raise ConfigError(f"{' and '.join(names)} are rules of their own: give one of them.")
    if costs is not None:
        return Decision(costs=read_costs(costs, spec) if isinstance(costs, str | Path) else checked_costs(costs, spec))
    if abstain_share is not None:
        if not 0 <= abstain_share <= 1:
            raise ConfigError(f"abstain_share {abstain_share:g} is no share: give a number from 0 to 1.")
        return Decision(abstain_share=abstain_share)
    if min_confidence is None or min_confidence == []:
        return ALWAYS
    return Decision(minimum=_thresholds(spec, min_confidence))


def decide(predictions: Sequence[Prediction], decision: Decision) -> list[Prediction]:
    """Return the predictions as the rule gives them, in their order; without a rule as they are.

    The confidence of an answer is the probability of its word. Unreadable answers stay what they are; for
    `abstain_share` they count as the least sure ones. Raises ConfigError for a judge that gives no probabilities.
    """
    needed = [each for each in predictions if each.value is not None or decision.costs is not None]
    if decision and any(not prediction.probabilities for prediction in needed):
        raise ConfigError(
            "This judge gives no probabilities to hold answers back by: a model behind an API gives none."
        )
    if decision.costs is not None:
        return [_cheapest(prediction, decision.costs) for prediction in predictions]
    if decision.minimum is not None:
        minimum = decision.minimum
        return [
            _held_back(p) if p.value is not None and _confidence(p) < minimum.get(str(p.value), 0.0) else p
            for p in predictions
        ]
    if decision.abstain_share is not None:
        count = math.floor(decision.abstain_share * len(predictions) + 1e-9)
        order = sorted(range(len(predictions)), key=lambda row: _confidence(predictions[row]))
        doubtful = set(order[:count])
        return [_held_back(p) if row in doubtful and p.value is not None else p for row, p in enumerate(predictions)]
    return list(predictions)


def expected_cost(prediction: Prediction, costs: Costs) -> float:
    """Return what the prediction's answer, or holding it back, costs on average by its probabilities."""
    if prediction.value is None:
        of = costs.abstain or {}
        return sum(p * of.get(gold, 0.0) for gold, p in prediction.probabilities.items())
    return _expected(prediction, costs, str(prediction.value))


def read_costs(path: str | Path, spec: TaskSpec) -> Costs:
    """Read a cost matrix: a table with a column per answer, whose first column names a row's gold label.

    A column ``abstain``, unless it is an answer, has the cost of no answer. Raises DataError with the place of a label
    that is unknown, missing or there twice, and of a cost that is no number from 0.
    """
    path = Path(path)
    columns, rows = read_table(path)
    names = [name.strip() for name in columns[1:]]
    _check_labels(f"{path}: its header", names, spec, optional=() if ABSTAIN in spec.words else (ABSTAIN,))
    _check_labels(f"{path}: its first column", [row.cells[0].strip() for row in rows], spec)
    matrix = {
        row.cells[0].strip(): {
            name: _cost(f"{path}:{row.line}, column '{name}'", cell)
            for name, cell in zip(names, row.cells[1:], strict=True)
        }
        for row in rows
    }
    return _split(matrix, spec)


def checked_costs(matrix: Mapping[str, Mapping[str, Any]], spec: TaskSpec) -> Costs:
    """Check a cost matrix by gold label and answer, as `read_costs` does. Raises DataError."""
    _check_labels("costs: its gold labels", list(matrix), spec)
    optional = () if ABSTAIN in spec.words else (ABSTAIN,)
    for gold, row in matrix.items():
        _check_labels(f"costs['{gold}']", list(row), spec, optional)
    if len({ABSTAIN in row for row in matrix.values()}) > 1:
        raise DataError(f"costs: '{ABSTAIN}' must be there for every gold label, or for none.")
    return _split(
        {
            gold: {name: _cost(f"costs['{gold}']['{name}']", cell) for name, cell in row.items()}
            for gold, row in matrix.items()
        },
        spec,
    )


def _split(matrix: Mapping[str, Mapping[str, float]], spec: TaskSpec) -> Costs:
    of = {gold: {word: matrix[gold][word] for word in spec.words} for gold in spec.words}
    has_abstain = ABSTAIN not in spec.words and all(ABSTAIN in row for row in matrix.values())
    return Costs(of, {gold: matrix[gold][ABSTAIN] for gold in spec.words} if has_abstain else None)


def _check_labels(where: str, names: Sequence[str], spec: TaskSpec, optional: Sequence[str] = ()) -> None:
    for index, name in enumerate(names):
        if name not in spec.words and name not in optional:
            raise DataError(
                f"{where} has '{name}', which is no label of {spec.name}: {', '.join(spec.words)}."
                f"{nearest(name, spec.words)}"
            )
        if name in names[:index]:
            raise DataError(f"{where} has '{name}' twice.")
    if lacking := [word for word in spec.words if word not in names]:
        raise DataError(f"{where} lacks '{lacking[0]}': it needs every label of {spec.name}, {', '.join(spec.words)}.")


def _cost(where: str, cell: Any) -> float:
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"{where}: '{cell}' is no cost. Write a number from 0; what is right costs 0.")
    return value


def _thresholds(spec: TaskSpec, given: float | Mapping[str, float] | Sequence[str]) -> dict[str, float]:
    if isinstance(given, Mapping):
        pairs: list[tuple[str | None, Any]] = [*given.items()]
    elif isinstance(given, int | float):
        pairs = [(None, given)]
    else:
        texts = [given] if isinstance(given, str) else given
        split = [text.rpartition("=") for text in texts]
        pairs = [(label.strip() if mark else None, value) for label, mark, value in split]
    thresholds: dict[str | None, float] = {}
    for label, value in pairs:
        if label is not None and label not in spec.words:
            raise ConfigError(
                f"min_confidence: {spec.name} has no label '{label}'; it has {', '.join(spec.words)}."
                f"{nearest(label, spec.words)}"
            )
        if label in thresholds:
            raise ConfigError(f"min_confidence is given twice for {label or 'all labels'}: give it once.")
        thresholds[label] = _probability(value)
    return {word: thresholds.get(word, thresholds.get(None, 0.0)) for word in spec.words}


def _probability(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise ConfigError(f"min_confidence '{value}' is no probability: write 0.9, or LABEL=0.9 for one label.")
    return number


def _confidence(prediction: Prediction) -> float:
    """Return the probability of the answer; −1 for an unreadable one."""
    return -1.0 if prediction.value is None else prediction.probabilities[str(prediction.value)]


def _held_back(prediction: Prediction) -> Prediction:
    return replace(prediction, value=None, abstained=True)


def _expected(prediction: Prediction, costs: Costs, answer: str) -> float:
    return sum(p * costs.of[gold][answer] for gold, p in prediction.probabilities.items())


def _cheapest(prediction: Prediction, costs: Costs) -> Prediction:
    """Return the prediction with the answer of least expected cost; of equal ones the likelier.

    Probabilities alone decide, so an unreadable text is no hindrance.
    """
    expected = {answer: _expected(prediction, costs, answer) for answer in costs.of}
    best = min(expected, key=lambda answer: (expected[answer], -prediction.probabilities[answer]))
    answered = replace(prediction, value=best)
    held_back = _held_back(answered)
    if costs.abstain is not None and expected_cost(held_back, costs) < expected[best]:
        return held_back
    return answered
