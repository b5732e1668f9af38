"""Hooks: read layouts that a task's YAML cannot describe, such as nested rows, text spans or pairs.

A hook takes the rows of one split as the source has them and returns the rows of the task. It reads both layouts: the
official JSONL files, and the hub's flat columns under the files' names, where a list or an object is JSON text. It
raises DataError (with file, line and field) for rows which do not follow the layout.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from adjudge.errors import DataError, TaskError, nearest
from adjudge.system.console import warn
from adjudge.system.text import shorten
from adjudge.tasks.reading.rows import LABELLED, Row, as_text
from adjudge.tasks.reading.text_files import kind_of

Hook = Callable[[Sequence[Row], str], list[Row]]
"""(rows, split) → rows"""
T = TypeVar("T", str, int, dict[str, Any], list[Any])

PLACEHOLDER = "@placeholder"
"""Marks the candidate's position in a query of ReCoRD."""

_OUTSIDE = ".,;:!?\"'()"
"""Marks at the ends of a WSC span that may be missing in the text."""


def hook_named(name: str) -> Hook:
    """Return the hook called `name` in task files. Raises TaskError for an unknown one."""
    if name not in HOOKS:
        raise TaskError(f"There is no hook '{name}'.{nearest(name, HOOKS)}")
    return HOOKS[name]


def axg(rows: Sequence[Row], split: str) -> list[Row]:
    """Give both rows of a minimal pair the same `pair`.

    A pair is two consecutive rows which differ in the gender of a pronoun. Training rows come from RTE and have no
    partner.
    """
    if split == "train":
        return list(rows)
    if len(rows) % 2:
        raise DataError(f"{rows[-1].where}: the last of {len(rows)} rows has no partner; the rows come in pairs.")
    paired = []
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        for column in ("hypothesis", "label"):
            if first.cells.get(column) != second.cells.get(column):
                raise DataError(
                    f"{second.where}: field '{column}' differs from that of the row before, with which it forms a pair."
                )
        if first.cells.get("premise") == second.cells.get("premise"):
            raise DataError(
                f"{second.where}: field 'premise' equals that of the row before; a pair differs in a pronoun."
            )
        paired += [Row(row.where, row.id, {**row.cells, "pair": first.id}) for row in (first, second)]
    return paired


def copa(rows: Sequence[Row], split: str) -> list[Row]:
    """Check that the question is "cause" or "effect"."""
    for row in rows:
        question = _take(row.where, row.cells, "question", str)
        if question not in ("cause", "effect"):
            raise DataError(
                f"{row.where}: field 'question' is '{shorten(question)}', which is neither cause nor effect."
            )
    return list(rows)


def multirc(rows: Sequence[Row], split: str) -> list[Row]:
    """Return one row per answer option; its `question_of` names the question as PASSAGE/QUESTION."""
    options: list[Row] = []
    for row in rows:
        flat = [row] if "question" in row.cells else _options(row)
        for option in flat:
            idx = _take(option.where, option.cells, "idx", dict)
            passage, question, answer = (
                as_text(_take(f"{option.where}: idx", idx, name, int)) for name in ("paragraph", "question", "answer")
            )
            tags = {
                "idx": answer,
                "passage_idx": passage,
                "question_idx": question,
                "question_of": f"{passage}/{question}",
            }
            name = row.id if option is row else f"{row.id}:{question}:{answer}"
            options.append(Row(option.where, name, {**option.cells, **tags}))
    return options


def record(rows: Sequence[Row], split: str) -> list[Row]:
    """Return one row per candidate of a query.

    The statement is the query with the candidate, in square brackets, in place of the placeholder.
    """
    candidates: list[Row] = []
    for row in rows:
        flat = [row] if "query" in row.cells else _queries(row)
        for query in flat:
            candidates += _candidates(query, split)
    return candidates


