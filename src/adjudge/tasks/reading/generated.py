"""Rows that are made, not read: straight-line programs that print True or False.

The same seed makes the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from adjudge.errors import DataError, nearest
from adjudge.tasks.programs import program_lines, run_program
from adjudge.tasks.reading.rows import to_example
from adjudge.tasks.spec import GeneratedSource, TaskSpec
from adjudge.types import Example

COLUMNS = ("program", "printed", "lines")

_NAMES = "abcdnxyz"
_LARGEST = 99
_TRIES = 500


def load_generated(spec: TaskSpec, source: GeneratedSource, split: str) -> list[Example]:
    """Return the rows of one split: every length and, within it, both answers equally often.

    No program is in both splits, or twice in one. Raises DataError for an unknown split or column, and for more
    programs than there are of a length.
    """
    if split not in ("train", "dev"):
        raise DataError(f"{spec.name} has no split '{split}'. There is: train, dev.")
    for column in (*spec.fields.values(), *spec.tags.values(), *([spec.label] if spec.label else [])):
        if column not in COLUMNS:
            raise DataError(f"{spec.name}: generated rows have no column '{column}'.{nearest(column, COLUMNS)}")
    made: set[str] = set()
    rows = list(_programs(spec, source, "dev", made))
    if split == "train":
        rows = list(_programs(spec, source, "train", made))
    examples = []
    for number, program in enumerate(rows, 1):
        printed = run_program(program)[-1].printed
        cells = {"program": program, "printed": str(printed), "lines": str(len(program_lines(program)))}
        where = f"{spec.name} {split}: program {number}"
        examples.append(to_example(spec, where, f"{split}:{number}", cells, labelled=True))
    return examples


def _programs(spec: TaskSpec, source: GeneratedSource, split: str, made: set[str]) -> Iterator[str]:
    generator = random.Random(f"{source.seed}-{split}")
    low, high = source.lines
    lengths = high - low + 1
    for number in range(source.dev if split == "dev" else source.train):
        lines, truth = low + number % lengths, number // lengths % 2 == 0
        for _ in range(_TRIES):
            program = _program(generator, lines, truth)
            if program is not None and program not in made:
                break
        else:
            raise DataError(f"{spec.name}: there are not as many different programs of {lines} lines. Make fewer.")
        made.add(program)
        yield program


def _program(generator: random.Random, lines: int, truth: bool) -> str | None:
    """Return a program of so many lines that prints `truth`; None when a value on the way is too large.

    Each line reads the value of the line before it, so none can be left out.
    """
    names = generator.sample(_NAMES, lines - 1)
    program: list[str] = []
    known: list[str] = []
    for name in names:
        if not known:
            program.append(f"{name} = {generator.randint(1, 9)}")
            known.append(name)
            continue
        latest = known[-1]
        other = generator.choice([*known, *(str(generator.randint(2, 9)) for _ in range(2))])
        target = latest if generator.random() < 0.25 else name
        program.append(f"{target} = {latest} {generator.choice('+-*')} {other}")
        if target == name:
            known.append(name)
    last = known[-1] if known else f"{generator.randint(1, 9)} {generator.choice('+-*')} {generator.randint(1, 9)}"
    steps = run_program("\n".join([*program, f"result = {last}"]))
    values = [value for step in steps for value in step.values.values()]
    if max(map(abs, values)) > _LARGEST:
        return None
    return "\n".join([*program, f"print({last} {_compared(generator, steps[-1].values['result'], truth)})"])


def _compared(generator: random.Random, value: int, truth: bool) -> str:
    """Return a comparison with a number near `value` that is `truth`."""
    sign, near = generator.choice((">", "<", "==", "!=")), generator.randint(1, 4)
    other = {
        ">": value - near if truth else value + near - 1,
        "<": value + near if truth else value - near + 1,
        "==": value if truth else value + generator.choice((-near, near)),
        "!=": value + generator.choice((-near, near)) if truth else value,
    }[sign]
    return f"{sign} {other}"
