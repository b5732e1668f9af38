"""The user's own reward functions, with trl's signature.

``f(prompts, completions, **columns) -> list[float | None]``

Loading a function runs the code of its file. That happens only in training, and only for files which the user named for
it. Nothing else, such as judging with a finished run, loads the functions named in its settings.
"""

from __future__ import annotations

import hashlib
import inspect
import marshal
import math
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.errors import ConfigError, NotFiniteError, RewardError, nearest
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Judgement

COLUMNS = ("prompts", "completions", "gold", "value", "id")
"""Columns every function can ask for; the others are the task's fields."""

FUNCTIONS = "reward_functions"
"""The key under which a run records its functions."""

FROM_PYTHON = "<python>"
"""Stands for the file of a function which was given from Python and comes from no file."""


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """A function of the user."""

    name: str
    """``FILE.py:NAME``, as in the settings."""
    sha256: str
    """Hash of its file; of its bytecode where it comes from none."""
    call: Callable[..., Any]

    def rewards(
        self, prompts: Sequence[str], examples: Sequence[Example], judgements: Sequence[Judgement]
    ) -> list[float]:
        """Return one reward per answer; None, "no opinion", counts as 0.

        Raises RewardError when the function fails or returns anything else, NotFiniteError for NaN and infinity.
        """
        columns = {
            **{name: [example.fields[name] for example in examples] for name in examples[0].fields},
            "prompts": list(prompts),
            "completions": [judgement.text for judgement in judgements],
            "gold": [example.gold for example in examples],
            "value": [judgement.value for judgement in judgements],
            "id": [example.id for example in examples],
        }
        taken = _taken(self.call, columns)
        try:
            returned = self.call(**{name: columns[name] for name in taken})
        except Exception as error:
            raise RewardError(
                f"The reward function {self.name} failed{_line(error, self.name)}: {type(error).__name__}: {error}. "
                f"Its rows were {_rows(examples)}. The weights were not updated."
            ) from error
        return self._checked(returned, examples, judgements)

    def _checked(self, returned: Any, examples: Sequence[Example], judgements: Sequence[Judgement]) -> list[float]:
        try:
            if isinstance(returned, str | bytes | Mapping):
                raise TypeError
            values = list(returned)
        except TypeError:
            raise RewardError(
                f"The reward function {self.name} returned a {type(returned).__name__} for the rows {_rows(examples)}: "
                "return a list with a number, or None, per completion."
            ) from None
        if len(values) != len(examples):
            raise RewardError(
                f"The reward function {self.name} returned {len(values)} rewards for {len(examples)} completions, "
                f"of the rows {_rows(examples)}: return one per completion."
            )
        return [self._number(*each) for each in zip(values, examples, judgements, strict=True)]

    def _number(self, value: Any, example: Example, judgement: Judgement) -> float:
        if value is None:
            return 0.0
        try:
            if isinstance(value, str | bytes):
                raise TypeError
            reward = float(value)
        except (TypeError, ValueError):
            raise RewardError(
                f"The reward function {self.name} returned {value!r} for row {example.id}: return a number or None."
            ) from None
        if not math.isfinite(reward):
            raise NotFiniteError(
                f"the reward function {self.name} returned {reward} for row {example.id} "
                f"(gold {example.gold!r}, answer {judgement.text!r}). The weights were not updated."
            )
        return reward


def load_function(name: str) -> RewardFunction:
    """Load ``FILE.py:NAME``, which runs the file. Raises ConfigError, which says what to write."""
    file, _, attribute = name.rpartition(":")
    if file == FROM_PYTHON:
        raise ConfigError(
            f"The reward function {name} was given from Python and lies in no file. Give it again with "
            "adjudge.train(..., reward_funcs=[...]), or write it in a file and name it FILE.py:NAME."
        )
    path = Path(file).expanduser()
    try:
        source = path.read_bytes()
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(
            f"The reward function {name} cannot be read: {path}: {reason}. Write FILE.py:NAME, with the path of "
            "the file from here."
        ) from None
    module = _run(name, path, source)
    if not hasattr(module, attribute):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigError(f"{path} has no '{attribute}'.{nearest(attribute, functions)} Write FILE.py:NAME.")
    return RewardFunction(name, hashlib.sha256(source).hexdigest(), _checked_call(name, getattr(module, attribute)))


