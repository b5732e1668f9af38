"""Supervised fine-tuning of LoRA layers on the right answers.

Differs from arXiv 2410.11020: the loss counts the answer's tokens only (``sft.loss=sequence`` counts prompt and answer, as the paper does),
the learning rate is SFT's own with a warm-up, gradients are clipped, and the answer taught is the label word that evaluation reads, with
the end that evaluation stops at. ``--preset paper`` gives the paper's constants.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from adjudge.errors import DataError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.evaluation.validation import hold_out, validator
from adjudge.methods.base import adapter_method
from adjudge.models.policy import Policy, load_policy
from adjudge.rl.losses import answer_loss, token_logp_and_entropy
from adjudge.runs.folder import Run
from adjudge.system.console import progress
from adjudge.tasks.spec import TaskSpec
from adjudge.training.batches import Batches, chunks
from adjudge.training.guards import check_finite, check_weights, clip_gradients
from adjudge.training.mixture import TaskRows
from adjudge.training.optim import build_optimizer
from adjudge.training.session import Session, Stateful, drawn, trained
from adjudge.types import Example


class Taught(NamedTuple):
    """A training row as token ids: those given, and those taught after them."""

    given: list[int]
    taught: list[int]
    id: str = ""
    """Of the row, to name it when its batch goes wrong."""


def train_sft(run: Run, parts: Sequence[TaskRows]) -> list[PromptedJudge]:
    """Train on the rows of each task and leave the adapter in the run folder. Raises NotFiniteError before a harmful update."""
    config, several = run.config.sft, len(parts) > 1
    parts, held = hold_out(parts, run.config.checkpoint, run.config.seed)
    policy = load_policy(run.config, adapter=True)
    judges = [PromptedJudge(policy, part.spec, run.config) for part in parts]
    rows = [_rows(judge, part.spec, part.rows, config.loss) for judge, part in zip(judges, parts, strict=True)]
    parameters = policy.adapter_parameters()
    order = torch.Generator().manual_seed(run.config.seed)
    batches = Batches(rows, config.batch_size, config.epochs, order, _length, padded=not policy.packs)
    optimizer, scheduler = build_optimizer([{"params": parameters}], config.optimizer, len(batches))
    torch.manual_seed(run.config.seed)  # adapter dropout
    carried: dict[str, Stateful] = {
        "trained": trained(policy),
        "optimizer": optimizer,
        "scheduler": scheduler,
        "batches": batches,
        "order": drawn(order),
    }
    validate = validator([part.spec for part in parts], judges, held)
    with (
        Session(run, carried, validate=validate) as session,
        progress("sft", sum(map(len, rows)) * config.epochs) as bar,
    ):
        bar.advance(session.rows)
        for place, batch in session.steps(batches):
            began = time.perf_counter()
            policy.train()
            tokens = sum(len(row.taught) for row in batch)
            loss, right = 0.0, 0
            for part in chunks(len(batch), config.micro_batch_size):
                micro_loss, micro_right = _forward(policy, batch[part], tokens)
                check_finite("the loss", micro_loss, session.step)
                micro_loss.backward()
                loss, right = loss + micro_loss.item(), right + micro_right
            norm = clip_gradients(parameters, config.optimizer.max_grad_norm, session.step)
            rate = scheduler.get_last_lr()[0]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            scheduler.step()
            named = {"task": parts[place].spec.name} if several else {}
            record = {"loss": loss, "right": right / len(batch), "grad_norm": norm, "lr": rate}
            run.log(
                {"step": session.step, **named, "rows": session.rows, **record}, seconds=time.perf_counter() - began
            )
            bar.advance(len(batch), loss=loss, right=right / len(batch))
    check_weights(policy, "the adapter")
    policy.save_adapter(run.folder / "adapter")
    policy.merge()
    return judges


def _rows(judge: PromptedJudge, spec: TaskSpec, train: Sequence[Example], loss: str) -> list[Taught]:
    rows: list[Taught] = []
    for example, prompt in zip(train, judge.renderer.prompts(train), strict=True):
        if example.gold is None:
            raise DataError(f"{example.id}: has no gold answer to learn from.")
        given, taught = list(prompt.ids), judge.end.taught_ids(example.gold, spec)
        if loss == "sequence":
            given, taught = given[:1], [*given[1:], *taught]
        rows.append(Taught(given, taught, example.id))
    return rows


def _length(row: Taught) -> int:
    return len(row.given) + len(row.taught)


def _forward(policy: Policy, rows: Sequence[Taught], denominator: int) -> tuple[torch.Tensor, int]:
    """Loss of some rows of a batch that teaches `denominator` tokens, and how many rows have every taught token likeliest."""
    batch = policy.batch([row.given for row in rows], [row.taught for row in rows])
    logits_MV = policy.logits(policy.hidden(batch))
    mask_BR = batch.response_mask_BR
    taught_M = batch.response_BR[mask_BR]
    logp_M, _ = token_logp_and_entropy(logits_MV, taught_M)
    right_BR = torch.ones_like(mask_BR)
    right_BR[mask_BR] = logits_MV.argmax(-1) == taught_M
    return answer_loss(logp_M, torch.ones_like(logp_M, dtype=torch.bool), denominator=denominator), int(
        right_BR.all(1).sum()
    )


SFT = adapter_method("sft", train_sft)
