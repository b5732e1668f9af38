"""Checks of untrusted model and adapter files, made before transformers or peft reads them.

Weights are safetensors only. Python code of a model runs only with `runtime.trust_remote_code`. An adapter's
configuration may hold only what a plain LoRA adapter needs: for some other keys peft imports modules, replaces layers
or computes new weights.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adjudge.errors import ModelError, RunError
from adjudge.system.text import shorten_json

MOST_BYTES = 2**26
"""Largest size of a JSON configuration file; the index of a very large model has a few megabytes."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EMBEDDING_WEIGHTS, EMBEDDING_SETTINGS = "instruction_embeddings.safetensors", "instruction_embeddings.json"
"""The files of instruction embeddings, beside those of an adapter."""
HEAD_WEIGHTS, HEAD_LABELS = "classification_head.safetensors", "classification_head.json"
"""The files of a classification head, beside those of an adapter."""
WITH_EMBEDDINGS = "LORA_AND_ADJUDGE_INSTRUCTION_EMBEDDINGS"
"""The kind of an adapter that has instruction embeddings beside its LoRA layers; peft knows no such kind."""
_WEIGHT_INDEX = "model.safetensors.index.json"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


_LORA: dict[str, tuple[Callable[[Any], bool], str]] = {
    "peft_type": (lambda value: value in ("LORA", WITH_EMBEDDINGS), "LORA"),
    "task_type": (lambda value: value == "CAUSAL_LM", "CAUSAL_LM"),
    "r": (lambda value: type(value) is int and 0 < value <= 2**16, "a whole number above 0"),
    "lora_alpha": (is_number, "a number"),
    "lora_dropout": (lambda value: is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "use_rslora": (lambda value: isinstance(value, bool), "true or false"),
    "target_modules": (is_names, "a list of names"),
    "inference_mode": (lambda value: isinstance(value, bool), "true or false"),
}
"""The keys of a plain LoRA adapter, with a check and a description of the right values; only the last is optional."""

_NOT_READ = ("base_model_name_or_path", "revision", "peft_version")
"""Keys for human readers only: the base model is always the run's own."""


def check_adapter(folder: Path) -> None:
    """Raise RunError unless `folder` holds a plain LoRA adapter: safetensors and only known keys.

    Other keys of peft's may be present at their default or empty, as peft writes the keys it does not use.
    """
    path = folder / ADAPTER_CONFIG
    if not (folder / ADAPTER_WEIGHTS).is_file() or not path.is_file():
        raise RunError(f"{folder} holds no adapter: has this run finished, and did it train one?")
    config = read_object(path, RunError)
    for key, (is_right, expected) in _LORA.items():
        if key not in config and key != "inference_mode":
            raise RunError(f"{path}: '{key}' is missing, so neither adjudge nor peft wrote this adapter.")
        if key in config and not is_right(config[key]):
            raise RunError(
                f"{path}: '{key}' is {shorten_json(config[key])} and must be {expected}: "
                "only plain LoRA adapters are loaded."
            )
    defaults = lora_defaults()
    for key, value in config.items():
        if key not in _LORA and key not in _NOT_READ and value and (key not in defaults or value != defaults[key]):
            raise RunError(
                f"{path}: '{key}' is {shorten_json(value)}. Only plain LoRA adapters are loaded, because peft "
                "imports modules for some other keys. Remove the key if the adapter does not need it."
            )


def has_embeddings(folder: Path) -> bool:
    """Return whether the adapter in `folder` has instruction embeddings, which peft cannot load."""
    path = folder / ADAPTER_CONFIG
    return path.is_file() and read_object(path, RunError).get("peft_type") == WITH_EMBEDDINGS


def has_head(folder: Path) -> bool:
    """Return whether the adapter in `folder` has a classification head, and so writes no answers."""
    return (folder / HEAD_WEIGHTS).is_file()


def mark_embeddings(folder: Path) -> None:
    """Mark a saved adapter with instruction embeddings: peft then refuses it instead of leaving them out."""
    config = read_object(folder / ADAPTER_CONFIG, RunError)
    config["peft_type"] = WITH_EMBEDDINGS
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


@contextmanager
def as_plain_lora(folder: Path) -> Iterator[Path]:
    """Yield a folder from which peft loads the LoRA layers: `folder` itself, or what it holds of them."""
    if not has_embeddings(folder):
        yield folder
        return
    config = read_object(folder / ADAPTER_CONFIG, RunError)
    with tempfile.TemporaryDirectory(prefix="adjudge-") as name:
        temporary = Path(name)
        (temporary / ADAPTER_CONFIG).write_text(json.dumps({**config, "peft_type": "LORA"}), encoding="utf-8")
        (temporary / ADAPTER_WEIGHTS).symlink_to((folder / ADAPTER_WEIGHTS).resolve())
        yield temporary


def check_model(source: str, options: dict[str, Any]) -> None:
    """Check the files of a model (a folder or a hub id) that make transformers load something else too.

    Raises ModelError for an adapter, which transformers would add to the model, or whose base model it would load
    instead. Raises ModelError for an index that names anything but safetensors in the same folder, and for an attention
    that is code from the hub.
    """
    from transformers.utils import cached_file

    where = {key: value for key, value in options.items() if key in ("local_files_only", "revision")}
    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}

    def file(name: str) -> Path | None:
        path = cached_file(source, name, **where, **missing, _raise_exceptions_for_gated_repo=False)
        return Path(path) if path is not None else None

    if file(ADAPTER_CONFIG) is not None:
        raise ModelError(
            f"{source} holds an adapter ({ADAPTER_CONFIG}); a model without one is needed. Name the adapter's base "
            "model. To continue from an adapter that adjudge trained, name its run (init)."
        )
    if (index := file(_WEIGHT_INDEX)) is not None:
        names = read_object(index, ModelError).get("weight_map")
        wrong = [name for name in names.values() if not _is_safe_name(name)] if isinstance(names, dict) else [names]
        if wrong:
            raise ModelError(
                f"{index}: it names {shorten_json(wrong[0])} for weights; only safetensors files beside the index are "
                "read, because unpickling runs code."
            )
    if (config := file("config.json")) is not None and (key := _kernel_key(read_object(config, ModelError))):
        raise ModelError(f"{config}: '{key}' names code on the hub, which is not run. Remove the key.")


def _kernel_key(config: dict[str, Any]) -> str | None:
    """Return the key, at any depth, that makes transformers load an attention from the hub."""
    for key, value in config.items():
        if key.lstrip("_") in ("attn_implementation", "experts_implementation") and "/" in str(value):
            return key
        if isinstance(value, dict) and (inner := _kernel_key(value)):
            return f"{key}.{inner}"
    return None


def _is_safe_name(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and "/" not in name and "\\" not in name


def read_object(path: Path, error_type: type[ModelError] | type[RunError]) -> dict[str, Any]:
    """Return the JSON object in a file; raise `error_type` when it holds none."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise error_type(f"{path}: is larger than {MOST_BYTES // 2**20} MiB, too large for a file of its kind.")
        parsed = json.loads(raw)
    except OSError as error:
        raise error_type(f"{path}: cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise error_type(f"{path}: is not JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise error_type(f"{path}: is not a JSON object.")
    return parsed


def lora_defaults() -> dict[str, Any]:
    """Return the defaults of the installed peft's LoRA configuration, as JSON would hold them."""
    from peft import LoraConfig

    return {
        field.name: field.default if field.default is not dataclasses.MISSING else None
        for field in dataclasses.fields(LoraConfig)
    }
