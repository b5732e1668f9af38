"""Supervised fine-tuning of LoRA layers on the right answers.

Differs from arXiv 2410.11020 (``--preset paper`` gives its constants):

1. The loss counts the answer's tokens only; ``sft.loss=sequence`` counts prompt and answer, as the paper does.
2. The learning rate is SFT's own, with a warm-up, and gradients are clipped.
3. The answer taught is the label word that evaluation reads, with the end at which evaluation stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rollout.prompted import taught_rows
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import teach


def train_sft(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on each task's right answers. Raises DataError for a row without one, NotFiniteError."""
    config = run.config.sft
    prepare = partial(taught_rows, loss=config.loss, balanced=config.class_weight == "balanced")
    with adapter_loop(run, parts, config, prepare) as loop:
        for step in loop:
            figures = teach(
                loop.policy, loop.optimizer, step.rows, config.micro_batch_size, config.optimizer.max_grad_norm
            )
            loop.log(step, {**figures, "lr": loop.lr})
    return loop.finish()


METHOD = adapter_method(train_sft)
