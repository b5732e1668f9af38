"""Check the rows of one file of a submission line by line, without holding the file in memory."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NoReturn

from adjudge.submission.formats import HEADER, HIGH, LOW, Form
from adjudge.submission.problems import Problem, ProblemLog, are, listed
from adjudge.system.text import quoted, shorten_json

MAX_LINE_BYTES = 2**18
MAX_FILE_BYTES = 2**26
"""Reading stops here to bound memory and time. No file of a submission is nearly as large (QQP.tsv: 4 MB)."""

SPARE_LINES = 1_000
"""A file is read for at most twice its official rows plus this many lines."""

_BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def check_file(form: Form, stream: BinaryIO, name: str) -> list[Problem]:
    """Return all problems of the content of one file; `name` begins each. Reads at most `MAX_FILE_BYTES`."""
    log = ProblemLog(name)
    check = _check_json_lines if form.is_json else _check_table
    check(form, _text_lines(stream, SPARE_LINES + 2 * form.rows, log), log)
    return log.problems()


def _text_lines(stream: BinaryIO, max_lines: int, log: ProblemLog) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and text, without its line end, of each line that is UTF-8."""
    for number, raw in _raw_lines(stream, max_lines, log):
        line = raw
        if number == 1 and raw.startswith(_WIDE_BOMS):
            log.add("encoding", "the file is UTF-16, not UTF-8", number)
            return
        if number == 1 and raw.startswith(_BOM):
            log.add("mark", "the file begins with a byte-order mark; save it as UTF-8 without one", number)
            line = raw.removeprefix(_BOM)
        if line.endswith(b"\r\n"):
            log.add("ends", r"the line ends with \r\n; end lines with \n alone", number)
        try:
            yield number, line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            position = f"byte {error.start + 1} of the line"
            log.add("encoding", f"byte {line[error.start]:#04x} ({position}) is not valid UTF-8", number)


def _raw_lines(stream: BinaryIO, max_lines: int, log: ProblemLog) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of up to `max_lines` lines; skip long lines, and stop in a large file."""
    size = 0
    for number in range(1, max_lines + 2):
        line = part = stream.readline(MAX_LINE_BYTES + 1)
        if not line:
            return
        if number > max_lines:
            log.add("size", f"the file has more than {max_lines:,} lines; the rest was not read", number)
            return
        size += len(part)
        while part and not part.endswith(b"\n") and size <= MAX_FILE_BYTES:
            part = stream.readline(MAX_LINE_BYTES + 1)
            size += len(part)
        if size > MAX_FILE_BYTES:
            log.add("size", f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB; the rest was not read", number)
            return
        if len(line) > MAX_LINE_BYTES:
            log.add("long", f"the line is longer than {MAX_LINE_BYTES // 2**10} KiB", number)
        else:
            yield number, line


class _Indices:
    """The official indices that were read so far, and the line of each."""

    def __init__(self, form: Form, log: ProblemLog, field: str) -> None:
        self._form, self._log, self._field = form, log, field
        self._line_of = array("L", [0]) * form.rows  # 0: not read yet
        self._last = -1

    def add(self, index: int, line: int) -> None:
        """Record an index; log one that is out of range, repeated, or out of order."""
        if index >= self._form.rows:
            message = f"{index} is not a row of the official test set, which has 0 to {self._form.rows - 1}"
            self._log.add("range", message, line, self._field)
        elif self._line_of[index]:
            message = f"row {index} occurs again; it was first in line {self._line_of[index]}"
            self._log.add("double", message, line, self._field)
        else:
            self._line_of[index] = line
            if index < self._last:
                message = f"row {index} comes after row {self._last}; rows must be in ascending order"
                self._log.add("order", message, line, self._field)
            self._last = max(self._last, index)

    def check_missing(self) -> None:
        """Log the indices that no line had."""
        missing = [index for index, line in enumerate(self._line_of) if not line]
        if missing:
            message = f"{len(missing):,} of {self._form.rows:,} rows {are(len(missing))} missing: {listed(missing)}"
            self._log.add("missing", message, field=self._field)


def _check_table(form: Form, lines: Iterator[tuple[int, str]], log: ProblemLog) -> None:
    index_field, label_field = HEADER
    indices = _Indices(form, log, index_field)
    empty = True
    for number, text in lines:
        cells = text.split("\t")
        if number == 1 and not _is_data(cells):
            empty = False
            if tuple(cells) != HEADER:
                log.add("header", f"the header is {quoted(text)}; it must be index, a tab, prediction", number)
            continue
        if number == 1:
            log.add("header", "there is no header line; it must be index, a tab, prediction", number)
        empty = False
        if len(cells) != len(HEADER):
            columns = f"{len(cells)} column{'s' * (len(cells) > 1)}"
            problem = f"the line has {columns}" if text.strip() else "the line is empty"
            missing_field = label_field if len(cells) < len(HEADER) else ""
            log.add("columns", f"{problem}; it must be an index, a tab and a prediction", number, missing_field)
            continue
        if _INDEX.fullmatch(cells[0]):
            indices.add(int(cells[0]), number)
        else:
            log.add("index", f"{quoted(cells[0])} is not a whole number as in the test set", number, index_field)
        if message := _label_problem(form, cells[1]):
            log.add("label", message, number, label_field)
    if empty and not log.problems():
        log.add("empty", "the file is empty")
    indices.check_missing()


def _is_data(cells: list[str]) -> bool:
    return len(cells) == len(HEADER) and cells[0].isdigit()


def _label_problem(form: Form, cell: str) -> str:
    """Return the message for a wrong prediction of a GLUE file, empty for a right one."""
    if form.shape != "number":
        return "" if cell in form.labels else f"{quoted(cell)} is not one of {', '.join(map(str, form.labels))}"
    if not _NUMBER.fullmatch(cell):
        return f"{quoted(cell)} is not a number"
    return "" if LOW <= float(cell) <= HIGH else f"{quoted(cell)} is outside {LOW:g} to {HIGH:g}"


class _NotJsonError(Exception):
    """The reason why a line is not JSON that a site reads."""


def _check_json_lines(form: Form, lines: Iterator[tuple[int, str]], log: ProblemLog) -> None:
    in_options = form.shape == "options"
    indices = _Indices(form, log, "passage.questions.answers.idx" if in_options else "idx")
    number = 0
    for number, text in lines:
        try:
            record = _parsed(text)
        except _NotJsonError as error:
            log.add("json", str(error), number)
            continue
        if not isinstance(record, dict):
            log.add("json", f"the line is {_shown(record)}, not an object", number)
        elif in_options:
            _check_passage(form, record, number, indices, log)
        else:
            _check_answer(form, record, "", number, indices, log)
    if not number and not log.problems():
        log.add("empty", "the file is empty")
    indices.check_missing()


def _parsed(text: str) -> Any:
    """Return the JSON value of a line. Raises _NotJsonError, also for NaN, a repeated field, deep nesting."""
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        if not text.strip():
            raise _NotJsonError("the line is empty") from None
        raise _NotJsonError(f"the line is not JSON: {error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise _NotJsonError("the line cannot be read as JSON: it is nested too deeply") from None
    except ValueError:  # a whole number of thousands of digits
        raise _NotJsonError("the line has a number that is too long") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise _NotJsonError(f"the field {quoted(repeated)} occurs twice")
    return record


def _refuse(constant: str) -> NoReturn:
    raise _NotJsonError(f"the line is not JSON, which has no {constant}")


def _check_passage(form: Form, record: Mapping[str, Any], number: int, indices: _Indices, log: ProblemLog) -> None:
    """Check a line {"idx", "passage": {"questions": [{"idx", "answers": [{"idx", "label"}]}]}} of MultiRC."""
    _read_index(form, record, "", number, log)
    passage = _read_field(record, "passage", "", dict, number, log)
    if passage is None:
        return
    for question, question_field in _objects(passage, "questions", "passage.", number, log):
        _read_index(form, question, f"{question_field}.", number, log)
        for answer, answer_field in _objects(question, "answers", f"{question_field}.", number, log):
            _check_answer(form, answer, f"{answer_field}.", number, indices, log)


def _check_answer(
    form: Form, record: Mapping[str, Any], prefix: str, number: int, indices: _Indices, log: ProblemLog
) -> None:
    """Check the fields ``idx`` and ``label`` of an object; `prefix` begins their names in problems."""
    index = _read_index(form, record, prefix, number, log)
    if index is not None:
        indices.add(index, number)
    _check_label(form, record, prefix, number, log)


def _objects(
    record: Mapping[str, Any], name: str, prefix: str, number: int, log: ProblemLog
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the objects of a list field, each with its field name such as ``passage.questions[0]``."""
    for position, value in enumerate(_read_field(record, name, prefix, list, number, log) or ()):
        field = f"{prefix}{name}[{position}]"
        if isinstance(value, dict):
            yield value, field
        else:
            log.add("shape", f"is {_shown(value)}, not an object", number, field)


