"""The score of a judgement, given once at its end. As many rewards as prompts, always."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adjudge.config import RewardConfig
from adjudge.errors import DataError, NotFiniteError, nearest
from adjudge.rewards.match import match_reward
from adjudge.rewards.numeric import numeric_reward
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Judgement, Value


def reward(judgement: Judgement, gold: Value | None, spec: TaskSpec, config: RewardConfig) -> float:
    """Score one judgement against its gold answer.

    Raises DataError when the gold answer is missing or no answer of this task.
    """
    if gold is None:
        raise DataError(
            f"{spec.name}: a row has no gold answer, so its judgement cannot be rewarded. Train on labelled rows."
        )
    if spec.number is not None:
        if isinstance(gold, str):
            raise DataError(f"{spec.name}: the gold answer {gold!r} is no number.")
        return numeric_reward(judgement, gold, spec.number)
    if gold not in spec.words:
        raise DataError(
            f"{spec.name}: the gold answer {gold!r} is none of its answer words.{nearest(str(gold), spec.words)}"
        )
    return match_reward(judgement, str(gold), config)


def reward_scale(spec: TaskSpec, config: RewardConfig) -> float:
    """The most that a readable answer of this task can pay or cost; 1 where that is nothing.

    Rewards of several tasks divided by it are on one scale, −1 to 1 for readable answers: 1 for +1 and −1, range / 2 for numbers.
    """
    if spec.number is not None:
        return (spec.number.high - spec.number.low) / 2
    return max(abs(config.right), abs(config.wrong)) or 1.0


def rewards(
    judgements: Sequence[Judgement], golds: Sequence[Value | None], spec: TaskSpec, config: RewardConfig
) -> list[float]:
    """Score a batch: one reward per prompt, in their order; unreadable answers are scored like the others.

    Raises ValueError when judgements and golds differ in number, DataError as `reward` does, and NotFiniteError for a reward
    that is not finite; both name the place in the batch.
    """
    if len(judgements) != len(golds):
        raise ValueError(f"{len(judgements)} judgements for {len(golds)} prompts: every prompt gets exactly one reward")
    scores = []
    for row, (judgement, gold) in enumerate(zip(judgements, golds, strict=True)):
        try:
            score = reward(judgement, gold, spec, config)
        except DataError as error:
            raise DataError(f"Row {row} of the batch: {error}") from None
        if not math.isfinite(score):
            raise NotFiniteError(
                f"{spec.name}: the reward of row {row} of the batch is {score} (gold {gold!r}, answer {judgement.value!r})."
            )
        scores.append(score)
    return scores
