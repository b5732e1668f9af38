"""Render a model's chat template, alike on every day and every machine.

A template is a program. Most only arrange the turns; some write today's date, which would make one run's answers depend
on the day. The date is therefore a setting (`prompt.date`), which a run keeps. Chance and the time of day are refused.

`TRIED` names the newest transformers with which the template's internals, used in `_compiled` alone, were tried.
"""

from __future__ import annotations

import datetime
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import meta

from adjudge.config import PromptConfig
from adjudge.errors import ConfigError, ModelError, nearest

TRIED = "5.24.0"

_DIRECTIVE = re.compile(r"%[-_0^#]?(.)")
_OF_A_DATE = "aAbBdjmyYuwUVWGeFDhC%"
"""The directives of `strftime` that a date alone answers, the same in every time zone."""

_ASKED, _ANSWERED = "adjudge-question", "adjudge-answer"
_THOUGHT = re.compile(r"[<\[](/?)\|?[\w:]*?(?:think|thinking|thought|thoughts|reasoning)\|?[>\]]", re.IGNORECASE)


def chat_template(tokenizer: Any) -> str | None:
    """Return the chat template of a tokenizer, or None. Raises ModelError for several without a default."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise ModelError(
            f"The model has several chat templates and none is the default: {error} Use --prompt-style paper."
        ) from None


def render_chat(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], config: PromptConfig, *, opened: bool = True
) -> str:
    """Return the turns as the model's chat template writes them.

    With `opened`, the next assistant's turn is begun. Raises ModelError for a template that asks for chance or the time
    of day; else whatever the template raises.
    """
    template = _compiled(str(chat_template(tokenizer)))
    template.globals["strftime_now"] = _clock(config.date)
    return str(
        template.render(
            **{**tokenizer.special_tokens_map, **config.template_options},
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=opened,
        )
    )


def fill_chat(
    tokenizer: Any, turns: Sequence[Mapping[str, str]], config: PromptConfig, what: str, advice: str = ""
) -> str:
    """Return the chat template filled with turns whose contents are marks, each unlike the others.

    Where it has no system turn, the first user's turn holds it. Raises ModelError, which names `what` was to be held,
    when it does not show every mark once, in order.
    """
    forms = [list(turns)]
    if [turn["role"] for turn in turns[:2]] == ["system", "user"]:  # some templates have no system turn
        both = f"{turns[0]['content']}\n\n{turns[1]['content']}"
        forms.append([{"role": "user", "content": both}, *turns[2:]])
    marks = [turn["content"] for turn in turns]
    mark = re.compile("|".join(map(re.escape, marks)))
    problems = []
    for form in forms:
        try:
            text = render_chat(tokenizer, form, config)
        except ModelError:
            raise
        except Exception as error:  # a template may raise anything; it is reported below
            problems.append(str(error))
            continue
        if mark.findall(text) == marks:
            return text
        problems.append("it does not show every turn once, in order")
    raise ModelError(f"The model's chat template cannot hold {what} ({'; '.join(problems)}).{advice}")


def check_options(tokenizer: Any, config: PromptConfig) -> None:
    """Raise ConfigError when `prompt.template_options` holds what the chat template never asks for."""
    if not config.template_options:
        return
    template = chat_template(tokenizer)
    if config.style != "chat" or template is None:
        why = "prompt.style is paper" if config.style != "chat" else "the model has no chat template"
        raise ConfigError(f"prompt.template_options has no effect here: {why}. Leave it unset.")
    known = template_variables(template) - _given(tokenizer)
    for name in config.template_options:
        if name not in known:
            hint = nearest(name, sorted(known)) if known else " It takes none."
            raise ConfigError(f"prompt.template_options: the model's chat template has no option '{name}'.{hint}")


def template_variables(template: str) -> set[str]:
    """Return the variables that a chat template reads."""
    return set(meta.find_undeclared_variables(_compiled(template).environment.parse(template)))


def turn_end(tokenizer: Any, config: PromptConfig) -> list[int]:
    """Return the tokens that the chat template writes right after an assistant's turn.

    The token of a last turn comes first. Empty without a template, and for a template that ends a turn with text. Some
    models are published with another end token in their settings, which the template never writes.
    """
    if chat_template(tokenizer) is None:
        return []
    tokens = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.content}
    turns = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _ANSWERED}]
    end_tokens = []
    for messages in (turns, [*turns, turns[0]]):
        try:
            text = render_chat(tokenizer, messages, config, opened=False)
        except Exception:  # a template may raise anything; where its turns are needed, it is reported
            continue
        # Spaces may stand between answer and end (Llama-2), but a line end is an end of its own.
        following = text.rpartition(_ANSWERED)[2].lstrip(" ")
        if begins := [content for content in tokens if following.startswith(content) and content.strip()]:
            end_tokens.append(tokens[max(begins, key=len)])
    return list(dict.fromkeys(end_tokens))


def open_thought(text: str) -> str | None:
    """Return the tag, such as ``<think>``, of a thought left open at a rendered chat's end, or None."""
    tags = list(_THOUGHT.finditer(text))
    return tags[-1][0] if tags and not tags[-1][1] else None


def today() -> datetime.date:
    """Return the date in UTC, as runs record it."""
    return datetime.datetime.now(datetime.UTC).date()


def _given(tokenizer: Any) -> set[str]:
    """Return the names of a template's variables that are no options."""
    arguments = set(inspect.signature(tokenizer.apply_chat_template).parameters)
    return {"messages", "raise_exception", "strftime_now", *arguments, *tokenizer.special_tokens_map}


def _compiled(template: str) -> Any:
    """Return a chat template compiled by transformers; its filters and functions give the same every time."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    compiled = _compile_jinja_template(template)
    compiled.environment.filters["random"] = _chance
    compiled.globals["lipsum"] = _chance
    return compiled


def _chance(*_: Any, **__: Any) -> str:
    raise ModelError(
        "The model's chat template draws something at random, so no answer could be repeated. "
        "Use --prompt-style paper, or a model whose template does not."
    )


def _clock(date: datetime.date | None) -> Any:
    """Return the function by which a template asks for the date."""

    def strftime_now(form: str) -> str:
        odd = [match[0] for match in _DIRECTIVE.finditer(form) if match[1] not in _OF_A_DATE]
        if odd:
            raise ModelError(
                f"The model's chat template writes the time of day ('{odd[0]}' in '{form}'), so no answer could be "
                "repeated. Use --prompt-style paper, or a model whose template writes at most a date."
            )
        return (date or today()).strftime(form)

    return strftime_now
