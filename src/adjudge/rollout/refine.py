"""Critiques of sampled answers, and refinements: what the model answers after it has read one.

A refinement's prompt goes on where an answer ended: the user's next turn is the critique, and the answer is opened
again. The refinement is then kept as an answer to the original prompt, token by token.

Shapes: ``P`` prompts, ``G`` answers to each.

Source: arXiv 2506.03106.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from adjudge.config import RewardConfig
from adjudge.errors import ConfigError
from adjudge.prompts.answers import CLOSING_TAG
from adjudge.rewards.rewarder import build_rewarder
from adjudge.rollout.analysis import missing
from adjudge.rollout.collect import Rollout, sample
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.rollout.sampler import Sampling
from adjudge.system.parallel import on_first
from adjudge.types import Example, Judgement, Value

Kind = Literal["simple", "quote", "gold"]
"""What a critique says: correct or incorrect; that of the quoted answer; that, and the right answer."""

_QUOTED = 40
"""Most characters of an unreadable answer that a critique quotes."""


class Refinements(NamedTuple):
    """The refinements that join their prompts' groups, as answers to the original prompts."""

    rollout: Rollout | None
    """One answer per refinement; None where no answer was refined."""
    prompt_N: list[int]
    """Each one's prompt among those of the batch."""
    figures: dict[str, Any]


def critique(kind: Kind, judgement: Judgement, gold: Value | None, words: Sequence[str]) -> str:
    """Return what the model is told about its answer."""
    right, value = judgement.value == gold, judgement.value
    if value is None:
        text = "Your judgement cannot be read."
        if kind == "quote":
            written = " ".join(judgement.text.split())[:_QUOTED]
            text = f'You judged "{written}", which is none of: {", ".join(words)}.'
    elif kind == "quote":
        text = f'You judged "{value}", which is {"correct" if right else "incorrect"}.'
    else:
        text = f"Your judgement is {'correct' if right else 'incorrect'}."
    hint = f" The correct judgement is {gold}." if kind == "gold" else ""
    return f"{text}{hint} Answer again, in the same form."


def refinable_rows(task: PromptedTask, examples: Sequence[Example], kind: Kind) -> list[PromptRow]:
    """Render the prompt of each row.

    Raises ConfigError where a refinement has no room in the model's positions.
    """
    rows, most = prompt_rows(task, examples), task.policy.positions
    if most is None or not most.fixed:
        return rows
    words = task.spec.words
    longest = critique(kind, Judgement("x" * _QUOTED, None), max(words, key=len), words)
    more = 2 * task.response_tokens + len(task.renderer.next_turn(CLOSING_TAG, longest))
    for row in rows:
        if row.tokens + more > most.count:
            raise ConfigError(
                f"{row.id}: its prompt has {row.tokens:,} tokens, and an answer, a critique and a refinement up to "
                f"{more} more, but {task.policy.name} has only {most.count:,} positions{most.why}. Set "
                f"prompt.max_tokens={max(most.count - more, 16)}, or use a model with more positions."
            )
    return rows


def refine(task: PromptedTask, rollout: Rollout, kind: Kind, sampling: Sampling, kept: int) -> Refinements:
    """Sample a refinement of every answer, and keep up to `kept` per prompt: right ones first, in order.

    Prompts whose answers are all right are skipped. Raises NotFiniteError.
    """
    right_PG = torch.tensor(rollout.right).reshape(-1, rollout.samples)
    refined_P = ~right_PG.all(1) if kept else torch.zeros(len(right_PG), dtype=torch.bool)
    prompts = refined_P.nonzero().squeeze(1).tolist()
    if not prompts:
        return Refinements(None, [], _figures(right_PG, right_PG[:0], refined_P) if kept else {})
    answers = [prompt * rollout.samples + sample for prompt in prompts for sample in range(rollout.samples)]
    refined = sample(task, [_asked_again(task, rollout, answer, kind) for answer in answers], sampling)
    again_PG = torch.tensor(refined.right).reshape(-1, rollout.samples)
    chosen, prompt_N = [], []
    for position, prompt in enumerate(prompts):
        candidates = range(position * rollout.samples, (position + 1) * rollout.samples)
        best = sorted(candidates, key=lambda index: _rank(refined.judgements[index], refined.golds[index]))[:kept]
        chosen += best
        prompt_N += [prompt] * len(best)
    figures = {**_figures(right_PG, again_PG, refined_P), "extra_tokens": int(refined.mask_BR.sum())}
    return Refinements(
        _as_answers(refined, chosen, [rollout.prompts[answers[index]] for index in chosen]), prompt_N, figures
    )


def refined_scores(refined: Refinements, task: PromptedTask, reward: RewardConfig, *, common_scale: bool) -> Tensor:
    """Return the reward of each kept refinement, as an answer to the original prompt, float32 ``[N]``."""
    rollout = refined.rollout
    if rollout is None:
        return torch.zeros(0)
    rewarder = rollout.rewarder or build_rewarder(reward, task.spec)
    return torch.tensor(on_first(lambda: rewarder.of_others(rollout, common_scale=common_scale)))


def _rank(judgement: Judgement, gold: Value | None) -> int:
    return 0 if judgement.value == gold else 1 if judgement.value is not None else 2


def _asked_again(task: PromptedTask, rollout: Rollout, answer: int, kind: Kind) -> PromptRow:
    """Return the row of an answer, whose prompt is the whole conversation so far."""
    opening, judgement = rollout.openings[answer], rollout.judgements[answer]
    written = task.end.inside(rollout.responses[answer][len(opening) :])
    feedback = critique(kind, judgement, rollout.golds[answer], task.spec.words)
    turn = task.renderer.next_turn(missing(task.end.text(written), CLOSING_TAG), feedback)
    return PromptRow(rollout.examples[answer], (*rollout.prompts[answer], *opening, *written, *turn))


def _as_answers(rollout: Rollout, chosen: Sequence[int], prompts: list[tuple[int, ...]]) -> Rollout:
    """Return some answers as answers to other prompts."""
    spans = rollout.template_spans
    return replace(
        rollout,
        prompts=prompts,
        golds=[rollout.golds[index] for index in chosen],
        responses=[rollout.responses[index] for index in chosen],
        judgements=[rollout.judgements[index] for index in chosen],
        logp_BR=rollout.logp_BR[chosen],
        value_BR=rollout.value_BR[chosen],
        mask_BR=rollout.mask_BR[chosen],
        template_spans=None if spans is None else [spans[index] for index in chosen],
        examples=[rollout.examples[index] for index in chosen],
    )


def _figures(right_PG: Tensor, again_PG: Tensor, refined_P: Tensor) -> dict[str, Any]:
    """Return how refinements of wrong answers fare beside fresh samples.

    A fresh sample for a wrong answer is any of the prompt's other ones: given the prompt they do not depend on it.
    """
    own_PG = right_PG[refined_P]
    wrong_PG = ~own_PG
    count = int(wrong_PG.sum())
    fresh_PG = own_PG.sum(1, keepdim=True).float() / (own_PG.shape[1] - 1) * torch.ones_like(own_PG)

    def mean(value_PG: Tensor) -> float | None:
        return float((value_PG * wrong_PG).sum() / count) if count else None

    again_PG = again_PG.float()
    return {
        "skipped": float((~refined_P).float().mean()),
        "critiqued": count,
        "refined_right": mean(again_PG),
        "fresh_right": mean(fresh_PG),
        "refined_beats": mean(again_PG * (1 - fresh_PG)),
        "fresh_beats": mean((1 - again_PG) * fresh_PG),
        "none_right": int((again_PG.sum(1) == 0).sum()),
    }
