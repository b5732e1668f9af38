"""Files of a model or adapter that come from somebody: what they may say, looked at before transformers or peft reads them.

Weights are safetensors only. Python code of a model runs only with `runtime.trust_remote_code`. An adapter's configuration says nothing
but what a plain LoRA adapter needs: peft imports modules, replaces layers and computes new weights for some of its other keys.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adjudge.errors import ModelError, RunError
from adjudge.system.text import shorten_json

MOST_BYTES = 2**26
"""Bytes of a JSON file that says how to load something; the index of a very large model has some megabytes."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_WEIGHT_INDEX = "model.safetensors.index.json"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value)


_LORA: dict[str, tuple[Callable[[Any], bool], str]] = {
    "peft_type": (lambda value: value == "LORA", "LORA"),
    "task_type": (lambda value: value == "CAUSAL_LM", "CAUSAL_LM"),
    "r": (lambda value: type(value) is int and 0 < value <= 2**16, "a whole number above 0"),
    "lora_alpha": (_is_number, "a number"),
    "lora_dropout": (lambda value: _is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "use_rslora": (lambda value: isinstance(value, bool), "true or false"),
    "target_modules": (_is_names, "a list of names"),
    "inference_mode": (lambda value: isinstance(value, bool), "true or false"),
}
"""What a plain LoRA adapter says, and what is right for it; all but the last are needed."""

_NOT_READ = ("base_model_name_or_path", "revision", "peft_version")
"""Said for people: the base model is always the run's own."""


def check_adapter(folder: Path) -> None:
    """Raise RunError unless `folder` holds a plain LoRA adapter: safetensors, and a configuration with nothing else in it.

    Any other key that peft knows may stand there at its default, or empty: that is how peft writes the keys it does not use.
    """
    path = folder / ADAPTER_CONFIG
    if not (folder / ADAPTER_WEIGHTS).is_file() or not path.is_file():
        raise RunError(f"{folder} holds no adapter: has this run finished, and did it train one?")
    found = _read_object(path, RunError)
    for key, (is_right, wanted) in _LORA.items():
        if key not in found and key != "inference_mode":
            raise RunError(f"{path}: '{key}' is missing, so this is no adapter that adjudge or peft wrote.")
        if key in found and not is_right(found[key]):
            raise RunError(
                f"{path}: '{key}' is {shorten_json(found[key])} and must be {wanted}: only plain LoRA adapters are loaded."
            )
    defaults = _defaults()
    for key, value in found.items():
        if key not in _LORA and key not in _NOT_READ and value and (key not in defaults or value != defaults[key]):
            raise RunError(
                f"{path}: '{key}' is {shorten_json(value)}. Only plain LoRA adapters are loaded; what else peft can do with an adapter's "
                "configuration, importing modules among it, is refused. Take the key out if the adapter does not need it."
            )


def check_model(source: str, options: dict[str, Any]) -> None:
    """Look at the files of a model, a folder or a hub id, that decide what is loaded besides it.

    Raises ModelError: an adapter in it, which transformers would put on the model, from another base model where the file names one;
    an index that names weights other than safetensors in the folder itself; an attention that is code from the hub.
    """
    from transformers.utils import cached_file

    given = {key: value for key, value in options.items() if key in ("local_files_only", "revision")}
    missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}

    def file(name: str) -> Path | None:
        place = cached_file(source, name, **given, **missing, _raise_exceptions_for_gated_repo=False)
        return Path(place) if place is not None else None

    if file(ADAPTER_CONFIG) is not None:
        raise ModelError(
            f"{source} holds an adapter ({ADAPTER_CONFIG}), and a model is wanted without one. Name its base model; to go on from an "
            "adapter that adjudge trained, name its run (init)."
        )
    if (index := file(_WEIGHT_INDEX)) is not None:
        names = _read_object(index, ModelError).get("weight_map")
        wrong = [name for name in names.values() if not _is_safe_name(name)] if isinstance(names, dict) else [names]
        if wrong:
            raise ModelError(
                f"{index}: the weights are said to be in {shorten_json(wrong[0])}; only safetensors files beside the index are read, because "
                "unpickling runs code."
            )
    if (config := file("config.json")) is not None and (key := _kernel_key(_read_object(config, ModelError))):
        raise ModelError(f"{config}: '{key}' names code on the hub, which is not run. Take the key out.")


def _kernel_key(config: dict[str, Any]) -> str | None:
    """The key of a model's configuration, at any depth, by which transformers would load an attention from the hub."""
    for key, value in config.items():
        if key.lstrip("_") in ("attn_implementation", "experts_implementation") and "/" in str(value):
            return key
        if isinstance(value, dict) and (found := _kernel_key(value)):
            return f"{key}.{found}"
    return None


def _is_safe_name(name: Any) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and "/" not in name and "\\" not in name


def _read_object(path: Path, error_type: type[ModelError] | type[RunError]) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise error_type(f"{path}: is larger than {MOST_BYTES // 2**20} MiB, which no such file is.")
        found = json.loads(raw)
    except OSError as error:
        raise error_type(f"{path}: cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise error_type(f"{path}: is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise error_type(f"{path}: is not a JSON object.")
    return found


def _defaults() -> dict[str, Any]:
    """The defaults of the peft that is installed, as JSON would hold them."""
    from peft import LoraConfig

    return {
        field.name: field.default if field.default is not dataclasses.MISSING else None
        for field in dataclasses.fields(LoraConfig)
    }
