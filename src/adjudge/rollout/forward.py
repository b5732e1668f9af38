"""One forward pass over answers: the figures of sampled tokens, or the loss of taught tokens.

Shapes: ``B`` responses, ``R`` response tokens, ``M`` real tokens of all responses, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from adjudge.models.policy import Policy
from adjudge.rl.losses import answer_loss, token_logp_and_entropy
from adjudge.rl.preference import minor_weight
from adjudge.rollout.prompted import TaughtRow
from adjudge.rollout.several import several_figures
from adjudge.system.parallel import of_all_rows
from adjudge.system.timing import stage

if TYPE_CHECKING:
    from adjudge.rollout.collect import Rollout


class TokenFigures(NamedTuple):
    """Figures at each response token, float32 ``[B, R]``, 0 at padding. The entropy carries no gradient."""

    logp_BR: Tensor
    value_BR: Tensor
    entropy_BR: Tensor


def token_figures(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperature: float,
    template_spans: Sequence[range] | None = None,
) -> TokenFigures:
    """Run the policy over prompts and responses and return its figures at each response token.

    Tokens inside `template_spans` (one range per response) are read but not counted: the tensors have no column for
    them.
    """
    batch = policy.batch(prompts, responses)
    hidden_MD = policy.hidden(batch)
    mask_BR, ids_M = batch.response_mask_BR, batch.response_BR[batch.response_mask_BR]
    if template_spans is not None:
        mask_BR, sampled_M = _without_template(template_spans, mask_BR)
        hidden_MD, ids_M = hidden_MD[sampled_M], ids_M[sampled_M]
    logp_M, entropy_M = token_logp_and_entropy(policy.logits(hidden_MD) / temperature, ids_M)
    value_M = policy.value(hidden_MD)
    zeros_BR = torch.zeros(mask_BR.shape, device=policy.device)
    return TokenFigures(*(zeros_BR.masked_scatter(mask_BR, column_M) for column_M in (logp_M, value_M, entropy_M)))


def rollout_figures(policy: Policy, rollout: Rollout, rows: Sequence[int], temperature: float) -> TokenFigures:
    """Return the figures of some rows of a rollout under the policy as it is now, with gradient."""
    spans = None if rollout.template_spans is None else [rollout.template_spans[row] for row in rows]
    prompts, responses = [rollout.prompts[row] for row in rows], [rollout.responses[row] for row in rows]
    if rollout.samples > 1 and spans is None and (policy.packs or not policy.checkpoints):
        return TokenFigures(*several_figures(policy, prompts, responses, temperature))
    return token_figures(policy, prompts, responses, temperature, spans)


def taught_loss(
    policy: Policy, rows: Sequence[TaughtRow], tokens: float, minor_beta: float = 0.0
) -> tuple[Tensor, dict[str, Tensor | float]]:
    """Return the loss of rows from a batch that teaches `tokens` tokens, with gradient, and its figures.

    A row's tokens count `weight` times, in `tokens` too. ``loss`` is the rows' part of the batch's mean negative
    log-likelihood, in nats per token. ``right`` counts the rows whose taught tokens are all the likeliest.

    Where rows have the reference's log-probability, ``deviation`` sums their log-ratios to it per token, and
    `minor_beta` weighs them as in MinorSFT; ``minor_weight`` sums these weights, which `tokens` leaves out.
    """
    batch = policy.batch([row.given for row in rows], [row.taught for row in rows])
    logits_MV = policy.logits(policy.hidden(batch))
    mask_BR = batch.response_mask_BR
    taught_M = batch.response_BR[mask_BR]
    logp_M, _ = token_logp_and_entropy(logits_MV, taught_M)
    right_BR = torch.ones_like(mask_BR)
    right_BR[mask_BR] = logits_MV.argmax(-1) == taught_M
    weight_B = torch.tensor([row.weight for row in rows], device=policy.device)
    figures: dict[str, Tensor | float] = {}
    ref_logps = [row.ref_logp for row in rows if row.ref_logp is not None]
    if len(ref_logps) == len(rows):
        logp_BR = torch.zeros(mask_BR.shape, device=policy.device).masked_scatter(mask_BR, logp_M.detach())
        ratio_B = logp_BR.sum(1) - torch.tensor(ref_logps, device=policy.device)
        minor_B = minor_weight(ratio_B, minor_beta)
        weight_B = weight_B * minor_B
        figures = {"deviation": (ratio_B / mask_BR.sum(1)).sum(), "minor_weight": minor_B.sum()}
    logp_M = logp_M * weight_B[:, None].expand(mask_BR.shape)[mask_BR]
    loss = answer_loss(logp_M, torch.ones_like(logp_M, dtype=torch.bool), denominator=tokens)
    return loss, {"loss": loss.detach(), "right": float(right_BR.all(1).sum()), **figures}


@torch.no_grad()
def taught_reference(policy: Policy, rows: Sequence[TaughtRow]) -> list[float]:
    """Return the reference's log-probability of each row's taught tokens, summed, without dropout."""
    training = policy.training
    policy.train(False)
    with stage("reference"), policy.reference():
        figures = token_figures(policy, [row.given for row in rows], [row.taught for row in rows], 1.0)
    policy.train(training)
    return figures.logp_BR.sum(1).tolist()


@torch.no_grad()
def reference_logp(policy: Policy, rollout: Rollout, temperature: float) -> Tensor:
    """Return the reference policy's log-probability of each sampled token, float32 ``[B, R]``, on the CPU."""

    def logp_of(prompts: Sequence[int]) -> Tensor:
        rows = [prompt * rollout.samples + sample for prompt in prompts for sample in range(rollout.samples)]
        return rollout_figures(policy, rollout, rows, temperature).logp_BR.cpu()

    with stage("reference"), policy.reference():
        return rows_joined(of_all_rows(range(len(rollout.prompts) // rollout.samples), logp_of))


def rows_joined(parts: Sequence[Tensor]) -> Tensor:
    """Return the rows of all tensors ``[·, R]``, padded on the right to the longest."""
    if len(parts) == 1:
        return parts[0]
    widest = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, widest - part.shape[1])) for part in parts])


def _without_template(template_spans: Sequence[range], mask_BR: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mask of the sampled tokens, shifted left over gaps, and which real tokens are sampled."""
    index_R = torch.arange(mask_BR.shape[1], device=mask_BR.device)
    start_B, stop_B = (
        torch.tensor(ends, device=mask_BR.device)
        for ends in zip(*((span.start, span.stop) for span in template_spans), strict=True)
    )
    sampled_BR = mask_BR & ~((index_R >= start_B[:, None]) & (index_R < stop_B[:, None]))
    count_B = sampled_BR.sum(1)
    return index_R[: int(count_B.max())] < count_B[:, None], sampled_BR[mask_BR]
