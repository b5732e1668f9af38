"""What is written: which field of a task, after which words, for which labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adjudge.config import PromptConfig
from adjudge.errors import ConfigError, nearest
from adjudge.models.plain_text import PlainText
from adjudge.prompts.chat import chat_template, render_chat
from adjudge.tasks.answer_words import folded
from adjudge.tasks.spec import Generation, LabelText, TaskSpec
from adjudge.tasks.template import compiled

Form = Literal["base", "chat"]
FORMS = ("base", "chat")
_SLOT = "adjudge-text-to-write"


@dataclass(frozen=True, slots=True)
class Plan:
    """How the texts of a task or of some labels are written."""

    name: str
    fields: tuple[str, ...]
    """The row's fields; the last one is written, and a first one of two is given."""
    how: Generation
    form: Form = "base"
    """base: the model continues the prompt; chat: the prompt is a user's turn, which it answers."""

    @property
    def given(self) -> str | None:
        """Return the field whose texts are given; None where the whole row is written."""
        return self.fields[0] if len(self.fields) == 2 else None

    @property
    def words(self) -> tuple[str, ...]:
        """Return the label words, in order."""
        return tuple(self.how.labels)

    def prompt(self, word: str, given: str) -> str:
        """Return what stands before a text of a label."""
        names = () if self.given is None else (self.given,)
        text = compiled(self.how.labels[word].prompt, names).render(dict.fromkeys(names, given))
        return str(text).strip()

    def start(self, index: int) -> str:
        """Return the first words of the text with this number; empty where the model begins itself."""
        return self.how.starts[index % len(self.how.starts)] if self.how.starts else ""


def plan_for_task(spec: TaskSpec, about: str | None = None) -> Plan:
    """Return the plan of a task: its own, or the default for its labels.

    Raises ConfigError for numbers, for sets of labels, and for more than two texts.
    """
    if spec.is_number:
        raise ConfigError(
            f"{spec.name} is answered with a number, and rows are generated label by label. Name a task with labels."
        )
    if spec.several:
        raise ConfigError(
            f"{spec.name} is answered with sets of labels, and rows are generated label by label. Name a task with one "
            "label per row."
        )
    if len(spec.fields) > 2:
        raise ConfigError(f"{spec.name} has {len(spec.fields)} fields: rows with one or two texts can be generated.")
    fields = tuple(spec.fields)
    if spec.generate is not None and about is None:
        return Plan(spec.name, fields, spec.generate)
    return Plan(spec.name, fields, default_for(spec.words, fields, about))


def plan_for_labels(labels: Sequence[str], about: str | None = None) -> Plan:
    """Return the plan for labels without a task, each a word or ``RAW=WORD``. Raises ConfigError."""
    words = [label.partition("=")[2].strip() or label.strip() for label in labels]
    if repeated := next((word for word in words if words.count(word) > 1), None):
        raise ConfigError(f"--labels has '{repeated}' twice: name each label once.")
    cores = [folded(word) for word in words]
    if alike := [word for word, core in zip(words, cores, strict=True) if cores.count(core) > 1]:
        listed = " and ".join(map(repr, alike))
        raise ConfigError(f"--labels has {listed}: case and final punctuation do not count in answers.")
    if len(words) < 2:
        raise ConfigError("--labels has one label: at least two are needed, as in --labels Negative,Positive.")
    return Plan("labels", ("text",), default_for(words, ("text",), about))


def default_for(words: Sequence[str], fields: Sequence[str], about: str | None) -> Generation:
    """Return the form for any labels: ``Text labelled Positive:``, after the given text of a pair."""
    what = about or _human(fields[-1])
    before = f"{_human(fields[0])}: {{{{ {fields[0]} }}}}\n" if len(fields) == 2 else ""
    safe = re.sub(r"[{}#%]", "", what)
    texts = {word: LabelText(prompt=f"{before}{safe} labelled {re.sub(r'[{}#%]', '', word)}:") for word in words}
    return Generation(labels=texts)


def with_prompts(plan: Plan, prompts: Sequence[str]) -> Plan:
    """Return the plan with other prompts, each ``LABEL=TEXT``. Raises ConfigError for an unknown label."""
    texts = dict(plan.how.labels)
    for prompt in prompts:
        word, equals, text = prompt.partition("=")
        if not equals or not text.strip():
            raise ConfigError(f"--prompt '{prompt}': write LABEL=TEXT, as in --prompt 'Positive=A good review:'.")
        if word.strip() not in texts:
            raise ConfigError(f"--prompt: there is no label '{word.strip()}'.{nearest(word.strip(), texts)}")
        texts[word.strip()] = texts[word.strip()].model_copy(update={"prompt": text.strip()})
    return changed(plan, {"labels": texts})


def changed(plan: Plan, values: Mapping[str, Any], form: Form | None = None) -> Plan:
    """Return the plan with other values of its block, those that are not None, and another form."""
    given = {name: value for name, value in values.items() if value is not None}
    return Plan(plan.name, plan.fields, plan.how.model_copy(update=given), form or plan.form)


class PromptIds:
    """Tokenises the prompts of a plan; texts from data act as no control token."""

    def __init__(self, tokenizer: Any, plan: Plan, config: PromptConfig) -> None:
        self._plan = plan
        self._before, self._after = "", ""
        if plan.form == "chat":
            if chat_template(tokenizer) is None:
                raise ConfigError("--form chat needs a model with a chat template. Use --form base.")
            turns = [{"role": "user", "content": _SLOT}]
            self._before, _, self._after = render_chat(tokenizer, turns, config).partition(_SLOT)
        self._plain = PlainText(tokenizer, self._before + self._after)
        first = tokenizer("x").input_ids[:1]
        bos = tokenizer.bos_token_id
        self._bos = [bos] if bos is not None and first == [bos] and plan.form == "base" else []

    def of(self, word: str, given: str, start: str) -> list[int]:
        """Return the ids of a label's prompt, with the first words of the text."""
        prompt = self._plan.prompt(word, given)
        if self._plan.form == "base":
            prompt, start = f"{prompt} {start}".strip(), ""
        return [*self._bos, *self._plain.ids([self._before, prompt, self._after, start])]

    def tokens(self, text: str) -> list[int]:
        """Return the ids of a plain text, where it follows a space."""
        return self._plain.following(f" {text.strip()}")


def _human(name: str) -> str:
    words = " ".join(name.replace("_", " ").split()) or "text"
    return words[0].upper() + words[1:]
