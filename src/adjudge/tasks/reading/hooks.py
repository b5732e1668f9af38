"""What a task's YAML cannot say of its rows: that they are nested, marked by place, or come in pairs.

A hook takes the rows of one split as the source has them and returns the rows of the task. It reads both layouts: the official JSONL
files, and the hub's flat columns under the names of the files, in which a list or an object is its JSON. It raises DataError
(file, line, field) for what is not as the layout says.
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
"""What stands for the candidate in a query of ReCoRD."""
_OUTSIDE = ".,;:!?\"'()"
"""Marks at the ends of a span of WSC that need not be in the text."""


def hook_named(name: str) -> Hook:
    """The hook that a task file calls `name`. Raises TaskError for an unknown one."""
    if name not in HOOKS:
        raise TaskError(f"There is no hook '{name}'.{nearest(name, HOOKS)}")
    return HOOKS[name]


def axg(rows: Sequence[Row], split: str) -> list[Row]:
    """Give both rows of a minimal pair the same `pair`: two rows one after the other that differ in the gender of a pronoun.

    Training rows are those of RTE and have no partner.
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
                    f"{second.where}: field '{column}' is not that of the row before, whose pair it should be."
                )
        if first.cells.get("premise") == second.cells.get("premise"):
            raise DataError(
                f"{second.where}: field 'premise' is that of the row before; the two of a pair differ in a pronoun."
            )
        paired += [Row(row.where, row.id, {**row.cells, "pair": first.id}) for row in (first, second)]
    return paired


def copa(rows: Sequence[Row], split: str) -> list[Row]:
    """See to it that the question is one of the two words that there are."""
    for row in rows:
        question = _take(row.where, row.cells, "question", str)
        if question not in ("cause", "effect"):
            raise DataError(f"{row.where}: field 'question' is '{shorten(question)}', and neither cause nor effect.")
    return list(rows)


def multirc(rows: Sequence[Row], split: str) -> list[Row]:
    """One row for each answer option; `question_of` names its question, PASSAGE/QUESTION."""
    found: list[Row] = []
    for row in rows:
        flat = [row] if "question" in row.cells else _options(row)
        for option in flat:
            place = _take(option.where, option.cells, "idx", dict)
            passage, question, answer = (
                as_text(_take(f"{option.where}: idx", place, name, int)) for name in ("paragraph", "question", "answer")
            )
            tags = {
                "idx": answer,
                "passage_idx": passage,
                "question_idx": question,
                "question_of": f"{passage}/{question}",
            }
            name = row.id if option is row else f"{row.id}:{question}:{answer}"
            found.append(Row(option.where, name, {**option.cells, **tags}))
    return found


def record(rows: Sequence[Row], split: str) -> list[Row]:
    """One row for each candidate of a query: the statement is the query with the candidate, in square brackets, in the placeholder."""
    found: list[Row] = []
    for row in rows:
        flat = [row] if "query" in row.cells else _queries(row)
        for query in flat:
            found += _candidates(query, split)
    return found


def wic(rows: Sequence[Row], split: str) -> list[Row]:
    """Set the word in square brackets in both sentences, at the places that the row gives."""
    marked = []
    for row in rows:
        cells = dict(row.cells)
        for number in ("1", "2"):
            sentence = _take(row.where, cells, f"sentence{number}", str)
            start, end = (_take(row.where, cells, f"{end}{number}", int) for end in ("start", "end"))
            if not 0 <= start < end <= len(sentence):
                raise DataError(
                    f"{row.where}: fields 'start{number}' and 'end{number}' are {start} and {end}, "
                    f"which is no place in the {len(sentence)} characters of 'sentence{number}'."
                )
            cells[f"sentence{number}"] = _marked(sentence, (start, end))
        marked.append(Row(row.where, row.id, cells))
    return marked


def wsc(rows: Sequence[Row], split: str) -> list[Row]:
    """Set the phrase (span 1) and the pronoun (span 2) in square brackets in the text.

    A span is given by its text and the place of its first word, counted by spaces. Where the text has it elsewhere, it is marked
    there, and that is said; a phrase with other words between its own is marked with them.
    """
    marked, moved = [], []
    for row in rows:
        flat = {**row.cells, **_take(row.where, row.cells, "target", dict)} if "target" in row.cells else row.cells
        text, places, spans = _take(row.where, flat, "text", str), [], []
        for name in ("span1", "span2"):
            span = " ".join(_take(row.where, flat, f"{name}_text", str).split())
            place, at_index = _find_span(row.where, text, name, span, _take(row.where, flat, f"{name}_index", int))
            places.append(place)
            spans.append(span)
            if not at_index:
                moved.append(f"{row.where} ('{span}')")
        cells = {**flat, "text": _marked(text, *places), "phrase": spans[0], "pronoun": spans[1]}
        marked.append(Row(row.where, row.id, cells))
    if moved:
        warn(
            f"{len(moved)} of {2 * len(rows):,} spans are not at their index and are marked where the text has them: {', '.join(moved)}."
        )
    return marked


HOOKS: dict[str, Hook] = {hook.__name__: hook for hook in (axg, copa, multirc, record, wic, wsc)}


def _options(row: Row) -> Iterator[Row]:
    """The answer options of a passage of MultiRC, as the hub has them."""
    passage = _take(row.where, row.cells, "passage", dict)
    number = _take(row.where, row.cells, "idx", int)
    inside = f"{row.where}: passage"
    text = _take(inside, passage, "text", str)
    for where, question in _objects(inside, passage, "questions"):
        asked, index = _take(where, question, "question", str), _take(where, question, "idx", int)
        for place, answer in _objects(where, question, "answers"):
            idx = {"paragraph": number, "question": index, "answer": _take(place, answer, "idx", int)}
            cells = {"passage": text, "question": asked, "answer": _take(place, answer, "text", str), "idx": idx}
            yield Row(place, row.id, {**cells, "label": answer.get("label")})


