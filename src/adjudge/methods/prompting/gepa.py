"""GEPA: an instruction evolved by a writer that reflects on judged rows (arXiv 2507.19457).

The library `gepa` runs the search.

Differs from the paper:

1. One component, the instruction; the answer form after it is fixed. No merging.
2. Rows are scored by the right label's probability where the model gives one: right and wrong on three rows have only
   four levels, so with a small model hardly a child would be strictly better.
3. The request for a new instruction is ours, and its answer is checked: it must stand between triple backticks, and
   name the answers that the task's instruction names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from adjudge.methods.base import Method, Trained
from adjudge.methods.prompting.evolving import Judged, evolve
from adjudge.methods.prompting.searching import Search, is_wrong, load_judges, shown_row
from adjudge.prompts.answers import answer_text
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows

REQUEST = """An assistant got this instruction, and an exact form in which to answer:

```
{instruction}
```

Some texts, what it answered, and what is to be said of that:

{judged}

Write a better instruction for the assistant. Say what the task is, and everything about it that these texts teach and
another text may need. Name every answer exactly as the instruction does; say nothing of the form.
Write the whole instruction between triple backticks."""

_LANGUAGE = re.compile(r"[A-Za-z]+\n")
"""The name of a language, which may follow opening backticks."""


def search_instruction(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Evolve the instruction. Raises ConfigError without the library, and DataError for too few rows."""
    return evolve(run, parts, run.config.gepa, reflect)


def reflect(search: Search, instruction: str, judged: Sequence[Judged]) -> str | None:
    """Return the instruction that the writer makes of one and of rows judged with it.

    It is None when the writer's answer has no backticks.
    """
    parts = []
    for row, trial in judged:
        gold = answer_text(row.gold, search.spec) if row.gold is not None else "unknown"
        feedback = f"Right: {gold}." if not is_wrong(row, trial, search.spec) else f"Wrong. The right answer is {gold}."
        if trial.value is None:
            feedback = f"Unreadable: it must be one answer and nothing else. The right answer is {gold}."
        parts.append(f"{shown_row(row)}\nanswered: {' '.join(trial.text.split())[:80]}\n{feedback}")
    request = REQUEST.format(instruction=instruction.strip(), judged="\n\n".join(parts))
    (written,) = search.write([request], title="reflecting")
    return between_backticks(written.text)


def between_backticks(text: str) -> str | None:
    """Return what stands between the first and the last triple backticks; None without two of them."""
    begin, end = text.find("```"), text.rfind("```")
    if begin == end:
        return None
    inside = text[begin + 3 : end]
    named = _LANGUAGE.match(inside)
    return inside[named.end() if named else 0 :].strip()


METHOD = Method(search_instruction, load_judges)
