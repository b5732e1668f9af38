"""Read the names of classes that the `datasets` library writes into a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from adjudge.tasks.reading.text_files import plain_name

_KEY = b"huggingface"
"""The key of the file's metadata under which `datasets` stores the features of its columns."""


def class_names(path: Path, column: str) -> list[str] | None:
    """Return the names of the classes 0, 1, 2, … of a column (its ``ClassLabel``, or a list of it), or None.

    Only Parquet files have them. Whatever is wrong with a file is left for its reader to report.
    """
    if plain_name(path).suffix.lower() != ".parquet" or not path.is_file():
        return None
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        feature = json.loads(metadata.get(_KEY, b"{}"))["info"]["features"][column]
        if isinstance(feature, list):  # how older versions write a list
            feature = feature[0]
        feature = feature.get("feature", feature)
        names = feature["names"] if feature.get("_type") == "ClassLabel" else None
    except (pyarrow.ArrowException, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if isinstance(names, list) and names and all(isinstance(name, str) and name.strip() for name in names):
        return names
    return None


def features_metadata(names: Mapping[str, Sequence[str]]) -> dict[bytes, bytes] | None:
    """Return the metadata of a Parquet file whose columns hold numbers of named classes.

    `names` has the class names of each such column. Without any, the metadata are None.
    """
    if not names:
        return None
    features = {column: {"names": list(classes), "_type": "ClassLabel"} for column, classes in names.items()}
    return {_KEY: json.dumps({"info": {"features": features}}).encode("ascii")}
