"""Memory: peaks as a run records them, and the allocator's settings, made once and only for a plain glibc."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest
import torch

from adjudge.system.memory import free_dropped, is_out_of_memory, peak_gpu_gib, peaks, uses_gpu

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


def test_nothing_asks_for_a_gpu_without_torch() -> None:
    code = "import sys; from adjudge.system.memory import free_dropped, uses_gpu; free_dropped(); print(uses_gpu()"
    assert output_of(f"{code}, 'torch' in sys.modules)") == "False False"


@pytest.mark.parametrize("used", [True, False])
def test_what_was_dropped_is_freed_on_the_gpu_too(used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: used)
    layer = torch.nn.Linear(2, 2)
    layer.forward = layer.forward  # type: ignore[method-assign]
    weight = weakref.ref(layer.weight)
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: emptied.append(weight() is None))
    gc.disable()
    try:
        del layer
        assert weight() is not None, "it refers to itself"
        free_dropped()
        assert weight() is None
    finally:
        gc.enable()
    assert emptied == [True] * used
    assert uses_gpu() is used


def test_a_real_allocation_that_fails_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_a_failed_allocation_are_told_from_others(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_allocator_settings_of_the_environment_are_kept() -> None:
    assert output_of(SCRIPT) in ("True True", "False False")  # False with another C library
    assert output_of(SCRIPT, MALLOC_ARENA_MAX="2") == "False False"


@pytest.mark.skipif(sys.platform != "linux" or output_of(SCRIPT) != "True True", reason="not glibc")
def test_freed_memory_is_reused_without_page_faults() -> None:
    assert int(output_of(FAULTS, "keep")) * 20 < int(output_of(FAULTS, "default"))
