"""Make damaged files from small valid ones: tables, official layouts, task files and submissions."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

import pyarrow
import pyarrow.parquet
from submissions import form_of, right_file, zipped

from adjudge.tasks import list_tasks, load_task

MARKS = (
    *("<|im_end|>", "<|im_start|>", "</Judgement>", "<Judgement>", "[SEP]", "</s>", "{{ 7 * 7 }}", "{% raise %}", "{#"),
    *(
        "\x00",
        "\x1b[2J",
        "\x07",
        "\u202e",
        "\u200f",
        "\u200d",
        "\ufeff",
        "\u2028",
        "\x85",
        "\x0b",
        "\ud800",
        "\udfff",
        "🙂",
        "e\u0301",
    ),
    *(
        '"',
        '""',
        ",",
        "\t",
        "\r",
        "\n",
        "\r\n",
        ";",
        "'",
        "=1+1",
        "+1",
        "@SUM(A1)",
        "-2+3",
        "NaN",
        "1e999",
        "9" * 5000,
        "-0",
        "null",
    ),
)
JSON_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    float("nan"),
    "",
    "\ud800",
    "x",
    [],
    {},
    [[]],
    {"a": {}},
    [None],
    "[" * 3000,
)
ENCODINGS = ("utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis", "utf-7")
TAGS = (
    "!!python/object/apply:os.system ['false']",
    "!!python/name:os.system",
    "!!int abc",
    "!!timestamp x",
    "&a [*a]",
    "*a",
    "!!set {a}",
)


@dataclass(frozen=True)
class Made:
    """A generated file and its kind, and how a user would say it is written (None: the file tells)."""

    kind: str
    path: Path
    separator: str | None = None
    encoding: str | None = None


def damage(rng: Random, content: bytes) -> bytes:
    """Return the content with zero to four random changes."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        content = rng.choice(_WAYS)(rng, content)
    return content


def _flip(rng: Random, content: bytes) -> bytes:
    changed = bytearray(content or b"x")
    changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _insert(rng: Random, content: bytes) -> bytes:
    index = rng.randint(0, len(content))
    return content[:index] + rng.choice(MARKS).encode("utf-8", "surrogatepass") + content[index:]


def _lines(rng: Random, content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    rng.shuffle(lines)
    return b"".join(lines[: rng.randint(0, len(lines))] + lines[:1] * rng.randint(0, 2))


def _encode(rng: Random, content: bytes) -> bytes:
    return content.decode("utf-8", "replace").encode(
        rng.choice(("utf-16", "utf-32", "latin-1", "cp1252", "utf-8-sig")), "replace"
    )


_WAYS: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip,
    _flip,
    _insert,
    _insert,
    _insert,
    _lines,
    _encode,
    lambda rng, content: content[: rng.randint(0, len(content))],
    lambda rng, content: content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n"))),
    lambda rng, content: b"\xef\xbb\xbf" + content,
    lambda rng, content: content * 2,
    lambda rng, content: content.replace(b"a", b"x" * rng.choice((1, 100, 20_000)), 1),
)


def damaged_table(rng: Random, folder: Path) -> Made:
    """Make a damaged table of texts and labels (or numbers), of any supported kind."""
    numbers = rng.random() < 0.2
    rows = [
        {"text": f"{rng.choice(('a', *MARKS))} row {n}", "label": str(n / 2) if numbers else rng.choice(("no", "yes"))}
        for n in range(24)
    ]
    kind = rng.choice((".csv", ".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz"))
    plain = kind.removesuffix(".gz")
    separator = rng.choice((",", ",", *";|\t^")) if plain == ".csv" else ","
    encoding = rng.choice(("utf-8", "utf-8", *ENCODINGS)) if plain != ".parquet" else "utf-8"
    content = _csv(rng, rows, separator) if plain == ".csv" else _TABLES[plain](rng, rows)
    if encoding != "utf-8":
        content = content.decode("utf-8", "replace").encode(encoding, "replace")
    if kind.endswith(".gz"):
        content = gzip.compress(damage(rng, content), 1, mtime=0)
    path = folder / f"table{kind}"
    path.write_bytes(damage(rng, content) if not kind.endswith(".gz") or rng.random() < 0.3 else content)
    told_separator = None if separator in ",;|\t" and rng.random() < 0.5 else separator
    told_encoding = None if encoding in ("utf-8", "utf-16", "utf-32") and rng.random() < 0.5 else encoding
    return Made(kind, path, told_separator if plain == ".csv" else None, told_encoding if plain != ".parquet" else None)


def _csv(rng: Random, rows: list[dict[str, str]], separator: str = ",") -> bytes:
    extra = rng.choice(([], [], [""], ["", ""], ["x", "x"]))
    cells = [["text", "label", *extra], *([*row.values(), *(rng.choice(("", "z")) for _ in extra)] for row in rows)]
    quoted = (separator.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells)
    return "".join(f"{line}\n" for line in quoted).encode("utf-8", "replace")


