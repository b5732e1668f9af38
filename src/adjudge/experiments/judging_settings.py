"""The settings that may differ between a finished run and a use of it.

They say how the machine judges, not what is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.config import keys_of
from adjudge.errors import ConfigError

JUDGING = ("runtime.", "evaluation.batch_size", "evaluation.decode", "data.bad_rows")
"""Settings, or beginnings of their names, that judging with a finished run may change."""

NO_EFFECT = ("runtime.checkpoint_activations", "runtime.micro_batch_size", "runtime.shard_base")
"""Settings of `JUDGING` that only a run of `train` reads."""


def judging_settings(settings: Mapping[str, Any], folder: Path, also: Sequence[str] = ()) -> dict[str, Any]:
    """Return the settings (dotted key to value) when judging with the run in `folder` may change them.

    `also` are further keys that may change. Raises ConfigError for a setting that was fixed when the run was trained,
    or that judging does not read. Names of settings that do not exist are left to `adjudge.config.change`.
    """
    known = keys_of()
    for key, value in settings.items():
        if isinstance(value, Mapping):
            raise ConfigError(f"'{key}' is a group of settings, not one: write {key}.NAME=value.")
        allowed = key.startswith(JUDGING) or key in also
        if key in known and (not allowed or key in NO_EFFECT):
            free = [name for name in known if (name.startswith(JUDGING) and name not in NO_EFFECT) or name in also]
            raise ConfigError(
                f"{key} stays as it is in {folder}. Judging with a finished run may change only: {', '.join(free)}."
            )
    return dict(settings)
