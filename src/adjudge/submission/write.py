"""Write the files of a submission from judged test rows, and pack them into a zip."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from adjudge.errors import DataError
from adjudge.prompts.answers import read_number
from adjudge.submission.formats import HEADER, Form, official_label
from adjudge.submission.problems import are, listed
from adjudge.tasks.scoring.record import CANDIDATE, best_candidate
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction, Value

LIKELIEST, MAJORITY = "likeliest", "majority"
"""Rules that replace an unreadable answer: by the row's most probable label, or by the file's most frequent one.

Any other rule is an answer itself.
"""

_DATE = (1980, 1, 1, 0, 0, 0)
"""The date of every file in a zip, so that the same answers give the same bytes."""

_WHOLE = re.compile(r"[0-9]{1,9}")


class Tagged(Protocol):
    """An example or a prediction."""

    @property
    def id(self) -> str: ...

    @property
    def tags(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class File:
    """One file of a submission."""

    form: Form
    text: str
    filled: int
    """How many unreadable answers were replaced."""


def write_file(
    form: Form, spec: TaskSpec, predictions: Iterable[Prediction], unreadable: Sequence[str], where: str
) -> File:
    """Return the file of one task from its judged test rows in any order; errors begin with `where`.

    An unreadable answer is replaced by the first rule of `unreadable` that gives an answer of this task (see
    `first_unknown_rule`). Raises DataError when no rule does, for missing or repeated rows, and for labels unknown to
    the site.
    """
    if spec.is_number != (form.shape == "number"):
        needed = "numbers" if form.shape == "number" else "labels"
        raise DataError(f"{where}: {form.file} wants {needed}, but the task has another kind of answer.")
    # The texts of a large test set take much memory, and are not needed.
    rows = [replace(prediction, fields={}, text="") for prediction in predictions]
    indices = official_indices(form, rows, where)
    if form.shape == "entity":
        return File(form, _json_lines(_entities(spec, rows, indices, where)), 0)
    values, filled = _readable_values(form, spec, rows, unreadable, where)
    labels = _official_labels(form, spec, where)
    answers = {
        index: labels[str(value)] if labels else _number(spec, value, f"{where}: row {row.id}")
        for index, row, value in zip(indices, rows, values, strict=True)
    }
    if form.shape == "options":
        text = _passages(rows, indices, answers, where)
    elif form.is_json:
        text = _json_lines(answers)
    else:
        lines = (HEADER, *sorted(answers.items()))
        text = "".join(f"{index}\t{answer}\n" for index, answer in lines)
    return File(form, text, filled)


def official_indices(form: Form, rows: Iterable[Tagged], where: str) -> list[int]:
    """Return the official index of each row.

    Raises DataError unless every index of the official test set occurs exactly once, or for ReCoRD, whose rows are
    candidates, at least once.
    """
    indices = [_index_tag(row, "idx", where) for row in rows]
    counts = Counter(indices)
    problems = []
    if missing := sorted(set(range(form.rows)) - set(counts)):
        count = f"{len(missing):,} of the {form.rows:,} rows of the official test set"
        problems.append(f"{count} {are(len(missing))} missing: {listed(missing)}")
    if outside := sorted(index for index in counts if index >= form.rows):
        problems.append(f"{listed(outside)} {are(len(outside))} not in it")
    if form.shape != "entity" and (repeated := sorted(index for index, count in counts.items() if count > 1)):
        problems.append(f"{listed(repeated)} {are(len(repeated))} there more than once")
    if problems:
        raise DataError(
            f"{where}: these are not the rows that {form.file} needs. By official index, {'; '.join(problems)}."
        )
    return indices


def first_unknown_rule(rules: Sequence[str], specs: Iterable[TaskSpec]) -> str | None:
    """Return the first rule that is neither a named rule nor an answer of one of the tasks, or None."""
    specs = list(specs)
    for rule in rules:
        if rule not in (LIKELIEST, MAJORITY) and all(_answer(spec, rule) is None for spec in specs):
            return rule
    return None


def pack(files: Iterable[File]) -> bytes:
    """Return the zip of a submission."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in files:
            member = zipfile.ZipInfo(file.form.file, _DATE)
            member.external_attr = 0o644 << 16
            archive.writestr(member, file.text.encode("utf-8"), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _index_tag(row: Tagged, name: str, where: str) -> int:
    """Return a tag that is an official index. Raises DataError when it is missing or not a whole number."""
    tag = row.tags.get(name, "")
    if not _WHOLE.fullmatch(tag):
        problem = f"the tag '{name}' is '{tag}', not a whole number" if tag else f"has no tag '{name}'"
        raise DataError(
            f"{where}: row {row.id}: {problem}, so it has no place in a submission. Judge the official test file."
        )
    return int(tag)


def _readable_values(
    form: Form, spec: TaskSpec, rows: Sequence[Prediction], unreadable: Sequence[str], where: str
) -> tuple[list[Value], int]:
    """Return a value for each row, and how many of them replace an unreadable answer.

    Raises DataError when no rule of `unreadable` gives a value for a row.
    """
    counts = Counter(row.value for row in rows if row.value is not None)
    majority = str(counts.most_common(1)[0][0]) if counts and not spec.is_number else None
    values: list[Value] = []
    unfilled: list[str] = []
    for row in rows:
        value = row.value if row.value is not None else _replacement(spec, row, majority, unreadable)
        if value is None:
            unfilled.append(row.id)
        else:
            values.append(value)
    if unfilled:
        raise DataError(
            f"{where}: {len(unfilled):,} of {len(rows):,} answers could not be read (the first: row {unfilled[0]}), "
            f"and {form.file} needs one for each row. {_advice(spec)}"
        )
    return values, len(rows) - counts.total()


def _replacement(spec: TaskSpec, row: Prediction, majority: str | None, rules: Sequence[str]) -> Value | None:
    """Return the value of the first rule that gives one for this row, or None."""
    for rule in rules:
        value: Value | None
        if rule == LIKELIEST:
            value = max(row.probabilities, key=lambda word: row.probabilities[word]) if row.probabilities else None
        elif rule == MAJORITY:
            value = majority
        else:
            value = _answer(spec, rule)
        if value is not None:
            return value
    return None


def _answer(spec: TaskSpec, text: str) -> Value | None:
    """Return the answer of the task with this text, or None."""
    if spec.number is not None:
        return read_number(text, spec.number.low, spec.number.high)
    return text if text in spec.words else None


def _advice(spec: TaskSpec) -> str:
    """Return the part of the message on how to replace unreadable answers."""
    if spec.number is not None:
        return f"Say what replaces them: --unreadable NUMBER, from {spec.number.low:g} to {spec.number.high:g}."
    return (
        "With --decode labels every answer can be read. Or say what replaces them: "
        f"--unreadable {LIKELIEST}, {MAJORITY} or an answer ({', '.join(spec.words)})."
    )


def _official_labels(form: Form, spec: TaskSpec, where: str) -> dict[str, str | int]:
    """Return the site's label per answer word. Raises DataError for an unknown one."""
    labels: dict[str, str | int] = {}
    for raw, word in (spec.labels or {}).items():
        label = official_label(form, raw)
        if label is None:
            names = ", ".join(map(str, form.labels))
            raise DataError(
                f"{where}: the task's label '{raw}' ({word}) is not a label of {form.file}, which has {names}."
            )
        labels[word] = label
    return labels


def _number(spec: TaskSpec, value: Value, where: str) -> str:
    """Return a number with at most three decimals. Raises DataError for one outside the task's range."""
    if spec.number is None or isinstance(value, str) or not spec.number.low <= value <= spec.number.high:
        raise DataError(f"{where}: {value!r} is not a number in the task's range.")
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _entities(spec: TaskSpec, rows: Sequence[Prediction], indices: Sequence[int], where: str) -> dict[int, str]:
    """Return the text of each query's best candidate (ReCoRD), chosen as its metrics choose it."""
    queries: dict[int, list[Prediction]] = {}
    for index, row in zip(indices, rows, strict=True):
        if not row.tags.get(CANDIDATE, "").strip():
            raise DataError(
                f"{where}: row {row.id}: has no tag '{CANDIDATE}', whose text the site needs. "
                "Judge the official test file."
            )
        queries.setdefault(index, []).append(row)
    positive = spec.positive or spec.words[1]
    return {
        index: best_candidate(f"{where}: query {index}", candidates, positive).tags[CANDIDATE]
        for index, candidates in queries.items()
    }


def _passages(rows: Sequence[Prediction], indices: Sequence[int], answers: Mapping[int, str | int], where: str) -> str:
    """Return MultiRC's lines: answer options within questions within passages."""
    passages: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for index, row in sorted(zip(indices, rows, strict=True), key=lambda pair: pair[0]):
        questions = passages.setdefault(_index_tag(row, "passage_idx", where), {})
        questions.setdefault(_index_tag(row, "question_idx", where), []).append({"idx": index, "label": answers[index]})
    lines = []
    for passage, questions in passages.items():
        nested = [{"idx": question, "answers": options} for question, options in questions.items()]
        lines.append(_line({"idx": passage, "passage": {"questions": nested}}))
    return "".join(lines)


def _json_lines(answers: Mapping[int, str | int]) -> str:
    return "".join(_line({"idx": index, "label": answer}) for index, answer in sorted(answers.items()))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"
