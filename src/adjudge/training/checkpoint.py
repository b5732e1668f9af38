"""Checkpoints: the whole state of a training run in a folder that is there whole or not at all.

RUN/checkpoints/step-00000012/
    manifest.json       schema, step, and the size and SHA-256 of the other files
    state.json          the state; tensors are named in it
    tensors.safetensors the tensors

A manifest is the last file that is written, and the folder is renamed into place after everything is synced. A checkpoint that does not
match its manifest is damaged: the one before it is taken instead. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from adjudge.errors import RunError
from adjudge.system.console import warn
from adjudge.system.files import sha256_of, sweep, whole_folder, write_text

SCHEMA = 1
_NAME = re.compile(r"step-(\d{8})")
_FILES = {"state.json", "tensors.safetensors"}
_MANIFEST = "manifest.json"


class DamagedError(Exception):
    """A checkpoint that is not what its manifest says."""


def save_checkpoint(
    folder: Path, step: int, packed: Any, tensors: Mapping[str, Tensor], *, name: str | None = None
) -> Path:
    """Write a state, as `pack` gives it, as the checkpoint of `step` under `folder`; returns where it lies.

    Raises OSError when it cannot be written; what was there before is then as it was.
    """
    target = folder / (name or f"step-{step:08d}")
    with whole_folder(target) as aside:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, aside / "tensors.safetensors")
        (aside / "state.json").write_text(json.dumps(packed, ensure_ascii=True, allow_nan=False), encoding="ascii")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(aside.iterdir())
        }
        write_text(aside / _MANIFEST, json.dumps({"schema": SCHEMA, "step": step, "files": files}, indent=2) + "\n")
    return target


def load_checkpoint(path: Path) -> tuple[int, dict[str, Any]]:
    """Step and state of one checkpoint. Raises DamagedError, which says what is wrong with it."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        schema, step, files = manifest["schema"], int(manifest["step"]), dict(manifest["files"])
    except FileNotFoundError:
        raise DamagedError(f"it has no {_MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{_MANIFEST} cannot be read: {error}") from None
    if schema != SCHEMA:
        raise DamagedError(f"its form is {schema!r}, and this version reads {SCHEMA}")
    found = {entry.name for entry in path.iterdir()} - {_MANIFEST}
    if set(files) != _FILES or found != _FILES:
        odd = sorted((found | set(files)) ^ _FILES) or sorted(found ^ set(files))
        raise DamagedError(f"its files are not those of a checkpoint: {', '.join(odd)}")
    for name, about in files.items():
        if (path / name).stat().st_size != about.get("bytes") or sha256_of(path / name) != about.get("sha256"):
            raise DamagedError(f"{name} is not what {_MANIFEST} says (its SHA-256 differs)")
    try:
        tensors = load_file(path / "tensors.safetensors")
        return step, unpack(json.loads((path / "state.json").read_text(encoding="ascii")), tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedError(f"cannot be read: {error}") from None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints under `folder`, the newest first; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def newest_checkpoint(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Step and state of the newest checkpoint that is whole; None where there is none at all.

    A damaged one is said and passed over. Raises RunError when all are damaged.
    """
    found = checkpoints(folder)
    for path in found:
        try:
            return load_checkpoint(path)
        except DamagedError as error:
            warn(f"the checkpoint {path} is damaged and passed over: {error}")
    if found:
        raise RunError(f"None of the {len(found)} checkpoints in {folder} can be read. Begin again with --force.")
    return None


def keep_newest(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what a killed process left half written."""
    for path in checkpoints(folder)[keep:]:
        shutil.rmtree(path)
    sweep(folder, ("*",))


def drop_newer(folder: Path, step: int) -> None:
    """Remove the checkpoints after `step`, which were passed over: they must not count among the newest."""
    for path in checkpoints(folder):
        if path.name > f"step-{step:08d}":
            shutil.rmtree(path)


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON that reads back as it was; tensors go to `tensors` as they are, under names that stand in their place.

    Raises TypeError for what is neither a tensor nor JSON (tuples, and keys that are no text, are kept as such).
    """
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach()
        return {"$tensor": name}
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, list | tuple):
        items = [pack(item, tensors) for item in value]
        return items if isinstance(value, list) else {"$tuple": items}
    if not isinstance(value, Mapping):
        raise TypeError(f"a {type(value).__name__} has no place in a checkpoint")
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: pack(item, tensors) for key, item in value.items()}
    return {"$items": [[pack(key, tensors), pack(item, tensors)] for key, item in value.items()]}


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given. Raises KeyError for a tensor that is not there."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (form := next(iter(value))).startswith("$"):
        return _FORMS[form](value[form], tensors)
    return {key: unpack(item, tensors) for key, item in value.items()}


_FORMS: dict[str, Callable[[Any, Mapping[str, Tensor]], Any]] = {
    "$tensor": lambda name, tensors: tensors[name],
    "$float": lambda text, _: float(text),
    "$tuple": lambda items, tensors: tuple(unpack(item, tensors) for item in items),
    "$items": lambda pairs, tensors: {unpack(key, tensors): unpack(item, tensors) for key, item in pairs},
}
"""What JSON has no form for, by the key that stands for it."""
