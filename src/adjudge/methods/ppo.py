"""Proximal policy optimisation of LoRA layers on a reward for right answers, token by token.

One step: sample an answer to each prompt of a batch, score the answers, give each token −β(log π − log π_ref) and the last one the
score too, estimate advantages (GAE), then go over the batch a few times with the clipped losses, and steer β.

Differs from arXiv 2410.11020 (``--preset paper`` gives its constants): answers stop where they end and not after 12 to 32
tokens; adapter dropout is off in every pass, since it would make the ratio of the first update differ from 1; log-probabilities
and values are kept from sampling, not computed again, and the first update goes backward through the pass that sampled; an analysis
is sampled and gets credit where it stands before the judgement, not where it follows; gradients are clipped; a batch's updates end
early when the policy has moved far (`stop_kl`); the default optimizer is AdamW at a rate for LoRA, with a warm-up and a decay.

Source: arXiv 1707.06347 (PPO), 1506.02438 (GAE), 1909.08593 (KL to a reference, adaptive β), 2410.11020 (rewards).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adjudge.config import PpoConfig
from adjudge.errors import NotFiniteError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.evaluation.validation import hold_out, validator
from adjudge.methods.base import adapter_method
from adjudge.models.policy import Policy, load_policy
from adjudge.prompts.answers import read_answer
from adjudge.rewards import reward_size, rewards
from adjudge.rl.gae import gae, whiten
from adjudge.rl.kl import AdaptiveKL, token_rewards
from adjudge.rl.losses import policy_loss, token_logp_and_entropy, value_loss
from adjudge.rollout.analysis import respond_after_analysis
from adjudge.rollout.sampler import Responses, Sampling, respond
from adjudge.runs.folder import Run
from adjudge.system.console import progress
from adjudge.training.batches import Batches, chunks
from adjudge.training.guards import check_finite, check_weights, clip_gradients
from adjudge.training.mixture import TaskRows
from adjudge.training.optim import build_optimizer
from adjudge.training.session import Carried, Session, Stateful, drawn, trained
from adjudge.training.watch import AnswerWatch
from adjudge.types import Example, Judgement

LIVE_TOKENS = 4
"""Answers of at most so many tokens are sampled with gradient; longer ones cost more to go back through one by one than a pass anew."""

Asked = tuple[Example, tuple[int, ...]]
"""A training row and its prompt's token ids."""


@dataclass(slots=True)
class Rollout:
    """A batch of sampled answers with all that the updates need. Shapes ``[B, R]``, float32, 0 where the mask is False.

    ``R`` counts the tokens that the policy wrote: with an analysis before the judgement `responses` also has the form's tags
    between the two, at the places `written`, which are no actions.
    """

    prompts: list[tuple[int, ...]]
    responses: list[list[int]]
    judgements: list[Judgement]
    score_B: Tensor
    logp_BR: Tensor
    value_BR: Tensor
    mask_BR: Tensor
    kl_B: Tensor
    advantage_BR: Tensor
    return_BR: Tensor
    seconds: dict[str, float]
    written: list[range] | None = None
    live: tuple[Tensor, Tensor, Tensor] | None = None
    """Log-probability, value and entropy as they were sampled, with their gradient: the first update's forward pass, spent by it."""


