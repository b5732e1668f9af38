"""Iterative instruction prompting (arXiv 2410.06667): a program is given line by line, not at once.

1. At each line the model is shown the lines so far, the values so far, and the line, and writes the values it sets.
   Two worked lines of another program, the same before every step, show the form.
2. The values are read strictly and carried on, the last one of each name. An answer that cannot be read changes nothing
   and is counted.
3. At the end the row is judged as for zero-shot, with the values after the last line below it.

Differs from the paper:

1. It is a reconstruction: the paper's prompts, temperatures and scoring are not published.
2. Programs are straight-line: there is one step per line, and no loop to follow.
3. A task that is no program may have a procedure instead (``iip.steps``): questions, each answered before the next.
   That is stepwise prompting of ours, not IIP, and the table says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.evaluation.api_judge import ApiJudge
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.evaluation.stepwise import StepwiseJudge
from adjudge.methods.base import Method, Trained
from adjudge.methods.for_tasks import check_lines
from adjudge.methods.prompting.writing import writer_of
from adjudge.models.chat_api import is_api
from adjudge.models.policy import Policy, load_policy
from adjudge.prompts.steps import steps_of, with_notes
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[Judge]:
    """Return the untrained model, asked step by step."""
    policy = None if is_api(run.config.model) else load_policy(run.config)
    return [stepwise_judge(run, spec, policy) for spec in specs]


def stepwise_judge(run: Run, spec: TaskSpec, policy: Policy | None) -> StepwiseJudge:
    """Return the judge of one task by a policy, or without one over the API that the run's settings name.

    Raises ConfigError for another task than the run's, without the field whose lines are the steps.
    """
    config = run.config
    check_lines(config.iip.lines, spec)
    noted, notes_field = with_notes(spec)
    writer = writer_of(run, policy)
    judge: PromptedJudge | ApiJudge
    if policy is None:
        judge = ApiJudge(writer, noted, config)
    else:
        judge = PromptedJudge(PromptedTask(policy, noted, config))
    steps = steps_of(spec, config.iip.lines, config.iip.steps)
    return StepwiseJudge(writer, steps, judge, notes_field, config, config.iip.max_tokens, policy)


def build_judges(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Return the judges; nothing is trained."""
    return Trained(load_judges(run, [part.spec for part in parts]))


METHOD = Method(build_judges, load_judges)
