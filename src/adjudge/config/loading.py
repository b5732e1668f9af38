"""Build the settings of a run: defaults, presets, a YAML file, then ``key=value`` overrides.

The default preset is Adjudge's own. ``--preset paper`` gives the constants of arXiv 2410.11020 (presets/paper.yaml).
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from adjudge.config.foreign import advice
from adjudge.config.loops import WarmStartConfig
from adjudge.config.methods import own_group
from adjudge.config.tree import Config, keys_of
from adjudge.errors import ConfigError, nearest

PRESETS = ("default", "paper")

MAPPINGS = ("prompt.template_options.", "api.options.")
"""Beginnings of keys whose last part is the user's own."""

UNSHOWN = ("api.base_url", "api.key_variable", "api.options")
"""Settings whose wrong value is not repeated in an error: it may hold a key."""

RENAMED = {"ppo.init": "init"}
"""Settings of earlier versions and their current names."""

WARM_STARTED = [name for name, field in Config.model_fields.items() if isinstance(field.default, WarmStartConfig)]
"""Groups of the methods with a warm start."""

ADDED: dict[str, Any] = {
    "prompt.demonstration_orders": 1,
    "prompt.prior": "none",
    "ppo.sft_weight": 0.0,
    **{f"{group}.warm_start_limit": 0.0 for group in WARM_STARTED},
}
"""Settings that are newer than some run folders, and what those runs did, whatever the default is now."""


NULL = object()
"""Among values for settings: the setting is unset, as ``KEY=null`` in a command leaves it."""


def load_config(
    *,
    preset: str = "default",
    file: str | Path | None = None,
    overrides: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Config:
    """Return settings from `defaults`, a preset, the YAML `file`, `overrides`, `values`; later ones win.

    `overrides` look like ``"ppo.clip=0.1"``. `values` maps dotted keys to values (the options of the command line);
    None means "not given", and `NULL` is null. A `preset` named in the file or in an override is used when the caller
    keeps the default. Raises ConfigError, which names the unknown key and the nearest right one, or the value of the
    wrong kind.
    """
    from_file = _read_yaml(Path(file)) if file else {}
    _check_keys(from_file, where=f"{file}: ")
    given = [parse_override(override) for override in overrides]
    given += [(key, None if value is NULL else value) for key, value in (values or {}).items() if value is not None]
    if preset == "default":
        preset = str(dict(given).get("preset", from_file.get("preset", preset)))
    if preset not in PRESETS:
        raise ConfigError(f"There is no preset '{preset}'.{nearest(preset, PRESETS)}")
    tree: dict[str, Any] = {}
    for key, value in (defaults or {}).items():
        _put(tree, key, value)
    if preset != "default":
        text = resources.files("adjudge.config.presets").joinpath(f"{preset}.yaml").read_text(encoding="utf-8")
        _merge(tree, yaml.safe_load(text))
    _merge(tree, from_file)
    for key, value in given:
        _put(tree, key, value)
    tree["preset"] = preset
    return parse_config(tree)


def parse_config(tree: Mapping[str, Any]) -> Config:
    """Check a nested mapping, complete or partial, against the tree of settings. Raises ConfigError.

    A missing key keeps the default *of its place*. ``encoder.optimizer`` has another rate than ``ppo.optimizer``, and
    setting one key of either must not bring in the defaults of the bare class.
    """
    whole = Config().model_dump()
    _merge(whole, tree)
    try:
        config = Config.model_validate(whole)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item) for item in error.errors())) from None
    _check_trusted(config)
    return config


def _check_trusted(config: Config) -> None:
    """Raise ConfigError when the model whose code may run is none that a method could load."""
    trusted = config.runtime.trust_remote_code
    models = {
        "model": config.model,
        "encoder.model": config.encoder.model,
        "linear.model": config.linear.model,
        "setfit.model": config.setfit.model,
        "give.encoder": config.give.encoder,
    }
    if trusted is not None and trusted not in models.values():
        named = ", ".join(f"{key}={name}" for key, name in models.items())
        raise ConfigError(
            f"runtime.trust_remote_code is '{trusted}', which is none of the models: {named}. Give the exact name of "
            "the one whose code may run."
        )


