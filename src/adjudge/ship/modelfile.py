"""Ollama's Modelfile: the prompt of a task around the text to judge, as adjudge writes it."""

from __future__ import annotations

from typing import Any

from adjudge.config import Config
from adjudge.prompts.answers import CLOSING_ANALYSIS, CLOSING_TAG, OPENING_TAG
from adjudge.prompts.render import Renderer
from adjudge.rollout.answer_end import answer_end, answer_ids
from adjudge.tasks.passes import asked_task
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.template import compiled
from adjudge.types import Example

MARK = "the-field-{}-of-the-row"
LEAST_TOKENS = 32
PROMPT = "{{ .Prompt }}"
"""Ollama's place for what the user sends."""


def modelfile(config: Config, spec: TaskSpec, tokenizer: Any, model: str) -> str:
    """Return the Modelfile of a task: `model` is the file beside it.

    The user sends the text of a task with one field; for several fields, the row as the task's template writes it. A
    task that is asked label by label has the label as one of them.
    """
    spec = asked_task(spec)
    fields = {name: MARK.format(name) for name in spec.fields}
    text = Renderer(tokenizer, spec, config.prompt).text(Example("row", fields))
    row = compiled(spec.template, tuple(spec.fields)).render(fields).strip()
    one = MARK.format(next(iter(fields)))
    sent = one if len(fields) == 1 else row
    before, _, after = text.partition(sent)
    prompt = f"{_literal(before)}{PROMPT}{_literal(after)}"
    send = "the text to judge" if len(fields) == 1 else f"a row written like this:\n#   {row!r}"
    lines_end = config.answer.stop == "line" and config.prompt.analysis != "before"
    lines = [
        f"# {spec.title}. Send {send}",
        "# ollama create judge -f Modelfile && ollama run judge 'A text to judge.'",
        f"FROM ./{model}",
        f'TEMPLATE """{prompt}"""',
        "PARAMETER temperature 0",
        f"PARAMETER stop {CLOSING_TAG}",
        *([r'PARAMETER stop "\n"'] if lines_end else []),
        f"PARAMETER num_predict {_most_tokens(config, spec, tokenizer)}",
    ]
    return "\n".join(lines) + "\n"


def _most_tokens(config: Config, spec: TaskSpec, tokenizer: Any) -> int:
    """Return the longest answer in tokens, with an analysis before it and the tags between them."""
    longest = max(LEAST_TOKENS, answer_end(tokenizer, (tokenizer.eos_token_id,), spec, config.answer).max_tokens)
    if config.prompt.analysis != "before":
        return longest
    between = f"{CLOSING_ANALYSIS}\n{OPENING_TAG}"
    return longest + config.answer.analysis_tokens + len(answer_ids(tokenizer, between))


def _literal(text: str) -> str:
    """Return text as Ollama's template language reads it: two opening braces would begin an expression."""
    return text.replace("{{", '{{ "{{" }}').replace('"""', '""\\"')
