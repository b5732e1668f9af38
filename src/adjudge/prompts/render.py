"""Render a row as token ids.

A prompt is the instruction, the answer form, the demonstrations, the row's input, and the opened answer slot.
With ``prompt.analysis=before`` the opened slot is for the analysis. Sampling, training and evaluation use the same
rendering.

A prompt is tokenised as one text, but what data spell is never a control token: ``<|im_end|>`` in a review stays plain
characters and does not end a turn (`adjudge.models.plain_text`).

Source: the prompt of arXiv 2410.11020 (system instruction, answer form ``<Judgement> … </Judgement>``, opened
``<Judgement>``). The plain form (``--prompt-style paper``, and models without a chat template) has the paper's three
headings. Ours differs in writing out every allowed answer: a small model then follows the form three times as often.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from adjudge.config import PromptConfig
from adjudge.errors import ConfigError
from adjudge.models.engine.batch import shared_start
from adjudge.models.plain_text import NEUTRAL, PlainText, encodable, widest_token
from adjudge.prompts.answers import CLOSING_ANALYSIS, CLOSING_TAG, OPENING_ANALYSIS, OPENING_TAG, answer_text
from adjudge.prompts.chat import (
    chat_template,
    check_options,
    fill_chat,
    open_thought,
    template_variables,
    turn_end,
)
from adjudge.prompts.shortening import cut, divide, surely_needed
from adjudge.system.console import warn
from adjudge.tasks.sets import NOTHING
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.template import compiled
from adjudge.types import Example, Explained, Prompt

_SLOT = "adjudge-slot-{}-of-the-prompt"
_SLOTS = re.compile(_SLOT.format(r"(\d+)"))
_SURELY_SHORT = 20_000
"""A field of up to this many characters is tokenised whole; a longer one is cut first if it cannot fit."""

_SMALLEST_PIECE, _JOINTS = 16, 6
"""Fewest tokens of a piece of a text that is divided, and room for more: the bytes of its last character are not
divided, and tokens may arise where it meets the rest."""

_LISTED_ANSWERS = 6
"""The answer form is written out for each label word, up to this many words."""


class _Fixed(NamedTuple):
    """The beginning that all prompts share: ids up to a control token, if any, and the texts after it."""

    ids: list[int]
    anchor: str
    parts: list[str]
    """Template, data, template, … up to the row."""


class Renderer:
    """Renders rows of one task for one tokenizer.

    Rendering raises ConfigError when the fixed part of the prompt leaves too little room for a row.
    """

    def __init__(
        self, tokenizer: Any, spec: TaskSpec, config: PromptConfig, demonstrations: Sequence[Example] = ()
    ) -> None:
        self.spec, self.config = spec, config
        self._tokenizer = tokenizer
        self._opened = OPENING_ANALYSIS if config.analysis == "before" else OPENING_TAG
        check_options(tokenizer, config)
        self.uses_template = config.style == "chat" and chat_template(tokenizer) is not None
        """True if prompts have the form of the model's chat template."""
        self._turn_end = turn_end(tokenizer, config)
        self._parts = self._template_parts(slots=2 + 2 * len(demonstrations))
        if self.uses_template and (tag := open_thought(self._parts[-1])) is not None:
            _warn_of_thought(tag, "enable_thinking" in template_variables(chat_template(tokenizer) or ""))
        self._plain = PlainText(tokenizer, "".join(self._parts[::2]))
        self._widest: int | None = None
        self._between: tuple[str, str] | None = None
        self._fixed_contents = self._contents(demonstrations)
        self._fixed = self._fix()
        self._fixed_tokens = len(self._ids(""))

    def end_ids(self, configured: Sequence[int]) -> list[int]:
        """Return the tokens that end an answer's turn; training teaches the first.

        In a chat that is the token which the template writes after an assistant's turn, whatever the model's settings
        (`configured`) name; in the plain form it is theirs.
        """
        both = (self._turn_end, configured) if self.uses_template else (configured, self._turn_end)
        return list(dict.fromkeys(token for tokens in both for token in tokens))

    def text(self, example: Example) -> str:
        """Return the prompt as text, with special tokens spelled out."""
        return "".join(self._filled(self._input(example.fields)))

    def prompt(self, example: Example) -> Prompt:
        """Return one row as a prompt; shorten its longest field when the prompt would exceed `max_tokens`."""
        most = self.config.max_tokens
        room = most - self._fixed_tokens
        bounded, too_long = self._bounded(example.fields, room)
        if not too_long and len(ids := self._ids(self._input(bounded))) <= most:
            return Prompt(ids=tuple(ids), shortened=False)
        ids = self._ids(self._shorten(example.fields, most, room, lambda text: len(self._ids(text))))
        if len(ids) > most:
            raise ConfigError(
                f"The fixed part of the prompt leaves {room} of {most} tokens for a row of "
                f"{self.spec.name}. Raise prompt.max_tokens, or lower prompt.demonstrations."
            )
        return Prompt(ids=tuple(ids), shortened=True)

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """Return the rows as prompts, in their order."""
        return [self.prompt(example) for example in examples]

    def pieces(self, example: Example) -> list[Example]:
        """Return a row that is too long as several rows, each with the next piece of its longest field.

        The row itself is returned where its other fields leave too little room for a piece.
        """
        fields, _ = self._bounded(example.fields, self.config.max_tokens)
        longest = max(fields, key=lambda name: len(fields[name]))
        room = self.config.max_tokens - len(self._ids(self._input({**fields, longest: ""}))) - _JOINTS
        if room < _SMALLEST_PIECE:
            return [example]
        text = encodable(str(example.fields[longest]).strip())
        return [
            replace(example, fields={**example.fields, longest: piece}) for piece in divide(self._plain, text, room)
        ]

    def instruction_ids(self) -> list[int]:
        """Return the tokens that begin every prompt, up to the end of the instruction and the answer form."""
        whole = self._ids("")
        instruction = self._plain.ids(self._filled("")[:2])
        bos = self._added_bos()
        if bos is not None and whole[:1] == [bos] and instruction[:1] != [bos]:
            instruction = [bos, *instruction]
        return whole[: shared_start(whole, instruction)]

    def next_turn(self, closing: str, text: str) -> list[int]:
        """Return the ids after a model's answer: its `closing`, a user's turn of `text`, the opened answer.

        `closing` is what the answer lacks of its last tag. Raises ModelError for a template without such turns.
        """
        if self._between is None:
            parts = self._template_parts(slots=4)  # system, row, answer, text
            self._between = parts[6], parts[8]
        end_of_answer, opened = self._between
        return self._plain.ids([closing + end_of_answer, user_turn(text, self.config), opened], NEUTRAL[0])

    def _shorten(self, fields: Mapping[str, str], most: int, room: int, size: Callable[[str], int]) -> str:
        """Return a row's input with a `size` of at most `most`, if possible; about `room` tokens are its own.

        The longest field is cut first, down to the next longest, then both, and so on.
        """
        fields, _ = self._bounded(fields, room)
        while (over := size(self._input(fields)) - most) > 0:
            lengths = {name: self._length(text) for name, text in fields.items()}
            longest = max(lengths, key=lambda name: lengths[name])
            if lengths[longest] <= 1:
                break
            tokens = max(1, _level(list(lengths.values()), over))
            fields[longest] = cut(self._plain, fields[longest], tokens, self.config.truncation)
        return self._input(fields)

    def _bounded(self, fields: Mapping[str, str], limit: int) -> tuple[dict[str, str], bool]:
        """Return the fields without text that is surely beyond `limit` tokens, and whether any was cut.

        This avoids tokenising a megabyte to get a few hundred tokens.
        """
        # Stripped first, as in the input: invisible white space must not make a field the longest.
        stripped = {name: encodable(str(text).strip()) for name, text in fields.items()}
        if max(map(len, stripped.values()), default=0) <= _SURELY_SHORT:
            return stripped, False
        if self._widest is None:
            self._widest = widest_token(self._tokenizer)
        most = max(1, limit) * self._widest
        any_cut = any(len(text) > most for text in stripped.values())
        truncation = self.config.truncation
        return {name: surely_needed(text, most, truncation) for name, text in stripped.items()}, any_cut

    def _length(self, text: str) -> int:
        return len(self._plain.following(text))

    def _ids(self, row_input: str) -> list[int]:
        """Return the prompt's ids with the row's input.

        They are those of the whole text where data spell no control token.
        """
        fixed = self._fixed
        return [*fixed.ids, *self._plain.ids([*fixed.parts, row_input, self._parts[-1]], fixed.anchor)]

    def _fix(self) -> _Fixed:
        """Return the beginning of all prompts, tokenised as far as nothing after it can change its tokens."""
        *parts, row, after = self._filled("x")
        bos = [] if (bos_id := self._added_bos()) is None else [bos_id]
        whole = self._plain.ids([*parts, row, after])
        if whole[: len(bos)] != bos:
            whole = [*bos, *whole]
        else:
            bos = []
        anchor, begin = self._plain.last_control(parts[-1])
        if anchor:
            end = begin + len(anchor)
            ids = [*bos, *self._plain.ids([*parts[:-1], parts[-1][:end]])]
            rest = [parts[-1][end:]]
            if [*ids, *self._plain.ids([*rest, row, after], anchor)] == whole:
                return _Fixed(ids, anchor, rest)
        return _Fixed(bos, "", parts)

    def _filled(self, row_input: str) -> list[str]:
        """Return the prompt's text as template, data, template, data, … in turn."""
        contents = [*self._fixed_contents, row_input]
        return [contents[int(part)] if index % 2 else part for index, part in enumerate(self._parts)]

    def _added_bos(self) -> int | None:
        """Return the token that the tokenizer puts before every text, if it does so."""
        bos = self._tokenizer.bos_token_id
        return bos if bos is not None and self._tokenizer("x").input_ids[:1] == [bos] else None

    def _contents(self, demonstrations: Sequence[Example]) -> list[str]:
        """Return the texts of the slots before the row's: instruction, input and answer of each demonstration."""
        contents = [first_turn(self.spec, self.config)]
        limit = self.config.demonstration_tokens
        for demonstration in demonstrations:
            contents.append(self._shorten(demonstration.fields, limit, limit, self._length))
            contents.append(shown_answer(demonstration, self.spec))
        return contents

    def _template_parts(self, slots: int) -> list[str]:
        """Return the template split at its slots: text, slot number, text, …, text.

        The last text ends with the opened answer.
        """
        if self.uses_template:
            return _SLOTS.split(self._chat(slots) + self._opened)
        text = f"System_prompt:\n{_SLOT.format(0)}\n"
        for slot in range(1, slots):
            text += f"{'Prompt' if slot % 2 else 'Assistant'}:\n{_SLOT.format(slot)}\n"
        return _SLOTS.split(f"{text}Assistant:\n{self._opened}")

    def _chat(self, slots: int) -> str:
        """Return the model's chat template filled with slots.

        Raises ModelError when it does not show every slot once, in order.
        """
        roles = ["system", *("user" if slot % 2 else "assistant" for slot in range(1, slots))]
        turns = [{"role": role, "content": _SLOT.format(slot)} for slot, role in enumerate(roles)]
        advice = " Use --prompt-style paper for the plain form."
        return fill_chat(self._tokenizer, turns, self.config, "this prompt", advice)

    def _input(self, fields: Mapping[str, str]) -> str:
        return row_turn(fields, self.spec, self.config)


