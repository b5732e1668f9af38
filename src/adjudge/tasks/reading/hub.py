"""Load a data set from the hub; fall back to the client's cache within seconds when it is unreachable."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

CONNECT_TIMEOUT_S = 5.0


def load_from_hub(path: str, config: str | None, revision: str, split: str) -> Any:
    """Return a `datasets.Dataset` from the hub, or from the client's cache when the hub cannot be reached.

    ``HF_HUB_OFFLINE`` and ``HF_ENDPOINT`` are respected. Raises OSError, or any error of the client, with the reason in
    its text.
    """
    # The client reads these when it is first imported.
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "15")
    import datasets
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        try:
            return datasets.load_dataset(path, config, revision=revision, split=split)
        except OSError as error:
            raise OSError(f"HF_HUB_OFFLINE is set, and the client's cache has no copy ({error})") from None
    problem = unreachable(constants.ENDPOINT)
    if problem is None:
        return datasets.load_dataset(path, config, revision=revision, split=split)
    # Left alone, the client retries six times, for 25 s or more, before it uses its cache.
    with _offline(constants):
        try:
            return datasets.load_dataset(path, config, revision=revision, split=split)
        except OSError:
            raise OSError(
                f"{constants.ENDPOINT} cannot be reached ({problem}), and the client's cache has no copy"
            ) from None


def unreachable(endpoint: str) -> str | None:
    """Why no connection to `endpoint` can be opened; None when one can, or when a proxy stands between and only it can tell."""
    parts = urlsplit(endpoint)
    if not parts.hostname or parts.scheme in urllib.request.getproxies():
        return None
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname, port), timeout=CONNECT_TIMEOUT_S):
            return None
    except OSError as error:
        return error.strerror or str(error)


@contextmanager
def _offline(constants: Any) -> Iterator[None]:
    """Make the hub's client use only its cache for a while."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
