"""Tables like a user's own, made from the official training rows of SST-2: noisy, skewed, or as they are.

The rows to judge are never changed: SST-2's dev rows, or for a skewed table other training rows, skewed alike.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from adjudge.tasks import infer_task, load_split, load_task
from adjudge.tasks.spec import Source, TableSource, TaskSpec
from adjudge.types import Example

Rows = list[tuple[str, str]]
"""Texts with their labels."""

POOL = 6000
"""Training rows in a table; a run draws its own from them."""
SKEW = 0.1
"""Share of the rare label in a skewed table."""
SOURCES = "sources"
"""A table of four classes, made from the texts of the four VADER tasks."""
SOURCE_OF = {"vader/tweets": "Tweet", "vader/news": "News", "vader/movies": "Film", "vader/products": "Product"}
OTHER = {"Negative": "Positive", "Positive": "Negative"}


def make_table(name: str, data_dir: Path, folder: Path) -> TaskSpec:
    """Write the table's files into `folder` and return its task. ``cut:TASK`` cuts rows off a task's training rows."""
    if name.startswith("cut:"):
        return _cut(load_task(name.removeprefix("cut:")), data_dir, folder)
    if name == SOURCES:
        return _sources(data_dir, folder)
    spec = load_task("glue/sst2")
    train, dev = (_rows(load_split(spec, split, data_dir)) for split in ("train", "dev"))
    random.Random(0).shuffle(train)
    train, dev, metrics = TABLES[name](train, dev)
    folder.mkdir(parents=True, exist_ok=True)
    head = ("sentence", "sentiment")
    paths = [_written(folder / f"{name}{part}.csv", [head, *rows]) for part, rows in (("", train), ("-dev", dev))]
    task = infer_task(paths[0], ["sentence"], "sentiment", dev=paths[1])
    return task.model_copy(update={"metrics": metrics})


GENERATED = {"top": "", "random": " --select random"}
"""How the files of generated rows are made, beside what they share."""


def with_generated(spec: TaskSpec, name: str, folder: Path) -> TaskSpec:
    """Return the table's task with generated training rows; its rows to judge stay."""
    path = folder / f"generated-{name}.csv"
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["sentence"], row["label"]) for row in csv.DictReader(file)]
        _written(folder / f"learned-{name}.csv", [("sentence", "sentiment"), *rows])
    table = spec.source.table
    assert table is not None
    table = table.model_copy(update={"train": str((folder / f"learned-{name}.csv").resolve())})
    return spec.model_copy(update={"source": Source(table=table)})


def generating(name: str, data_dir: Path, folder: Path) -> str | None:
    """Return the command that makes a missing file of generated rows: 300 of each label. None where it is there."""
    path = folder / f"generated-{name}.csv"
    if path.is_file():
        return None
    return f"adjudge generate --task glue/sst2 --data-dir {data_dir} --rows 600 --out {path}{GENERATED[name]}"


def _cut(spec: TaskSpec, data_dir: Path, folder: Path) -> TaskSpec:
    """Return the task with its last training rows (in random order) in the place of its dev rows."""
    examples = list(load_split(spec, "train", data_dir))
    random.Random(0).shuffle(examples)
    raw = {word: label for label, word in (spec.labels or {}).items()}
    head = [*spec.fields.values(), str(spec.label)]
    rows = [(*(row.fields[field] for field in spec.fields), raw.get(str(row.gold), str(row.gold))) for row in examples]
    folder.mkdir(parents=True, exist_ok=True)
    name = spec.name.replace("/", "-")
    train, dev = rows[: -len(rows) // 4][:POOL], rows[-len(rows) // 4 :][:1000]
    paths = [
        _written(folder / f"{name}-{part}.csv", [head, *part_rows])
        for part, part_rows in (("train", train), ("dev", dev))
    ]
    table = TableSource(train=str(paths[0].resolve()), dev=str(paths[1].resolve()))
    return spec.model_copy(update={"source": Source(table=table)})


def _sources(data_dir: Path, folder: Path) -> TaskSpec:
    """Return the task of telling where a text was written: a table of four classes, at most 1,500 rows of each."""
    rows: Rows = []
    for task, source in SOURCE_OF.items():
        texts = [text for text, _ in _rows(load_split(load_task(task), "train", data_dir))]
        random.Random(0).shuffle(texts)
        rows += [(text, source) for text in texts[: POOL // len(SOURCE_OF)]]
    random.Random(0).shuffle(rows)
    head = ("text", "source")
    folder.mkdir(parents=True, exist_ok=True)
    parts = (("", rows[:-1000]), ("-dev", rows[-1000:]))
    paths = [_written(folder / f"{SOURCES}{part}.csv", [head, *part_rows]) for part, part_rows in parts]
    return infer_task(paths[0], ["text"], "source", dev=paths[1])


def _plain(train: Rows, dev: Rows) -> tuple[Rows, Rows, tuple[str, ...]]:
    return train[:POOL], dev, ("accuracy", "macro_f1")


def _noisy(share: float) -> Callable[[Rows, Rows], tuple[Rows, Rows, tuple[str, ...]]]:
    def flipped(train: Rows, dev: Rows) -> tuple[Rows, Rows, tuple[str, ...]]:
        draw = random.Random(1)
        noisy = [(text, OTHER[label] if draw.random() < share else label) for text, label in train[:POOL]]
        return noisy, dev, ("accuracy", "macro_f1")

    return flipped


def _skewed(train: Rows, _dev: Rows) -> tuple[Rows, Rows, tuple[str, ...]]:
    rare, common = ([row for row in train if row[1] == label] for label in ("Negative", "Positive"))

    def mixed(begin: int, rows: int) -> Rows:
        few = round(SKEW * rows)
        first = round(SKEW * begin)
        both = rare[first : first + few] + common[begin - first : begin - first + rows - few]
        random.Random(begin).shuffle(both)
        return both

    return mixed(0, POOL), mixed(POOL, 1000), ("macro_f1", "accuracy")


TABLES: dict[str, Callable[[Rows, Rows], tuple[Rows, Rows, tuple[str, ...]]]] = {
    "reviews": _plain,
    "noisy-20": _noisy(0.2),
    "noisy-40": _noisy(0.4),
    "skewed": _skewed,
}
"""Functions by table: (training rows in random order, dev rows) → (training rows, rows to judge, metrics)."""


def _rows(examples: Sequence[Example]) -> Rows:
    return [(next(iter(example.fields.values())), str(example.gold)) for example in examples]


def _written(path: Path, rows: Iterable[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path