def train_ppo(run: Run, parts: Sequence[TaskRows]) -> list[PromptedJudge]:
    """Train on prompts of each task's rows and leave the adapter in the run folder. Raises NotFiniteError before a harmful update.

    A batch is of one task, so that advantages are whitened within a task. Of several tasks, rewards are divided by what an answer can
    pay at most (`reward_size`): the KL penalty and the value loss, which whitening does not touch, then weigh the same in each.
    """
    config, several = run.config.ppo, len(parts) > 1
    parts, held = hold_out(parts, run.config.checkpoint, run.config.seed)
    policy = load_policy(run.config, adapter=run.config.init is None)
    if run.config.init is not None:
        policy.load_adapter(Path(run.config.init) / "adapter", train=True)
    policy.eval()  # gradients flow, dropout does not
    specs = [part.spec for part in parts]
    judges = [PromptedJudge(policy, spec, run.config) for spec in specs]
    asked = [_asked(judge, part.rows) for judge, part in zip(judges, parts, strict=True)]
    order = torch.Generator().manual_seed(run.config.seed)
    sampling = torch.Generator().manual_seed(run.config.seed + 1)
    batches = Batches(asked, config.batch_size, config.epochs, order, _length, padded=not policy.packs)
    head = {
        "params": list(policy.value_head.parameters()),
        "lr": config.value_lr or config.optimizer.lr,
        "weight_decay": 0.0,
    }
    optimizer, scheduler = build_optimizer(
        [{"params": policy.adapter_parameters()}, head], config.optimizer, len(batches)
    )
    beta = AdaptiveKL(config.kl_init, config.kl_target, config.kl_horizon)
    watches = [AnswerWatch(spec, run.config.guard, named=several) for spec in specs]
    sizes = [reward_size(spec, config.reward) if several else 1.0 for spec in specs]
    carried: dict[str, Stateful] = {
        "trained": trained(policy),
        "optimizer": optimizer,
        "scheduler": scheduler,
        "prefixes": Carried(
            policy.kept_prefixes, policy.keep_prefixes
        ),  # which passes they came from shows in the last bits
        "batches": batches,
        "order": drawn(order),
        "sampling": drawn(sampling),
        "beta": beta,
        **{f"watch {place}": watch for place, watch in enumerate(watches)},
    }
    session = Session(run, carried, changes_within=True, validate=validator(specs, judges, held))
    with session, progress("ppo", sum(map(len, asked)) * config.epochs) as bar:
        bar.advance(session.rows)
        for place, batch in session.steps(batches):
            step = session.step
            rollout = collect_rollout(judges[place], batch, config, beta.beta, sampling, step, sizes[place])
            record, seconds = update(policy, rollout, config, optimizer, order, step)
            record |= {"beta": beta.beta, "lr": scheduler.get_last_lr()[0]}
            scheduler.step()
            kl = float(rollout.kl_B.mean())
            beta.update(kl, len(batch))
            record |= watches[place].see([example.gold for example, _ in batch], rollout.judgements)
            reward = float(rollout.score_B.mean())
            named = {"task": specs[place].name} if several else {}
            run.log(
                {"step": step, **named, "prompts": session.rows, "reward": reward, "kl": kl, **record}, seconds=seconds
            )
            bar.advance(len(batch), reward=reward, right=record["right"], kl=kl, unreadable=record["unreadable"])
            watches[place].check(kl)
    check_weights(policy, "the adapter")
    policy.save_adapter(run.folder / "adapter")
    policy.merge()
    return judges


def _asked(judge: PromptedJudge, rows: Sequence[Example]) -> list[Asked]:
    return [(example, prompt.ids) for example, prompt in zip(rows, judge.renderer.prompts(rows), strict=True)]


