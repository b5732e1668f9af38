"""SPIN: play against the policy of an iteration ago, and prefer the right answers to its own.

1. At the start of an iteration the policy becomes the reference, which is the opponent too.
2. The opponent answers every training prompt. Rows whose answer is right are ties and teach nothing.
3. The steps of the iteration learn from pairs of right and own answer with DPO's loss, against this reference.
   From the second iteration on, the own answers of the one before are in it too (`mix_previous`).

``answers=labels`` is ours: every wrong label is paired, weighted by the opponent's probability of it. It is what the
sampled form gives on average, without its noise and its ties; answers that are no label are left out.

Differs from arXiv 2401.01335:

1. An own answer that reads as the right one is a tie, whatever its spelling.
2. The rows are those of the warm start, whose steps are part of the budget. Where the warm start fits them, most tie.
3. The iterations share the steps of one run: an iteration need not see every row. One optimizer and one schedule run
   through all of them, where the paper's code begins anew.
4. λ (`beta`) is 1 in all iterations; its code takes 0.1, and 5 in the last one. The rate and batch sizes are ours.

Source: arXiv 2401.01335.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rl.preference import dpo
from adjudge.rollout.pairs import Pairs
from adjudge.rollout.prompted import prompt_rows
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows
from adjudge.training.preference import PairPass, learn_pairs


def train_spin(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train against the policy of the iteration before.

    Raises ConfigError, DataError without pairs, and NotFiniteError.
    """
    config = run.config.spin
    pairs = Pairs(config.answers, mix_previous=config.mix_previous, otherwise="spin.answers=labels")

    def loss_of(batch: PairPass) -> tuple[Tensor, dict[str, Tensor]]:
        return dpo(batch.chosen_P, batch.rejected_P, config.beta), {}

    carry = {"pairs": pairs}
    with adapter_loop(run, parts, config, prompt_rows, samples=True, iterations=config.iterations, carry=carry) as loop:
        for step in loop:
            if loop.begins_iteration(step):
                pairs.build(loop.tasks, loop.rows, loop.sampling)
            rows = pairs.of(step.task_index, step.task, step.rows)
            figures, answers = learn_pairs(step.task, rows, loop.optimizer, config, loss_of)
            loop.log(step, {"iteration": loop.iteration_of(step), **figures, "lr": loop.lr}, answers)
    return loop.finish()


METHOD = adapter_method(train_spin)
