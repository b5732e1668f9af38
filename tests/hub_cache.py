"""A folder in the layout of the hub client's cache, so that of loading from the hub only the network is not tried."""

from __future__ import annotations

import shutil
import socket
import urllib.request
from pathlib import Path

import pytest

OLD, NEW = "1" * 40, "2" * 40
"""Two commits."""


def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Let the hub's name not resolve; returns the list of the names that were asked for, in order."""
    asked: list[object] = []

    def fail(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    return asked


def cache_model(cache: Path, repo: str, model: Path, commit: str, *refs: str) -> None:
    """Put a model folder there as one commit of `repo`, which the branches or tags `refs` name."""
    place = cache / f"models--{repo.replace('/', '--')}"
    shutil.copytree(model, place / "snapshots" / commit)
    (place / "refs").mkdir(exist_ok=True)
    for ref in refs:
        (place / "refs" / ref).write_text(commit)