def collect_rollout(
    judge: PromptedJudge,
    batch: Sequence[Asked],
    config: PpoConfig,
    beta: float,
    generator: torch.Generator,
    step: int,
    size: float = 1.0,
) -> Rollout:
    """Sample one answer per prompt, score it, and estimate advantages. Raises NotFiniteError, DataError (a row without gold).

    Rewards are divided by `size`, so that those of several tasks are on one scale.
    """
    began = time.perf_counter()
    policy, spec = judge.policy, judge.spec
    prompts = [ids for _, ids in batch]
    sampling = Sampling(generator, config.temperature, config.top_k, config.top_p)
    whole = config.mini_batch_size >= len(batch) <= (config.micro_batch_size or len(batch))
    live = whole and judge.analysis_before is None and judge.end.max_tokens <= LIVE_TOKENS and not policy.checkpoints
    try:
        responses = _sampled(judge, prompts, sampling, live)
    except NotFiniteError as error:
        raise NotFiniteError(f"Step {step}: {error}") from None
    sampled = time.perf_counter()
    with torch.no_grad(), policy.reference():
        ref_logp_BR, _, _ = answer_pass(policy, prompts, responses.ids, config.temperature, responses.written)
    referenced = time.perf_counter()
    judgements = [read_answer(text, spec, judge.end.stop) for text in responses.texts]
    score_B = torch.tensor(rewards(judgements, [example.gold for example, _ in batch], spec, config.reward)) / size
    logp_BR, value_BR, mask_BR = responses.logp_BR.detach(), responses.value_BR.detach(), responses.mask_BR
    reward_BR = token_rewards(score_B, logp_BR, ref_logp_BR.cpu(), mask_BR, beta)
    check_finite("the reward", reward_BR, step)
    advantage_BR, return_BR = gae(reward_BR, value_BR, mask_BR, config.gamma, config.lam)
    if config.whiten_advantages:
        advantage_BR = whiten(advantage_BR, mask_BR)
    return Rollout(
        prompts=prompts,
        responses=responses.ids,
        judgements=judgements,
        score_B=score_B,
        logp_BR=logp_BR,
        value_BR=value_BR,
        mask_BR=mask_BR,
        kl_B=((logp_BR - ref_logp_BR.cpu()) * mask_BR).sum(1),
        advantage_BR=advantage_BR,
        return_BR=return_BR,
        seconds={"sample": sampled - began, "reference": referenced - sampled},
        written=responses.written,
        live=(responses.logp_BR, responses.value_BR, responses.entropy_BR) if live else None,
    )


def _sampled(judge: PromptedJudge, prompts: Sequence[Sequence[int]], sampling: Sampling, live: bool) -> Responses:
    """One response a prompt; with `live`, with gradient. An analysis after the judgement earns nothing, so none is sampled."""
    if judge.analysis_before is not None:
        return respond_after_analysis(judge.policy, prompts, judge.analysis_before, judge.end, sampling)
    return respond(judge.policy, judge.policy.prefill(prompts, grad=live), judge.end, sampling)


