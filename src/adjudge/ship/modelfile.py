"""Ollama's Modelfile: the prompt of a task around the text to judge, as adjudge writes it."""

from __future__ import annotations

from typing import Any

from adjudge.config import Config
from adjudge.prompts.answers import CLOSING_TAG
from adjudge.prompts.render import Renderer
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.template import compiled
from adjudge.types import Example

MARK = "the-field-{}-of-the-row"
PROMPT = "{{ .Prompt }}"
"""Ollama's place for what the user sends."""


def modelfile(config: Config, spec: TaskSpec, tokenizer: Any, model: str) -> str:
    """Return the Modelfile of a task: `model` is the file beside it.

    The user sends the text of a task with one field; for several fields, the row as the task's template writes it.
    """
    fields = {name: MARK.format(name) for name in spec.fields}
    text = Renderer(tokenizer, spec, config.prompt).text(Example("row", fields))
    row = compiled(spec.template, tuple(spec.fields)).render(fields).strip()
    one = MARK.format(next(iter(fields)))
    sent = one if len(fields) == 1 else row
    before, _, after = text.partition(sent)
    prompt = f"{_literal(before)}{PROMPT}{_literal(after)}"
    send = "the text to judge" if len(fields) == 1 else f"a row written like this:\n#   {row!r}"
    lines = [
        f"# {spec.title}. Send {send}",
        "# ollama create judge -f Modelfile && ollama run judge 'A text to judge.'",
        f"FROM ./{model}",
        f'TEMPLATE """{prompt}"""',
        "PARAMETER temperature 0",
        f"PARAMETER stop {CLOSING_TAG}",
        r'PARAMETER stop "\n"',
        "PARAMETER num_predict 32",
    ]
    return "\n".join(lines) + "\n"


def _literal(text: str) -> str:
    """Return text as Ollama's template language reads it: two opening braces would begin an expression."""
    return text.replace("{{", '{{ "{{" }}').replace('"""', '""\\"')
