"""The command that serves the same adapter with vLLM."""

from __future__ import annotations

import shlex
from pathlib import Path

from adjudge.errors import RunError
from adjudge.models.sources.bundled import published_name
from adjudge.models.sources.hub import hub_id_of
from adjudge.models.sources.untrusted import has_embeddings
from adjudge.runs.folder import read_json

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes for --max-lora-rank."""


def vllm_command(adapter: Path, model: str, name: str) -> str | None:
    """Return ``vllm serve …`` for the folder of an adapter, or None where vLLM cannot load it.

    `model` is the base model by the name that adjudge loads it by, `name` what requests call the judge.
    """
    try:
        if has_embeddings(adapter):
            return None
        rank = int(read_json(adapter / "adapter_config.json")["r"])
    except (RunError, OSError, KeyError, TypeError, ValueError):
        return None
    limit = next((each for each in RANKS if each >= rank), None)
    if limit is None:
        return None
    hub_id = hub_id_of(model)
    revision = ["--revision", hub_id[1]] if hub_id is not None and hub_id[1] is not None else []
    lora = ["--enable-lora", "--lora-modules", f"{name}={adapter.resolve()}", "--max-lora-rank", str(limit)]
    return shlex.join(["vllm", "serve", published_name(model), *revision, *lora])
