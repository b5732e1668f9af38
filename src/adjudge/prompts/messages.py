"""Prompts as messages for a model behind an API.

They have the same parts as `adjudge.prompts.render` puts into token ids. Two things differ. The model's turn cannot be
opened with a tag, so it may write the tag itself (`read_reply`). And no text is shortened: the tokens of a model behind
an API cannot be counted here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from adjudge.config import Config, PromptConfig
from adjudge.models.plain_text import encodable
from adjudge.prompts.answers import (
    CLOSING_ANALYSIS,
    CLOSING_TAG,
    OPENING_ANALYSIS,
    OPENING_TAG,
    answer_text,
    read_answer,
)
from adjudge.prompts.render import first_turn, row_turn, shown_answer
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.template import compiled
from adjudge.types import Example, Judgement

Messages = list[dict[str, str]]

_SPARE_CHARACTERS = 16
"""Room for white space and an end of turn in an answer."""

_ANALYSIS_CHARACTERS = 24
"""Room for the tags of an analysis."""


def prompt_messages(
    example: Example, spec: TaskSpec, config: PromptConfig, demonstrations: Sequence[Example] = ()
) -> Messages:
    """Return the instruction, the demonstrations and the row, one message per turn."""
    turns = [("system", first_turn(spec, config))]
    for shown in demonstrations:
        turns += [("user", row_turn(shown.fields, spec, config)), ("assistant", shown_answer(shown, spec))]
    turns.append(("user", row_turn(example.fields, spec, config)))
    return [{"role": role, "content": encodable(content)} for role, content in turns]


def read_reply(text: str, spec: TaskSpec, config: Config) -> Judgement:
    """Return the judgement of an answer in which the model may have written the opening tag itself.

    White space and one opening tag before the answer are left out, and with ``prompt.analysis=before`` the analysis.
    What follows is read as strictly as a local model's answer.
    """
    body = text
    if config.prompt.analysis == "before":
        _, closed, body = text.partition(CLOSING_ANALYSIS)
        if not closed:
            return Judgement(text, None)
    body = body.strip().removeprefix(OPENING_TAG)
    return Judgement(text, read_answer(body.lstrip(" \t"), spec, config.answer.stop).value)


def answer_limit(spec: TaskSpec, config: Config) -> int:
    """Return the most tokens of an answer, with its analysis.

    Unless ``api.max_tokens`` is set, an answer has one token per character of the longest one, its tags included, and
    an analysis its own limit.
    """
    if config.api.max_tokens is not None:
        return config.api.max_tokens
    bounds = (spec.number.low, spec.number.high) if spec.number else ()
    longest = max(map(len, [*spec.words, *(answer_text(bound, spec) for bound in bounds)]))
    analysis = config.answer.analysis_tokens + _ANALYSIS_CHARACTERS if config.prompt.analysis else 0
    return len(OPENING_TAG) + longest + len(CLOSING_TAG) + _SPARE_CHARACTERS + analysis


def answer_stops(config: Config) -> tuple[str, ...]:
    """Return the texts at which the API is asked to end an answer."""
    wanted = config.api.stop and config.answer.stop == "line" and not config.prompt.analysis
    return (CLOSING_TAG,) if wanted else ()


def row_of_turn(text: str, spec: TaskSpec, config: PromptConfig) -> dict[str, str] | None:
    """Return the fields of a row from its turn in a prompt, or None for another text.

    Where several rows have the same turn, any of them serves: their prompts are equal.
    """
    parts = _turn_parts(spec.template, tuple(spec.fields), config.style, config.analysis == "before")
    if set(parts[1::2]) != set(spec.fields) or not text.startswith(parts[0]) or not text.endswith(parts[-1]):
        return None
    fields: dict[str, str] = {}
    begin, whole = len(parts[0]), len(text) - len(parts[-1])
    for index in range(1, len(parts), 2):
        name, after = parts[index], parts[index + 1]
        end = whole if index + 2 == len(parts) else text.find(after, begin, whole)
        if end < begin:
            return None
        fields.setdefault(name, text[begin:end])
        begin = end + len(after)
    return fields if row_turn(fields, spec, config) == text else None


@lru_cache(maxsize=64)
def _turn_parts(template: str, names: tuple[str, ...], style: str, before: bool) -> list[str]:
    """Return a row's turn as text, field, text, …, text; not every field where the template changes one."""
    marks = {f"adjudgefield{index}mark": name for index, name in enumerate(names)}
    text = compiled(template, names).render({name: mark for mark, name in marks.items()}).strip()
    if style == "chat":
        text += f"\n{(OPENING_ANALYSIS if before else OPENING_TAG)[1:-1]}:"
    return [marks.get(part, part) for part in re.split(r"(adjudgefield\d+mark)", text)]


def asks_alike(messages: Sequence[Mapping[str, str]], spec: TaskSpec, config: PromptConfig) -> bool:
    """Return whether messages begin with the instruction of this task, as `prompt_messages` writes it."""
    return bool(messages) and messages[0].get("content") == encodable(first_turn(spec, config))
