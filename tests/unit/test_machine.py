"""Memory: peaks as a run records them, and the allocator's settings, made once and only for a plain glibc."""

from __future__ import annotations

import subprocess
import sys

import pytest

from adjudge.system.memory import peak_gpu_gib, peaks

SCRIPT = "from adjudge.system.memory import keep_freed_memory; print(keep_freed_memory(), keep_freed_memory())"
FAULTS = """
import numpy, resource, sys
from adjudge.system.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(6): numpy.ones(2**24, numpy.float32) + 1
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): numpy.ones(2**24, numpy.float32) + 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def output_of(code: str, *arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PATH": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_the_peak_of_a_gpu_is_recorded_where_one_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert list(peaks()) == ["peak_rss_gib"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: (1 + 2 * device) * 2**30)
    assert peaks()["peak_gpu_gib"] == 3.0
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    assert peak_gpu_gib() is None, "asking must not start the GPU's driver"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_allocator_settings_of_the_environment_are_kept() -> None:
    assert output_of(SCRIPT) in ("True True", "False False")  # False with another C library
    assert output_of(SCRIPT, MALLOC_ARENA_MAX="2") == "False False"


@pytest.mark.skipif(sys.platform != "linux" or output_of(SCRIPT) != "True True", reason="not glibc")
def test_freed_memory_is_reused_without_page_faults() -> None:
    assert int(output_of(FAULTS, "keep")) * 20 < int(output_of(FAULTS, "default"))
