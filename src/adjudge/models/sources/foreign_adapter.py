"""An adapter that another program trained: pass peft only what LoRA layers need of its configuration.

peft writes many keys, and for some of them it imports modules, replaces layers or computes new weights when it loads.
So the file is read here and peft gets a new one, which holds checked values alone. A pattern of modules is never
matched: the weights tell which modules they are for.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from adjudge.errors import RunError
from adjudge.models.sources.untrusted import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    HEAD_WEIGHTS,
    WITH_EMBEDDINGS,
    is_names,
    is_number,
    lora_defaults,
    read_object,
)
from adjudge.system.text import shorten_json

_PICKLED = "adapter_model.bin"
_WEIGHT = re.compile(r"base_model\.model\.(.+)\.lora_[AB]\.weight")
_PATTERN_KEY = re.compile(r"\^?[\w.]+")
_START_WEIGHTS = (True, False, "gaussian", "orthogonal")
"""Values of ``init_lora_weights`` that leave the base model as it is; trained weights replace those of the layers."""

_UNREAD = (
    *("base_model_name_or_path", "revision", "peft_version", "inference_mode", "auto_mapping", "fan_in_fan_out"),
    *("peft_type", "task_type", "modules_to_save", "init_lora_weights", "layers_pattern"),
)
"""Keys that say nothing of the layers here, or are read on their own."""
_FROM_WEIGHTS = ("target_modules", "exclude_modules", "layers_to_transform")
"""Keys that say which modules have layers, as the names of the weights do."""
_PATTERNS = ("rank_pattern", "alpha_pattern")
_FIGURES = ("r", "lora_alpha", "lora_dropout", "use_rslora")


@dataclass(frozen=True, slots=True)
class ForeignAdapter:
    """A LoRA adapter of another program, whose configuration was checked."""

    folder: Path
    base: str
    """The model it names as its base, as peft writes it; "" when it names none."""
    revision: str | None
    lora: Mapping[str, Any]
    """The configuration that peft gets."""


def read_foreign(folder: Path) -> ForeignAdapter:
    """Read the adapter in `folder`, without its weights.

    Raises RunError when a file is missing or damaged, and for anything but LoRA layers on a causal language model.
    """
    path = folder / ADAPTER_CONFIG
    _check_files(folder)
    config = read_object(path, RunError)
    _check_kind(path, config)
    _check_other_keys(path, config)
    figures = {
        "r": _figure(path, config, "r", lambda value: type(value) is int and 0 < value <= 2**16),
        "lora_alpha": _figure(path, config, "lora_alpha", is_number),
        "use_rslora": config.get("use_rslora") is True,
    }
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    return ForeignAdapter(
        folder,
        base if isinstance(base, str) else "",
        revision if isinstance(revision, str) and revision else None,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "inference_mode": True,
            **figures,
            **{name: _pattern(path, config, name) for name in _PATTERNS},
            "target_modules": _targets(folder, config),
        },
    )


@contextmanager
def with_checked_config(adapter: ForeignAdapter) -> Iterator[Path]:
    """Yield a folder with the adapter's weights and the configuration that peft gets."""
    with tempfile.TemporaryDirectory(prefix="adjudge-") as name:
        temporary = Path(name)
        (temporary / ADAPTER_CONFIG).write_text(json.dumps(dict(adapter.lora)), encoding="utf-8")
        (temporary / ADAPTER_WEIGHTS).symlink_to((adapter.folder / ADAPTER_WEIGHTS).resolve())
        yield temporary


def _check_files(folder: Path) -> None:
    """Raise RunError unless both files of an adapter are there."""
    if not folder.is_dir():
        raise RunError(f"{folder}: there is no such folder. Name the one that holds {ADAPTER_CONFIG}.")
    if not (folder / ADAPTER_CONFIG).is_file():
        inner = sorted(path.parent.name for path in folder.glob(f"*/{ADAPTER_CONFIG}"))
        hint = f" It holds adapters in {', '.join(inner[:5])}: name one of these." if inner else ""
        raise RunError(f"{folder} holds no adapter: {ADAPTER_CONFIG} is missing.{hint}")
    if (folder / ADAPTER_WEIGHTS).is_file():
        return
    if (folder / _PICKLED).is_file():
        raise RunError(
            f"{folder}: its weights are in {_PICKLED}, which is not read, because unpickling runs code. "
            f"Save them as {ADAPTER_WEIGHTS}: load it in peft where you trust it, and call save_pretrained."
        )
    raise RunError(f"{folder} holds no weights: {ADAPTER_WEIGHTS} is missing.")


