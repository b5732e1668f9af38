"""Fetch what runs need ahead of time: the bundled models and the human-rated sentences."""

from __future__ import annotations

from pathlib import Path

from adjudge.errors import ConfigError, nearest
from adjudge.models.sources.bundled import BUNDLED, bundled_folder, is_fetched
from adjudge.system.console import note
from adjudge.tasks.reading import vader

FETCHABLE = (*BUNDLED, "vader")


def fetch(what: str = "all") -> list[Path]:
    """Fetch one of `FETCHABLE`, or ``all``, into the cache unless it is there already; return the folders.

    Nothing is installed. Raises ConfigError for an unknown name, ModelError or DataError when a download fails.
    """
    if what != "all" and what not in FETCHABLE:
        raise ConfigError(f"There is nothing called '{what}' to fetch.{nearest(what, (*FETCHABLE, 'all'))}")
    return [_fetch_one(name) for name in (FETCHABLE if what == "all" else (what,))]


def _fetch_one(name: str) -> Path:
    if name == "vader":
        already = vader.is_fetched()
        folder = vader.vader_folder()
        vader.fetch_sentences()
    else:
        already = is_fetched(name)
        folder = bundled_folder(name)
    note(f"{name}: {'already ' if already else ''}in {folder}")
    return folder