def _read_field(record: Mapping[str, Any], name: str, prefix: str, kind: type, number: int, log: ProblemLog) -> Any:
    """Return a field that must be an object or a list; log a problem and return None when it is not."""
    if name not in record:
        log.add("field", "the field is missing", number, f"{prefix}{name}")
    elif not isinstance(record[name], kind):
        log.add("shape", f"is {_shown(record[name])}, not {_shown(kind())}", number, f"{prefix}{name}")
    else:
        return record[name]
    return None


def _read_index(form: Form, record: Mapping[str, Any], prefix: str, number: int, log: ProblemLog) -> int | None:
    """Return the field ``idx``; log a problem and return None when it is missing or not a whole number."""
    field = f"{prefix}idx"
    if "idx" not in record:
        log.add("field", "the field is missing", number, field)
        return None
    value = record["idx"]
    if form.text_idx and isinstance(value, str) and _INDEX.fullmatch(value):
        return int(value)
    if type(value) is int and 0 <= value < 10**9:
        return value
    log.add("index", f"is {_shown(value)}, not a whole number as in the test set", number, field)
    return None


def _check_label(form: Form, record: Mapping[str, Any], prefix: str, number: int, log: ProblemLog) -> None:
    """Log a problem when the field ``label`` is missing or not allowed."""
    field = f"{prefix}label"
    if "label" not in record:
        log.add("field", "the field is missing", number, field)
        return
    label = record["label"]
    if form.shape == "entity":
        if not isinstance(label, str) or not label.strip():
            log.add("label", f"is {_shown(label)}, not the text of an entity", number, field)
    elif not any(type(label) is type(right) and label == right for right in form.labels):
        log.add("label", f"is {_shown(label)}, not one of {', '.join(map(json.dumps, form.labels))}", number, field)


def _shown(value: object) -> str:
    """Return a JSON value cut for a message; objects and lists are named by their kind."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return shorten_json(value)
