"""Read and write YAML with libyaml where PyYAML has it: several times as fast as its Python code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read_yaml(text: str) -> Any:
    """Return what the only document of a YAML text holds, as plain Python values. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_LOADER)  # a safe loader: it builds no objects of other kinds


def read_documents(text: str) -> Iterator[Any]:
    """Return what each document of a YAML text holds, as plain Python values. Raises yaml.YAMLError."""
    return yaml.load_all(text, Loader=_LOADER)


def write_yaml(tree: Any) -> str:
    """Return plain Python values as the text of a YAML document, with the keys in their order."""
    layout: dict[str, Any] = {"sort_keys": False, "allow_unicode": True}
    try:
        text: str = yaml.dump(tree, Dumper=_DUMPER, **layout)
    except UnicodeEncodeError:  # half a surrogate pair, as in the name of a file that is not UTF-8
        text = yaml.safe_dump(tree, **layout)
    return text
