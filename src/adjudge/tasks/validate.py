"""Check a task's YAML and explain every mistake in plain words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from adjudge.errors import TaskError, nearest
from adjudge.system.text import quoted
from adjudge.tasks.answer_words import folded, label_key, unreadable_mark
from adjudge.tasks.sets import MARK, NOTHING
from adjudge.tasks.spec import (
    FileSource,
    GeneratedSource,
    Generation,
    HubSource,
    LabelText,
    NumberAnswer,
    Procedure,
    Source,
    TableSource,
    TaskSpec,
    VaderSource,
)
from adjudge.tasks.task_yaml import read_task_file
from adjudge.tasks.template import template_mistakes

_PARTS: dict[str, type[BaseModel]] = {
    "": TaskSpec,
    "number": NumberAnswer,
    "source": Source,
    "source.files": FileSource,
    "source.hub": HubSource,
    "source.vader": VaderSource,
    "source.generated": GeneratedSource,
    "source.table": TableSource,
    "procedure": Procedure,
    "generate": Generation,
    "generate.labels": LabelText,
}
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

RESERVED = (
    *("and", "or", "not", "if", "elif", "else", "endif", "for", "in", "is"),
    *("true", "false", "none", "True", "False", "None"),
    *("self", "loop", "super", "caller", "varargs", "kwargs"),
)
"""Names reserved by Jinja."""

MOST_STEPS = 12
"""Most questions of a procedure: every row is asked each of them."""

_TYPES = {
    "model_type": "a mapping of keys",
    "dict_type": "a mapping (name: value)",
    "tuple_type": "a list",
    "string_type": "text",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "bool_parsing": "true or false",
}
"""What pydantic's error types expect, in words."""

_PURPOSES = {
    "name": "what the task is called, for example my/task.",
    "title": "one line that describes the task.",
    "fields": "the texts of a row, as `name in the template: column`.",
    "instruction": "what the model is asked to judge.",
    "template": "how a row is written out, for example 'Sentence: {{ sentence }}'.",
    "metrics": "a list; the first one ranks methods.",
    "source": "where the rows come from (files, hub, vader, generated or table).",
    "low": "the smallest number an answer can be.",
    "high": "the largest number an answer can be.",
    "train": "the file with the training rows.",
    "folder": "the folder below --data-dir.",
    "splits": "which file or split holds train and dev.",
    "path": "the id of the data set on the hub.",
    "revision": "the commit of the data set, so that the rows cannot change.",
    "part": "movies, tweets, news or products.",
    "prompt": "what stands before a generated text of this label.",
    "generator": "what makes the rows: programs.",
}
"""The purpose of each required key."""


def validate_task(path: str | Path) -> list[str]:
    """Return every mistake of a task file in plain words."""
    try:
        return mistakes_of(read_task_file(Path(path)))
    except TaskError as error:
        return [str(error)]


def unnamed_words(spec: TaskSpec) -> list[str]:
    """Return the answer words named in neither instruction nor template: the model has to guess them."""
    prompt_text = f"{spec.instruction}\n{spec.template}".casefold()
    if spec.several == "passes":  # each prompt names its label
        return []
    return [word for word in spec.names if word.casefold() not in prompt_text]


def parse_task(tree: Mapping[str, Any], where: str) -> TaskSpec:
    """Return the task that a mapping describes. Raises TaskError with every mistake, one per line."""
    mistakes = mistakes_of(tree)
    if mistakes:
        lines = "".join(f"\n  - {mistake}" for mistake in mistakes)
        raise TaskError(f"{where}: the task has {len(mistakes)} mistake{'s' * (len(mistakes) != 1)}:{lines}")
    return TaskSpec.model_validate(dict(tree))


def mistakes_of(tree: Mapping[str, Any]) -> list[str]:
    """Return every mistake of a task given as a mapping: first of its form, then of its meaning."""
    mistakes: list[str] = []
    try:
        TaskSpec.model_validate(dict(tree))
    except ValidationError as error:
        mistakes += [_explain(item) for item in error.errors()]
    mistakes += _name_mistakes(tree)
    mistakes += _field_mistakes(tree)
    mistakes += _answer_mistakes(tree)
    mistakes += _set_mistakes(tree)
    mistakes += _metric_mistakes(tree)
    mistakes += _source_mistakes(tree)
    mistakes += _procedure_mistakes(tree)
    mistakes += _generate_mistakes(tree)
    return list(dict.fromkeys(mistakes))


