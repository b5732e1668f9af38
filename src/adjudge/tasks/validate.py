"""Reading a task's YAML, and explaining every mistake in it in plain words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from adjudge.errors import TaskError, nearest
from adjudge.tasks.answer_words import folded, unreadable_mark
from adjudge.tasks.spec import FileSource, HubSource, NumberAnswer, Source, TableSource, TaskSpec, VaderSource
from adjudge.tasks.task_yaml import read_task_file
from adjudge.tasks.template import template_mistakes

_PARTS: dict[str, type[BaseModel]] = {
    "": TaskSpec,
    "number": NumberAnswer,
    "source": Source,
    "source.files": FileSource,
    "source.hub": HubSource,
    "source.vader": VaderSource,
    "source.table": TableSource,
}
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


RESERVED = frozenset(
    {
        "and",
        "or",
        "not",
        "if",
        "elif",
        "else",
        "endif",
        "for",
        "in",
        "is",
        "true",
        "false",
        "none",
        "True",
        "False",
        "None",
        "self",
        "loop",
        "super",
        "caller",
        "varargs",
        "kwargs",
    }
)
"""Names that Jinja keeps for itself."""


def validate_task(path: str | Path) -> list[str]:
    """Every mistake of a task file in plain words; empty when there is none."""
    try:
        return mistakes_of(read_task_file(Path(path)))
    except TaskError as error:
        return [str(error)]


def parse_task(tree: Mapping[str, Any], where: str) -> TaskSpec:
    """Turn a mapping into a task. Raises TaskError with every mistake, one a line."""
    mistakes = mistakes_of(tree)
    if mistakes:
        lines = "".join(f"\n  - {mistake}" for mistake in mistakes)
        raise TaskError(f"{where}: the task has {len(mistakes)} mistake{'s' * (len(mistakes) != 1)}:{lines}")
    return TaskSpec.model_validate(dict(tree))


def mistakes_of(tree: Mapping[str, Any]) -> list[str]:
    """Every mistake of a task given as a mapping: of its form first, then of its meaning."""
    found: list[str] = []
    try:
        TaskSpec.model_validate(dict(tree))
    except ValidationError as error:
        found += [_explain(item) for item in error.errors()]
    found += _name_mistakes(tree)
    found += _field_mistakes(tree)
    found += _answer_mistakes(tree)
    found += _metric_mistakes(tree)
    found += _source_mistakes(tree)
    return list(dict.fromkeys(found))


def _explain(item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    key, parent = ".".join(path), ".".join(path[:-1])
    if item["type"] == "extra_forbidden":
        known = _PARTS[parent].model_fields if parent in _PARTS else ()
        return f"'{key}' is no key of a task.{nearest(path[-1], known)}"
    if item["type"] == "missing":
        return f"'{key}' is missing: {_purpose(parent, path[-1])}"
    if item["type"] == "literal_error":
        return f"'{key}' is '{item['input']}'.{nearest(str(item['input']), _choices(parent, path[-1]))}"
    wanted = {
        "model_type": "a mapping of keys",
        "dict_type": "a mapping (name: value)",
        "tuple_type": "a list",
        "string_type": "text",
        "float_parsing": "a number",
        "float_type": "a number",
        "int_parsing": "a whole number",
        "int_type": "a whole number",
        "bool_parsing": "true or false",
    }.get(item["type"])
    if wanted:
        return f"'{key}' must be {wanted}, and is {item['input']!r}."
    return f"'{key}' = {item['input']!r}: {item['msg']}."


def _purpose(parent: str, key: str) -> str:
    purposes = {
        "name": "what the task is called, for example my/task.",
        "title": "one line that says what the task is.",
        "fields": "the texts of a row, as `name in the template: column`.",
        "instruction": "what the model is told to judge.",
        "template": "how a row is written out, for example 'Sentence: {{ sentence }}'.",
        "metrics": "a list, the one that ranks methods first.",
        "source": "where the rows come from (files, hub, vader or table).",
        "low": "the smallest number that can be answered.",
        "high": "the largest number that can be answered.",
        "train": "the file with the training rows.",
        "folder": "the folder below --data-dir.",
        "splits": "which file or split holds train and dev.",
        "path": "the id of the data set on the hub.",
        "revision": "the commit of the data set, so that the rows cannot change.",
        "part": "movies, tweets, news or products.",
    }
    return purposes.get(key, f"every {parent or 'task'} needs it.")


def _choices(parent: str, key: str) -> tuple[str, ...]:
    field = _PARTS[parent].model_fields.get(key) if parent in _PARTS else None
    return tuple(str(choice) for choice in get_args(field.annotation)) if field is not None else ()


def _name_mistakes(tree: Mapping[str, Any]) -> list[str]:
    name = tree.get("name")
    if isinstance(name, str) and not _NAME.fullmatch(name):
        return [
            f"'name' is '{name}': letters, digits, '_', '-', '.' and '/' between parts only, since folders are named after it."
        ]
    return [
        f"'{key}' is empty."
        for key in ("title", "instruction")
        if isinstance(tree.get(key), str) and not tree[key].strip()
    ]


def _field_mistakes(tree: Mapping[str, Any]) -> list[str]:
    fields, template = tree.get("fields"), tree.get("template")
    names = [str(name) for name in fields] if isinstance(fields, Mapping) else []
    found = [
        f"'fields.{name}' cannot be used in a template: a field's name is letters, digits and '_', and does not begin with a digit."
        for name in names
        if not _IDENTIFIER.fullmatch(name)
    ]
    found += [
        f"'fields.{name}' cannot be used in a template: Jinja keeps this name for itself."
        for name in names
        if name in RESERVED
    ]
    if isinstance(fields, Mapping) and not fields:
        found.append("'fields' is empty: a row needs at least one text.")
    optional = tree.get("optional")
    if isinstance(optional, list | tuple):
        found += [
            f"'optional' has '{name}', which is not among the fields.{nearest(str(name), names)}"
            for name in optional
            if name not in names
        ]
    return found + template_mistakes(template, names) if isinstance(template, str) else found


def _answer_mistakes(tree: Mapping[str, Any]) -> list[str]:
    labels, number, positive = tree.get("labels"), tree.get("number"), tree.get("positive")
    found = []
    if labels is None and number is None:
        found.append("There is neither 'labels' nor 'number': say what can be answered.")
    if labels is not None and number is not None:
        found.append("There is both 'labels' and 'number': an answer is a label or a number.")
    if isinstance(labels, Mapping):
        words = {str(raw): word for raw, word in labels.items() if isinstance(word, str)}
        found += _word_mistakes(words)
        if positive is not None and isinstance(positive, str) and positive not in words.values():
            found.append(f"'positive' is '{positive}', which is no answer word.{nearest(positive, words.values())}")
    elif positive is not None:
        found.append("'positive' is for tasks with labels.")
    if isinstance(number, Mapping):
        try:
            low, high = float(number["low"]), float(number["high"])
        except (KeyError, TypeError, ValueError):
            return found
        if not (math.isfinite(low) and math.isfinite(high)):
            found.append(f"'number.low' is {low:g} and 'number.high' is {high:g}: both must be finite.")
        elif not math.isfinite(high - low):
            found.append(f"'number.low' is {low:g} and 'number.high' is {high:g}: too far apart to be rewarded.")
        elif not low < high:
            found.append(f"'number.low' is {low:g} and 'number.high' is {high:g}: low must be below high.")
    return found


def _word_mistakes(words: Mapping[str, str]) -> list[str]:
    found = []
    if len(words) < 2:
        found.append(f"'labels' has {len(words)} label{'s' * (len(words) != 1)}: at least two are needed.")
    first: dict[str, str] = {}
    for raw, word in words.items():
        core = folded(word)
        if not core:
            found.append(
                f"'labels.{raw}' has the answer word '{word}': a word that is more than white space and punctuation is needed."
            )
        elif "\n" in word or "\r" in word or "<" in word:
            found.append(f"'labels.{raw}' has the answer word {word!r}: no line break and no '<' can be in it.")
        elif mark := unreadable_mark(word):
            found.append(f"'labels.{raw}' has the answer word {word!r}: {mark} cannot be in it, which nobody sees.")
        elif core in first:
            found.append(
                f"'labels.{raw}' and 'labels.{first[core]}' have the same answer word '{word}' "
                "(case and final punctuation do not count): an answer could not be told apart."
            )
        else:
            first[core] = raw
    return found


def _metric_mistakes(tree: Mapping[str, Any]) -> list[str]:
    from adjudge.tasks.scoring.metrics import METRICS

    metrics = tree.get("metrics")
    if not isinstance(metrics, list | tuple):
        return []
    if not metrics:
        return [f"'metrics' is empty.{nearest('', METRICS)}"]
    found = []
    kind = "number" if tree.get("number") is not None and tree.get("labels") is None else "labels"
    for name in metrics:
        if not isinstance(name, str) or name not in METRICS:
            found.append(f"'metrics' has '{name}', which is no metric.{nearest(str(name), METRICS)}")
        elif METRICS[name].kind != kind:
            fitting = ", ".join(other for other, metric in METRICS.items() if metric.kind == kind)
            answers = "numbers" if kind == "number" else "labels"
            found.append(f"'metrics' has '{name}', which does not fit answers that are {answers}. There is: {fitting}.")
        elif METRICS[name].grouped and not _has_groups(tree):
            found.append(
                f"'metrics' has '{name}', which scores groups of rows: name the column that groups them as 'group'."
            )
    if kind == "number" and tree.get("group") is not None:
        found.append("'group' is for tasks with labels: no metric of numbers scores groups.")
    found += [
        f"'metrics' has '{name}' twice." for name in dict.fromkeys(map(str, metrics)) if list(metrics).count(name) > 1
    ]
    return found


def _has_groups(tree: Mapping[str, Any]) -> bool:
    source = tree.get("source")
    return tree.get("group") is not None or (isinstance(source, Mapping) and source.get("hook") is not None)


def _source_mistakes(tree: Mapping[str, Any]) -> list[str]:
    source = tree.get("source")
    if not isinstance(source, Mapping):
        return []
    if not any(source.get(name) is not None for name in Source.model_fields if name != "hook"):
        return ["'source' names no place: give files, hub, vader or table."]
    hub, labels, found = source.get("hub"), tree.get("labels"), _hook_mistakes(source)
    if isinstance(hub, Mapping) and isinstance(labels, Mapping):
        order = hub.get("labels") or ()
        found += [
            f"'source.hub.labels' has '{raw}', which is not among the labels.{nearest(str(raw), map(str, labels))}"
            for raw in (order if isinstance(order, list | tuple) else ())
            if not isinstance(raw, str) or raw not in labels
        ]
    vader = source.get("vader")
    if isinstance(vader, Mapping) and isinstance(labels, Mapping) and set(labels) != {"positive", "negative"}:
        found.append("'labels' of a task with 'source.vader' are made from the ratings: positive and negative.")
    return found


def _hook_mistakes(source: Mapping[str, Any]) -> list[str]:
    from adjudge.tasks.reading.hooks import HOOKS

    hook = source.get("hook")
    if hook is None:
        return []
    if not isinstance(hook, str) or hook not in HOOKS:
        return [f"'source.hook' is '{hook}', which is no hook.{nearest(str(hook), HOOKS)}"]
    if source.get("files") is None and source.get("hub") is None:
        return ["'source.hook' is for the rows of 'files' and 'hub', and there is neither."]
    return []
