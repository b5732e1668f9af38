"""Models on the hub: what a name says, and which commit it stands for. Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path

from adjudge.system.hub import hub_resolves

HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w.-][\w./-]*))?")
COMMIT = re.compile(r"[0-9a-f]{40}")


def split_hub_id(name: str) -> tuple[str, str | None] | None:
    """``owner/name@revision`` as ``owner/name`` and the revision, None without one; None for a name that is no hub id.

    What is a folder here is no hub id, whatever its path looks like: ask that first.
    """
    found = HUB_ID.fullmatch(name)
    return (found[1], found[2]) if found else None


def hub_commit(repo: str, revision: str | None) -> str:
    """The commit that a revision (branch, tag or commit; the main branch when None) stands for now.

    The hub is asked for the model's config.json, or, without a network, the hub client's cache is: a file lies there in a folder that is
    called like its commit. Raises OSError or what else the client raises; the reason is in its text.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import hf_hub_download

    path = hf_hub_download(repo, "config.json", revision=revision, local_files_only=not hub_resolves())
    return Path(path).parent.name
