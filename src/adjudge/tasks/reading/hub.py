"""Load a data set from the hub; fall back to the client's cache within seconds when it is unreachable."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from adjudge.system.hub import connection_problem


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
    problem = connection_problem(constants.ENDPOINT)
    if problem is None:
        return datasets.load_dataset(path, config, revision=revision, split=split)
    with client_offline():
        try:
            return datasets.load_dataset(path, config, revision=revision, split=split)
        except OSError:
            raise OSError(
                f"{constants.ENDPOINT} cannot be reached ({problem}), and the client's cache has no copy"
            ) from None


@contextmanager
def client_offline(offline: bool = True) -> Iterator[None]:
    """Make the hub's client use only its cache for a while, if `offline`.

    Left alone without a network, it retries six times, for 25 s or more, before it uses its cache.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
