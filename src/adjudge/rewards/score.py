"""The reward of a judgement, given once at its end. Every prompt gets exactly one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adjudge.config import RewardConfig
from adjudge.errors import DataError, NotFiniteError, nearest
from adjudge.rewards.match import match_reward, set_reward
from adjudge.rewards.numeric import numeric_reward
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Judgement, Value


def reward(judgement: Judgement, gold: Value | None, spec: TaskSpec, config: RewardConfig) -> float:
    """Return the reward of one judgement.

    Raises DataError when the gold answer is missing, or is not an answer of this task.
    """
    if gold is None:
        raise DataError(
            f"{spec.name}: a row has no gold answer, so its judgement cannot be rewarded. Train on labelled rows."
        )
    if spec.number is not None:
        if isinstance(gold, str):
            raise DataError(f"{spec.name}: the gold answer {gold!r} is not a number.")
        return numeric_reward(judgement, gold, spec.number)
    if not spec.accepts(gold):
        raise DataError(
            f"{spec.name}: the gold answer {gold!r} is none of its answer words.{nearest(str(gold), spec.words)}"
        )
    return (set_reward if spec.several else match_reward)(judgement, str(gold), spec, config)


def reward_scale(spec: TaskSpec, config: RewardConfig) -> float:
    """Return the largest absolute reward of a readable answer of the task; 1 if that is 0.

    Dividing by it puts the rewards of several tasks on one scale, −1 to 1 for readable answers. For rewards of +1 and
    −1 it is 1, for number tasks range / 2.
    """
    if spec.number is not None:
        return (spec.number.high - spec.number.low) / 2
    costs = [cost for answers in (config.costs or {}).values() for cost in answers.values()]
    return max(map(abs, (config.right, config.wrong, *costs))) or 1.0


def rewards(
    judgements: Sequence[Judgement], golds: Sequence[Value | None], spec: TaskSpec, config: RewardConfig
) -> list[float]:
    """Return one reward per prompt, in their order, unreadable answers included.

    Raises ValueError when judgements and golds differ in number, DataError as `reward` does, and NotFiniteError for a
    reward which is not finite. Both errors name the row in the batch.
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
                f"{spec.name}: the reward of row {row} of the batch is {score} "
                f"(gold {gold!r}, answer {judgement.value!r})."
            )
        scores.append(score)
    return scores
