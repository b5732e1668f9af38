"""Any data set of the hub by its name, or a folder in the hub's layout, as files in the cache.

CACHE/datasets/OWNER--NAME/CONFIG/COMMIT/train.parquet, dev.parquet, test.parquet

The files are then read as a user's own table. A task names the data set with its commit (`DatasetOrigin`), so files
that are gone are fetched again, the same ones. No code of a data set runs: `datasets` refuses loading scripts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adjudge.errors import DataError
from adjudge.system.console import note
from adjudge.system.files import cache_dir, sha256_of, whole_folder, write_text
from adjudge.system.hub import connection_problem, hub_reason
from adjudge.tasks.reading.given_table import given_splits
from adjudge.tasks.reading.hub import client_offline
from adjudge.tasks.spec import DatasetOrigin

NAME = re.compile(r"(?P<path>[A-Za-z0-9][\w.-]*(/[\w.-]+)?)(:(?P<config>[^@:]+))?(@(?P<revision>[\w.-][\w./-]*))?")
COMMIT = re.compile(r"[0-9a-f]{40}")

_MEDIA = ("Image", "Audio", "Video", "Pdf")
"""Kinds of columns that hold no text and may be large."""

OFFLINE = (
    "Go online once: the rows are then kept in the cache. Or get the files elsewhere, and name them with --data "
    "FILE.parquet --dev FILE.parquet, or the folder of the whole data set with --dataset DIR."
)


def dataset_origin(name: str, config: str | None = None) -> DatasetOrigin:
    """Return what a data set's name means: ``owner/name``, ``owner/name:config@revision``, or a folder.

    Raises DataError for another form, and for a configuration that is named twice.
    """
    if name and Path(name).expanduser().is_dir():
        return DatasetOrigin(path=str(Path(name).expanduser().resolve()), config=config)
    if Path(name).is_file():
        raise DataError(f"{name} is a file: name it with --data.")
    match = NAME.fullmatch(name)
    if match is None:
        raise DataError(
            f"'{name}' is no data set of the hub (--dataset): write owner/name, owner/name:config, or a folder of one."
        )
    if match["config"] is not None and config not in (None, match["config"]):
        raise DataError(
            f"--dataset names the configuration '{match['config']}', --dataset-config '{config}': give one."
        )
    return DatasetOrigin(path=match["path"], config=match["config"] or config, revision=match["revision"])


def fetch_dataset(origin: DatasetOrigin) -> tuple[DatasetOrigin, dict[str, Path]]:
    """Return the data set with its commit, and the file of each split.

    The splits are train, and dev and test where there are some. Rows that are in the cache are not fetched again;
    without a network, the newest of them are used. Raises DataError where there are none, with the reason and what to
    do.
    """
    known = _pinned(origin)
    folder = _folder(known)
    if known.revision is None or not folder.is_dir():
        splits = _loaded(known)
        if known.revision is None:
            known = known.model_copy(update={"revision": _commit_of(splits)})
            folder = _folder(known)
        if not folder.is_dir():
            _write(splits, folder)
    if not Path(known.path).is_dir():
        _remember(origin, str(known.revision))
    return known, {path.stem: path for path in sorted(folder.glob("*.parquet"))}


def file_again(origin: DatasetOrigin, file: Path) -> Path:
    """Return a file of a data set, fetched again where it is gone from its place.

    `origin` names the commit it was made from. Raises DataError as `fetch_dataset` does, and when the data set no
    longer has the file.
    """
    known, files = fetch_dataset(origin)
    if file.stem not in files:
        raise DataError(f"{_shown(known)} has no {file.stem} rows any more.")
    return files[file.stem]


def _pinned(origin: DatasetOrigin) -> DatasetOrigin:
    """Return the data set with the commit that its revision stands for now.

    The commit is None where only the client can tell.
    """
    if Path(origin.path).is_dir():
        return origin.model_copy(update={"revision": _hash_of_folder(Path(origin.path))})
    if origin.revision is not None and COMMIT.fullmatch(origin.revision):
        return origin
    from huggingface_hub import HfApi, constants

    offline = constants.HF_HUB_OFFLINE or connection_problem(constants.ENDPOINT) is not None
    if not offline:
        with _explained(origin):
            info = HfApi(endpoint=constants.ENDPOINT).dataset_info(origin.path, revision=origin.revision, timeout=30.0)
        return origin.model_copy(update={"revision": info.sha})
    remembered = _reference(origin)
    if not remembered.is_file():
        return origin.model_copy(update={"revision": None})
    commit = remembered.read_text(encoding="utf-8").strip()
    note(f"the hub cannot be reached: the rows of {origin.path} are those of commit {commit[:12]}, from the cache.")
    return origin.model_copy(update={"revision": commit})


def _loaded(origin: DatasetOrigin) -> Mapping[str, Any]:
    """Return the splits of a data set by their names on the hub."""
    import datasets
    from huggingface_hub import constants

    problem = None if Path(origin.path).is_dir() else "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else None
    if problem is None and not Path(origin.path).is_dir():
        problem = connection_problem(constants.ENDPOINT)
    revision = None if Path(origin.path).is_dir() else origin.revision
    with _explained(origin, problem), client_offline(problem is not None):
        return dict(datasets.load_dataset(origin.path, origin.config, revision=revision))


@contextmanager
def _explained(origin: DatasetOrigin, problem: str | None = None) -> Iterator[None]:
    """Raise errors of the hub's client as DataError, with what to do.

    `problem` is why the hub cannot be reached.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the client raises errors of many libraries; the message keeps the reason
        reason = " ".join(str(error).split()) or type(error).__name__
        name = _shown(origin)
        if "scripts are no longer supported" in reason:
            raise DataError(
                f"{name} is loaded by a program of its own, and the code of a data set is never run here. The hub may "
                f"have its rows as files: --dataset {origin.path}@refs/convert/parquet."
            ) from None
        if "onfig name is missing" in reason or "BuilderConfig" in reason:
            raise DataError(f"{name} needs another configuration: {reason} Name it: --dataset NAME:CONFIG.") from None
        if problem is not None:
            raise DataError(
                f"{name}: the hub cannot be reached ({problem}), and there is no copy in the cache. {OFFLINE}"
            ) from None
        advice = (
            "Check the name on the hub; for one that is private or gated, log in with `hf auth login`, or set HF_TOKEN."
        )
        raise DataError(f"{name}: cannot get its rows: {hub_reason(error, 'data set', advice=advice)}") from None


