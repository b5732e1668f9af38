"""Tasks for Inspect AI: one Python file, and the rows beside it.

Inspect AI asks with messages and gets a text back. So the rows are those of a model behind an API
(`adjudge.prompts.messages`), and the file reads an answer as `read_reply` does: strictly. There are no probabilities,
so this is greedy judging, without the opened ``<Judgement>`` of our own prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from adjudge.config import Config
from adjudge.prompts.messages import answer_limit, prompt_messages
from adjudge.ship.neighbours.asking import file_name, right_answer
from adjudge.system.files import write_text
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
    body = text.strip().removeprefix("<Judgement>").lstrip(" \\t")
    body = body.replace("\\r", "\\n").partition("\\n")[0].partition("</Judgement>")[0].strip()
    plain, folded = str, lambda form: unicodedata.normalize("NFC", form).casefold()
    for same in (plain, lambda form: form.rstrip(" .!?,;:"), lambda form: folded(form.rstrip(" .!?,;:"))):
        found = [word for word in words if same(body) and same(word) == same(body)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


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


def write_rows(folder: Path, spec: TaskSpec, config: Config, examples: Sequence[Example]) -> str:
    """Write the rows of one task; return its function for the file. Raises DataError for a row without an answer."""
    name = file_name(spec)
    records = [
        {
            "id": example.id,
            "input": prompt_messages(example, spec, config.prompt),
            "target": spec.words[right_answer(spec, example)],
        }
        for example in examples
    ]
    write_text(folder / f"{name}.jsonl", "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in records))
    words, limit = json.dumps(list(spec.words), ensure_ascii=False), answer_limit(spec, config)
    return f'\n\n@task\ndef {name}():\n    return judged("{name}", {words}, {limit})\n'


def write_file(folder: Path, functions: Sequence[str]) -> None:
    """Write the Python file with the functions of all tasks."""
    write_text(folder / FILE, _HEAD + "".join(functions))
