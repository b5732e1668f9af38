"""The label prior of a prompt: how likely it makes each label word, whatever row it is shown.

``content-free``: the mean of the label probabilities over rows whose every field is "N/A", "[MASK]" or empty.
Source: arXiv 2102.09690 (contextual calibration), section 5, with W = diag(p_cf)^-1 and b = 0.

``training-rows``: their mean over training rows, whose gold answers are not read.
Source: arXiv 2309.17249 (batch calibration), which takes the mean over the rows that are judged. Training rows instead
keep a row's answer independent of the other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from adjudge.evaluation.predict import PromptedJudge
from adjudge.rollout.prompted import PromptedTask
from adjudge.types import Example


def label_prior(task: PromptedTask, rows: Sequence[Example]) -> dict[str, float]:
    """Return the mean probability of each label word over the rows, without any prior.

    Raises what judging raises.
    """
    task.prior = None
    predictions = PromptedJudge(task).judge(rows, probabilities=True, title=f"label prior of {task.spec.name}")
    return {word: fmean(each.probabilities[word] for each in predictions) for word in task.spec.words}
