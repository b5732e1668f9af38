"""A run that is killed and resumed leaves what one that was never killed leaves, byte for byte."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each attempt is a forked process")
KILL = Path(__file__).parents[1] / "kill.py"


def kill(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(KILL), *options], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout


def test_killed_at_any_moment_is_as_if_never_killed() -> None:
    said = kill("--kills", "32", "--seed", "1")
    found = re.findall(r"^(\S+): (\d+) kills in", said, re.MULTILINE)
    assert [method for method, _ in found] == ["sft", "ppo", "reinforce", "encoder", "multi-ppo"]
    assert sum(int(kills) for _, kills in found) >= 32


def test_killed_before_a_call_that_changes_the_disk_is_as_if_never_killed() -> None:
    said = kill("--positions", "--methods", "sft", "--stride", "11")
    assert int(re.findall(r"killed before each of (\d+) calls", said)[0]) >= 10
