"""Checkpoints: the whole state of a training run, in a folder that appears complete or not at all.

RUN/checkpoints/step-00000012/
    manifest.json       schema, step, and the size and SHA-256 of the other files
    state.json          the state, with names in place of tensors
    tensors.safetensors the tensors

The manifest is written last, and the folder is renamed into place after everything is synced. A checkpoint that does
not match its manifest is damaged, and the one before it is used instead. Nothing is ever unpickled.
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
    """A checkpoint that does not match its manifest, or cannot be read."""


def save_checkpoint(
    folder: Path, step: int, packed: Any, tensors: Mapping[str, Tensor], *, name: str | None = None
) -> Path:
    """Write a packed state (see `pack`) as the checkpoint of `step` under `folder`, and return its path.

    Raises OSError when it cannot be written; an earlier checkpoint of that name then stays unchanged.
    """
    target = folder / (name or f"step-{step:08d}")
    with whole_folder(target) as temporary:
        save_file(
            {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary / "tensors.safetensors"
        )
        (temporary / "state.json").write_text(json.dumps(packed, ensure_ascii=True, allow_nan=False), encoding="ascii")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(temporary.iterdir())
        }
        write_text(temporary / _MANIFEST, json.dumps({"schema": SCHEMA, "step": step, "files": files}, indent=2) + "\n")
    return target


def load_checkpoint(path: Path) -> tuple[int, dict[str, Any]]:
    """Return step and state of one checkpoint. Raises DamagedError with the reason."""
    step, packed = read_packed(path)
    try:
        return step, unpack(packed, load_file(path / "tensors.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DamagedError(f"cannot be read: {error}") from None


def read_packed(path: Path) -> tuple[int, dict[str, Any]]:
    """Return step and packed state (see `pack`) of a checkpoint: all files checked, but no tensor loaded.

    Raises DamagedError with the reason.
    """
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        schema, step, files = manifest["schema"], int(manifest["step"]), dict(manifest["files"])
    except FileNotFoundError:
        raise DamagedError(f"it has no {_MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{_MANIFEST} cannot be read: {error}") from None
    if schema != SCHEMA:
        raise DamagedError(f"its schema is {schema!r}, but this version reads schema {SCHEMA}")
    names = {entry.name for entry in path.iterdir()} - {_MANIFEST}
    if set(files) != _FILES or names != _FILES:
        unexpected = sorted((names | set(files)) ^ _FILES) or sorted(names ^ set(files))
        raise DamagedError(f"its files differ from those of a checkpoint: {', '.join(unexpected)}")
    for name, entry in files.items():
        if (path / name).stat().st_size != entry.get("bytes") or sha256_of(path / name) != entry.get("sha256"):
            raise DamagedError(f"{name} does not match {_MANIFEST} (size or SHA-256 differs)")
    try:
        return step, dict(json.loads((path / "state.json").read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError) as error:
        raise DamagedError(f"state.json cannot be read: {error}") from None


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints under `folder`, newest first; empty when the folder does not exist."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def newest_checkpoint(folder: Path) -> tuple[int, dict[str, Any]] | None:
    """Return step and state of the newest intact checkpoint; None when there are no checkpoints.

    Damaged ones are skipped with a warning. Raises RunError when all are damaged.
    """
    return _newest(folder, load_checkpoint, warn)


def newest_packed(folder: Path) -> dict[str, Any] | None:
    """Return the packed state that `newest_checkpoint` would return unpacked, without a warning.

    Raises RunError when all checkpoints are damaged.
    """
    newest = _newest(folder, read_packed, lambda _: None)
    return None if newest is None else newest[1]


def _newest(
    folder: Path, read: Callable[[Path], tuple[int, dict[str, Any]]], report: Callable[[str], None]
) -> tuple[int, dict[str, Any]] | None:
    paths = checkpoints(folder)
    for path in paths:
        try:
            return read(path)
        except DamagedError as error:
            report(f"the checkpoint {path} is damaged and was skipped: {error}")
    if paths:
        raise RunError(f"None of the {len(paths)} checkpoints in {folder} can be read. Begin again with --force.")
    return None


def keep_newest(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and unfinished files of killed processes."""
    for path in checkpoints(folder)[keep:]:
        shutil.rmtree(path)
    sweep(folder, ("*",))


def drop_newer(folder: Path, step: int) -> None:
    """Remove the checkpoints after `step`: they were skipped, and must not count among the newest."""
    for path in checkpoints(folder):
        if path.name > f"step-{step:08d}":
            shutil.rmtree(path)


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return `value` as JSON for `unpack`, adding each tensor to `tensors` under a name that replaces it.

    Tuples and keys other than text survive. Raises TypeError for any other value which is neither a tensor nor JSON.
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
        raise TypeError(f"a {type(value).__name__} cannot be stored in a checkpoint")
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: pack(item, tensors) for key, item in value.items()}
    return {"$items": [[pack(key, tensors), pack(item, tensors)] for key, item in value.items()]}


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that was packed. Raises KeyError for a missing tensor."""
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
"""Readers of the values JSON cannot express, by the key that marks them."""
