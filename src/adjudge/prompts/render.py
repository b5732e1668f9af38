"""From a row to token ids: instruction, answer form, demonstrations, input, and the opened answer slot.

With ``prompt.analysis=before`` the opened slot is the analysis's.

The same rendering serves sampling, training and evaluation. Text that comes from data is tokenised apart from the template's own
text, with special tokens switched off: ``<|im_end|>`` in a review stays seven characters and ends no turn.

Source: the prompt of arXiv 2410.11020 (system instruction, answer form ``<Judgement> … </Judgement>``, opened ``<Judgement>``); the
plain form (``--prompt-style paper``, and models without a chat template) has its three headings.
Ours differs in naming every allowed answer in its form: the small model answers in the asked form three times as often.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from adjudge.config import PromptConfig
from adjudge.errors import ConfigError, ModelError
from adjudge.models.plain_text import acting_tokens, encodable, end_of_tokens, plain_ids, widest_token
from adjudge.prompts.answers import CLOSING_ANALYSIS, CLOSING_TAG, OPENING_ANALYSIS, OPENING_TAG, answer_text
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.template import compiled
from adjudge.types import Example, Prompt

_SLOT = "adjudge-slot-{}-of-the-prompt"
_SLOTS = re.compile(_SLOT.format(r"(\d+)"))
_SURELY_SHORT = 20_000
"""Characters of a field that are tokenised in any case; whether a longer one can fit is found out first."""

_LISTED_ANSWERS = 6
"""Up to this many label words the answer form is written out for each."""


class Renderer:
    """Renders rows of one task for one tokenizer.

    Raises ConfigError when the fixed part of the prompt alone leaves no room for a row.
    """

    def __init__(
        self, tokenizer: Any, spec: TaskSpec, config: PromptConfig, demonstrations: Sequence[Example] = ()
    ) -> None:
        self.spec, self.config = spec, config
        self._tokenizer = tokenizer
        self._demonstrations = list(demonstrations)
        self._opened = OPENING_ANALYSIS if config.analysis == "before" else OPENING_TAG
        self._parts = self._template_parts()
        self._apart = acting_tokens(tokenizer, "".join(self._parts[::2]))
        self._widest: int | None = None
        self._static = self._build_static()

    def text(self, example: Example) -> str:
        """The prompt as a person reads it (special tokens spelled out)."""
        contents = self._contents(example.fields)
        return "".join(contents[int(part)] if index % 2 else part for index, part in enumerate(self._parts))

    def prompt(self, example: Example) -> Prompt:
        """Render and tokenise one row, its longest field shortened when the prompt would exceed `max_tokens`."""
        before, after = self._static
        room = self.config.max_tokens - len(before) - len(after)
        ids, shortened = self._fit(example.fields, room)
        return Prompt(ids=(*before, *ids, *after), shortened=shortened)

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """Render and tokenise rows, in their order."""
        return [self.prompt(example) for example in examples]

    def _fit(self, fields: Mapping[str, str], room: int) -> tuple[list[int], bool]:
        bounded, too_long = self._bounded(fields, room)
        if not too_long and len(ids := self._data_ids(self._input(bounded))) <= room:
            return ids, False
        ids = self._data_ids(self._shorten(fields, room))
        if len(ids) > room:
            raise ConfigError(
                f"The fixed part of the prompt leaves {room} of {self.config.max_tokens} tokens for a row of {self.spec.name}. "
                "Raise prompt.max_tokens, or lower prompt.demonstrations."
            )
        return ids, True

    def _shorten(self, fields: Mapping[str, str], limit: int) -> str:
        """A row's input, its longest field cut (then the next longest too) until it has `limit` tokens or nothing is left to cut."""
        fields, _ = self._bounded(fields, limit)
        while (over := len(self._data_ids(self._input(fields))) - limit) > 0:
            lengths = {name: len(self._data_ids(text)) for name, text in fields.items()}
            longest = max(lengths, key=lambda name: lengths[name])
            if lengths[longest] <= 1:
                break
            fields[longest] = self._cut(fields[longest], max(1, _level(list(lengths.values()), over)))
        return self._input(fields)

    def _bounded(self, fields: Mapping[str, str], limit: int) -> tuple[dict[str, str], bool]:
        """The fields without what is beyond `limit` tokens in any case, and whether anything was.

        A megabyte is not tokenised for the sake of a few hundred tokens.
        """
        # Stripped first, as the input is: white space that is not shown must not make a field the longest.
        stripped = {name: encodable(str(text).strip()) for name, text in fields.items()}
        if max(map(len, stripped.values()), default=0) <= _SURELY_SHORT:
            return stripped, False
        if self._widest is None:
            self._widest = widest_token(self._tokenizer)
        most = max(1, limit) * self._widest
        return {name: text[: most + 1] for name, text in stripped.items()}, any(
            len(text) > most for text in stripped.values()
        )

    def _cut(self, text: str, tokens: int) -> str:
        end = end_of_tokens(self._tokenizer, text, tokens, self._apart)
        return text[: end if end < len(text) else len(text) - 1].rstrip()

    def _build_static(self) -> tuple[list[int], list[int]]:
        """Ids before and after the row's own text."""
        contents = self._contents({})
        row = str(len(contents) - 1)
        halves: tuple[list[int], list[int]] = ([], [])
        seen = 0
        for index, part in enumerate(self._parts):
            if index % 2 == 0:
                halves[seen].extend(self._control_ids(part))
            elif part == row:
                seen = 1
            else:
                halves[seen].extend(self._data_ids(contents[int(part)]))
        before, after = halves
        probe = self._tokenizer("x").input_ids
        bos = self._tokenizer.bos_token_id
        if bos is not None and probe[:1] == [bos] and before[:1] != [bos]:
            before.insert(0, bos)
        return before, after

    def _contents(self, fields: Mapping[str, str]) -> list[str]:
        """What fills the slots: the instruction, then input and answer of each demonstration, then the row's input."""
        contents = [f"{self.spec.instruction.strip()}\n{answer_form(self.spec, self.config.analysis)}"]
        for demonstration in self._demonstrations:
            if demonstration.gold is None:
                raise ConfigError(f"{demonstration.id}: a demonstration needs a gold answer.")
            contents.append(self._shorten(demonstration.fields, self.config.demonstration_tokens))
            contents.append(f"{OPENING_TAG}{answer_text(demonstration.gold, self.spec)}{CLOSING_TAG}")
        contents.append(self._input(fields) if fields else "")
        return contents

    def _template_parts(self) -> list[str]:
        """The template around the slots: text, slot number, text, slot number, …, text (it ends with the opened answer)."""
        slots = 2 + 2 * len(self._demonstrations)
        if self.config.style == "chat" and getattr(self._tokenizer, "chat_template", None):
            return _SLOTS.split(self._chat(slots) + self._opened)
        text = f"System_prompt:\n{_SLOT.format(0)}\n"
        for slot in range(1, slots):
            text += f"{'Prompt' if slot % 2 else 'Assistant'}:\n{_SLOT.format(slot)}\n"
        return _SLOTS.split(f"{text}Assistant:\n{self._opened}")

    def _chat(self, slots: int) -> str:
        turns = [
            {"role": "user" if slot % 2 else "assistant", "content": _SLOT.format(slot)} for slot in range(1, slots)
        ]
        system = {"role": "system", "content": _SLOT.format(0)}
        merged = [{"role": "user", "content": f"{_SLOT.format(0)}\n\n{_SLOT.format(1)}"}, *turns[1:]]
        problems = []
        for messages in ([system, *turns], merged):  # some templates know no system turn
            try:
                text = str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
            except Exception as error:  # a template may raise anything; it is reported below
                problems.append(str(error))
                continue
            if [int(slot) for slot in _SLOTS.findall(text)] == list(range(slots)):
                return text
            problems.append("it does not show every turn once, in order")
        raise ModelError(
            f"The model's chat template cannot carry this prompt ({'; '.join(problems)}). Use --prompt-style paper for the plain form."
        )

    def _input(self, fields: Mapping[str, str]) -> str:
        text = compiled(self.spec.template, tuple(self.spec.fields)).render(
            {name: str(value).strip() for name, value in fields.items()}
        )
        return f"{text.strip()}\n{self._opened[1:-1]}:" if self.config.style == "chat" else text.strip()

    def _control_ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids) if text else []

    def _data_ids(self, text: str) -> list[int]:
        return plain_ids(self._tokenizer, text, self._apart)


