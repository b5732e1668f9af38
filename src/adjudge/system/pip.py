"""Find a pip to download with, and let it know the package index of an environment made by uv.

Environments made by uv have no pip. Python usually brings one along, as a wheel for ``ensurepip``; it can be run from
there without installing it. Such users keep the address of their index where uv reads it: in its environment variables
and files. pip is given what is found there, unless it has been told something itself.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

UV_VARIABLES = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS",),
    "PIP_CERT": ("SSL_CERT_FILE",),
    "PIP_TRUSTED_HOST": ("UV_INSECURE_HOST",),
    "PIP_NO_INDEX": ("UV_NO_INDEX",),
}
"""Variables of pip, and those of uv with the same meaning, the first of which wins."""


def find_pip() -> tuple[list[str], dict[str, str]] | None:
    """Return the command that runs pip, and its environment variables; None when there is no pip.

    It is this environment's, else Python's own, one on the PATH, or one that uv brings. Those others get uv's index.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"], dict(os.environ)
    environment = {**_from_files(), **_from_variables(os.environ), **os.environ}
    if (wheel := _bundled_wheel()) is not None:
        return [sys.executable, str(wheel / "pip")], environment
    if (pip := shutil.which("pip") or shutil.which("pip3")) is not None:
        return [pip], environment
    uv = os.environ.get("UV") or shutil.which("uv")  # `uv run` names itself in UV
    return ([uv, "tool", "run", "pip"], environment) if uv else None


def _bundled_wheel() -> Path | None:
    """Return the wheel of pip that comes with Python; some systems leave it out."""
    spec = importlib.util.find_spec("ensurepip")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "_bundled"
    return max(folder.glob("pip-*.whl"), default=None)


def _from_variables(environment: Mapping[str, str]) -> dict[str, str]:
    variables = {}
    for name, others in UV_VARIABLES.items():
        value = next((environment[other] for other in others if environment.get(other)), None)
        if value is not None:
            # uv allows names before the addresses: NAME=ADDRESS; and commas between its --find-links.
            parts = value.replace(",", " ").split() if name == "PIP_FIND_LINKS" else value.split()
            variables[name] = " ".join(_without_name(part) for part in parts)
    return variables


def _without_name(address: str) -> str:
    name, equals, rest = address.partition("=")
    return rest if equals and "/" not in name and ":" not in name else address


def _from_files() -> dict[str, str]:
    """Read the index from uv's files: the project's, else the user's, else the system's."""
    for settings in _uv_settings():
        indexes = settings.get("index")
        indexes = [index for index in indexes if isinstance(index, dict)] if isinstance(indexes, list) else []
        old = settings | settings["pip"] if isinstance(settings.get("pip"), dict) else settings
        default = [text for index in indexes if index.get("default") for text in _texts(index.get("url"))]
        others = [index for index in indexes if not index.get("default") and not index.get("explicit")]
        variables = {
            "PIP_INDEX_URL": (default or _texts(old.get("index-url")))[:1],
            "PIP_EXTRA_INDEX_URL": [text for index in others for text in _texts(index.get("url"))]
            + _texts(old.get("extra-index-url")),
            "PIP_FIND_LINKS": _texts(old.get("find-links")),
        }
        if any(variables.values()):
            return {name: " ".join(values) for name, values in variables.items() if values}
    return {}


def _texts(value: object) -> list[str]:
    """Return a text or a list of texts as a list; anything else is empty: uv refuses such a file."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _uv_settings() -> Iterator[dict[str, Any]]:
    if named := os.environ.get("UV_CONFIG_FILE"):
        yield _read(Path(named))
        return
    for folder in (Path.cwd(), *Path.cwd().parents):
        yield _read(folder / "uv.toml")
        tool = _read(folder / "pyproject.toml").get("tool")
        uv = tool.get("uv") if isinstance(tool, dict) else None
        yield uv if isinstance(uv, dict) else {}
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    yield _read(home / "uv" / "uv.toml")
    yield _read(Path("/etc/uv/uv.toml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}
