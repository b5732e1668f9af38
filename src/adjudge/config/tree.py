"""The tree of all settings of a run."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel

from adjudge.config.groups import SharedSettings
from adjudge.config.methods import MethodSettings
from adjudge.config.writing import ApiConfig, WriterConfig


class Config(MethodSettings, SharedSettings):
    """One run."""

    api: ApiConfig = ApiConfig()
    writer: WriterConfig = WriterConfig()


def keys_of(model: type[BaseModel] = Config, prefix: str = "") -> dict[str, str]:
    """Return every dotted key with its description, in the order of the tree."""
    return dict(_keys_of(model, prefix))


@cache
def _keys_of(model: type[BaseModel], prefix: str) -> dict[str, str]:
    descriptions: dict[str, str] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            descriptions |= _keys_of(kind, f"{prefix}{name}.")
        else:
            descriptions[f"{prefix}{name}"] = field.description or ""
    return descriptions


def value_of(config: Config, key: str) -> Any:
    """Return the value of a dotted key. Raises AttributeError when there is no such key."""
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value
