"""Read a request: its body as JSON, its fields, its rows.

Whatever does not fit is a RequestError with what to send.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from adjudge.errors import nearest
from adjudge.ship.serving.judges import ServedJudge
from adjudge.ship.serving.limits import GONE, Limits, Load, RequestError
from adjudge.system.text import shorten
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

DRAINED_BYTES = 32 << 20
"""How much of a body that is too large is still read, so that the client can read the error."""

_SURROGATE = re.compile("[\ud800-\udfff]")


@asynccontextmanager
async def open_body(request: Request, limits: Limits, load: Load) -> AsyncIterator[bytes]:
    """Read the body, and count its bytes in `load` within this block.

    Raises RequestError: 413 when it is too large, 408 when it arrives too slowly, 429 when all bodies are too much.
    """
    parts: list[bytes] = []
    try:
        yield await _body(request, limits, load, parts)
    finally:
        load.open_bytes -= sum(map(len, parts))


async def _body(request: Request, limits: Limits, load: Load, parts: list[bytes]) -> bytes:
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for part in request.stream():
                size += len(part)
                if size <= limits.body_bytes:
                    parts.append(part)
                    load.open_bytes += len(part)
                if size > limits.body_bytes + DRAINED_BYTES:
                    break
                if load.open_bytes > limits.open_bytes:
                    raise RequestError(
                        429,
                        "The requests that wait for their answers hold too much text already. Try again.",
                        code="too_many_bytes",
                        headers={"Retry-After": "1", "Connection": "close"},
                    )
    except TimeoutError:
        raise RequestError(
            408, f"The body did not arrive within {limits.body_s:g} s.", headers={"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise RequestError(GONE, "The client left before the body was complete.") from None
    if size > limits.body_bytes:
        raise RequestError(
            413,
            f"The body has more than {limits.body_bytes:,} bytes. Send fewer or shorter rows per request.",
            code="body_too_large",
            headers={"Connection": "close"},
        )
    return b"".join(parts)


def parse_object(request: Request, body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body. Raises RequestError, 400 or 415, with the place of the mistake."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(415, "Send JSON, with the header Content-Type: application/json.")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(
            400, f"The body is not UTF-8: byte {error.start} cannot be read. Send JSON in UTF-8."
        ) from None
    try:
        tree = json.loads(text, object_pairs_hook=_unique, parse_constant=_not_json)
    except json.JSONDecodeError as error:
        raise RequestError(
            400, f"The body is not JSON: {error.msg}, line {error.lineno}, column {error.colno}. Send a JSON object."
        ) from None
    except RecursionError:
        raise RequestError(400, "The body is nested too deeply. Send a JSON object of plain fields.") from None
    except ValueError as error:  # a number of thousands of digits
        raise RequestError(400, f"The body is not JSON that can be read: {error}. Send a JSON object.") from None
    if not isinstance(tree, dict):
        raise RequestError(400, f"The body is {kind_of(tree)}. Send a JSON object, as in {{{EXAMPLE}}}.")
    return tree


EXAMPLE = '"texts": ["A warm, funny surprise."]'


def check_names(tree: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise RequestError 422 for a field that the route does not know."""
    for name in tree:
        if name not in known:
            shown = shorten(name)  # a name of a megabyte would take seconds to compare
            raise RequestError(422, f"There is no field '{shown}' here.{nearest(shown, sorted(known))}", shown)


def pick_judge(judges: Mapping[str, ServedJudge], name: Any) -> ServedJudge:
    """Return the judge a request names; without a name, the only one. Raises RequestError."""
    if name is None:
        if len(judges) == 1:
            return next(iter(judges.values()))
        raise RequestError(422, f'Several judges are served: say which with "model": {_listed(judges)}.', "model")
    if not isinstance(name, str):
        raise RequestError(422, f'"model" is {kind_of(name)}; it must be a text: {_listed(judges)}.', "model")
    if name not in judges:
        shown = shorten(name)
        message = f"There is no model '{shown}'.{nearest(shown, judges)}"
        raise RequestError(404, message, "model", code="model_not_found")
    return judges[name]