def answer_form(spec: TaskSpec, analysis: bool | Literal["before"] = False) -> str:
    """What says how an answer is written, and where an analysis stands, if one is asked for."""
    form = _judgement_form(spec)
    where = f"in one or two sentences, between {OPENING_ANALYSIS} and {CLOSING_ANALYSIS}."
    if analysis == "before":
        return f"First explain your reasoning {where} Then {form[0].lower()}{form[1:]}"
    return f"{form} After it, explain it {where}" if analysis else form


def _judgement_form(spec: TaskSpec) -> str:
    if spec.number is not None:
        low, high = (answer_text(end, spec) for end in (spec.number.low, spec.number.high))
        return f"Give the answer as {OPENING_TAG}number{CLOSING_TAG}, with a number from {low} to {high}."
    if len(spec.words) > _LISTED_ANSWERS:
        return f"Give the answer as {OPENING_TAG}word{CLOSING_TAG}, with one of: {', '.join(spec.words)}."
    forms = [f"{OPENING_TAG}{word}{CLOSING_TAG}" for word in spec.words]
    listed = f"{', '.join(forms[:-1])} or {forms[-1]}" if len(forms) > 1 else forms[0]
    return f"Give the answer as {listed}."


def _level(lengths: Sequence[int], over: int) -> int:
    """The length to cut all longer fields to, so that `over` tokens go: below the second longest only where that must be."""
    ordered = sorted(lengths, reverse=True)
    level = 0
    for count, following in enumerate([*ordered[1:], 0], 1):
        level = (sum(ordered[:count]) - over) // count
        if level >= following:
            break
    return level
