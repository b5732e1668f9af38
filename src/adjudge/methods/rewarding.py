"""The rewarders of a run: what each task's answers earn, with what a reward model says of them."""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.config import RewardConfig
from adjudge.models.policy import load_policy
from adjudge.rewards.learned import LearnedReward, Ratings
from adjudge.rewards.rewarder import build_rewarder
from adjudge.rollout.answer_ratings import AnswerRatings
from adjudge.rollout.label_rewards import label_rewards
from adjudge.rollout.pairs import gold_labels
from adjudge.rollout.prompted import PromptedTask, prompt_rows
from adjudge.runs.environment import dated
from adjudge.runs.folder import Run
from adjudge.runs.reward_model import RewardModel
from adjudge.system.console import note
from adjudge.system.memory import free_dropped
from adjudge.system.parallel import on_first
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.training.state import Stateful


def add_rewarders(
    run: Run, config: RewardConfig, tasks: Sequence[PromptedTask], parts: Sequence[TaskRows]
) -> dict[str, Stateful]:
    """Give each task its rewarder, and return those which carry something from step to step.

    A reward model rates every label of every training row now, and is then dropped, unless it rates analyses.
    """
    learned: Sequence[Ratings | None] = [None] * len(parts)
    if run.reward_model is not None:
        learned = rated(run, run.reward_model, parts)
        free_dropped()
    carried: dict[str, Stateful] = {}
    for index, (task, part) in enumerate(zip(tasks, parts, strict=True)):
        decode = task.policy.tokenizer.decode
        task.rewarder = build_rewarder(config, part.spec, part.rows, run.reward_functions, decode, learned[index])
        if task.rewarder.has_state:
            carried[f"rewarder {index}"] = task.rewarder
    return carried


def rated(run: Run, model: RewardModel, parts: Sequence[TaskRows]) -> Sequence[Ratings]:
    """Return what the reward model gives each label of each row, task by task. It reads its own prompts."""
    model_run = Run.open(model.folder)
    update = {"model": run.config.model, "runtime": run.config.runtime}  # the same weights, where they lie now
    model_run.config = dated(model.folder, model_run.config).model_copy(update=update)

    # Every process loads it: the first, which rates alone, may need what the others hold of a divided base.
    tasks = load_adapter_tasks(model_run, [part.spec for part in parts])
    if model.rates_analyses:
        return [AnswerRatings(task, rates_labels=model.kind == "label") for task in tasks]

    def rate() -> list[tuple[list[list[float]], float]]:
        ratings = []
        for task, part in zip(tasks, parts, strict=True):
            task.policy.eval()
            rows = prompt_rows(task, part.rows)
            reward_NL = label_rewards(task, [row.ids for row in rows])
            highest = reward_NL.argmax(1).tolist()
            right = sum(map(int.__eq__, highest, gold_labels(task, rows))) / len(rows)
            ratings.append((reward_NL.tolist(), right))
        return ratings

    rewards = []
    for part, (rows, right) in zip(parts, on_first(rate), strict=True):
        note(
            f"{model.folder} rates the right label highest in {right:.3f} of the {len(rows)} rows of {part.spec.name}."
        )
        rewards.append(LearnedReward(part.spec, [row.id for row in part.rows], rows))
    return rewards


def load_adapter_tasks(run: Run, specs: Sequence[TaskSpec]) -> list[PromptedTask]:
    """Return the tasks of a finished run's policy, its adapter loaded, prompted with each."""
    policy = load_policy(run.config)
    policy.load_adapter(run.part("adapter"), train=False)
    policy.merge()
    return [PromptedTask(policy, spec, run.config) for spec in specs]
