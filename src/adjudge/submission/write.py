"""From judged test rows to the files of a submission, and from the files to the zip."""

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
"""What can stand for an unreadable answer beside an answer itself: the row's most probable label; the file's most frequent one."""

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
    """One file of a submission: its text, and for how many unreadable answers another one stands in it."""

    form: Form
    text: str
    filled: int


def write_file(
    form: Form, spec: TaskSpec, predictions: Iterable[Prediction], unreadable: Sequence[str], where: str
) -> File:
    """The file of one task from its judged test rows, in whatever order; `where` begins every error.

    For an unreadable answer stands the first of `unreadable` (see `check_unreadable`) that is an answer of this task. Raises
    DataError: an unreadable answer and nothing said for it, rows that are missing or double, labels that the site does not know.
    """
    if spec.is_number != (form.shape == "number"):
        raise DataError(
            f"{where}: {form.file} wants {'numbers' if form.shape == 'number' else 'labels'}, and the task answers otherwise."
        )
    judged = [
        replace(prediction, fields={}, text="") for prediction in predictions
    ]  # the texts of a large test set are much
    indices = official_indices(form, judged, where)
    if form.shape == "entity":
        return File(form, _json_lines(_entities(spec, judged, indices, where)), 0)
    values, filled = _readable(form, spec, judged, unreadable, where)
    official = _official_labels(form, spec, where)
    answers = {
        index: official[str(value)] if official else _number(spec, value, f"{where}: row {row.id}")
        for index, row, value in zip(indices, judged, values, strict=True)
    }
    if form.shape == "options":
        text = _passages(judged, indices, answers, where)
    elif form.is_json:
        text = _json_lines(answers)
    else:
        lines = (HEADER, *sorted(answers.items()))
        text = "".join(f"{index}\t{answer}\n" for index, answer in lines)
    return File(form, text, filled)


def official_indices(form: Form, rows: Iterable[Tagged], where: str) -> list[int]:
    """The official index of each row.

    Raises DataError unless every index of the official test set is there, each once (of ReCoRD, where rows are candidates: at least once).
    """
    indices = [_tag(row, "idx", where) for row in rows]
    counts = Counter(indices)
    wrong = []
    if missing := sorted(set(range(form.rows)) - set(counts)):
        wrong.append(
            f"{len(missing):,} of the {form.rows:,} rows of the official test set {are(len(missing))} missing: {listed(missing)}"
        )
    if outside := sorted(index for index in counts if index >= form.rows):
        wrong.append(f"{listed(outside)} {are(len(outside))} not in it")
    if form.shape != "entity" and (double := sorted(index for index, count in counts.items() if count > 1)):
        wrong.append(f"{listed(double)} {are(len(double))} there more than once")
    if wrong:
        raise DataError(
            f"{where}: these are not the rows that {form.file} needs. By official index, {'; '.join(wrong)}."
        )
    return indices


def check_unreadable(items: Sequence[str], specs: Iterable[TaskSpec]) -> str | None:
    """The first of `items` that nothing can be made of: neither `LIKELIEST` nor `MAJORITY` nor an answer of one of the tasks."""
    known = list(specs)
    return next(
        (
            item
            for item in items
            if item not in (LIKELIEST, MAJORITY) and all(_answer(spec, item) is None for spec in known)
        ),
        None,
    )