def _explain(item: Any) -> str:
    """Return one of pydantic's errors in plain words."""
    path = [str(part) for part in item["loc"]]
    key, parent = ".".join(path), ".".join(path[:2] if path[:2] == ["generate", "labels"] else path[:-1])
    if item["type"] == "extra_forbidden":
        known = _PARTS[parent].model_fields if parent in _PARTS else ()
        return f"'{key}' is not a key of a task.{nearest(path[-1], known)}"
    if item["type"] == "missing":
        purpose = _PURPOSES.get(path[-1], f"every {parent or 'task'} needs it.")
        return f"'{key}' is missing: {purpose}"
    if item["type"] == "literal_error":
        return f"'{key}' is '{item['input']}'.{nearest(str(item['input']), _choices(parent, path[-1]))}"
    if item["type"] in _TYPES:
        return f"'{key}' must be {_TYPES[item['type']]}, not {item['input']!r}."
    return f"'{key}' = {item['input']!r}: {item['msg']}."


def _choices(parent: str, key: str) -> tuple[str, ...]:
    """Return the allowed values of a key with a fixed list of them."""
    field = _PARTS[parent].model_fields.get(key) if parent in _PARTS else None
    return tuple(str(choice) for choice in get_args(field.annotation)) if field is not None else ()


def _name_mistakes(tree: Mapping[str, Any]) -> list[str]:
    name = tree.get("name")
    if isinstance(name, str) and not _NAME.fullmatch(name):
        return [
            f"'name' is '{name}': it may only have letters, digits, '_', '-', '.', and '/' between parts, "
            "because folders are named after it."
        ]
    return [
        f"'{key}' is empty."
        for key in ("title", "instruction")
        if isinstance(tree.get(key), str) and not tree[key].strip()
    ]


def _field_mistakes(tree: Mapping[str, Any]) -> list[str]:
    fields, template = tree.get("fields"), tree.get("template")
    names = [str(name) for name in fields] if isinstance(fields, Mapping) else []
    mistakes = [
        f"'fields.{name}' cannot be used in a template: "
        "a field's name has only letters, digits and '_', and does not begin with a digit."
        for name in names
        if not _IDENTIFIER.fullmatch(name)
    ]
    mistakes += [
        f"'fields.{name}' cannot be used in a template: Jinja reserves this name." for name in names if name in RESERVED
    ]
    if isinstance(fields, Mapping) and not fields:
        mistakes.append("'fields' is empty: a row needs at least one text.")
    optional = tree.get("optional")
    if isinstance(optional, list | tuple):
        mistakes += [
            f"'optional' has '{name}', which is not among the fields.{nearest(str(name), names)}"
            for name in optional
            if name not in names
        ]
    mistakes += _choice_mistakes(tree, names)
    return mistakes + template_mistakes(template, names) if isinstance(template, str) else mistakes


