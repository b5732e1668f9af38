"""The allocator's settings: told once, and only where they are glibc's and nobody else's."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = "from adjudge.system.memory import keep_freed_memory; print(keep_freed_memory(), keep_freed_memory())"
FAULTS = """
import resource, sys, torch
from adjudge.system.memory import keep_freed_memory
if sys.argv[1] == "told":
    assert keep_freed_memory()
torch.set_num_threads(1)
for _ in range(6): torch.ones(2**24).add(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): torch.ones(2**24).add(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def said(code: str, *arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_what_the_environment_sets_is_left_alone() -> None:
    assert said(SCRIPT) in ("True True", "False False")  # False where the C library is another one
    assert said(SCRIPT, MALLOC_ARENA_MAX="2") == "False False"


@pytest.mark.skipif(sys.platform != "linux" or said(SCRIPT) != "True True", reason="not glibc")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    assert int(said(FAULTS, "told")) * 20 < int(said(FAULTS, "not told"))