@lru_cache(maxsize=8)  # once, however many tasks and judges a process has
def _warn_of_thought(tag: str, can_be_closed: bool) -> None:
    mend = (
        "Set prompt.template_options.enable_thinking=false."
        if can_be_closed
        else "Use --prompt-style paper, or a model that answers at once."
    )
    warn(f"the model's chat template leaves a thought open ({tag}), so answers are written inside it. {mend}")


def first_turn(spec: TaskSpec, config: PromptConfig) -> str:
    """Return what begins every prompt: the instruction, and how to write an answer."""
    return f"{spec.instruction.strip()}\n{answer_form(spec, config.analysis)}"


def row_turn(fields: Mapping[str, str], spec: TaskSpec, config: PromptConfig) -> str:
    """Return a row as the model reads it."""
    values = {name: str(value).strip() for name, value in fields.items()}
    return user_turn(compiled(spec.template, tuple(spec.fields)).render(values).strip(), config)


def user_turn(text: str, config: PromptConfig) -> str:
    """Return a text as a user's turn, which ends with what the model is to write first."""
    opened = OPENING_ANALYSIS if config.analysis == "before" else OPENING_TAG
    return f"{text}\n{opened[1:-1]}:" if config.style == "chat" else text


def shown_answer(demonstration: Example, spec: TaskSpec) -> str:
    """Return the answer of a worked example, after any explanation.

    Raises ConfigError without a gold answer.
    """
    if demonstration.gold is None:
        raise ConfigError(f"{demonstration.id}: a demonstration needs a gold answer.")
    answer = f"{OPENING_TAG}{answer_text(demonstration.gold, spec)}{CLOSING_TAG}"
    if isinstance(demonstration, Explained):
        return f"{OPENING_ANALYSIS}{demonstration.explanation}{CLOSING_ANALYSIS}\n{answer}"
    return answer


