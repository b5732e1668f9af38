"""A reward model: LoRA layers and a scalar head that rate the right answer above the wrong ones.

1. Keep a share of the rows out (`held_out`), and pair the right answer to each prompt with every wrong label.
   With an analysis before the judgement, pairs are made of sampled answers (`adjudge.rollout.analysed_pairs`).
2. The head reads the state after each token of an answer; its value after the last one is the answer's reward.
3. Raise log σ(value of the right answer − value of the wrong one), on average over the tokens where the two differ.
4. Measure on the rows kept out how often the right answer has the higher reward (`pair_accuracy`). Other runs refuse
   a model below 0.6 as their reward.

As a judge it answers with the label of the highest reward, so that it stands in comparisons.

Differs from arXiv 2405.19763:

1. Answers are labels alone, or with ``prompt.analysis=before`` the model's own answers. There, each label has a
   rationale, which a large model wrote for it.
2. Where one answer is shorter, its last value counts on. There, values at padding count.
3. Rows are weighted so that every label counts the same (`class_weight`), else the frequent label earns more.
4. The rate, batch sizes and LoRA layers are ours. The adapter is fresh, or goes on from the run named by ``init``.

Source: arXiv 2405.19763 (label-sensitive pairs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adjudge.errors import ConfigError, DataError
from adjudge.evaluation.reward_judge import RewardJudge
from adjudge.methods.base import Method, Trained
from adjudge.methods.loop import adapter_loop, load_adapter_judges
from adjudge.rewards.weights import balanced_weights
from adjudge.rollout.analysed_pairs import AnalysedPairs, AnswerPair
from adjudge.rollout.label_rewards import label_rewards
from adjudge.rollout.pairs import gold_labels
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.runs.folder import Run
from adjudge.tasks import take_rows
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.training.reward_pairs import answer_pair_figures, learn_answer_pairs, learn_reward_pairs, pair_figures
from adjudge.types import Example


def train_reward_model(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on pairs of labels, and measure the held-out pairs. Raises DataError, NotFiniteError."""
    config = run.config.reward_model
    held = [_held_out(part, config.held_out, run.config.seed) for part in parts]
    held_ids = [{row.id for row in kept} for kept in held]
    taught = [
        TaskRows(part.spec, [row for row in part.rows if row.id not in kept])
        for part, kept in zip(parts, held_ids, strict=True)
    ]
    weights = [balanced_weights([row.gold for row in part.rows]) if config.class_weight else {} for part in taught]
    analysed = run.config.prompt.analysis == "before"
    if config.pairs == "rationale" and not analysed:
        raise ConfigError(
            "reward_model.pairs=rationale compares analyses before the judgement: set prompt.analysis=before."
        )
    pairs = AnalysedPairs(config.pairs, config.samples)
    # Differences do not depend on the head's bias: its gradient is rounding, which the optimizer would enlarge.
    more: dict[str, Any] = {"value_lr": config.head_lr, "value_bias": False, "judge_of": RewardJudge}
    with adapter_loop(run, taught, config, prompt_rows, samples=True, carry={"pairs": pairs}, **more) as loop:
        kept = [prompt_rows(task, rows) for task, rows in zip(loop.tasks, held, strict=True)]
        for step in loop:
            if analysed and not pairs.is_built:
                rows = [[*part, *more] for part, more in zip(loop.rows, kept, strict=True)]
                pairs.build(loop.tasks, rows, loop.sampling)
            row_weights, answers = weights[step.task_index], None
            if analysed:
                step_pairs = pairs.of(step.task_index, step.rows)
                figures = learn_answer_pairs(step.task, step.rows, step_pairs, row_weights, loop.optimizer, config)
            else:
                figures, answers = learn_reward_pairs(step.task, step.rows, row_weights, loop.optimizer, config)
            loop.log(step, {**figures, "lr": loop.lr}, answers)
    trained = loop.finish()
    own_pairs = [pairs.of(index, rows) for index, rows in enumerate(kept)] if analysed else [None] * len(kept)
    measured = [*map(_measured, loop.tasks, kept, own_pairs)]
    return Trained(
        trained.judges, trained.rows, trained.earlier_s, [each | {"pair_kind": config.pairs} for each in measured]
    )


def _held_out(part: TaskRows, share: float, seed: int) -> list[Example]:
    rows = take_rows(part.rows, max(1, round(share * len(part.rows))), seed)
    if len(rows) == len(part.rows):
        raise DataError(
            f"{part.spec.name}: with {len(rows)} training rows none is left after reward_model.held_out={share:g} of "
            "them are kept out to measure pairs on. Give it more rows."
        )
    return rows


def _measured(
    task: PromptedTask, rows: Sequence[PromptRow], pairs: Sequence[AnswerPair | None] | None
) -> dict[str, Any]:
    """Return how often the better of a held-out pair has the higher reward; None without a pair to tell."""
    task.policy.eval()
    if pairs is None:
        figures = pair_figures(label_rewards(task, [row.ids for row in rows]), gold_labels(task, rows))
        count = len(rows) * (len(task.spec.words) - 1)
    else:
        figures = answer_pair_figures(task, rows, pairs)
        count = sum(pair is not None for pair in pairs)
    return {
        "pair_accuracy": figures.get("preferred"),
        "pair_margin": figures.get("margin"),
        "held_out_pairs": count,
    }


def load_reward_judges(run: Run, specs: Sequence[TaskSpec]) -> list[RewardJudge]:
    """Return the judges of a finished reward model: the label with the highest reward."""
    return [RewardJudge(judge.task) for judge in load_adapter_judges(run, specs)]


METHOD = Method(train_reward_model, load_reward_judges)
