"""Few-shot prompting with natural language explanations (X-ICL, arXiv 2311.07556).

1. Demonstrations are chosen as for few-shot: training rows, or with ``prompt.explanations=file`` the file's examples.
2. A writer is shown each training row with its gold answer and asked why; with ``few-shot`` after the file's examples.
3. Each demonstration is shown with its explanation before the answer.
4. The model writes an explanation of the row (greedily), and then its answer, which alone is read.

Differs from the paper:

1. The explanation and the answer are two parts of the form, each with its own limit: a long explanation does not cut
   off the answer.
2. The label probabilities are divided by the prompt's prior, as few-shot does; ``prompt.prior=none`` leaves this out.
3. The people's explanations of the paper are those of e-SNLI; here they are our own examples, or the user's.
4. Two controls: another example's explanation in the place of each, and none in it (``prompt.explanation_control``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adjudge.methods.base import Method, Trained
from adjudge.methods.prompting.showing import load_judges, shown_judge
from adjudge.methods.prompting.writing import writer_of
from adjudge.models.chat_api import is_api
from adjudge.models.policy import load_policy
from adjudge.prompts.demonstrations import choose_demonstrations
from adjudge.prompts.explanations import (
    WRITTEN,
    controlled,
    explained,
    explained_examples,
    explanation_turns,
    read_explanation,
)
from adjudge.rollout.writer import Ask, Writer, limits_of
from adjudge.runs.folder import Run
from adjudge.system.console import warn
from adjudge.system.files import write_json
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example, Explained

EXPLANATIONS = "explanations.json"


def build_judges(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Choose demonstrations, have them explained, measure any label priors, and keep all of it in the run."""
    (part,) = parts
    spec, config = part.spec, run.config
    rows: Sequence[Example] = choose_demonstrations(part.rows, spec, config.prompt, config.seed)
    if config.prompt.explanations == "none":
        return Trained([shown_judge(run, part, rows)])
    policy = None if is_api(config.model) else load_policy(config)
    record: dict[str, Any] = {"calls": 0, "prompt_tokens": 0, "generated_tokens": 0}
    if config.prompt.explanations in WRITTEN:
        writer = writer_of(run, policy)
        rows = explain(writer, rows, spec, run)
        spent = writer.spent.record(config.api if is_api(writer.source.name) else None)
        record = {name: spent[name] for name in (*record, "price") if name in spent}
        if policy is not None:
            policy.forget_prefix()  # what is judged next does not depend on whether texts were written or replayed
    examples = len(explained_examples(spec, config.prompt)) if config.prompt.explanations == "few-shot" else 0
    budget = {**record, "gold_labels": len(rows) + examples}
    shown = controlled([row for row in rows if isinstance(row, Explained)], config.prompt)
    return Trained([shown_judge(run, part, shown, policy)], figures=[{"budget": budget}])


def explain(writer: Writer, rows: Sequence[Example], spec: TaskSpec, run: Run) -> list[Explained]:
    """Return the rows with what the writer says of them, and keep how these texts ended.

    An empty explanation stays empty, with a warning. Raises what asking the writer raises.
    """
    config, prompt = run.config, run.config.prompt
    limit, temperature = limits_of(writer.source, config.api, config.answer.analysis_tokens, 0.0)
    examples = explained_examples(spec, prompt) if prompt.explanations == "few-shot" else []
    asks = [Ask(explanation_turns(row, spec, examples), limit, temperature) for row in rows]
    written = writer.write(asks, what="requests for an explanation", title="explaining")
    texts = [read_explanation(each.text, cut=each.end == "length") for each in written]
    empty = sum(not text for text in texts)
    if empty:
        warn(f"{spec.name}: {empty} of {len(rows)} explanations are empty; their examples are shown with an empty one")
    record = {
        "task": spec.name,
        "explanations": prompt.explanations,
        "control": prompt.explanation_control,
        "writer": writer.source.name,
        "empty": empty,
        "cut": sum(each.end == "length" for each in written),
        "written": [{"id": row.id, "explanation": text} for row, text in zip(rows, texts, strict=True)],
    }
    write_json(run.folder / EXPLANATIONS, record)
    return [explained(row, text) for row, text in zip(rows, texts, strict=True)]


METHOD = Method(build_judges, load_judges)
