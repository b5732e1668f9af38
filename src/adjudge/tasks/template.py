"""What a task's template may hold: fields, text around them, conditions and a few filters. It computes nothing and reaches nothing.

Jinja's sandbox keeps a template from Python's objects, but not from loops that never end or texts that fill the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from adjudge.errors import TaskError, nearest

FILTERS = ("capitalize", "default", "length", "lower", "replace", "title", "trim", "upper", "wordcount")
"""Filters that make a text no longer than it is, given what `_filter_mistake` says."""

MOST_CHARACTERS = 10_000
"""Of a template; the built-in ones have up to 150."""

_NODES = (
    *(
        "Template",
        "Output",
        "TemplateData",
        "Name",
        "Const",
        "If",
        "CondExpr",
        "Compare",
        "Operand",
        "And",
        "Or",
        "Not",
    ),
    *("Concat", "Filter", "Getitem", "Slice", "Neg"),
)
"""Jinja's names of what may stand in a template."""


def template_mistakes(template: str, names: Sequence[str]) -> list[str]:
    """Every mistake of a template over the fields `names`, in plain words; empty when there is none."""
    import jinja2
    from jinja2 import nodes

    if len(template) > MOST_CHARACTERS:
        return [f"'template' has {len(template):,} characters; {MOST_CHARACTERS:,} are the most."]
    try:
        parsed = _environment().parse(template)
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        return [
            f"'template' is not valid Jinja{f' (line {line})' if line else ''}: {str(error.message or error).rstrip('.')}."
        ]
    except (RecursionError, ValueError, OverflowError) as error:  # nested without end; a number of thousands of digits
        return [f"'template' is not valid Jinja: {error}."]
    used = list(dict.fromkeys(name.name for name in parsed.find_all(nodes.Name)))
    found = _kind_mistakes(parsed)
    if names:
        found += [
            f"'template' uses '{name}', which is not among the fields.{nearest(name, names)}"
            for name in sorted(set(used) - set(names))
        ]
        if not used:
            found.append(
                "'template' uses no field, so that every row would look the same. Write {{ " + names[0] + " }} in it."
            )
        elif set(used) <= set(names):
            found += [f"'fields.{name}' is not used in the template." for name in names if name not in used]
    return found or _trial_mistakes(template, names)


@lru_cache(maxsize=64)
def compiled(template: str, names: tuple[str, ...]) -> Any:
    """The template ready to render. Raises TaskError for one that has mistakes: a run folder's task was checked by nobody."""
    mistakes = template_mistakes(template, names)
    if mistakes:
        raise TaskError(f"The task's template cannot be used: {' '.join(mistakes)}")
    return _environment().from_string(template)


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import SandboxedEnvironment

    return SandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)


def _kind_mistakes(parsed: Any) -> list[str]:
    """Whatever in a parsed template is no text, field, condition or harmless filter."""
    from jinja2 import nodes

    found = []
    for node in parsed.find_all(nodes.Node):
        kind = type(node).__name__
        if kind not in _NODES:
            found.append(
                f"'template' (line {node.lineno}) has a '{kind}': only fields, {{% if %}}, comparisons and filters can stand in it."
            )
        elif isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice):
            found.append(
                f"'template' (line {node.lineno}) takes an item: a field is text; write {{{{ field[:100] }}}} for its beginning."
            )
        elif isinstance(node, nodes.Filter) and (mistake := _filter_mistake(node)):
            found.append(f"'template' (line {node.lineno}) {mistake}")
    return list(dict.fromkeys(found))


def _filter_mistake(node: Any) -> str | None:
    """Why a filter is refused. `replace` may not make a text longer: a chain of it would grow without end."""
    from jinja2 import nodes

    if node.name not in FILTERS:
        return f"uses the filter '{node.name}', which is none of those allowed.{nearest(node.name, FILTERS)}"
    if (
        node.kwargs
        or node.dyn_args
        or node.dyn_kwargs
        or not all(isinstance(given, nodes.Const) for given in node.args)
    ):
        return f"gives the filter '{node.name}' something that is not written out."
    if node.name == "replace":
        old, new = [*(given.value for given in node.args), None, None][:2]
        if (
            len(node.args) != 2
            or not isinstance(old, str)
            or not isinstance(new, str)
            or not 0 < max(len(new), 1) <= len(old)
        ):
            return "uses 'replace' other than with two texts, the second no longer than the first."
    return None


def _trial_mistakes(template: str, names: Sequence[str]) -> list[str]:
    """What goes wrong when rows are written out: types that do not fit each other."""
    for value in ("A text.", ""):
        try:
            _environment().from_string(template).render(dict.fromkeys(names, value))
        except Exception as error:  # a template may raise anything; it is reported
            return [f"'template' cannot be written out: {type(error).__name__}: {error}."]
    return []
