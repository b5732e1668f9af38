"""Tasks for Inspect AI: one Python file, and the rows beside it.

Inspect AI asks with messages and gets a text back. So the rows are those of a model behind an API
(`adjudge.prompts.messages`), and the file reads an answer as `read_reply` does: strictly. There are no probabilities,
so this is greedy judging, without the opened ``<Judgement>`` of our own prompts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from adjudge.config import Config
from adjudge.prompts.messages import answer_limit, prompt_messages
from adjudge.ship.neighbours.asking import file_name, right_answer
from adjudge.system.files import write_text
from adjudge.tasks.answer_words import FINAL_PUNCTUATION
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

FILE = "adjudge_tasks.py"

_HEAD = '''"""Tasks of adjudge for Inspect AI: `inspect eval adjudge_tasks.py@NAME --model …`."""

import unicodedata
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import CORRECT, INCORRECT, Score, accuracy, scorer, stderr
from inspect_ai.solver import generate


def read(text, words):
    """Return the one of the words that the text is, or None: nothing is searched for in a longer text.

    White space, one opening tag, case and final punctuation are forgiven.
    """
    body = text.strip().removeprefix("<Judgement>").lstrip(" \\t").replace("\\r", "\\n")
    body = body.partition("\\n")[0].partition("</Judgement>")[0]
    for form in (as_it_stands, without_final_punctuation, folded):
        found = [word for word in words if form(body) and form(word) == form(body)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def as_it_stands(text):
    return unicodedata.normalize("NFC", " ".join(text.split()))


def without_final_punctuation(text):
    return as_it_stands(text).rstrip("FINAL_PUNCTUATION ")


def folded(text):
    return unicodedata.normalize("NFC", without_final_punctuation(text).casefold())


@scorer(metrics=[accuracy(), stderr()])
def judgement(words):
    """Right or wrong; an unreadable answer is wrong."""

    async def score(state, target):
        answer = read(state.output.completion, words)
        return Score(value=CORRECT if answer == target.text else INCORRECT, answer=answer or "unreadable")

    return score


def judged(name, words, max_tokens):
    """Return the task with the rows of the file of this name."""
    rows = json_dataset(str(Path(__file__).parent / f"{name}.jsonl"), name=name)
    config = GenerateConfig(temperature=0.0, max_tokens=max_tokens)
    return Task(dataset=rows, solver=generate(), scorer=judgement(words), config=config)
'''


def write(folder: Path, config: Config, judged: Iterable[tuple[TaskSpec, Sequence[Example]]]) -> dict[str, int]:
    """Write the Python file and the rows of each task; return their numbers.

    Raises DataError for a row without an answer.
    """
    functions, counts = [], {}
    for spec, examples in judged:
        name = file_name(spec)
        lines = (json.dumps(_record(spec, config, example), ensure_ascii=False) for example in examples)
        write_text(folder / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
        words = json.dumps(list(spec.words), ensure_ascii=False)
        call = f'judged("{name}", {words}, {answer_limit(spec, config)})'
        functions.append(f"\n\n@task\ndef {name}():\n    return {call}\n")
        counts[spec.name] = len(examples)
    head = _HEAD.replace("FINAL_PUNCTUATION", FINAL_PUNCTUATION)
    write_text(folder / FILE, head + "".join(functions))
    return counts


def _record(spec: TaskSpec, config: Config, example: Example) -> dict[str, Any]:
    right = spec.words[right_answer(spec, example)]
    return {"id": example.id, "input": prompt_messages(example, spec, config.prompt), "target": right}
