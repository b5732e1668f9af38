"""Supervised fine-tuning with instruction embeddings (SWIE).

What some layers read of the instruction is added to them. LoRA layers learn the right answers as in SFT. Before each
chosen layer, a small network reads the instruction's states and adds one vector to the tokens after it, by weights that
rise and fall over each segment (`adjudge.models.instruction`). Row texts that are long may bury the instruction; this
repeats it.

Source: arXiv 2308.12674, as its published code defines it. Differs from it:

1. The layers that read begin at zero with strength 1, so that the first step is SFT's. There they begin at random with
   strength 10, and the first model is another one.
2. The weights follow from the same lengths in training and in judging. There a prompt without an answer counts as 64
   tokens, and decoding from a cache adds nothing in one of the two models.
3. LoRA layers learn beside them. There all layers of the network do.
4. One pass reads the instruction and the row; there the instruction has a pass of its own. The figures are equal.
5. Layers, rate and weight decay are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rollout.prompted import taught_rows
from adjudge.runs.folder import Run
from adjudge.system.console import note
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import teach


def train_swie(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on each task's right answers.

    Raises ConfigError, DataError for a row without a right answer, and NotFiniteError.
    """
    config = run.config.swie
    prepare = partial(taught_rows, balanced=config.class_weight == "balanced")
    with adapter_loop(run, parts, config, prepare, embeddings=config.embeddings) as loop:
        embeddings = loop.policy.embeddings
        if embeddings is not None:
            layers = ", ".join(map(str, embeddings.config.layers or ()))
            note(
                f"swie: the instruction is added before layers {layers}. adjudge loads such an adapter; peft, vLLM and "
                "llama.cpp cannot, and it cannot be merged."
            )
        for step in loop:
            figures = teach(
                loop.policy, loop.optimizer, step.rows, config.micro_batch_size, config.optimizer.max_grad_norm
            )
            added = {} if embeddings is None else {"added": embeddings.share}
            loop.log(step, {**figures, **added, "lr": loop.lr})
    return loop.finish()


METHOD = adapter_method(train_swie)
