"""What every group of settings is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A group of settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


def split_names(names: Any) -> Any:
    """Return the parts of a text with commas; anything else, such as a list, as it is."""
    return tuple(part.strip() for part in names.split(",")) if isinstance(names, str) else names