def update(
    policy: Policy,
    rollout: Rollout,
    config: PpoConfig,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    step: int,
) -> tuple[dict[str, Any], dict[str, float]]:
    """Learn from one batch of rollouts: `update_epochs` times over its mini-batches. Returns the figures of the step, and its seconds.

    An update that would start more than `stop_kl` (nats per token) from the sampling policy is not made, and ends the batch.
    """
    began = time.perf_counter()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    rows = len(rollout.prompts)
    figures: list[dict[str, float]] = []
    explained = 0.0
    stopped = False
    for _ in range(config.update_epochs):
        shuffled = torch.randperm(rows, generator=order)
        for mini in chunks(rows, config.mini_batch_size):
            found = _accumulate(policy, rollout, shuffled[mini], config, step)
            if not figures:
                explained = found.pop("explained_variance")
            stopped = config.stop_kl is not None and found["approx_kl"] > config.stop_kl
            if stopped:
                optimizer.zero_grad(set_to_none=True)
                break
            found["grad_norm"] = clip_gradients(parameters, config.optimizer.max_grad_norm, step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            figures.append(found)
        if stopped:
            break
    names = ("policy_loss", "value_loss", "clip_fraction", "approx_kl", "entropy", "grad_norm")
    means = {name: sum(found[name] for found in figures) / max(1, len(figures)) for name in names}
    seconds = {**rollout.seconds, "update": time.perf_counter() - began}
    return {**means, "explained_variance": explained, "updates": len(figures), "stopped": stopped}, seconds


def _accumulate(policy: Policy, rollout: Rollout, picked: Tensor, config: PpoConfig, step: int) -> dict[str, float]:
    """Gradients of one mini-batch, micro-batch by micro-batch, each a part of the whole mini-batch's mean."""
    tokens = int(rollout.mask_BR[picked].sum())
    sums: dict[str, float] = {}
    for part in chunks(len(picked), config.micro_batch_size):
        rows = picked[part].tolist()
        logp_BR, value_BR, entropy_BR = _figures(policy, rollout, rows, config.temperature)
        width = logp_BR.shape[1]
        old_logp, old_value, mask, advantage, returns = (
            tensor[rows, :width].to(policy.device)
            for tensor in (rollout.logp_BR, rollout.value_BR, rollout.mask_BR, rollout.advantage_BR, rollout.return_BR)
        )
        actor = policy_loss(logp_BR, old_logp, advantage, mask, config.clip, denominator=tokens)
        critic = value_loss(value_BR, old_value, returns, mask, config.value_clip, denominator=tokens)
        loss = actor.loss + config.value_coef * critic.loss
        check_finite("the loss", loss, step)
        loss.backward()
        parts = {
            "policy_loss": actor.loss,
            "value_loss": critic.loss,
            "clip_fraction": actor.clip_fraction,
            "approx_kl": actor.approx_kl,
            "entropy": entropy_BR.sum() / tokens,
            "explained_variance": critic.explained_variance * len(rows) / len(picked),
        }
        sums = {name: sums.get(name, 0.0) + value.item() for name, value in parts.items()}
    return sums


def _figures(policy: Policy, rollout: Rollout, rows: list[int], temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability, value and entropy of some of a rollout's rows under the policy as it is now, with gradient."""
    if rollout.live is not None:  # the first update, of all rows: the policy is still the one that sampled
        logp_BR, value_BR, entropy_BR = (tensor[rows].to(policy.device) for tensor in rollout.live)
        rollout.live = None
        return logp_BR, value_BR, entropy_BR
    prompts, responses = [rollout.prompts[row] for row in rows], [rollout.responses[row] for row in rows]
    written = None if rollout.written is None else [rollout.written[row] for row in rows]
    return answer_pass(policy, prompts, responses, temperature, written)


def _length(row: Asked) -> int:
    return len(row[1])


def answer_pass(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    temperature: float,
    written: Sequence[range] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability, value and entropy at each response token, float32 ``[B, R]``, 0 at padding.

    Tokens at the places `written`, one range a response, are read and not counted: the tensors have no column for them.
    """
    batch = policy.batch(prompts, responses)
    hidden_MD = policy.hidden(batch)
    mask_BR, ids_M = batch.response_mask_BR, batch.response_BR[batch.response_mask_BR]
    if written is not None:
        mask_BR, own_M = _without(written, mask_BR)
        hidden_MD, ids_M = hidden_MD[own_M], ids_M[own_M]
    logp_M, entropy_M = token_logp_and_entropy(policy.logits(hidden_MD) / temperature, ids_M)
    value_M = policy.value(hidden_MD)
    logp_BR, value_BR, entropy_BR = (
        torch.zeros(mask_BR.shape, device=policy.device).masked_scatter(mask_BR, column)
        for column in (logp_M, value_M, entropy_M)
    )
    return logp_BR, value_BR, entropy_BR


def _without(written: Sequence[range], mask_BR: Tensor) -> tuple[Tensor, Tensor]:
    """The mask of as many tokens as are left without the written ones, and which of all real tokens those are."""
    place_R = torch.arange(mask_BR.shape[1], device=mask_BR.device)
    start_B, stop_B = (
        torch.tensor(ends, device=mask_BR.device) for ends in zip(*((w.start, w.stop) for w in written), strict=True)
    )
    own_BR = mask_BR & ~((place_R >= start_B[:, None]) & (place_R < stop_B[:, None]))
    count_B = own_BR.sum(1)
    return place_R[: int(count_B.max())] < count_B[:, None], own_BR[mask_BR]


PPO = adapter_method("ppo", train_ppo)
