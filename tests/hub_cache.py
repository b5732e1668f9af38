"""The hub client's cache for tests: loading from the hub works without the network."""

from __future__ import annotations

import shutil
import socket
import urllib.request
from pathlib import Path

import pytest

OLD, NEW = "1" * 40, "2" * 40
"""Two commits."""


def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Make name resolution fail; return the list of names that will have been looked up, in order."""
    looked_up: list[object] = []

    def fail(host: object, *_: object, **__: object) -> None:
        looked_up.append(host)
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    return looked_up


def cache_model(cache: Path, repo: str, model: Path, commit: str, *refs: str) -> None:
    """Copy a model folder into the cache as one commit of `repo`, named by the branches or tags `refs`."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    shutil.copytree(model, folder / "snapshots" / commit)
    (folder / "refs").mkdir(exist_ok=True)
    for ref in refs:
        (folder / "refs" / ref).write_text(commit)