def change(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the settings with some values changed, by their dotted keys. Raises ConfigError."""
    tree = config.model_dump()
    for key, value in values.items():
        _put(tree, key, value)
    return parse_config(tree)


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def upgrade(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return an older run folder's settings under current names, with what it did before newer ones."""
    upgraded = copy.deepcopy(dict(tree))
    for key, value in ADDED.items():
        section, _, name = key.partition(".")
        if isinstance(upgraded.get(section), dict):
            upgraded[section].setdefault(name, value)
    if isinstance(ppo := upgraded.get("ppo"), dict) and ppo["sft_weight"]:
        ppo.setdefault("sft_rows", "all")  # the rows that such runs taught beside, before there was a choice
    for old, new in RENAMED.items():
        *parents, last = old.split(".")
        group: Any = upgraded
        for parent in parents:
            group = group.get(parent) if isinstance(group, dict) else None
        if isinstance(group, dict) and last in group:
            _put(upgraded, new, group.pop(last))
    if isinstance(method := upgraded.get("method"), str):
        upgraded["method"] = method.removeprefix("multi-")  # a run over several tasks names them in `task`
        _forget_unread(upgraded, own_group(upgraded["method"]))
    return upgraded


def _forget_unread(tree: dict[str, Any], own: str) -> None:
    """Leave warm starts of other methods unset, as new runs record them: older ones recorded a default."""
    for group in WARM_STARTED:
        if group != own and isinstance(settings := tree.get(group), dict):
            for name in ("warm_start", "warm_start_limit"):
                settings.pop(name, None)


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``"ppo.clip=0.1"`` into key and value; the value is read as YAML. Raises ConfigError."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"'{text}' is no setting: write key=value, for example ppo.optimizer.lr=1e-4.")
    try:
        parsed = yaml.safe_load(value) if value.strip() else None
    except yaml.YAMLError:
        raise ConfigError(f"The value in '{text}' is not valid YAML.") from None
    if isinstance(parsed, str) and _EXPONENT.fullmatch(parsed):  # YAML 1.1 reads 1e-4 as text
        parsed = float(parsed)
    return key, parsed


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of settings, not a {type(tree).__name__}.")
    return tree


def _merge(onto: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(onto.get(key), dict):
            _merge(onto[key], value)
        elif value is None and isinstance(onto.get(key), dict):
            continue  # "ppo:" with nothing below it changes nothing
        else:
            onto[str(key)] = copy.deepcopy(value)


def _check_keys(tree: Mapping[str, Any], *, where: str = "", prefix: str = "") -> None:
    """Raise ConfigError for an unknown key, by its whole dotted name.

    The nearest right key is then found across groups.
    """
    known = keys_of()
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if dotted in known or dotted.startswith(MAPPINGS):
            continue
        if isinstance(value, Mapping) and value:
            _check_keys(value, where=where, prefix=f"{dotted}.")
        elif not any(key.startswith(f"{dotted}.") for key in known):
            raise ConfigError(f"{where}{_no_setting(dotted)}")


def _no_setting(key: str) -> str:
    if key in RENAMED:
        return f"'{key}' is now '{RENAMED[key]}'. Write that instead."
    return f"'{key}' is no setting.{_nearest_key(key)}"


def _nearest_key(wrong: str) -> str:
    """Return the nearest setting.

    The last part alone also counts: ``lr`` finds ``sft.optimizer.lr`` and similar keys. So does a name of Hugging
    Face's: ``sft.learning_rate``.
    """
    if known_elsewhere := advice(wrong):
        return known_elsewhere
    keys = list(keys_of())
    same_end = [key for key in keys if key.rpartition(".")[2] == wrong.rpartition(".")[2]]
    close = difflib.get_close_matches(wrong, keys, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    if same_end:
        return f" Did you mean one of: {', '.join(same_end)}?"
    return " `adjudge settings` lists every one."


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        _check_keys({dotted: value})
    *parents, last = dotted.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"'{dotted}' cannot be set: '{parent}' was given as a single value.")
        tree = below
    tree[last] = value


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return _no_setting(key)
    if item["type"] == "model_type":
        return f"'{key}' is a group of settings, not one: write {key}.NAME=value."
    shown = "" if key in UNSHOWN else f" = {item['input']!r}"
    return f"'{key}'{shown}: {item['msg']}."
