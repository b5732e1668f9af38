"""Straight-line programs: our own evaluator, and the task whose rows are made of them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from adjudge.errors import DataError
from adjudge.tasks import load_split, load_task
from adjudge.tasks.programs import program_lines, run_program
from adjudge.tasks.spec import GeneratedSource, TaskSpec
from adjudge.tasks.validate import mistakes_of

EXEC = load_task("code/exec")


def made(**changes) -> TaskSpec:
    source = GeneratedSource(generator="programs", **changes)
    return EXEC.model_copy(update={"source": EXEC.source.model_copy(update={"generated": source})})


def test_each_line_has_its_state() -> None:
    steps = run_program("x=2\n\n y = x*3 \nprint(y>5)")
    assert [(dict(step.values), step.printed) for step in steps] == [
        ({"x": 2}, None),
        ({"x": 2, "y": 6}, None),
        ({"x": 2, "y": 6}, True),
    ]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("2 * 3 * 4 + 5 * 6", 54),
        ("2 - 3 - 4", -5),
        ("-3 * -2", 6),
        ("--3", 3),
        ("007 + 0", 7),
        ("((1))", 1),
        ("2 * (3 - (4 - 5))", 8),
    ],
)
def test_expressions_bind_as_in_arithmetic(expression: str, value: int) -> None:
    assert run_program(f"x = {expression}")[0].values == {"x": value}


@pytest.mark.parametrize("sign", ["==", "!=", "<", ">", "<=", ">="])
def test_comparisons(sign: str) -> None:
    compared = {"==": (0, 1, 0), "!=": (1, 0, 1), "<": (1, 0, 0), ">": (0, 0, 1), "<=": (1, 1, 0), ">=": (0, 1, 1)}
    printed = tuple(run_program(f"print({left} {sign} 2)")[0].printed for left in (1, 2, 3))
    assert printed == tuple(map(bool, compared[sign]))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("x = y", "line 1: 'x = y': y has no value yet"),
        ("x = 1\nx = x +", "line 2: 'x = x \\+' is no statement: expected a number or a name"),
        ("x == 1", "expected ="),
        ("3 = x", "expected name = expression"),
        ("print = 3", "expected name = expression"),
        ("print(1)", "expected a comparison"),
        ("print(1 < 2 < 3)", "expected \\)"),
        ("x = 1 2", "expected nothing more"),
        ("x = (1", "expected \\)"),
        ("x = 1.5", "expected something else than '.'"),
        ("x = 2 ** 3", "expected a number or a name"),
        ("x = __import__('os')", 'something else than "\'"'),
        ("import os", "expected name = expression|expected ="),
        ("x = os.system", "something else than '.'"),
        ("x = ١", "something else than"),
        ("x = " + "(" * 300, "has 304 characters; 200 are the most"),
        ("x = " + "9" * 150, "a value is beyond"),
        ("x = 999999999999\ny = x * x", "line 2: .*beyond"),
        ("x = 1\x00", "something else than"),
    ],
)
def test_what_is_no_program_is_named_with_its_line(program: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run_program(program)


def test_any_text_is_a_program_or_an_error() -> None:
    generator = random.Random(0)
    parts = ["x", "y", "=", "(", ")", "+", "-", "*", "1", "23", "print", "<", ">=", " ", "\n", ".", "'", "é", "[", "\\"]
    ran = 0
    for _ in range(3000):
        text = "".join(generator.choices(parts, k=generator.randint(1, 12)))
        try:
            run_program(text)
            ran += 1
        except DataError:
            continue
    assert ran > 10


def test_rows_are_balanced_at_every_length_and_never_twice() -> None:
    splits = {split: load_split(EXEC, split) for split in ("train", "dev")}
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 1200, "dev": 480}
    for rows in splits.values():
        counts = Counter((row.tags["Lines"], row.gold) for row in rows)
        assert len(counts) == 12
        assert len(set(counts.values())) == 1
    every = [row for rows in splits.values() for row in rows]
    assert len({row.fields["program"] for row in every}) == len({row.id for row in every}) == len(every)
    for row in every:
        steps = run_program(row.fields["program"])
        assert str(steps[-1].printed) == row.gold
        assert all(step.printed is None for step in steps[:-1])
        assert len(program_lines(row.fields["program"])) == int(row.tags["Lines"])


def test_the_seed_alone_decides() -> None:
    few = made(train=30, dev=12)
    assert load_split(few, "dev") == load_split(few, "dev")
    assert load_split(made(train=30, dev=12, seed=1), "dev") != load_split(few, "dev")
    assert load_split(made(train=90, dev=12), "dev") == load_split(few, "dev")
    assert {row.tags["Lines"] for row in load_split(made(train=4, dev=4, lines=(2, 3)), "train")} == {"2", "3"}


def test_what_cannot_be_made_is_an_error() -> None:
    with pytest.raises(DataError, match="has no split 'test'"):
        load_split(EXEC, "test")
    with pytest.raises(DataError, match="there are not as many different programs of 2 lines"):
        load_split(made(train=5000, dev=1, lines=(2, 2)), "train")
    with pytest.raises(DataError, match=r"no column 'text'. .*program"):
        load_split(made().model_copy(update={"fields": {"text": "text"}}), "dev")


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"source": {"generated": {"generator": "stories"}}}, "'source.generated.generator' is 'stories'"),
        ({"source": {"generated": {}}}, "'source.generated.generator' is missing: what makes the rows"),
        ({"source": {"generated": {"generator": "programs", "lines": ["3", "2"]}}}, "1 to 6 lines"),
        ({"source": {"generated": {"generator": "programs", "rows": "2"}}}, "'source.generated.rows' is not a key"),
        ({"labels": {"0": "No", "1": "Yes"}}, "must be True and False"),
        ({"procedure": {}}, "'procedure' needs either"),
        ({"procedure": {"lines": "program", "steps": ["What?"]}}, "'procedure' needs either"),
        ({"procedure": {"lines": "programm"}}, "not among the fields. Did you mean 'program'"),
        ({"procedure": {"steps": ["What?", " "]}}, "has an empty question"),
        ({"procedure": {"steps": ["What?"] * 13}}, "has 13 questions; 12 are the most"),
        ({"procedure": {"questions": ["What?"]}}, "'procedure.questions' is not a key"),
        ({"procedure": "lines"}, "'procedure' must be a mapping"),
    ],
)
def test_mistakes_of_a_task_file_are_named(changes: dict, mistake: str) -> None:
    tree = {**EXEC.model_dump(mode="json", exclude_none=True, exclude_defaults=True), **changes}
    assert any(mistake in found for found in mistakes_of(tree)), mistakes_of(tree)
