"""Load PyTorch's library without its Python modules, to see that it loads and how it is set.

This takes a tenth of the time. What is internal to PyTorch here: the place and names of its libraries, and the C++
symbol of `torch.get_num_threads`. Newest version tried: 2.13. Where one of them is not found, the caller has to import
PyTorch.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

GPU_FILES = tuple(map(Path, ("/proc/driver/nvidia", "/dev/kfd", "/dev/dxg")))
"""Present where a GPU of NVIDIA, of AMD, or under Windows' Linux may be; only PyTorch can tell if it can use it."""

_LIBRARY, _THREADS = "lib/libtorch_cpu.so", "_ZN2at15get_num_threadsEv"


@dataclass(frozen=True, slots=True)
class TorchLibrary:
    """What PyTorch's library says on a machine without a GPU."""

    threads: int
    """As `torch.get_num_threads`."""
    cuda: str | None
    """The CUDA it was built for."""


def torch_library() -> TorchLibrary | None:
    """Load PyTorch's library; None where only PyTorch itself can tell.

    That is: a system other than Linux on x86, a machine with a GPU's driver, a PyTorch that is imported already, of
    another layout, or damaged.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64" or any(path.exists() for path in GPU_FILES):
        return None
    if "torch" in sys.modules or (spec := importlib.util.find_spec("torch")) is None or not spec.origin:
        return None
    folder = Path(spec.origin).parent
    try:
        threads = getattr(ctypes.CDLL(str(folder / _LIBRARY)), _THREADS)
        cuda = runpy.run_path(str(folder / "version.py"))["cuda"]
    except (OSError, AttributeError, LookupError):
        return None
    return TorchLibrary(int(threads()), cuda)
