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
from adjudge.methods.base import Method, Trained
from adjudge.runs import environment
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

    sure: float | None = None
    """The probability of every answer; None for labels that are equally likely."""

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
            if probabilities and self.sure is not None and isinstance(value, str):
                other = (1 - self.sure) / (len(self.spec.words) - 1)
                chances = {word: self.sure if word == value else other for word in self.spec.words}
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

    def train(run: Run, parts: Sequence[TaskRows]) -> Trained:
        if len(parts) > 1:
            MIXED.append([(part.spec.name, [row.id for row in part.rows]) for part in parts])
        built.append(run.folder)
        for part in parts:
            if before is not None:
                before(run)
            named = {"task": part.spec.name} if len(parts) > 1 else {}
            run.log({"step": 1, **named, "rows": len(part.rows)})
        write_text(run.folder / "adapter" / "fake.txt", "trained")
        judges = [FakeJudge(part.spec, answer) for part in parts]
        return Trained(judges, rows=sum(len(part.rows) for part in parts))

    def load(run: Run, specs: Sequence[TaskSpec]) -> list[FakeJudge]:
        if not (run.folder / "adapter" / "fake.txt").is_file():
            raise DataError("load was given a folder in which nothing was trained")
        return [FakeJudge(spec, answer) for spec in specs]

    module = types.ModuleType(f"fake_{name.replace('-', '_')}")
    module.METHOD = Method(train, load)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.METHODS, name, replace(registry.METHODS[name], module=module.__name__, model="model"))
    monkeypatch.setattr(environment, "model_identity", lambda model: {"name": model, "sha256": {}})
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
