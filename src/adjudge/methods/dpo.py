"""DPO: learn from pairs of answers which is the better one, without a reward and without sampling.

1. Pair the right answer to each prompt with a wrong one (`dpo.pairs`): the reference's likeliest wrong label, each
   wrong label, or an answer sampled from the reference.
2. Compute the reference's log-probabilities of all of them, once.
3. Raise log σ(β (log-ratio of the right answer − log-ratio of the wrong one)), where a log-ratio is
   log π − log π_ref, summed over the answer's tokens.

Differs from arXiv 2305.18290:

1. The preferences come from the gold answers, not from people who compare two answers.
2. The reference is the warm start's result or the run named by ``init``; without both, the untrained model.
3. ``loss=minor-dpo`` counts the wrong answer only while it is likelier than under the reference. It is a
   reconstruction of what is said of arXiv 2408.09834, whose printed formula was not at hand.
4. `sft_weight` adds the right answer's negative log-likelihood, against both answers becoming less likely.
5. β is ours: on labels the usual 0.1 hardly saturates, and the commoner label takes over. So are the rate, batch sizes
   and the optimizer.

Source: arXiv 2305.18290.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rl.preference import dpo, minor_dpo
from adjudge.rollout.pairs import Pairs
from adjudge.rollout.prompted import prompt_rows
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows
from adjudge.training.preference import PairPass, learn_pairs

LOSSES = {"dpo": dpo, "minor-dpo": minor_dpo}


def train_dpo(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on pairs of answers to each task's prompts.

    Raises DataError without pairs, and NotFiniteError.
    """
    config = run.config.dpo
    pairs = Pairs(config.pairs, otherwise="dpo.pairs=hardest")

    def loss_of(batch: PairPass) -> tuple[Tensor, dict[str, Tensor]]:
        loss_P = LOSSES[config.loss](batch.chosen_P, batch.rejected_P, config.beta)
        return loss_P - config.sft_weight * batch.chosen_logp_P, {}

    with adapter_loop(run, parts, config, prompt_rows, samples=True, carry={"pairs": pairs}) as loop:
        for step in loop:
            if not pairs.is_built:
                pairs.build(loop.tasks, loop.rows, loop.sampling)
            rows = pairs.of(step.task_index, step.task, step.rows)
            figures, answers = learn_pairs(step.task, rows, loop.optimizer, config, loss_of)
            loop.log(step, {**figures, "lr": loop.lr}, answers)
    return loop.finish()


METHOD = adapter_method(train_dpo)