def _write(splits: Mapping[str, Any], folder: Path) -> None:
    """Write the rows of train, dev and test as Parquet files with the names of their classes."""
    import datasets

    chosen = given_splits(splits)
    bars = datasets.utils.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with whole_folder(folder) as temporary:
            for split, rows in chosen.items():
                media = [name for name, kind in rows.features.items() if type(kind).__name__ in _MEDIA]
                rows.remove_columns(media).to_parquet(temporary / f"{split}.parquet")
    finally:
        if not bars:
            datasets.enable_progress_bars()


def _commit_of(splits: Mapping[str, Any]) -> str:
    """Return the commit that rows from the client's cache were read at.

    Raises DataError where it is not recorded.
    """
    for rows in splits.values():
        for file in rows.cache_files:
            if commits := [part for part in Path(file["filename"]).parts if COMMIT.fullmatch(part)]:
                return commits[-1]
    raise DataError(f"the client's cache has these rows, and not their commit. {OFFLINE}")


def _hash_of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()[:40]


def _folder(origin: DatasetOrigin) -> Path:
    name = Path(origin.path).name if Path(origin.path).is_dir() else origin.path.replace("/", "--")
    return cache_dir() / "datasets" / name / (origin.config or "default") / (origin.revision or "none")


def _reference(origin: DatasetOrigin) -> Path:
    """Return the file that remembers the commit a revision stood for when it was last asked."""
    revision = (origin.revision or "main").replace("/", "--")
    return _folder(origin).parent / "refs" / revision


def _remember(origin: DatasetOrigin, commit: str) -> None:
    if origin.revision != commit:
        write_text(_reference(origin), commit + "\n")


def _shown(origin: DatasetOrigin) -> str:
    return origin.path + (f":{origin.config}" if origin.config else "")