def read_rows(served: ServedJudge, tree: Mapping[str, Any], limits: Limits) -> list[Example]:
    """Return the rows under ``texts`` or ``rows``.

    Raises RequestError: 413 for too many, 422 for what does not fit.
    """
    spec = served.spec
    if ("texts" in tree) == ("rows" in tree):
        raise RequestError(422, f"Send either {_wanted(spec)}.")
    name = "texts" if "texts" in tree else "rows"
    values = tree[name]
    if not isinstance(values, list) or not values:
        what = "an empty list" if values == [] else kind_of(values)
        raise RequestError(422, f'"{name}" is {what}; send a list of at least one row: {_wanted(spec)}.', name)
    if len(values) > limits.rows:
        raise RequestError(
            413, f'"{name}" has {len(values):,} rows; at most {limits.rows:,} per request. Send several.', name
        )
    if name == "texts" and len(spec.fields) != 1:
        raise RequestError(422, f"{spec.name} has the fields {', '.join(spec.fields)}: send {_wanted(spec)}.", name)
    if name == "texts":
        return [text_row(spec, value, f"texts[{index}]") for index, value in enumerate(values)]
    return [field_row(spec, value, f"rows[{index}]") for index, value in enumerate(values)]


def text_row(spec: TaskSpec, value: Any, where: str) -> Example:
    """Return the row of a task with one field. Raises RequestError."""
    (field,) = spec.fields
    return Example(where, {field: _text(spec, field, value, where)})


def field_row(spec: TaskSpec, value: Any, where: str) -> Example:
    """Return the row of an object of fields (or of the columns that the run was trained on).

    Raises RequestError for what does not fit.
    """
    if not isinstance(value, dict):
        raise RequestError(422, f"{where} is {kind_of(value)}; send an object: {_wanted(spec)}.", where)
    field_of = {column: field for field, column in spec.fields.items()} | {field: field for field in spec.fields}
    fields: dict[str, str] = {}
    for name, text in value.items():
        if name not in field_of:
            shown = shorten(name)
            raise RequestError(422, f"{where}: there is no field '{shown}'.{nearest(shown, spec.fields)}", shown)
        if field_of[name] in fields:
            raise RequestError(422, f"{where}: the field '{field_of[name]}' is there twice.", where)
        fields[field_of[name]] = _text(spec, field_of[name], text, f"{where}.{name}")
    for field in spec.fields:
        if field not in fields and field not in spec.optional:
            raise RequestError(422, f"{where}: there is no field '{field}'. Send {_wanted(spec)}.", where)
    return Example(where, {field: fields.get(field, "") for field in spec.fields})


def _text(spec: TaskSpec, field: str, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RequestError(422, f"{where} is {kind_of(value)}; it must be a text.", where)
    if "\0" in value:
        raise RequestError(422, f"{where} holds the character NUL (\\u0000): remove it.", where)
    if _SURROGATE.search(value):
        raise RequestError(
            422, f"{where} holds half a surrogate pair (\\ud800 to \\udfff): send whole characters.", where
        )
    if not value.strip() and field not in spec.optional:
        raise RequestError(422, f"{where} is empty: send the text to judge, or leave the row out.", where)
    return value


def _wanted(spec: TaskSpec) -> str:
    """Return what the rows of a task look like in a request."""
    fields = ", ".join(f'"{field}": "…"' for field in spec.fields)
    rows = f'"rows": [{{{fields}}}]'
    return rows if len(spec.fields) != 1 else f'"texts": ["…"] or {rows}'


def kind_of(value: Any) -> str:
    """Return the kind of a JSON value, with its article."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return kinds.get(type(value), "a number")


def _listed(judges: Mapping[str, ServedJudge]) -> str:
    return ", ".join(f'"{name}"' for name in judges)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise RequestError(400, f"An object has the field '{shorten(twice)}' twice. Send it once.")
    return tree


def _not_json(word: str) -> NoReturn:
    raise RequestError(400, f"{word} is not JSON. Send a finite number, or leave the field out.")