def _queries(row: Row) -> Iterator[Row]:
    """The queries of a passage of ReCoRD, as the hub has them."""
    inside = f"{row.where}: passage"
    passage = _take(row.where, row.cells, "passage", dict)
    number = _take(row.where, row.cells, "idx", int)
    text = _take(inside, passage, "text", str)
    entities = set()
    for where, entity in _objects(inside, passage, "entities"):
        start, end = _take(where, entity, "start", int), _take(where, entity, "end", int)
        if not 0 <= start <= end < len(text):
            raise DataError(
                f"{where}: fields 'start' and 'end' are {start} and {end}, which is no place in the passage's text."
            )
        entities.add(text[start : end + 1])  # the end counts
    for where, query in _objects(row.where, row.cells, "qas"):
        index = _take(where, query, "idx", int)
        cells = {"passage": text, "query": _take(where, query, "query", str), "entities": sorted(entities)}
        if query.get("answers") is not None:
            answers = [_take(place, answer, "text", str) for place, answer in _objects(where, query, "answers")]
            cells["answers"] = sorted(set(answers))
        yield Row(where, f"{row.id}:{index}", {**cells, "idx": {"passage": number, "query": index}})


def _candidates(query: Row, split: str) -> Iterator[Row]:
    where, cells = query.where, query.cells
    answers = _take(where, cells, "answers", list) if cells.get("answers") is not None else []
    if not answers and split in LABELLED:
        raise DataError(f"{where}: there is no answer in field 'answers', which every query of {split} needs.")
    place = _take(where, cells, "idx", dict)
    passage_idx, query_idx = (as_text(_take(f"{where}: idx", place, name, int)) for name in ("passage", "query"))
    asked = _take(where, cells, "query", str)
    if PLACEHOLDER not in asked:
        raise DataError(f"{where}: field 'query' has no {PLACEHOLDER}: '{shorten(asked)}'.")
    candidates = _take(where, cells, "entities", list)
    if not candidates:
        raise DataError(f"{where}: there is no candidate in field 'entities'.")
    for number, candidate in enumerate(candidates, 1):
        yield Row(
            where,
            f"{query.id}:{number}",
            {
                "passage": _take(where, cells, "passage", str),
                "statement": asked.replace(PLACEHOLDER, f"[{candidate}]"),
                "label": candidate in answers if answers else None,
                "idx": query_idx,
                "query_of": f"{passage_idx}/{query_idx}",
                "candidate": candidate,
                "answers": as_text(answers) if answers else "",
            },
        )


def _find_span(where: str, text: str, name: str, span: str, index: int) -> tuple[tuple[int, int], bool]:
    """Where a span is in the text (begin, end), and whether that is at its index. Raises DataError when it cannot be told."""
    words = span.strip(_OUTSIDE).split()
    found = [(match.start(), match.end()) for match in _pattern(words).finditer(text)] if words else []
    at_index = [place for place in found if text.count(" ", 0, place[0]) == index]
    if at_index:
        return at_index[0], True
    if len(found) == 1:
        return found[0], False
    tokens = text.split(" ")
    if not found and len(words) > 1 and 0 <= index < len(tokens):
        begin = len(" ".join(tokens[:index]))
        parts = [part for word in words if (part := word.strip(_OUTSIDE))]
        matches = [match for part in parts if (match := _pattern([part]).search(text, begin))]
        if len(matches) == len(parts):
            return (min(match.start() for match in matches), max(match.end() for match in matches)), False
    often = f"{len(found)} times, but not there" if found else "nowhere"
    raise DataError(
        f"{where}: field '{name}_text' is '{span}' at word {index} ('{name}_index'), and the text has it {often}."
    )


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    """The words one after the other, as whole words, whatever their case."""
    span = r"\s+".join(re.escape(word) for word in words)
    return re.compile(rf"(?<!\w){span}(?!\w)", re.IGNORECASE)


def _marked(text: str, *places: tuple[int, int]) -> str:
    """The text with each place (begin, end) in square brackets."""
    marks = [(begin, "[") for begin, _ in places] + [(end, "]") for _, end in places]
    for at, mark in sorted(marks, reverse=True):  # from the end, so that the places before stay right
        text = text[:at] + mark + text[at:]
    return text


def _objects(where: str, holder: Mapping[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of the list `holder[key]`, each with its place for errors."""
    for number, item in enumerate(_take(where, holder, key, list)):
        if not isinstance(item, dict):
            raise DataError(f"{where}: field '{key}[{number}]' is {kind_of(item)} and not an object.")
        yield f"{where}: {key}[{number}]", item


def _take(where: str, holder: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """`holder[key]`, which must be of that kind; what a Parquet file holds arrives as text. Raises DataError."""
    value = holder.get(key)
    if value is None:
        raise DataError(f"{where}: there is no field '{key}'.{nearest(key, holder)}")
    if isinstance(value, str) and kind is not str:
        with contextlib.suppress(ValueError, RecursionError):  # what is no JSON stays text, and is said below
            value = json.loads(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = {str: "text", int: "a whole number", list: "a list", dict: "an object"}[kind]
        raise DataError(f"{where}: field '{key}' is {kind_of(value)} and not {wanted}.")
    return value
