"""Updates: gradients from micro-batches, one optimizer step, and clipped policy-gradient updates.

Shapes: ``B`` responses, ``R`` response tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adjudge.config import PolicyGradientConfig
from adjudge.errors import RunError
from adjudge.models.engine.graphs import drop_captured
from adjudge.models.policy import Policy
from adjudge.rl.kl import reference_kl
from adjudge.rl.losses import policy_loss, shaped_loss, value_loss
from adjudge.rollout.collect import Rollout
from adjudge.rollout.forward import TokenFigures, rollout_figures, taught_loss
from adjudge.rollout.passes import rows_per_pass
from adjudge.rollout.prompted import TaughtRow
from adjudge.system.memory import is_out_of_memory
from adjudge.system.parallel import agreed, gathered, share, sum_gradients
from adjudge.system.timing import stage
from adjudge.training.batches import chunks
from adjudge.training.guards import check_finite, clip_gradients
from adjudge.training.state import global_generators

RowT = TypeVar("RowT")
LossOf = Callable[[list[RowT]], tuple[Tensor, Mapping[str, Tensor | float]]]
"""Returns the loss of some rows, with gradient, and figures that add up over micro-batches."""


def accumulate(
    rows: Sequence[RowT], micro_batch_size: int | None, loss_of: LossOf[RowT], *, samples: int = 1
) -> dict[str, float]:
    """Accumulate a mini-batch's gradients over its micro-batches, and return the sums of its figures.

    `loss_of` returns each micro-batch's part of the whole mini-batch's loss. A micro-batch has `micro_batch_size`
    prompts, or fewer by ``runtime.micro_batch_size``, each with its `samples` rows. Of several processes, each has the
    gradients of its share of the prompts, which `apply_gradients` adds up.

    When memory runs out in a training loop, a mini-batch begins again, so there must be no gradients before. It begins
    again once the captured passes on a GPU are dropped, and then, with ``runtime.micro_batch_size=auto``, in smaller
    passes. Raises NotFiniteError before a loss that is not finite goes backward, RunError when memory runs out.
    """
    own_prompts = share(len(rows) // samples)
    own_rows = rows[own_prompts.start * samples : own_prompts.stop * samples]
    passes = rows_per_pass()
    outcomes = agreed(lambda: _own_gradients(own_rows, micro_batch_size, loss_of, samples))
    if passes is not None and passes.auto:
        passes.size = min((size for size in gathered(passes.size) if size is not None), default=None)
    sums: dict[str, float] = {}
    for figures in outcomes:
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def _own_gradients(
    rows: Sequence[RowT], micro_batch_size: int | None, loss_of: LossOf[RowT], samples: int
) -> dict[str, float]:
    passes, prompts = rows_per_pass(), len(rows) // samples
    while True:
        size = micro_batch_size if passes is None else passes.limit(micro_batch_size)
        generators = global_generators().state_dict() if passes is not None else None
        try:
            return _pass_by_pass(rows, None if size is None else size * samples, loss_of)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Here the error, and with it every tensor of the failed pass, is gone.
        rows_at_once = min(size or prompts, prompts)
        if passes is not None and drop_captured():
            passes.forget()
        elif passes is not None and passes.auto:
            passes.halve(rows_at_once)
        else:
            raise RunError(
                f"Memory ran out with {rows_at_once} rows in one pass. "
                "runtime.micro_batch_size=auto takes as many as fit; the gradient is the same."
            )
        global_generators().load_state_dict(generators)  # dropout draws again what it drew


def _pass_by_pass(rows: Sequence[RowT], size: int | None, loss_of: LossOf[RowT]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for part in chunks(len(rows), size) if len(rows) else []:
        loss, figures = loss_of(list(rows[part]))
        check_finite("the loss", loss.detach())
        loss.backward()
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + (value.item() if isinstance(value, Tensor) else value)
    return sums


def apply_gradients(
    optimizer: Optimizer, max_norm: float | None, parameters: Iterable[nn.Parameter] | None = None
) -> float:
    """Clip the gradients, take one step, clear them, and return their norm before clipping.

    Clips the gradients of `parameters`, by default all of the optimizer's. Of several processes, the sum of their
    gradients counts. Raises NotFiniteError before the step.
    """
    if parameters is None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parameters = list(parameters)
    sum_gradients(parameters)
    norm = clip_gradients(parameters, max_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def teach(
    policy: Policy,
    optimizer: Optimizer,
    rows: Sequence[TaughtRow],
    micro_batch_size: int | None,
    max_norm: float | None,
    minor_beta: float = 0.0,
) -> dict[str, float]:
    """Learn the right answers of a batch; return its loss, share of right answers, gradient norm.

    Where rows have the reference's log-probability, the mean ``deviation`` from it and ``minor_weight`` are added.
    """
    tokens = sum(row.weight * len(row.taught) for row in rows)
    figures = accumulate(rows, micro_batch_size, partial(taught_loss, policy, tokens=tokens, minor_beta=minor_beta))
    norm = apply_gradients(optimizer, max_norm)
    means = {name: value / len(rows) for name, value in figures.items() if name != "loss"}
    return {"loss": figures["loss"], **means, "grad_norm": norm}


@dataclass(frozen=True, slots=True)
class Critic:
    """The targets and settings of the value head's loss."""

    return_BR: Tensor
    clip: float
    coef: float
    """Weight of the value loss beside the policy loss."""


