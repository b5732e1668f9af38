"""Rewrite the instruction from right and wrong answers, after BPO (arXiv 2311.04155).

1. The model judges training rows with the task's instruction. Its wrong answers make pairs with the right ones.
2. A writer compares the pairs and rewrites the instruction, several times. The rows' texts are never rewritten.
3. A rewrite that lost an answer word, or is no rewrite at all, is left out and counted.
4. The rewrite with the highest score on held-out training rows is taken, or the original one when none is higher.

Differs from the paper:

1. The paper trains an optimiser (Llama-2-7B) on such rewrites, which then rewrites every prompt at once. Here the
   writer itself rewrites, and only the instruction.
2. The paper's pairs come from people's preferences between chat answers; here the gold answer is the good one.
3. The paper takes the one rewrite it draws (``bpo.select=first``); choosing the best of several is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from adjudge.evaluation.trials import Trial, problem_with
from adjudge.methods.base import Method, Trained
from adjudge.methods.prompting.searching import Search, begin, is_wrong, load_judges, shown_row
from adjudge.prompts.answers import answer_text
from adjudge.runs.folder import Run
from adjudge.tasks import take_rows
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

JUDGED_AT_ONCE = 32
MARK, END = "NEW INSTRUCTION:", "[END]"

REQUEST = """An instruction tells an assistant how to judge texts:

{instruction}

With it, the assistant judged some texts wrongly. For each, the right answer and the assistant's:

{pairs}

First compare the answers in two or three sentences: what did the assistant overlook, or take for something else?
Then rewrite the instruction so that the assistant judges such texts rightly. Keep everything it says, name every
answer exactly as it does, add nothing that holds for these texts alone, and judge no text yourself.
Write the rewritten instruction after "{mark}", and "{end}" after it."""


def search_instruction(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Rewrite the instruction and choose one on held-out training rows. Raises DataError for too few rows."""
    config = run.config.bpo
    search = begin(run, parts, config)
    original, kept, rejected = search.spec.instruction, [], []
    for text in config.texts or _rewrites(search):
        problem = "no rewrite" if text is None else problem_with(text, search.spec)
        if problem is not None:
            rejected.append({"text": text, "reason": problem})
        elif text is not None and text not in kept and text.strip() != original.strip():
            kept.append(text)
    candidates: list[dict[str, Any]] = [{"instruction": text} for text in [original, *kept]]
    record = {"rejected": rejected, "candidates": candidates}
    if config.select == "first" or not kept:
        return search.finish(kept[0] if kept else original, record)
    scores = [
        search.trials.mean(text, search.held_out, f"instruction {number} of {len(kept) + 1}")
        for number, text in enumerate([original, *kept], 1)
    ]
    for candidate, score in zip(candidates, scores, strict=True):
        candidate["score"] = score
    best = max(range(len(scores)), key=lambda index: scores[index])  # of equal ones the first: the original
    return search.finish([original, *kept][best], record)


def _rewrites(search: Search) -> list[str | None]:
    """Return the rewrites that the writer draws; None for an answer without one."""
    config = search.run.config.bpo
    if config.rewrites == 0:
        return []
    pairs = wrong_answers(search.spec, *_judged(search, config.pairs), config.pairs)
    if not pairs:
        return []  # nothing was wrong, so nothing can be learned
    request = REQUEST.format(instruction=search.spec.instruction.strip(), pairs=pairs, mark=MARK, end=END)
    written = search.write([request] * config.rewrites, title="rewriting")
    return [read_rewrite(each.text, cut=each.end == "length") for each in written]


def _judged(search: Search, pairs: int) -> tuple[list[Example], list[Trial]]:
    """Judge rows in random order until enough of them are wrong, and return them with their trials."""
    order = take_rows(search.shown, len(search.shown), search.run.config.seed)
    rows, trials = list[Example](), list[Trial]()
    while len(rows) < len(order) and sum(map(partial(is_wrong, spec=search.spec), rows, trials)) < pairs:
        batch = order[len(rows) : len(rows) + max(JUDGED_AT_ONCE, 4 * pairs)]
        trials += search.trials.judged(search.spec.instruction, batch, "rows to show")
        rows += batch
    return rows, trials


def wrong_answers(spec: TaskSpec, rows: Sequence[Example], trials: Sequence[Trial], count: int) -> str:
    """Return the first `count` rows judged wrongly, each with the right answer and the wrong one.

    Of numbers, the rows whose answers are farthest. An unreadable answer is wrong, and shown as it is.
    """
    shown: list[str] = []
    wrong_rows = [(row, trial) for row, trial in zip(rows, trials, strict=True) if is_wrong(row, trial, spec)]
    if spec.is_number:
        wrong_rows.sort(key=lambda judged: judged[1].score)
    for row, trial in wrong_rows[:count]:
        assert row.gold is not None
        wrong = " ".join(trial.text.split())[:80] if trial.value is None else answer_text(trial.value, spec)
        shown.append(f"{shown_row(row)}\nright: {answer_text(row.gold, spec)}\nthe assistant's: {wrong}")
    return "\n\n".join(shown)


def read_rewrite(text: str, *, cut: bool = False) -> str | None:
    """Return the instruction after the mark of an answer, up to its end.

    None without a mark, and for an answer that was `cut` before its end.
    """
    _, marked, after = text.partition(MARK)
    instruction, ended, _ = after.partition(END)
    return instruction.strip() if marked and (ended or not cut) else None


METHOD = Method(search_instruction, load_judges)