def wic(rows: Sequence[Row], split: str) -> list[Row]:
    """Mark the word with square brackets in both sentences, at the positions given by the row."""
    marked = []
    for row in rows:
        cells = dict(row.cells)
        for number in ("1", "2"):
            sentence = _take(row.where, cells, f"sentence{number}", str)
            start, end = (_take(row.where, cells, f"{end}{number}", int) for end in ("start", "end"))
            if not 0 <= start < end <= len(sentence):
                raise DataError(
                    f"{row.where}: fields 'start{number}' and 'end{number}' are {start} and {end}, "
                    f"which is not a span of the {len(sentence)} characters of 'sentence{number}'."
                )
            cells[f"sentence{number}"] = _marked(sentence, (start, end))
        marked.append(Row(row.where, row.id, cells))
    return marked


def wsc(rows: Sequence[Row], split: str) -> list[Row]:
    """Mark the phrase (span 1) and the pronoun (span 2) with square brackets in the text.

    A span is given by its text and the index of its first word, counted by spaces. A span found elsewhere in the text
    is marked there, with a warning. A phrase interrupted by other words is marked together with them.
    """
    marked, moved = [], []
    for row in rows:
        flat = {**row.cells, **_take(row.where, row.cells, "target", dict)} if "target" in row.cells else row.cells
        text = _take(row.where, flat, "text", str)
        positions, spans = [], []
        for name in ("span1", "span2"):
            span = " ".join(_take(row.where, flat, f"{name}_text", str).split())
            position, at_index = _find_span(row.where, text, name, span, _take(row.where, flat, f"{name}_index", int))
            positions.append(position)
            spans.append(span)
            if not at_index:
                moved.append(f"{row.where} ('{span}')")
        cells = {**flat, "text": _marked(text, *positions), "phrase": spans[0], "pronoun": spans[1]}
        marked.append(Row(row.where, row.id, cells))
    if moved:
        warn(
            f"{len(moved)} of {2 * len(rows):,} spans are not at their index and are marked where the text has them: "
            f"{', '.join(moved)}."
        )
    return marked


HOOKS: dict[str, Hook] = {hook.__name__: hook for hook in (axg, copa, multirc, record, wic, wsc)}


def _options(row: Row) -> Iterator[Row]:
    """Yield the answer options of a MultiRC passage of the official files, in the hub's flat layout."""
    passage = _take(row.where, row.cells, "passage", dict)
    number = _take(row.where, row.cells, "idx", int)
    inside = f"{row.where}: passage"
    text = _take(inside, passage, "text", str)
    for where, question in _objects(inside, passage, "questions"):
        question_text, index = _take(where, question, "question", str), _take(where, question, "idx", int)
        for option_where, option in _objects(where, question, "answers"):
            yield Row(
                option_where,
                row.id,
                {
                    "passage": text,
                    "question": question_text,
                    "answer": _take(option_where, option, "text", str),
                    "idx": {"paragraph": number, "question": index, "answer": _take(option_where, option, "idx", int)},
                    "label": option.get("label"),
                },
            )


def _queries(row: Row) -> Iterator[Row]:
    """Yield the queries of a ReCoRD passage of the official files, in the hub's flat layout."""
    inside = f"{row.where}: passage"
    passage = _take(row.where, row.cells, "passage", dict)
    number = _take(row.where, row.cells, "idx", int)
    text = _take(inside, passage, "text", str)
    entities = set()
    for where, entity in _objects(inside, passage, "entities"):
        start, end = _take(where, entity, "start", int), _take(where, entity, "end", int)
        if not 0 <= start <= end < len(text):
            raise DataError(
                f"{where}: fields 'start' and 'end' are {start} and {end}, which is not a span of the passage's text."
            )
        entities.add(text[start : end + 1])  # the end is inclusive
    for where, query in _objects(row.where, row.cells, "qas"):
        index = _take(where, query, "idx", int)
        cells = {"passage": text, "query": _take(where, query, "query", str), "entities": sorted(entities)}
        if query.get("answers") is not None:
            answers = [_take(inner, answer, "text", str) for inner, answer in _objects(where, query, "answers")]
            cells["answers"] = sorted(set(answers))
        yield Row(where, f"{row.id}:{index}", {**cells, "idx": {"passage": number, "query": index}})


