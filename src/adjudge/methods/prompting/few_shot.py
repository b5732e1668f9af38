"""Few-shot prompting: the untrained model, shown worked examples and asked.

Differs from arXiv 2410.11020:

1. Demonstrations are balanced over the labels. ``prompt.demonstration_choice=first`` takes the first rows (the paper).
2. They are turns of the chat where the model has a chat template.
3. The label probabilities are divided by those that the prompt gives whatever the row, and the likeliest is the answer
   (`adjudge.evaluation.label_prior`). ``prompt.prior=none`` leaves this out (the paper).
4. ``prompt.demonstration_choice=nearest`` shows each row the training rows nearest to it (`adjudge.prompts.nearest`).
5. ``prompt.demonstration_orders`` averages the label probabilities over several orders of the demonstrations.
6. A model behind an API gives no label probabilities: it has one order and no prior, and its answer is read.
"""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.methods.base import Method, Trained
from adjudge.methods.prompting.showing import load_judges, shown_judge
from adjudge.prompts.demonstrations import choose_demonstrations
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows


def build_judges(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Choose demonstrations among a task's training rows, measure any label priors, keep both in the run."""
    (part,) = parts
    demonstrations = choose_demonstrations(part.rows, part.spec, run.config.prompt, run.config.seed)
    return Trained([shown_judge(run, part, demonstrations)])


METHOD = Method(build_judges, load_judges)
