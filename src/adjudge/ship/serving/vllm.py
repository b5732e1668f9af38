"""The command that serves the same adapter with vLLM."""

from __future__ import annotations

import shlex
from pathlib import Path

from adjudge.errors import RunError
from adjudge.runs.folder import read_json

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for --max-lora-rank."""

ORIGINALS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
"""Where the hub has the models that come from the package index."""


def vllm_command(folder: Path, model: str, name: str) -> str | None:
    """Return ``vllm serve …`` for a run's adapter, or None for a run without one or with a rank beyond vLLM's."""
    adapter = folder / "adapter"
    try:
        rank = int(read_json(adapter / "adapter_config.json")["r"])
    except (RunError, OSError, KeyError, TypeError, ValueError):
        return None
    limit = next((each for each in RANKS if each >= rank), None)
    if limit is None:
        return None
    lora = ["--enable-lora", "--lora-modules", f"{name}={adapter.resolve()}", "--max-lora-rank", str(limit)]
    return shlex.join(["vllm", "serve", ORIGINALS.get(model, model), *lora])
