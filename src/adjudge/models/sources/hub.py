"""Models on the hub: the parts of a name, and the commit it stands for. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path

from adjudge.system.hub import hub_resolves

HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w.-][\w./-]*))?")
COMMIT = re.compile(r"[0-9a-f]{40}")


def split_hub_id(name: str) -> tuple[str, str | None] | None:
    """Split ``owner/name@revision`` into ``owner/name`` and the revision (None without one).

    Returns None for a name that is not a hub id. An existing folder may look like a hub id: see `hub_id_of`.
    """
    match = HUB_ID.fullmatch(name)
    return (match[1], match[2]) if match else None


def hub_id_of(name: str) -> tuple[str, str | None] | None:
    """Return the hub id of a model and its revision; None for a folder here, whatever its name looks like."""
    return None if Path(name).expanduser().is_dir() else split_hub_id(name)


def hub_commit(repo: str, revision: str | None) -> str:
    """Return the commit that a revision (branch, tag or commit; None: the main branch) stands for now.

    Fetches the model's config.json, or without a network finds it in the hub client's cache, where its folder is named
    after the commit. Raises OSError or whatever the client raises, with the reason in its text.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(repo, "config.json", revision=revision, local_files_only=not hub_resolves())
    return Path(path).parent.name
