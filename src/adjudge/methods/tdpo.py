"""TDPO: DPO that also keeps the distribution near the reference at each token of the answers.

1. Pairs and the reference's log-probabilities are those of DPO (`tdpo.pairs`).
2. One more pass of the reference per step gives its distribution over the vocabulary at each position of both answers.
3. The margin of DPO is lowered by the difference of the answers' sequential KLs, KL(π_ref ‖ π) summed over positions:

   - ``tdpo1``: KL of the wrong answer − KL of the right one
   - ``tdpo2``: α times that, without a gradient through the right answer's KL

Answers that begin at one place share their first position, whose KLs cancel: with labels of one token and no end,
``tdpo1`` is DPO, and ``tdpo2`` has DPO's value with a pull to the reference.

Differs from arXiv 2404.11999: what the page of DPO says of the preferences, the reference, and the optimizer.
α is that of its published code, β is not: 0.1 hardly saturates on labels.

Shapes: ``P`` pairs, ``K`` distinct answers, ``R`` answer tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.models.policy import Policy
from adjudge.rl.kl import full_kl
from adjudge.rl.preference import tdpo
from adjudge.rollout.pairs import Pairs, run_answers
from adjudge.rollout.prompted import prompt_rows
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows
from adjudge.training.preference import PairPass, learn_pairs


def train_tdpo(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on pairs of answers to each task's prompts.

    Raises DataError without pairs, and NotFiniteError.
    """
    config = run.config.tdpo
    pairs = Pairs(config.pairs, otherwise="tdpo.pairs=hardest")
    alpha = config.alpha if config.variant == "tdpo2" else None
    with adapter_loop(run, parts, config, prompt_rows, samples=True, carry={"pairs": pairs}) as loop:

        def loss_of(batch: PairPass) -> tuple[Tensor, dict[str, Tensor]]:
            kl_chosen_P, kl_rejected_P = sequential_kls(loop.policy, batch)
            loss_P = tdpo(batch.chosen_P, batch.rejected_P, kl_chosen_P, kl_rejected_P, config.beta, alpha)
            return loss_P, {"kl_chosen": kl_chosen_P, "kl_rejected": kl_rejected_P}

        for step in loop:
            if not pairs.is_built:
                pairs.build(loop.tasks, loop.rows, loop.sampling)
            rows = pairs.of(step.task_index, step.task, step.rows)
            figures, answers = learn_pairs(step.task, rows, loop.optimizer, config, loss_of)
            loop.log(step, {**figures, "lr": loop.lr}, answers)
    return loop.finish()


def sequential_kls(policy: Policy, batch: PairPass) -> tuple[Tensor, Tensor]:
    """Return KL(π_ref ‖ π) summed over the positions of each pair's right and wrong answer.

    Both are ``[P]``, with gradient.
    """
    index_K, place_K = torch.cat([batch.chosen_index_P, batch.rejected_index_P]).unique(return_inverse=True)
    mask_KR = batch.passed.states.mask_KR[index_K]
    with torch.no_grad(), policy.reference():
        reference = run_answers(policy, [row.row.ids for row in batch.rows], [row.answers for row in batch.rows])
        ref_logits = policy.logits(reference.states.hidden_KRD[index_K][mask_KR])
    kl_M = full_kl(ref_logits, policy.logits(batch.passed.states.hidden_KRD[index_K][mask_KR]))
    kl_K = torch.zeros(mask_KR.shape, device=policy.device).masked_scatter(mask_KR, kl_M).sum(1)
    kl_chosen_P, kl_rejected_P = kl_K[place_K].chunk(2)
    return kl_chosen_P, kl_rejected_P


METHOD = adapter_method(train_tdpo)
