"""Run a straight-line program over whole numbers.

The evaluator is our own: nothing is ever given to Python to run.

A program has one line per statement: ``name = expression``, and ``print(expression comparison expression)``.
Expressions have numbers, names, ``+``, ``-``, ``*`` and brackets.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adjudge.errors import DataError
from adjudge.system.text import shorten

LONGEST_LINE = 200
"""Characters of a line. It bounds the depth of brackets, too."""
LARGEST = 10**12
"""Largest value: a few multiplications of long numbers would fill the memory."""

_TOKEN = re.compile(r"\s*(\d+|[A-Za-z_]\w*|==|!=|<=|>=|[-+*()<>=])", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_COMPARISONS: Mapping[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Step:
    """What one line did: the values of all names after it, and what it printed, if it printed."""

    line: str
    values: Mapping[str, int]
    printed: bool | None = None


def run_program(program: str) -> list[Step]:
    """Return what each line of a program does. Raises DataError with the line, for a line that is none."""
    steps: list[Step] = []
    values: dict[str, int] = {}
    for number, line in enumerate(program_lines(program), 1):
        try:
            step = run_line(line, values)
        except DataError as error:
            raise DataError(f"line {number}: {error}") from None
        values = dict(step.values)
        steps.append(step)
    return steps


def program_lines(program: str) -> list[str]:
    """Return the lines of a program that are not blank."""
    return [line.strip() for line in program.splitlines() if line.strip()]


def run_line(line: str, values: Mapping[str, int]) -> Step:
    """Return what a line does after the `values` so far. Raises DataError for what is no statement."""
    reader = _Reader(line, values)
    name = reader.take()
    if name == "print" and reader.seen() == "(":
        reader.take()
        left = reader.expression()
        compare = _COMPARISONS.get(reader.take())
        if compare is None:
            raise reader.problem("a comparison such as > or ==")
        right = reader.expression()
        reader.expect(")")
        reader.end()
        return Step(line, dict(values), compare(left, right))
    if not _NAME.fullmatch(name) or name == "print":
        raise reader.problem("name = expression, or print(comparison)")
    reader.expect("=")
    value = reader.expression()
    reader.end()
    return Step(line, {**values, name: value})


class _Reader:
    """Reads one line from left to right."""

    def __init__(self, line: str, values: Mapping[str, int]) -> None:
        self._line, self._values, self._at = line, values, 0
        self._tokens: list[str] = []
        if len(line) > LONGEST_LINE:
            raise DataError(f"has {len(line):,} characters; {LONGEST_LINE} are the most.")
        offset = 0
        while line[offset:].strip():
            token = _TOKEN.match(line, offset)
            if token is None:
                raise self.problem(f"something else than {line[offset:].strip()[0]!r}")
            self._tokens.append(token[1])
            offset = token.end()

    def seen(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.seen()
        self._at += 1
        return token

    def expect(self, wanted: str) -> None:
        if self.take() != wanted:
            raise self.problem(wanted)

    def end(self) -> None:
        if self.seen():
            raise self.problem("nothing more")

    def problem(self, wanted: str) -> DataError:
        return DataError(f"'{shorten(self._line)}' is no statement: expected {wanted}.")

    def expression(self) -> int:
        value = self._term()
        while self.seen() in ("+", "-"):
            value = self._bounded(value + self._term() if self.take() == "+" else value - self._term())
        return value

    def _term(self) -> int:
        value = self._atom()
        while self.seen() == "*":
            self.take()
            value = self._bounded(value * self._atom())
        return value

    def _atom(self) -> int:
        token = self.take()
        if token == "-":
            return -self._atom()
        if token == "(":
            value = self.expression()
            self.expect(")")
            return value
        if token.isdigit():
            return self._bounded(int(token))
        if _NAME.fullmatch(token):
            if token not in self._values:
                raise DataError(f"'{shorten(self._line)}': {token} has no value yet.")
            return self._values[token]
        raise self.problem("a number or a name")

    def _bounded(self, value: int) -> int:
        if abs(value) > LARGEST:
            raise DataError(f"'{shorten(self._line)}': a value is beyond {LARGEST:,}.")
        return value
