"""Check and compile a task's template: fields, text around them, conditions and a few filters.

Jinja's sandbox keeps a template away from Python's objects, but allows endless loops and texts that fill the memory. So
only a few harmless parts of Jinja are accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from adjudge.errors import TaskError, nearest

FILTERS = ("capitalize", "default", "length", "lower", "replace", "title", "trim", "upper", "wordcount")
"""Filters that never make a text longer, given the checks of `_filter_mistake`."""

MOST_CHARACTERS = 10_000
"""Longest template; the built-in ones have up to 150 characters."""

_NODES = (
    *("Template", "Output", "TemplateData", "Name", "Const", "If", "CondExpr", "Compare", "Operand"),
    *("And", "Or", "Not", "Concat", "Filter", "Getitem", "Slice", "Neg"),
)
"""Jinja's node types that a template may contain."""


def template_mistakes(template: str, names: Sequence[str]) -> list[str]:
    """Return every mistake of a template over the fields `names`, in plain words."""
    import jinja2
    from jinja2 import nodes

    if len(template) > MOST_CHARACTERS:
        return [f"'template' has {len(template):,} characters; {MOST_CHARACTERS:,} are the most."]
    try:
        parsed = _environment().parse(template)
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        return [f"'template' is not valid Jinja{where}: {str(error.message or error).rstrip('.')}."]
    except (RecursionError, ValueError, OverflowError) as error:  # nested too deeply; a number with thousands of digits
        return [f"'template' is not valid Jinja: {error}."]
    used = list(dict.fromkeys(name.name for name in parsed.find_all(nodes.Name)))
    mistakes = _kind_mistakes(parsed)
    if names:
        mistakes += [
            f"'template' uses '{name}', which is not among the fields.{nearest(name, names)}"
            for name in sorted(set(used) - set(names))
        ]
        if not used:
            mistakes.append(
                "'template' uses no field, so every row would look the same. Write {{ " + names[0] + " }} in it."
            )
        elif set(used) <= set(names):
            mistakes += [f"'fields.{name}' is not used in the template." for name in names if name not in used]
    return mistakes or _trial_mistakes(template, names)


@lru_cache(maxsize=64)
def compiled(template: str, names: tuple[str, ...]) -> Any:
    """Return the template ready to render.

    Raises TaskError for a template with mistakes: the task of a run folder is loaded without other checks.
    """
    mistakes = template_mistakes(template, names)
    if mistakes:
        raise TaskError(f"The task's template cannot be used: {' '.join(mistakes)}")
    return _environment().from_string(template)


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)


def _kind_mistakes(parsed: Any) -> list[str]:
    """Return a mistake for each part of a template other than text, fields, conditions and filters."""
    from jinja2 import nodes

    mistakes = []
    for node in parsed.find_all(nodes.Node):
        kind = type(node).__name__
        if kind not in _NODES:
            mistakes.append(
                f"'template' (line {node.lineno}) has a '{kind}': "
                "only fields, {% if %}, comparisons and filters are allowed in it."
            )
        elif isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice):
            mistakes.append(
                f"'template' (line {node.lineno}) takes an item, but a field is text. "
                "Write {{ field[:100] }} for its beginning."
            )
        elif isinstance(node, nodes.Filter) and (mistake := _filter_mistake(node)):
            mistakes.append(f"'template' (line {node.lineno}) {mistake}")
    return list(dict.fromkeys(mistakes))


def _filter_mistake(node: Any) -> str | None:
    """Return why a filter is refused, or None.

    `replace` must not make a text longer: a chain of them would grow without limit.
    """
    from jinja2 import nodes

    if node.name not in FILTERS:
        return f"uses the filter '{node.name}', which is not allowed.{nearest(node.name, FILTERS)}"
    plain_args = all(isinstance(arg, nodes.Const) for arg in node.args)
    if node.kwargs or node.dyn_args or node.dyn_kwargs or not plain_args:
        return f"gives the filter '{node.name}' an argument that is not a plain text or number."
    if node.name == "replace":
        values = [arg.value for arg in node.args]
        two_texts = len(values) == 2 and all(isinstance(value, str) for value in values)
        if not two_texts or not max(len(values[1]), 1) <= len(values[0]):
            return "must use 'replace' with two texts, the second not longer than the first."
    return None


def _trial_mistakes(template: str, names: Sequence[str]) -> list[str]:
    """Return a mistake when rendering a row fails, for example because types do not fit each other."""
    for value in ("A text.", ""):
        try:
            _environment().from_string(template).render(dict.fromkeys(names, value))
        except Exception as error:  # a template may raise anything; it is reported
            return [f"'template' cannot be rendered: {type(error).__name__}: {error}."]
    return []
