"""A classification head on the policy: LoRA layers and one linear layer in place of written answers.

1. Prompt as every method does, and read the last hidden state at the end of the prompt.
2. A linear layer gives one logit per label from it, or one number; cross-entropy, or the squared error of the number
   scaled to 0..1.
3. Train the layer and the LoRA layers. The layer begins at zero, so that all labels are equally likely.

Differs from arXiv 2106.09685, and from transformers' sequence classifiers under peft (``task_type=SEQ_CLS``):

1. It reads the prompt with the instruction. There, it reads the row's text alone.
2. The layer has a learning rate of its own (`head_lr`), and begins at zero, not at random.
3. The layer lies beside the adapter in a file of its own. With its weights as ``score``, and the adapter in peft,
   transformers' classifier of the same model gives the same logits.

Source: arXiv 2106.09685 (LoRA), section 5.2, where classifiers are tuned so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from adjudge.errors import DataError, RunError
from adjudge.evaluation.head_judge import HeadJudge
from adjudge.methods.base import Method, Trained
from adjudge.methods.loop import adapter_loop
from adjudge.methods.rewarding import load_adapter_tasks
from adjudge.models.head import add_head, head_logits, head_of, load_head
from adjudge.models.policy import Policy
from adjudge.rollout.prompted import PromptRow, prompt_rows
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.labelled import class_weights, head_loss, target_of, weight_of
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import accumulate, apply_gradients


def train_head(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on the rows of one task. Raises DataError for a row without a gold answer, NotFiniteError."""
    config, (part,) = run.config.head, parts
    task = part.spec
    if not part.rows:
        raise DataError(f"{task.name}: there are no training rows.")
    target_of_row = {row.id: target_of(row, task) for row in part.rows}
    weight_L = class_weights(part.rows, task) if config.class_weight else None

    def new_head(policy: Policy) -> list[dict[str, Any]]:
        return [{"params": list(add_head(policy, task.words).parameters()), "lr": config.head_lr, "weight_decay": 0.0}]

    with adapter_loop(run, parts, config, prompt_rows, judge_of=HeadJudge, add_to=new_head) as loop:
        for step in loop:
            weight = weight_of([target_of_row[row.id] for row in step.rows], weight_L)

            def loss_of(rows: list[PromptRow], weight: float = weight) -> tuple[Tensor, dict[str, Tensor]]:
                targets = [target_of_row[row.id] for row in rows]
                logits_BL = head_logits(loop.policy, [row.ids for row in rows])
                return head_loss(logits_BL, targets, weight_L, weight_of(targets, weight_L) / weight)

            figures = accumulate(step.rows, config.micro_batch_size, loss_of)
            norm = apply_gradients(loop.optimizer, config.optimizer.max_grad_norm)
            right = {"right": figures["right"] / len(step.rows)} if "right" in figures else {}
            loop.log(step, {"loss": figures["loss"], **right, "lr": loop.lr, "grad_norm": norm})
    trained = loop.finish()
    head_of(loop.policy).save(run.folder / "adapter")
    return trained


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[HeadJudge]:
    """Return the judges of a finished run. Raises RunError when it has no head, or one with other labels."""
    tasks = load_adapter_tasks(run, specs)
    for task in tasks[:1]:
        load_head(task.policy, run.part("adapter"))
    for task in tasks:
        words = head_of(task.policy).words
        if words != task.spec.words:
            raise RunError(
                f"{run.folder}: its head answers {', '.join(words) or 'with a number'}, "
                f"but the task {task.spec.name} wants {', '.join(task.spec.words) or 'a number'}."
            )
        task.policy.eval()
    return [HeadJudge(task) for task in tasks]


METHOD = Method(train_head, load_judges)
