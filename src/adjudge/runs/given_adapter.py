"""The adapter of another program that a run judges with: what it is, and the base model it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.config import RuntimeConfig
from adjudge.errors import ModelError, RunError
from adjudge.models.sources.bundled import BUNDLED, published_name
from adjudge.models.sources.foreign_adapter import ForeignAdapter, read_foreign
from adjudge.models.sources.untrusted import ADAPTER_WEIGHTS
from adjudge.runs.folder import read_json
from adjudge.runs.start import model_hashes
from adjudge.system.console import note

RECORD = "adapter"
"""The key of training.json and scores.json that holds `GivenAdapter.recorded`."""
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class GivenAdapter:
    """An adapter that was checked, and the hashes of its files."""

    foreign: ForeignAdapter
    files: Mapping[str, str]
    """File name to SHA-256."""

    def recorded(self) -> dict[str, Any]:
        """Return what a run records of it."""
        record = {"folder": str(self.foreign.folder), "base": self.foreign.base, "sha256": dict(self.files)}
        return {RECORD: record}

    @property
    def short_name(self) -> str:
        """Return a name for folders: that of the adapter's folder, and the first digits of its weights' hash."""
        name = "".join(mark if mark.isalnum() or mark in "._" else "-" for mark in self.foreign.folder.absolute().name)
        return f"{name}-{self.files[ADAPTER_WEIGHTS][:_DIGITS]}"


def given_adapter(folder: str | Path) -> GivenAdapter:
    """Return the adapter in `folder`.

    Raises RunError for a run of ours, for files that are missing or damaged, and for an adapter of another kind.
    """
    path = Path(folder).expanduser()
    if (path / "config.yaml").is_file():
        raise RunError(
            f"{path} is a run of adjudge, which holds more than an adapter. Judge with it by --run {path} "
            "(in Python with adjudge.open_run)."
        )
    foreign = read_foreign(path.absolute())
    if (path / "judge.json").is_file():
        note(f"{path} was trained by adjudge; the settings of its run are not read here, --run DIR has them.")
    return GivenAdapter(foreign, model_hashes(path))


def base_of_adapter(adapter: GivenAdapter) -> str:
    """Return the name that loads the base model which an adapter names: a folder, or a model of the hub.

    Raises ModelError when it names none, and when there is no such model here.
    """
    from adjudge.models.sources.loading import locate, resolve_commit

    foreign = adapter.foreign
    if not foreign.base:
        raise ModelError(f"{foreign.folder} names no base model. Name it with --model.")
    is_local = foreign.base in BUNDLED or Path(foreign.base).expanduser().is_dir()
    name = foreign.base if is_local or foreign.revision is None else f"{foreign.base}@{foreign.revision}"
    try:
        resolve_commit(name)
        locate(name, RuntimeConfig())
    except ModelError as error:
        copies = [bundled for bundled in BUNDLED if published_name(bundled) == foreign.base]
        hint = f" A copy of it is bundled: --model {copies[0]}. {BUNDLED[copies[0]].note}" if copies else ""
        raise ModelError(
            f"{foreign.folder} belongs to the base model {name}, which cannot be loaded here. Name the base model "
            f"with --model.{hint} ({error})"
        ) from None
    return name


def check_recorded(folder: Path, adapter: GivenAdapter) -> None:
    """Raise RunError when the run in `folder` judged with other weights than those of `adapter`."""
    path = folder / "training.json"
    if not path.is_file():
        return
    before = read_json(path).get(RECORD, {}).get("sha256", {}).get(ADAPTER_WEIGHTS)
    now = adapter.files[ADAPTER_WEIGHTS]
    if before is not None and before != now:
        raise RunError(
            f"{adapter.foreign.folder} has changed since {folder} was judged with it: its SHA-256 was {before[:12]}… "
            f"and is {now[:12]}…. Put it back, or judge again with --adapter."
        )


def report_base(adapter: GivenAdapter, model: str) -> None:
    """Report a base model that is not the one which the adapter names.

    The user vouches that the weights are the same.
    """
    base = adapter.foreign.base
    named, used = published_name(base), published_name(model)
    if base and named != used:
        note(f"{adapter.foreign.folder} names {base} as its base model, and {model} is used.")
