"""Collect rollouts: sample an answer per prompt, read it, and score it.

Shapes: ``B`` prompts, ``R`` response tokens the policy wrote, padded on the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adjudge.config import RewardConfig
from adjudge.prompts.answers import read_answer
from adjudge.rewards.score import reward_scale, rewards
from adjudge.rollout.analysis import respond_after_analysis
from adjudge.rollout.forward import TokenFigures
from adjudge.rollout.prompted import PromptedTask, PromptRow
from adjudge.rollout.sampler import Responses, Sampling, respond
from adjudge.system.timing import stage
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Judgement, Value

MAX_GRAD_TOKENS = 4
"""Longest answers sampled with gradient: going back through longer ones token by token costs more than a new pass."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A batch of sampled answers.

    Tensors are float32 ``[B, R]`` on the CPU, without gradient, 0 where the mask is False. With an analysis before the
    judgement, `responses` also holds the form's tags between the two. They are not actions of the policy:
    `template_spans` names their positions, and ``R`` does not count them.
    """

    prompts: list[tuple[int, ...]]
    golds: list[Value | None]
    responses: list[list[int]]
    judgements: list[Judgement]
    logp_BR: Tensor
    value_BR: Tensor
    mask_BR: Tensor
    template_spans: list[range] | None
    sampled_with_grad: TokenFigures | None
    """The sampled figures with their gradient, for the first update. None when sampled without gradient."""


def sample(task: PromptedTask, rows: Sequence[PromptRow], sampling: Sampling, *, grad: bool = False) -> Rollout:
    """Sample one answer per prompt and read its judgement.

    With `grad`, short answers keep the gradient of the sampling pass, which saves the first update its forward pass. An
    analysis after the judgement earns no reward, so it is not sampled. Raises NotFiniteError when the logits are not a
    distribution.
    """
    prompts = [row.ids for row in rows]
    grad = grad and _is_short(task) and not task.policy.checkpoints
    with stage("sample"):
        responses = _respond(task, prompts, sampling, grad)
        figures = TokenFigures(responses.logp_BR, responses.value_BR, responses.entropy_BR)
    return Rollout(
        prompts=prompts,
        golds=[row.example.gold for row in rows],
        responses=responses.ids,
        judgements=[read_answer(text, task.spec, task.end.stop) for text in responses.texts],
        logp_BR=responses.logp_BR.detach(),
        value_BR=responses.value_BR.detach(),
        mask_BR=responses.mask_BR,
        template_spans=responses.template_spans,
        sampled_with_grad=figures if grad else None,
    )


def score(rollout: Rollout, spec: TaskSpec, config: RewardConfig, *, common_scale: bool = False) -> Tensor:
    """Return the reward of each answer, float32 ``[B]``.

    With `common_scale`, divide by the task's largest reward (`reward_scale`) to put several tasks on one scale.
    Whitening does not rescale the KL penalty and the value loss, which then weigh the same in each task. Raises
    DataError for a row without a gold answer, NotFiniteError.
    """
    scale = reward_scale(spec, config) if common_scale else 1.0
    return torch.tensor(rewards(rollout.judgements, rollout.golds, spec, config)) / scale


def _is_short(task: PromptedTask) -> bool:
    return task.analysis_before is None and task.end.max_tokens <= MAX_GRAD_TOKENS


def _respond(task: PromptedTask, prompts: Sequence[Sequence[int]], sampling: Sampling, grad: bool) -> Responses:
    if task.analysis_before is not None:
        return respond_after_analysis(task.policy, prompts, task.analysis_before, task.end, sampling)
    return respond(task.policy, task.policy.prefill(prompts, grad=grad), task.end, sampling)
