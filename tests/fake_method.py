"""Methods without a model for tests of what surrounds a method: they answer by rule, at once."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from adjudge.errors import DataError
from adjudge.methods import registry
from adjudge.methods.base import Method
from adjudge.runs.folder import Run
from adjudge.system.files import write_text
from adjudge.tasks import infer_task
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example, Prediction

MIXED: list[list[tuple[str, list[str]]]] = []
"""Of each mixture that a fake was trained on: the tasks' names and the ids of their rows."""


class FakeJudge:
    """Answers with what `answer` makes of a row."""

    def __init__(self, spec: TaskSpec, answer: Callable[[Example], str | float | None]) -> None:
        self.spec, self.answer = spec, answer

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        found = []
        for example in examples:
            value = self.answer(example)
            share = 1 / max(1, len(self.spec.words))
            chances = dict.fromkeys(self.spec.words, share) if probabilities else {}
            found.append(Prediction.of(example, str(value), value, chances))
        return found


def by_first_word(example: Example) -> str | None:
    """ "good …" is good, "bad …" is bad, anything else is unreadable."""
    word = next(iter(example.fields.values())).split()[0].rstrip(",")
    return word if word in ("good", "bad") else None


def install(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    answer: Callable[[Example], str | float | None],
    before: Callable[[Run], None] | None = None,
) -> list[Path]:
    """Let the method `name` be a fake; returns the list of the folders it was built in, in order."""
    built: list[Path] = []

    def build(run: Run, spec: TaskSpec, train: Sequence[Example]) -> FakeJudge:
        built.append(run.folder)
        if before is not None:
            before(run)
        named = {"task": spec.name} if "," in run.config.task else {}
        run.log({"step": 1, **named, "rows": len(train)})
        write_text(run.folder / "adapter" / "fake.txt", "trained")
        return FakeJudge(spec, answer)

    def mix(run: Run, parts: Sequence[TaskRows]) -> list[FakeJudge]:
        MIXED.append([(part.spec.name, [row.id for row in part.rows]) for part in parts])
        judges = [build(run, part.spec, part.rows) for part in parts]
        del built[1 - len(parts) :]
        return judges

    def load(run: Run, spec: TaskSpec) -> FakeJudge:
        if not (run.folder / "adapter" / "fake.txt").is_file():
            raise DataError("load was given a folder in which nothing was trained")
        return FakeJudge(spec, answer)

    entry = registry.METHODS[name]
    module = types.ModuleType(f"fake_{name.replace('-', '_')}")
    module.METHOD = Method(name, build, load, mix if entry.mixes else None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.METHODS, name, replace(entry, module=module.__name__, attribute="METHOD", model=""))
    return built


def write_reviews(path: Path, rows: int = 40) -> Path:
    """A table of texts whose first word is the label in all but every eighth row."""
    lines = ["text,label"]
    for number in range(rows):
        label = ("good", "bad")[number % 2]
        said = ("bad", "good")[number % 2] if number % 8 == 0 else label
        lines.append(f"{said} film number {number},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def reviews(folder: Path, rows: int = 40) -> TaskSpec:
    """The task of such a table."""
    return infer_task(write_reviews(folder / "reviews.csv", rows), ["text"], "label")