@dataclass(frozen=True, slots=True)
class ReferencePenalty:
    """A KL to the reference as part of the loss."""

    ref_logp_BR: Tensor
    coef: float
    weight_BR: Tensor
    """Weight of each token's KL; 1 for a mean over tokens."""


class UpdateSize(NamedTuple):
    """What an update's loss is a mean over."""

    tokens: float
    prompts: int


@dataclass(frozen=True, slots=True)
class Others:
    """Another policy's answers to some of the prompts, learned by the shaped loss beside the sampled ones."""

    rollout: Rollout
    prompt_N: Sequence[int]
    """Each answer's prompt among those of the batch."""
    advantage_N: Tensor
    shaping: float

    figure: ClassVar[str] = "shaped_loss"

    def loss(
        self, policy: Policy, prompts: Sequence[int], temperature: float, size: UpdateSize
    ) -> tuple[Tensor | float, dict[str, Tensor | float]]:
        """Return these prompts' part of the update's loss, a mean over its sampled tokens, and its figures."""
        indices = [index for index, prompt in enumerate(self.prompt_N) if prompt in prompts]
        if not indices:
            return 0.0, {"shaped_loss": 0.0}
        logp_NR = rollout_figures(policy, self.rollout, indices, temperature).logp_BR
        mask_NR = self.rollout.mask_BR[indices, : logp_NR.shape[1]].to(policy.device)
        advantage_NR = self.advantage_N[indices].to(policy.device)[:, None].expand(mask_NR.shape)
        loss = shaped_loss(logp_NR, advantage_NR, mask_NR, self.shaping, denominator=size.tokens)
        return loss, {"shaped_loss": loss.detach()}


@dataclass(frozen=True, slots=True)
class RightAnswers:
    """Right answers to a batch's prompts, taught beside sampled ones (PPO-ptx, arXiv 2203.02155, eq. 2)."""

    rows: Mapping[int, TaughtRow]
    """By their place among the prompts of the batch; the others are not taught."""
    weight: float
    figure: ClassVar[str] = "sft_loss"

    def loss(
        self, policy: Policy, prompts: Sequence[int], _temperature: float, size: UpdateSize
    ) -> tuple[Tensor | float, dict[str, Tensor | float]]:
        """Return these prompts' part of the update's loss, and its figures.

        The loss is a mean over all prompts and their tokens. A prompt that is not taught counts as 0.
        """
        rows = [self.rows[prompt] for prompt in prompts if prompt in self.rows]
        if not rows:
            return 0.0, {"sft_loss": 0.0}
        even = [row._replace(weight=row.weight / len(row.taught)) for row in rows]
        loss, _ = taught_loss(policy, even, tokens=size.prompts)
        return self.weight * loss, {"sft_loss": loss.detach()}