def _candidates(query: Row, split: str) -> Iterator[Row]:
    """Yield one row per candidate of a ReCoRD query."""
    where, cells = query.where, query.cells
    answers = _take(where, cells, "answers", list) if cells.get("answers") is not None else []
    if not answers and split in LABELLED:
        raise DataError(f"{where}: there is no answer in field 'answers', which every query of {split} needs.")
    idx = _take(where, cells, "idx", dict)
    passage_idx, query_idx = (as_text(_take(f"{where}: idx", idx, name, int)) for name in ("passage", "query"))
    query_text = _take(where, cells, "query", str)
    if PLACEHOLDER not in query_text:
        raise DataError(f"{where}: field 'query' has no {PLACEHOLDER}: '{shorten(query_text)}'.")
    candidates = _take(where, cells, "entities", list)
    if not candidates:
        raise DataError(f"{where}: there is no candidate in field 'entities'.")
    for number, candidate in enumerate(candidates, 1):
        yield Row(
            where,
            f"{query.id}:{number}",
            {
                "passage": _take(where, cells, "passage", str),
                "statement": query_text.replace(PLACEHOLDER, f"[{candidate}]"),
                "label": candidate in answers if answers else None,
                "idx": query_idx,
                "query_of": f"{passage_idx}/{query_idx}",
                "candidate": candidate,
                "answers": as_text(answers) if answers else "",
            },
        )


def _find_span(where: str, text: str, name: str, span: str, index: int) -> tuple[tuple[int, int], bool]:
    """Return the position of a span in the text (begin, end), and whether it is at its index.

    Raises DataError when the position is not clear.
    """
    words = span.strip(_OUTSIDE).split()
    positions = [(match.start(), match.end()) for match in _pattern(words).finditer(text)] if words else []
    for begin, end in positions:
        if text.count(" ", 0, begin) == index:
            return (begin, end), True
    if len(positions) == 1:
        return positions[0], False
    tokens = text.split(" ")
    if not positions and len(words) > 1 and 0 <= index < len(tokens):
        begin = len(" ".join(tokens[:index]))
        parts = [part for word in words if (part := word.strip(_OUTSIDE))]
        matches = [match for part in parts if (match := _pattern([part]).search(text, begin))]
        if len(matches) == len(parts):
            return (min(match.start() for match in matches), max(match.end() for match in matches)), False
    actual = f"{len(positions)} times, but not there" if positions else "nowhere"
    raise DataError(
        f"{where}: field '{name}_text' is '{span}' at word {index} ('{name}_index'), but the text has it {actual}."
    )


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern for the words in sequence, as whole words, ignoring case."""
    span = r"\s+".join(re.escape(word) for word in words)
    return re.compile(rf"(?<!\w){span}(?!\w)", re.IGNORECASE)


def _marked(text: str, *positions: tuple[int, int]) -> str:
    """Return the text with each position (begin, end) in square brackets."""
    marks = [(begin, "[") for begin, _ in positions] + [(end, "]") for _, end in positions]
    for at, mark in sorted(marks, reverse=True):  # from the end, so that earlier positions stay valid
        text = text[:at] + mark + text[at:]
    return text


def _objects(where: str, holder: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of the list `holder[key]`, each with its location for errors."""
    for number, item in enumerate(_take(where, holder, key, list)):
        if not isinstance(item, dict):
            raise DataError(f"{where}: field '{key}[{number}]' is {kind_of(item)}, not an object.")
        yield f"{where}: {key}[{number}]", item


def _take(where: str, holder: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """Return `holder[key]`, which must be of that kind. Raises DataError.

    Values of other kinds than text may arrive as JSON text, from Parquet files.
    """
    value = holder.get(key)
    if value is None:
        raise DataError(f"{where}: there is no field '{key}'.{nearest(key, holder)}")
    if isinstance(value, str) and kind is not str:
        with contextlib.suppress(ValueError, RecursionError):  # text that is not JSON is reported below
            value = json.loads(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = {str: "text", int: "a whole number", list: "a list", dict: "an object"}[kind]
        raise DataError(f"{where}: field '{key}' is {kind_of(value)}, not {wanted}.")
    return value