def _choice_mistakes(tree: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    choices, labels = tree.get("choices"), tree.get("labels")
    if not choices or not isinstance(choices, list | tuple):
        return []
    mistakes = [
        f"'choices' has '{name}', which is not among the fields.{nearest(str(name), names)}"
        for name in choices
        if name not in names
    ]
    words = len({str(word) for word in labels.values()}) if isinstance(labels, Mapping) else 0
    if len(set(choices)) != len(choices) or len(choices) != words:
        mistakes.append(
            f"'choices' has {len(choices)} fields and there are {words} answer words: name one field per answer word, "
            "in their order."
        )
    return mistakes


def _answer_mistakes(tree: Mapping[str, Any]) -> list[str]:
    labels, number, positive = tree.get("labels"), tree.get("number"), tree.get("positive")
    mistakes = []
    if labels is None and number is None:
        mistakes.append("There is neither 'labels' nor 'number': define the possible answers.")
    if labels is not None and number is not None:
        mistakes.append("There is both 'labels' and 'number': an answer is either a label or a number.")
    if isinstance(labels, Mapping):
        words = {str(raw): word for raw, word in labels.items() if isinstance(word, str)}
        mistakes += _word_mistakes(words)
        if positive is not None and isinstance(positive, str) and positive not in words.values():
            near = nearest(positive, words.values())
            mistakes.append(f"'positive' is '{positive}', which is not an answer word.{near}")
    elif positive is not None:
        mistakes.append("'positive' is only for tasks with labels.")
    if isinstance(number, Mapping):
        try:
            low, high = float(number["low"]), float(number["high"])
        except (KeyError, TypeError, ValueError):
            return mistakes
        ends = f"'number.low' is {low:g} and 'number.high' is {high:g}"
        if not (math.isfinite(low) and math.isfinite(high)):
            mistakes.append(f"{ends}: both must be finite.")
        elif not math.isfinite(high - low):
            mistakes.append(f"{ends}: they are too far apart to compute a reward.")
        elif not low < high:
            mistakes.append(f"{ends}: low must be below high.")
    return mistakes


def _set_mistakes(tree: Mapping[str, Any]) -> list[str]:
    labels = tree.get("labels")
    if tree.get("several") is None:
        return ["'indicators' is only for tasks with 'several'."] if tree.get("indicators") else []
    if not isinstance(labels, Mapping):
        return ["'several' is only for tasks with labels."]
    mistakes = [f"'{key}' does not go with 'several'." for key in ("group", "generate", "positive") if tree.get(key)]
    if tree.get("indicators") and tree.get("label") is not None:
        mistakes.append("'indicators' makes every label a column of its own: 'label' is then null.")
    for raw, word in labels.items():
        if isinstance(word, str) and ("," in word or folded(word) == NOTHING):
            mistakes.append(
                f"'labels.{raw}' has the answer word '{word}': in a set no word has a comma, or is '{NOTHING}'."
            )
        if isinstance(raw, str) and MARK in raw and not tree.get("indicators"):
            mistakes.append(f"'labels.{raw}' has a '{MARK}', which separates the labels of a cell.")
    return mistakes


def _word_mistakes(words: Mapping[str, str]) -> list[str]:
    mistakes = []
    different = set(words.values())
    if len(different) < 2:
        mistakes.append(f"'labels' has {len(different)} label{'s' * (len(different) != 1)}: at least two are needed.")
    first: dict[str, str] = {}  # folded word to the first label with it
    for raw, word in words.items():
        core = folded(word)
        if not core:
            mistakes.append(
                f"'labels.{raw}' has the answer word '{word}': it needs more than white space and punctuation."
            )
        elif "\n" in word or "\r" in word or "<" in word:
            mistakes.append(f"'labels.{raw}' has the answer word {word!r}: it must not have a line break or '<'.")
        elif mark := unreadable_mark(word):
            mistakes.append(f"'labels.{raw}' has the answer word {word!r}: it must not have the invisible {mark}.")
        elif words[first.setdefault(core, raw)] != word:
            alike = ascii if label_key(word) == label_key(words[first[core]]) else quoted
            mistakes.append(
                f"'labels.{raw}' and 'labels.{first[core]}' have the same answer word, "
                f"{alike(word)} and {alike(words[first[core]])} "
                "(case and final punctuation do not count): answers could not be told apart. "
                "If both are one label, write both words alike."
            )
    return mistakes


def _metric_mistakes(tree: Mapping[str, Any]) -> list[str]:
    from adjudge.tasks.scoring.metrics import METRICS, fitting_metrics

    metrics = tree.get("metrics")
    if not isinstance(metrics, list | tuple):
        return []
    if not metrics:
        return [f"'metrics' is empty.{nearest('', METRICS)}"]
    mistakes = []
    kind = "number" if tree.get("number") is not None and tree.get("labels") is None else "labels"
    kind = "sets" if tree.get("several") is not None else kind
    for name in metrics:
        if not isinstance(name, str) or name not in METRICS:
            mistakes.append(f"'metrics' has '{name}', which is not a metric.{nearest(str(name), METRICS)}")
        elif name not in fitting_metrics(kind):
            fitting = ", ".join(fitting_metrics(kind))
            answers = {"number": "numbers", "sets": "sets of labels"}.get(kind, "labels")
            mistakes.append(f"'metrics' has '{name}', which does not fit answers that are {answers}. Use: {fitting}.")
        elif METRICS[name].ordered and tree.get("ordered") is not True:
            mistakes.append(f"'metrics' has '{name}', which is for labels in an order: write 'ordered: true'.")
        elif METRICS[name].grouped and not _has_groups(tree):
            mistakes.append(
                f"'metrics' has '{name}', which scores groups of rows: name the column that groups them as 'group'."
            )
    if tree.get("several") and tree.get("ordered"):
        mistakes.append("'ordered' is for one label per row, and 'several' for sets of them: leave one out.")
    if kind == "number" and tree.get("ordered"):
        mistakes.append("'ordered' is for labels: numbers have their order.")
    if kind == "number" and tree.get("group") is not None:
        mistakes.append("'group' is only for tasks with labels: no metric of numbers scores groups.")
    mistakes += [
        f"'metrics' has '{name}' twice." for name in dict.fromkeys(map(str, metrics)) if list(metrics).count(name) > 1
    ]
    return mistakes


def _has_groups(tree: Mapping[str, Any]) -> bool:
    source = tree.get("source")
    return tree.get("group") is not None or (isinstance(source, Mapping) and source.get("hook") is not None)


def _source_mistakes(tree: Mapping[str, Any]) -> list[str]:
    source = tree.get("source")
    if not isinstance(source, Mapping):
        return []
    if not any(source.get(name) is not None for name in Source.model_fields if name != "hook"):
        return ["'source' is empty: give files, hub, vader, generated or table."]
    hub, labels, mistakes = source.get("hub"), tree.get("labels"), _hook_mistakes(source)
    if isinstance(hub, Mapping) and isinstance(labels, Mapping):
        order = hub.get("labels") or ()
        mistakes += [
            f"'source.hub.labels' has '{raw}', which is not among the labels.{nearest(str(raw), map(str, labels))}"
            for raw in (order if isinstance(order, list | tuple) else ())
            if not isinstance(raw, str) or raw not in labels
        ]
    vader = source.get("vader")
    if isinstance(vader, Mapping) and isinstance(labels, Mapping) and set(labels) != {"positive", "negative"}:
        mistakes.append("'labels' of a task with 'source.vader' must be positive and negative, made from the ratings.")
    generated = source.get("generated")
    if isinstance(generated, Mapping) and (not isinstance(labels, Mapping) or set(labels) != {"True", "False"}):
        mistakes.append("'labels' of a task with 'source.generated' must be True and False, which the programs print.")
    return mistakes


def _procedure_mistakes(tree: Mapping[str, Any]) -> list[str]:
    block, fields = tree.get("procedure"), tree.get("fields")
    if not isinstance(block, Mapping):
        return []
    lines, steps = block.get("lines"), block.get("steps")
    if (lines is None) == (not steps):
        return ["'procedure' needs either 'lines', a field that is read line by line, or 'steps', a list of questions."]
    if isinstance(steps, list | tuple) and len(steps) > MOST_STEPS:
        return [f"'procedure.steps' has {len(steps)} questions; {MOST_STEPS} are the most."]
    if isinstance(steps, list | tuple) and not all(isinstance(step, str) and step.strip() for step in steps):
        return ["'procedure.steps' has an empty question."]
    if isinstance(lines, str) and isinstance(fields, Mapping) and lines not in fields:
        return [f"'procedure.lines' is '{lines}', which is not among the fields.{nearest(lines, map(str, fields))}"]
    return []


def _generate_mistakes(tree: Mapping[str, Any]) -> list[str]:
    block, labels, fields = tree.get("generate"), tree.get("labels"), tree.get("fields")
    if not isinstance(block, Mapping):
        return []
    if not isinstance(labels, Mapping) or not isinstance(fields, Mapping):
        return ["'generate' is only for tasks with labels: rows of a number task cannot be generated."]
    if len(fields) > 2:
        return ["'generate' is only for tasks with one or two fields."]
    texts = block.get("labels")
    texts = texts if isinstance(texts, Mapping) else {}
    words = list(dict.fromkeys(word for word in labels.values() if isinstance(word, str)))
    mistakes = [
        f"'generate.labels' has '{word}', which is not an answer word.{nearest(str(word), words)}"
        for word in texts
        if word not in words
    ]
    if texts and (missing := [word for word in words if word not in texts]):
        mistakes.append(f"'generate.labels' has no {', '.join(missing)}: every answer word needs its prompt.")
    given = [str(name) for name in fields][:-1]
    for word, text in texts.items():
        if isinstance(text, Mapping) and isinstance(text.get("prompt"), str):
            where = f"'generate.labels.{word}.prompt'"
            mistakes += [mistake.replace("'template'", where) for mistake in template_mistakes(text["prompt"], given)]
    return mistakes


def _hook_mistakes(source: Mapping[str, Any]) -> list[str]:
    from adjudge.tasks.reading.hooks import HOOKS

    hook = source.get("hook")
    if hook is None:
        return []
    if not isinstance(hook, str) or hook not in HOOKS:
        return [f"'source.hook' is '{hook}', which is not a hook.{nearest(str(hook), HOOKS)}"]
    if source.get("files") is None and source.get("hub") is None:
        return ["'source.hook' needs the rows of 'files' or 'hub', and neither is given."]
    return []
