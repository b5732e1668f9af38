"""A run that is killed and resumed leaves what one that was never killed leaves, byte for byte."""

from __future__ import annotations

import os
import re

import pytest
from kill import METHODS
from processes import run_program

from adjudge.methods.registry import METHODS as ENTRIES

IN_MORE_PIECES = ("sft", "ppo", "multi-spin", "encoder", "bpo", "gepa", "gepa-edits", "tfidf", "linear", "generate")
"""One of each loop and kind of state. The others train in the loop of the first three, and add little to its state."""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each attempt is a forked process")


def test_every_method_that_trains_is_killed() -> None:
    assert {name for name, entry in ENTRIES.items() if entry.trains} <= set(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_killed_at_any_moment_is_as_if_never_killed(method: str) -> None:
    """Between two calls that change the disk, a kill leaves what one just before the second leaves."""
    output = run_program("kill", "--methods", method, "--pieces", 4 if method in IN_MORE_PIECES else 2)
    (kills,) = re.findall(rf"^{method}: (\d+) kills in 1 runs", output, re.MULTILINE)
    assert int(kills) >= (2 if method in IN_MORE_PIECES else 1)


def test_killed_before_a_call_that_changes_the_disk_is_as_if_never_killed() -> None:
    output = run_program("kill", "--positions", "--methods", "sft", "--stride", 32)
    assert int(re.findall(r"killed before each of (\d+) calls", output)[0]) >= 5