def pack(files: Iterable[File]) -> bytes:
    """The zip of a submission."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for file in files:
            member = zipfile.ZipInfo(file.form.file, _DATE)
            member.external_attr = 0o644 << 16
            archive.writestr(member, file.text.encode("utf-8"), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _tag(row: Tagged, name: str, where: str) -> int:
    """A tag that is an official index. Raises DataError when it is missing or none."""
    raw = row.tags.get(name, "")
    if not _WHOLE.fullmatch(raw):
        problem = f"the tag '{name}' is '{raw}' and no whole number" if raw else f"has no tag '{name}'"
        raise DataError(
            f"{where}: row {row.id}: {problem}, so that it has no place in a submission. Judge the official test file."
        )
    return int(raw)


def _readable(
    form: Form, spec: TaskSpec, judged: Sequence[Prediction], unreadable: Sequence[str], where: str
) -> tuple[list[Value], int]:
    """A value for each row, and for how many another stands in. Raises DataError when nothing was said for one."""
    counts = Counter(row.value for row in judged if row.value is not None)
    majority = str(counts.most_common(1)[0][0]) if counts and not spec.is_number else None
    values: list[Value] = []
    left: list[str] = []
    for row in judged:
        value = row.value if row.value is not None else _stand_in(spec, row, majority, unreadable)
        if value is None:
            left.append(row.id)
        else:
            values.append(value)
    if left:
        raise DataError(
            f"{where}: {len(left):,} of {len(judged):,} answers could not be read (the first: row {left[0]}), and {form.file} needs one "
            f"for each row. {_ways_out(spec)}"
        )
    return values, len(judged) - counts.total()


def _stand_in(spec: TaskSpec, row: Prediction, majority: str | None, unreadable: Sequence[str]) -> Value | None:
    for item in unreadable:
        value: Value | None
        if item == LIKELIEST:
            value = max(row.probabilities, key=lambda word: row.probabilities[word]) if row.probabilities else None
        elif item == MAJORITY:
            value = majority
        else:
            value = _answer(spec, item)
        if value is not None:
            return value
    return None


def _answer(spec: TaskSpec, text: str) -> Value | None:
    if spec.number is not None:
        return read_number(text, spec.number.low, spec.number.high)
    return text if text in spec.words else None


def _ways_out(spec: TaskSpec) -> str:
    if spec.number is not None:
        return f"Say what stands for them: --unreadable NUMBER, from {spec.number.low:g} to {spec.number.high:g}."
    return (
        "With --decode labels every answer can be read. Or say what stands for these: "
        f"--unreadable {LIKELIEST}, {MAJORITY} or an answer ({', '.join(spec.words)})."
    )


def _official_labels(form: Form, spec: TaskSpec, where: str) -> dict[str, str | int]:
    """Answer word to the site's label; empty for a number task. Raises DataError for a label that the site does not know."""
    found: dict[str, str | int] = {}
    for raw, word in (spec.labels or {}).items():
        label = official_label(form, raw)
        if label is None:
            names = ", ".join(map(str, form.labels))
            raise DataError(f"{where}: the task's label '{raw}' ({word}) is none of {form.file}, which has {names}.")
        found[word] = label
    return found


def _number(spec: TaskSpec, value: Value, where: str) -> str:
    if spec.number is None or isinstance(value, str) or not spec.number.low <= value <= spec.number.high:
        raise DataError(f"{where}: {value!r} is no number of the task's range.")
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _entities(spec: TaskSpec, judged: Sequence[Prediction], indices: Sequence[int], where: str) -> dict[int, str]:
    """ReCoRD: the text of each query's best candidate, found as its metrics find it."""
    queries: dict[int, list[Prediction]] = {}
    for index, row in zip(indices, judged, strict=True):
        if not row.tags.get(CANDIDATE, "").strip():
            raise DataError(
                f"{where}: row {row.id}: has no tag '{CANDIDATE}', which is what the site gets. Judge the official test file."
            )
        queries.setdefault(index, []).append(row)
    positive = spec.positive or spec.words[1]
    return {
        index: best_candidate(f"{where}: query {index}", rows, positive).tags[CANDIDATE]
        for index, rows in queries.items()
    }


def _passages(
    judged: Sequence[Prediction], indices: Sequence[int], answers: Mapping[int, str | int], where: str
) -> str:
    """MultiRC: answer options within questions within passages."""
    passages: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for index, row in sorted(zip(indices, judged, strict=True), key=lambda pair: pair[0]):
        questions = passages.setdefault(_tag(row, "passage_idx", where), {})
        questions.setdefault(_tag(row, "question_idx", where), []).append({"idx": index, "label": answers[index]})
    return "".join(
        _line(
            {
                "idx": passage,
                "passage": {
                    "questions": [{"idx": question, "answers": options} for question, options in questions.items()]
                },
            }
        )
        for passage, questions in passages.items()
    )


def _json_lines(answers: Mapping[int, str | int]) -> str:
    return "".join(_line({"idx": index, "label": answer}) for index, answer in sorted(answers.items()))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"
