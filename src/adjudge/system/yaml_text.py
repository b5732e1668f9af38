"""Read YAML with libyaml, where PyYAML was built with it: about seven times faster than its Python parser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str) -> Any:
    """Return what the only document of a YAML text holds, as plain Python values. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_LOADER)  # a safe loader: it builds no objects of other kinds


def read_documents(text: str) -> Iterator[Any]:
    """Return what each document of a YAML text holds, as plain Python values. Raises yaml.YAMLError."""
    return yaml.load_all(text, Loader=_LOADER)