def answer_form(spec: TaskSpec, analysis: bool | Literal["before"] = False) -> str:
    """Return the sentences which tell the model how to write its answer, and where to write an analysis."""
    form = _judgement_form(spec)
    where = f"in one or two sentences, between {OPENING_ANALYSIS} and {CLOSING_ANALYSIS}."
    if analysis == "before":
        return f"First explain your reasoning {where} Then {form[0].lower()}{form[1:]}"
    return f"{form} After it, explain it {where}" if analysis else form


def _judgement_form(spec: TaskSpec) -> str:
    if spec.number is not None:
        low, high = (answer_text(end, spec) for end in (spec.number.low, spec.number.high))
        return f"Give the answer as {OPENING_TAG}number{CLOSING_TAG}, with a number from {low} to {high}."
    if spec.several:
        return (
            f"Give the answer as {OPENING_TAG}labels{CLOSING_TAG}, with all that apply of: {', '.join(spec.names)}; in "
            f'this order, with commas between them, or "{NOTHING}".'
        )
    if len(spec.words) > _LISTED_ANSWERS:
        return f"Give the answer as {OPENING_TAG}word{CLOSING_TAG}, with one of: {', '.join(spec.words)}."
    forms = [f"{OPENING_TAG}{word}{CLOSING_TAG}" for word in spec.words]
    listed = f"{', '.join(forms[:-1])} or {forms[-1]}" if len(forms) > 1 else forms[0]
    return f"Give the answer as {listed}."


def _level(lengths: Sequence[int], over: int) -> int:
    """Return the length to cut all longer fields to, which removes `over` tokens in total."""
    ordered = sorted(lengths, reverse=True)
    level = 0
    for count, following in enumerate([*ordered[1:], 0], 1):
        level = (sum(ordered[:count]) - over) // count
        if level >= following:
            break
    return level