def _tsv(rng: Random, rows: list[dict[str, str]]) -> bytes:
    cells = [["text", "label"], *([" ".join(cell.split()) for cell in row.values()] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in cells).encode("utf-8", "replace")


def _jsonl(rng: Random, rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(_odd(rng, row), ensure_ascii=rng.random() < 0.7) + "\n" for row in rows).encode(
        "utf-8", "surrogatepass"
    )


def _odd(rng: Random, value: Any) -> Any:
    """Return a JSON value with a few random changes of kind."""
    if rng.random() < 0.005:
        return rng.choice(JSON_VALUES)
    if isinstance(value, dict):
        return {key: _odd(rng, each) for key, each in value.items() if rng.random() > 0.002}
    return [_odd(rng, each) for each in value] if isinstance(value, list) else value


def _parquet(rng: Random, rows: list[dict[str, str]]) -> bytes:
    columns = {name: [row[name].encode("utf-8", "replace").decode() for row in rows] for name in rows[0]}
    table = pyarrow.table(columns)
    if rng.random() < 0.3:
        others = [pyarrow.array([n] * len(rows)) for n in (1.5, None, True, b"\xff", [1], {"a": 1}, 2**62)]
        table = table.append_column("other", rng.choice(others))
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression=rng.choice(("snappy", "none", "gzip")))
    return buffer.getvalue()


_TABLES = {".csv": _csv, ".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet}

NESTED: dict[str, Any] = {
    "superglue/boolq": {"question": "is it", "passage": "It is.", "idx": 0, "label": True},
    "superglue/cb": {"premise": "It is.", "hypothesis": "is", "label": "entailment", "idx": 0},
    "superglue/copa": {"premise": "A", "choice1": "B", "choice2": "C", "question": "cause", "label": 0, "idx": 0},
    "superglue/rte": {"premise": "A", "hypothesis": "B", "label": "entailment", "idx": 0},
    "superglue/wic": {
        **{"word": "place", "sentence1": "A place here", "sentence2": "The place", "idx": 0, "label": False},
        **{"start1": 2, "start2": 4, "end1": 7, "end2": 9},
    },
    "superglue/wsc": {
        **{"text": "Mark told Pete lies about himself .", "idx": 0, "label": False},
        "target": {"span1_index": 0, "span1_text": "Mark", "span2_index": 5, "span2_text": "himself"},
    },
    "superglue/multirc": {
        "idx": 0,
        "passage": {
            "text": "P",
            "questions": [{"question": "Q", "idx": 0, "answers": [{"text": "A", "idx": 0, "label": 1}]}],
        },
    },
    "superglue/record": {
        **{"source": "s", "idx": 0, "passage": {"text": "Anna went home", "entities": [{"start": 0, "end": 3}]}},
        "qas": [{"idx": 0, "query": "@placeholder went", "answers": [{"start": 0, "end": 3, "text": "Anna"}]}],
    },
}


def damaged_task_rows(rng: Random, folder: Path) -> Made:
    """Make a damaged dev file of an official task, below `folder` in the official layout."""
    name = rng.choice(_official())
    files = load_task(name).source.files
    content = _jsonl(rng, [NESTED[name]] * 4) if name in NESTED else _glue_rows(name)
    path = folder / files.folder / Path(files.splits["dev"]).name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(damage(rng, content))
    return Made(name, path)


@cache
def _official() -> list[str]:
    """Return the tasks whose dev file is in their own folder and has a layout which this module can make."""
    sources = {name: load_task(name).source.files for name in list_tasks() if name.startswith(("glue/", "superglue/"))}
    return [
        name
        for name, files in sources.items()
        if files
        and "dev" in files.splits
        and "/" not in files.splits["dev"]
        and (name in NESTED or name.startswith("glue/"))
    ]


@cache
def _glue_rows(name: str) -> bytes:
    spec = load_task(name)
    files = spec.source.files
    columns = list(files.columns) or [
        "index",
        *spec.fields.values(),
        *spec.tags.values(),
        *([spec.label] if spec.label else []),
    ]
    columns = list(dict.fromkeys(columns))
    label = next(iter(spec.labels)) if spec.labels else "2.5"
    row = "\t".join(label if column == spec.label else f"{column} text" for column in columns)
    header = ["\t".join(columns)] if files.header or "dev" in files.headed else []
    return "".join(f"{line}\n" for line in [*header, *[row] * 6]).encode()


def damaged_task(rng: Random, folder: Path) -> Made:
    """Make a damaged task file from a built-in one."""
    name = rng.choice(list_tasks())
    text = resources.files("adjudge.tasks").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    lines = text.split("\n")
    for _ in range(rng.choice((0, 1, 1, 2))):
        index = rng.randrange(len(lines))
        key, colon, rest = lines[index].partition(": ")
        value = rng.choice(
            (*TAGS, *MARKS, "[" * 50, "~", "{}", "[]", "- a", "{a: {b: c}}", "'{{ text.__class__ }}'", rest[::-1])
        )
        lines[index] = rng.choice(
            (f"{key}{colon}{value}", "", lines[index] * 2, f"{lines[index]}\n{lines[index]}", f"  {lines[index]}")
        )
    path = folder / "task.yaml"
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    path.write_bytes(damage(rng, content) if rng.random() < 0.5 else content)
    return Made(name, path)


@cache
def _right(name: str) -> bytes:
    return right_file(form_of(name))


def damaged_submission(rng: Random, folder: Path) -> Made:
    """Make a zip with some files of a submission, damaged inside or outside."""
    names = rng.sample(
        ("WNLI.tsv", "WSC.jsonl", "CB.jsonl", "AX-g.jsonl", "COPA.jsonl", "MultiRC.jsonl"), rng.randint(1, 3)
    )
    inside = {
        rng.choice((name, name, f"../{name}", f"x/{name}", f"x{rng.choice(MARKS)}{name}")): _right(name)
        for name in names
    }
    content = zipped({name.encode("utf-8", "replace").decode(): damage(rng, held) for name, held in inside.items()})
    path = folder / "submission.zip"
    path.write_bytes(damage(rng, content) if rng.random() < 0.5 else content)
    return Made("zip", path)
