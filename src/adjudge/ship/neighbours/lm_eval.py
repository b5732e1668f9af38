"""Tasks for lm-evaluation-harness: a YAML file each, and the rows beside it.

lm-evaluation-harness scores an answer by the log-probability of its tokens after the prompt, and answers with the
likeliest. So does ``--decode labels``. The two are equal where both read the same tokens, which is checked here for
every row and answer, with the rule by which lm-evaluation-harness makes tokens of two texts (``_encode_pair`` of
0.4.13). Where a word's tokens begin another's, an answer is scored with its end, here and there.

The prompt is whole: it has the chat template in it, and is not to get another (``--apply_chat_template``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adjudge.errors import ConfigError
from adjudge.ship.neighbours.asking import Asked, Asking, file_name
from adjudge.system.console import warn
from adjudge.system.files import write_text
from adjudge.types import Example
from adjudge.version import __version__

READER = "adjudge_rows.py"
TAG = "adjudge"
_METRICS = {"accuracy": ("acc", "mean"), "matthews": ("mcc", "matthews_corrcoef"), "f1": ("f1", "f1")}
"""Our metrics there, with their aggregation; the last two for two labels, of which the second is the positive one."""

_READER = '''"""Read the rows beside this file for lm-evaluation-harness; written by adjudge."""

import json
from pathlib import Path

from datasets import Dataset


def load(file, **_):
    """Return the rows of a file in this folder as the split "test"."""
    with (Path(__file__).parent / file).open(encoding="utf-8") as lines:
        return {"test": Dataset.from_list([json.loads(line) for line in lines])}
'''


def write(folder: Path, asking: Asking, examples: Sequence[Example]) -> int:
    """Write the task and its rows; return the number of rows.

    Rows whose text spells a control token are left out, with a warning: there it would be one. Raises ConfigError when
    no row would be read as it is here, and DataError for a row without a gold answer.
    """
    answers = asking.answers()
    every = list(asking.rows(examples))
    rows = [row for row in every if _is_read_alike(asking.tokenizer, row, answers)]
    spec, name = asking.spec, file_name(asking.spec)
    if not rows:
        raise ConfigError(
            f"{spec.name}: lm-evaluation-harness would make other tokens of the prompts of this model, or of its "
            "answers, so its figures would not be ours. Take another --model or --prompt-style."
        )
    if odd := len(every) - len(rows):
        first = next(row.id for row in every if not _is_read_alike(asking.tokenizer, row, answers))
        warn(
            f"{spec.name}: {odd} of {len(every)} rows are left out (the first is {first}): their texts spell tokens of "
            "the model, which lm-evaluation-harness would take for control."
        )
    lines = [json.dumps({"id": row.id, "prompt": row.prompt, "target": row.target}, ensure_ascii=False) for row in rows]
    write_text(folder / f"{name}.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(folder / f"{name}.yaml", _yaml(asking, name, [text for text, _ in answers]))
    write_text(folder / READER, _READER)
    return len(rows)


def tokens_there(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Return the tokens of prompt and answer as lm-evaluation-harness makes them of the two texts."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        context, continuation = context[:-spaces], context[-spaces:] + continuation
    before = _encoded(tokenizer, context)
    return before, _encoded(tokenizer, context + continuation)[len(before) :]


def _encoded(tokenizer: Any, text: str) -> list[int]:
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    begun = prefix is not None and text.startswith(tokenizer.decode(prefix))
    ids: list[int] = tokenizer.encode(text, **({"add_special_tokens": False} if begun else {}))
    return ids


def _is_read_alike(tokenizer: Any, row: Asked, answers: Sequence[tuple[str, list[int]]]) -> bool:
    return all(tokens_there(tokenizer, row.prompt, text) == ([*row.ids], ids) for text, ids in answers)


def _yaml(asking: Asking, name: str, choices: Sequence[str]) -> str:
    spec = asking.spec
    second = len(spec.words) == 2 and spec.positive in (None, spec.words[1])
    wanted = [metric for metric in spec.metrics if metric in _METRICS and (second or metric == "accuracy")]
    metrics = "".join(
        f"  - {{metric: {_METRICS[metric][0]}, aggregation: {_METRICS[metric][1]}, higher_is_better: true}}\n"
        for metric in dict.fromkeys(["accuracy", *wanted])
    )
    return (
        f"# {spec.title}. Written by adjudge {__version__}. The prompt is whole: no --apply_chat_template, no shots.\n"
        f"task: {TAG}_{name}\n"
        f"tag: {TAG}\n"
        f"custom_dataset: !function {Path(READER).stem}.load\n"
        f"dataset_kwargs: {{file: {name}.jsonl}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        "doc_to_text: prompt\n"
        "doc_to_target: target\n"
        f"doc_to_choice: {json.dumps(list(choices), ensure_ascii=False)}\n"
        'target_delimiter: ""\n'
        "num_fewshot: 0\n"
        f"metric_list:\n{metrics}"
        "metadata: {version: 1.0}\n"
    )
