"""The device and the precision that a model computes in, by the settings and what the machine has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from adjudge.config import RuntimeConfig
from adjudge.errors import ModelError, nearest
from adjudge.system import processor
from adjudge.system.parallel import own_device

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("auto", "cpu", "cuda", "cuda:1", "mps")


def resolve_device(runtime: RuntimeConfig) -> torch.device:
    """Return the device that `runtime.device` names; ``auto`` is the first CUDA device, else the CPU.

    Of several processes (`adjudge.system.parallel`), each takes a CUDA device of its own with ``auto`` and ``cuda``.
    ``mps`` is chosen only by name, and untested. Raises ModelError when this machine has no such device.
    """
    if runtime.device == "auto":
        return torch.device(own_device("cuda") if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(own_device(runtime.device))
    except RuntimeError:
        raise ModelError(
            f"runtime.device: there is no device '{runtime.device}'.{nearest(runtime.device, DEVICES)}"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"runtime.device={runtime.device}: PyTorch sees {torch.cuda.device_count()} CUDA devices here. "
            "Use cpu or auto."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("runtime.device=mps: PyTorch sees no Metal device here. Use cpu or auto.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"runtime.device={runtime.device}: only auto, cpu, cuda and mps are supported.")
    return device


def resolve_dtype(runtime: RuntimeConfig, device: torch.device) -> torch.dtype:
    """Return the precision of the frozen network.

    Adapters, value head and log-probabilities are always float32.

    ``auto`` on CUDA: bfloat16 where the GPU computes in it, else float32 (float16 overflows without loss scaling).
    ``auto`` on a CPU: bfloat16 only with `has_fast_bfloat16`. On an AVX2 machine a bfloat16 matrix product was measured
    9 times slower than a float32 one (19 against 180 GFLOP/s), with AMX 6 times faster. The CPU's flags decide, not a
    timed probe, so one machine always gets the same answer. ``auto`` on mps: float32.
    """
    if runtime.dtype != "auto":
        return DTYPES[runtime.dtype]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and has_fast_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def explain_dtype(runtime: RuntimeConfig, device: torch.device) -> str:
    """Return the reason for the choice of `resolve_dtype`, for a person to read."""
    if runtime.dtype != "auto":
        return f"runtime.dtype={runtime.dtype}"
    fast = resolve_dtype(runtime, device) == torch.bfloat16
    if device.type == "cuda":
        return "the GPU computes in bfloat16" if fast else "the GPU does not compute in bfloat16, and float16 overflows"
    if device.type != "cpu":
        return f"always on {device.type}"
    return processor.BFLOAT16_REASON[fast]


def has_fast_bfloat16() -> bool:
    """Return whether the CPU multiplies bfloat16 matrices in hardware (AMX tiles or AVX-512 BF16).

    ARM's bf16 instructions do not count, since they were not measured. False in a PyTorch without
    `torch.cpu.get_capabilities`.
    """
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return processor.has_fast_bfloat16(capabilities)