def given_function(function: str | Callable[..., Any]) -> RewardFunction:
    """Return a function given from Python, itself or as ``FILE.py:NAME``. Raises ConfigError."""
    if isinstance(function, str):
        return load_function(function)
    title = getattr(function, "__qualname__", type(function).__name__)
    call = _checked_call(title, function)
    inner: Any = inspect.unwrap(function)
    inner = getattr(inner, "func", inner)  # functools.partial
    try:
        file = inspect.getsourcefile(inner if hasattr(inner, "__code__") else type(inner))
    except TypeError:
        file = None
    if file is not None and Path(file).is_file():
        return RewardFunction(f"{file}:{title}", hashlib.sha256(Path(file).read_bytes()).hexdigest(), call)
    if not hasattr(inner, "__code__"):
        raise ConfigError(f"The reward function {title} has no source to record. Write it as a plain function.")
    digest = hashlib.sha256(marshal.dumps(inner.__code__, 2))  # version 2: no references, whose marks vary
    return RewardFunction(f"{FROM_PYTHON}:{title}", digest.hexdigest(), call)


def check_columns(function: RewardFunction, spec: TaskSpec) -> None:
    """Raise ConfigError when the function wants a column which the task does not have."""
    columns = dict.fromkeys([*COLUMNS, *spec.fields])
    try:
        _taken(function.call, columns)
    except KeyError as missing:
        wanted = missing.args[0]
        raise ConfigError(
            f"The reward function {function.name} wants '{wanted}', which {spec.name} does not have."
            f"{nearest(wanted, columns)} Its columns are {', '.join(columns)}; give other parameters a default."
        ) from None


def recorded(functions: Sequence[RewardFunction]) -> dict[str, dict[str, str]]:
    """Return what a run records of its functions: each name with its hash. Nothing where there are none."""
    return {FUNCTIONS: {function.name: function.sha256 for function in functions}} if functions else {}


def _run(name: str, path: Path, source: bytes) -> types.ModuleType:
    """Run the file's bytes as a module of its own: a cached ``.pyc`` could be older than the hash says."""
    module = types.ModuleType(f"adjudge_rewards_{hashlib.sha256(source).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"The reward function {name} cannot be loaded: running {path} failed{_line(error, name)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return module


def _checked_call(name: str, call: Any) -> Callable[..., Any]:
    """Return what was named as a function that can be called. Raises ConfigError."""
    if not callable(call):
        raise ConfigError(f"The reward function {name} is a {type(call).__name__}, not a function. Name a function.")
    if inspect.iscoroutinefunction(call):
        raise ConfigError(f"The reward function {name} is `async`: write it as a plain function.")
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        raise ConfigError(f"The parameters of the reward function {name} cannot be read: write it in Python.") from None
    alone = [each.name for each in parameters if each.kind is each.POSITIONAL_ONLY and each.default is each.empty]
    if alone:
        raise ConfigError(f"The reward function {name} takes '{alone[0]}' by position only: columns are given by name.")
    checked: Callable[..., Any] = call
    return checked


def _taken(call: Callable[..., Any], columns: Mapping[str, Any]) -> list[str]:
    """Return the columns which a function takes. Raises KeyError for one it needs that is missing."""
    parameters = inspect.signature(call).parameters.values()
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    for each in named:
        if each.default is each.empty and each.name not in columns:
            raise KeyError(each.name)
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return list(columns)
    return [each.name for each in named if each.name in columns]


def _line(error: BaseException, name: str) -> str:
    """Return `` at FILE:LINE`` of the innermost frame in the function's file, or nothing."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f" at line {error.lineno}"
    file = str(Path(name.rpartition(":")[0]).expanduser())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" at {file}:{lines[-1]}" if lines else ""


def _rows(examples: Sequence[Example]) -> str:
    ids = list(dict.fromkeys(example.id for example in examples))
    return ", ".join(ids) if len(ids) <= 4 else f"{', '.join(ids[:3])} … {ids[-1]}"
