"""Read what the processor can do, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")

_NAMES = {"avx512f": "avx512_f", "avx512vl": "avx512_vl", "avx512bw": "avx512_bw", "avx512dq": "avx512_dq"}
"""Linux' names of features that PyTorch (`torch.cpu.get_capabilities`) spells differently."""

_KERNELS = {"AVX512": ("avx512_vl", "avx512_bw", "avx512_dq", "fma"), "AVX2": ("avx2", "fma")}
"""The features that PyTorch's kernels of each kind need, best kind first."""

BFLOAT16_REASON = {
    True: "the CPU multiplies bfloat16 matrices in hardware",
    False: "the CPU has neither AMX nor AVX-512 BF16, without which bfloat16 is slower than float32",
}
"""Why `auto` is bfloat16 on a CPU, or is not."""


def features() -> dict[str, bool]:
    """Return the processor's features by PyTorch's names, as Linux lists them on x86; none elsewhere."""
    lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines() if CPUINFO.is_file() else []
    flags = next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split()
    return {_NAMES.get(flag, flag): True for flag in flags}


def has_fast_bfloat16(features: Mapping[str, Any]) -> bool:
    """Return whether a CPU with these features multiplies bfloat16 matrices in hardware.

    That takes AMX tiles or AVX-512 BF16.
    """
    return bool(features.get("amx_bf16") or features.get("avx512_bf16"))


def kernels(features: Mapping[str, Any], wanted: str | None = None) -> str:
    """Return the kind of kernels that PyTorch picks on x86: ``AVX512``, ``AVX2`` or ``DEFAULT``.

    `wanted` is the value of ATEN_CPU_CAPABILITY, which overrules the features.
    """
    named = {"avx512": "AVX512", "avx2": "AVX2", "default": "DEFAULT"}.get(wanted or "")
    return named or next((kind for kind, needs in _KERNELS.items() if all(map(features.get, needs))), "DEFAULT")