def clipped_updates(
    policy: Policy,
    optimizer: Optimizer,
    rollout: Rollout,
    advantage_BR: Tensor,
    config: PolicyGradientConfig,
    order: torch.Generator,
    critic: Critic | None = None,
    penalty: ReferencePenalty | None = None,
    others: Others | RightAnswers | None = None,
    *,
    by_answers: bool = False,
) -> dict[str, Any]:
    """Go over a rollout's mini-batches `update_epochs` times, and return the updates' mean figures.

    The loss is a mean over a mini-batch's tokens. With `by_answers`, its answers count as many as the rollout's have in
    the mean: for weights of tokens which add up over the whole rollout.

    When the policy is more than `stop_kl` (nats per token) from the sampling policy, skip the update and end the batch.
    The first update reuses the sampling pass where the rollout kept its gradient. Raises NotFiniteError before a
    harmful update. Source: arXiv 1707.06347, algorithm 1.
    """
    updates: list[dict[str, float]] = []
    explained, stopped = 0.0, False
    with stage("update"):
        for rows in _mini_batches(len(rollout.prompts) // rollout.samples, rollout.samples, config, order):
            sampled = rollout.sampled_with_grad if not updates else None  # the policy is still the one that sampled
            loss_of = _clipped_loss(
                *(policy, rollout, rows, advantage_BR, config, critic, penalty, others, sampled), by_answers=by_answers
            )
            figures = accumulate(rows, config.micro_batch_size, loss_of, samples=rollout.samples)
            if not updates:
                explained = figures.pop("explained_variance", 0.0)
            stopped = config.stop_kl is not None and figures["approx_kl"] > config.stop_kl
            if stopped:
                optimizer.zero_grad(set_to_none=True)
                break
            figures["grad_norm"] = apply_gradients(optimizer, config.optimizer.max_grad_norm)
            updates.append(figures)
    more = [*(["value_loss"] if critic else []), *([others.figure] if others else [])]
    names = ("policy_loss", *more, "clip_fraction", "approx_kl", "entropy", "grad_norm")
    means = {name: sum(figures[name] for figures in updates) / max(1, len(updates)) for name in names}
    explained_variance = {"explained_variance": explained} if critic else {}
    return {**means, **explained_variance, "updates": len(updates), "stopped": stopped}


def _mini_batches(
    prompts: int, samples: int, config: PolicyGradientConfig, order: torch.Generator
) -> Iterator[list[int]]:
    """Yield the answers of each update: every epoch in a new random order of the prompts."""
    for _ in range(config.update_epochs):
        shuffled = torch.randperm(prompts, generator=order).tolist()
        for part in chunks(prompts, config.mini_batch_size):
            yield [prompt * samples + sample for prompt in shuffled[part] for sample in range(samples)]


def _clipped_loss(
    policy: Policy,
    rollout: Rollout,
    mini_batch: Sequence[int],
    advantage_BR: Tensor,
    config: PolicyGradientConfig,
    critic: Critic | None,
    penalty: ReferencePenalty | None,
    others: Others | RightAnswers | None,
    sampled: TokenFigures | None,
    *,
    by_answers: bool,
) -> LossOf[int]:
    """Return some rows' loss as a function: PPO's clipped surrogate, value loss, penalty, other answers."""
    tokens = int(rollout.mask_BR[list(mini_batch)].sum())
    counted = int(rollout.mask_BR.sum()) * len(mini_batch) / len(rollout.mask_BR) if by_answers else tokens
    size = UpdateSize(counted, len(mini_batch) // rollout.samples)

    def loss_of(rows: list[int]) -> tuple[Tensor, dict[str, Tensor | float]]:
        if sampled is not None:
            now = TokenFigures(*(tensor[rows].to(policy.device) for tensor in sampled))
        else:
            now = rollout_figures(policy, rollout, rows, config.temperature)
        width = now.logp_BR.shape[1]

        def at(tensor_BR: Tensor) -> Tensor:
            return tensor_BR[rows, :width].to(policy.device)

        mask_BR = at(rollout.mask_BR)
        actor = policy_loss(
            *(now.logp_BR, at(rollout.logp_BR), at(advantage_BR), mask_BR, config.clip),
            clip_high=config.clip_high,
            denominator=tokens,
        )
        loss = policy_part = actor.loss * (tokens / counted)
        if penalty is not None:
            kl_BR = reference_kl(now.logp_BR, at(penalty.ref_logp_BR), mask_BR)
            loss = loss + penalty.coef * (kl_BR * at(penalty.weight_BR)).sum() / counted
        figures: dict[str, Tensor | float] = {
            "policy_loss": policy_part,
            "clip_fraction": actor.clip_fraction,
            "approx_kl": actor.approx_kl,
            "entropy": now.entropy_BR.sum() / tokens,
        }
        if others is not None:
            prompts = sorted({row // rollout.samples for row in rows})
            other, other_figures = others.loss(policy, prompts, config.temperature, size)
            loss, figures = loss + other, figures | other_figures
        if critic is not None:
            value = value_loss(
                now.value_BR, at(rollout.value_BR), at(critic.return_BR), mask_BR, critic.clip, denominator=tokens
            )
            loss = loss + critic.coef * value.loss
            explained = value.explained_variance * len(rows) / len(mini_batch)
            figures |= {"value_loss": value.loss, "explained_variance": explained}
        return loss, figures

    return loss_of