def _check_kind(path: Path, config: Mapping[str, Any]) -> None:
    """Raise RunError unless the adapter is of LoRA layers alone, on a causal language model."""
    kind, task, start = config.get("peft_type"), config.get("task_type"), config.get("init_lora_weights", True)
    if kind == WITH_EMBEDDINGS:
        raise RunError(
            f"{path.parent} is an adapter that adjudge trained with instruction embeddings (swie); they need its run. "
            "Name the run folder with --run."
        )
    if kind != "LORA":
        raise RunError(f"{path}: 'peft_type' is {shorten_json(kind)}, and only LORA is supported.")
    if (path.parent / HEAD_WEIGHTS).is_file():
        raise RunError(
            f"{path.parent} is an adapter with a classification head, which adjudge trained; it writes no answers. "
            "Name its run folder with --run."
        )
    if task in ("SEQ_CLS", "TOKEN_CLS"):
        raise RunError(
            f"{path}: 'task_type' is {shorten_json(task)}: the adapter classifies with a head and writes no answers, "
            "which is not supported. To train such a judge here: adjudge train head."
        )
    if task not in (None, "CAUSAL_LM"):
        raise RunError(f"{path}: 'task_type' is {shorten_json(task)}, and only CAUSAL_LM is supported.")
    if modules := config.get("modules_to_save"):
        raise RunError(
            f"{path}: 'modules_to_save' is {shorten_json(modules)}: whole layers were trained beside the LoRA layers, "
            "which is not supported. Merge the adapter in peft (merge_and_unload), and judge with the model: --model."
        )
    if not any(start is value or (isinstance(value, str) and start == value) for value in _START_WEIGHTS):
        raise RunError(
            f"{path}: 'init_lora_weights' is {shorten_json(start)}, which changed the base model too. Convert the "
            "adapter in peft (save_pretrained with path_initial_model_for_weight_conversion), or merge it."
        )


def _check_other_keys(path: Path, config: Mapping[str, Any]) -> None:
    """Raise RunError for a key that makes peft build other layers than LoRA's, or load more than weights."""
    defaults = lora_defaults()
    for key, value in config.items():
        if key in (*_UNREAD, *_FROM_WEIGHTS, *_PATTERNS, *_FIGURES) or not value:
            continue
        if key not in defaults or value != defaults[key]:
            raise RunError(
                f"{path}: '{key}' is {shorten_json(value)}, which is not supported: only plain LoRA layers are loaded. "
                "Merge the adapter in peft (merge_and_unload), and judge with the model: --model."
            )


def _figure(path: Path, config: Mapping[str, Any], key: str, is_right: Any) -> Any:
    if not is_right(config.get(key)):
        raise RunError(f"{path}: '{key}' is {shorten_json(config.get(key))} and must be a number above 0.")
    return config[key]


def _pattern(path: Path, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the ranks or alphas of some modules, by module names.

    Raises RunError for any other regular expression.
    """
    pattern = config.get(key) or {}
    if not isinstance(pattern, dict) or not all(
        _PATTERN_KEY.fullmatch(name) and is_number(value) for name, value in pattern.items()
    ):
        raise RunError(f"{path}: '{key}' is {shorten_json(pattern)} and must give module names a number each.")
    return pattern


def _targets(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """Return the modules with layers: those listed, or those that weights are there for.

    Raises RunError for weights that cannot be read, and for any that are not of LoRA layers.
    """
    path = folder / ADAPTER_WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is damaged: {error}") from None
    modules = {name: match[1] for name in names if (match := _WEIGHT.fullmatch(name))}
    if odd := sorted(set(names) - set(modules)):
        copies = all(name.endswith(".base_layer.weight") for name in odd)
        advice = (
            "Where it is an unchanged layer of the base model, save the adapter with save_embedding_layers=False."
            if copies
            else "Merge the adapter in peft (merge_and_unload), and judge with the model: --model."
        )
        raise RunError(
            f"{path}: {len(odd)} of its {len(names)} weights are not of LoRA layers, for example {odd[0]}. Only plain "
            f"LoRA layers are loaded. {advice}"
        )
    if not modules:
        raise RunError(f"{path} holds no weights.")
    listed = config.get("target_modules")
    if isinstance(listed, list) and is_names(listed) and not any(config.get(key) for key in _FROM_WEIGHTS[1:]):
        return list(listed)
    return sorted(set(modules.values()))
