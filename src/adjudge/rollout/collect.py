"""Collect rollouts: sample answers to prompts, read them, and score them.

Shapes: ``B`` answers, ``R`` response tokens the policy wrote, padded on the right; ``P`` prompts, ``L`` labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adjudge.config import RewardConfig
from adjudge.prompts.answers import every_answer, is_right, read_answer
from adjudge.rewards.rewarder import Rewarder, build_rewarder
from adjudge.rl.losses import expected_reward
from adjudge.rollout.analysis import respond_after_analysis
from adjudge.rollout.forward import TokenFigures, rows_joined
from adjudge.rollout.label_scoring import expected_answers, label_logps
from adjudge.rollout.passes import rows_per_pass
from adjudge.rollout.prompted import PromptedTask, PromptRow
from adjudge.rollout.sampler import Sampling, respond
from adjudge.rollout.several import respond_several
from adjudge.system.parallel import divides, of_all_rows, on_first, world_size
from adjudge.system.timing import stage
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Judgement, Value

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
    samples: int = 1
    """Answers per prompt. Those of one prompt are adjacent, and `prompts` names it as often."""
    label_logp_PL: Tensor | None = None
    """Log-probability per label, with its end, as the answer to each prompt. None when not asked for."""
    examples: Sequence[Example] = ()
    """The rows of the prompts."""
    rewarder: Rewarder | None = None
    """The rewarder of the task. None: the settings alone decide on the reward."""

    @property
    def right(self) -> list[bool]:
        """Return which answers are read as the gold one, numbers as one less than 0.5 away."""
        return [is_right(judgement.value, gold) for judgement, gold in zip(self.judgements, self.golds, strict=True)]

    @property
    def missed(self) -> list[int]:
        """Return the prompts none of whose answers is right, by their place in the batch."""
        right, size = self.right, self.samples
        return [prompt for prompt in range(len(right) // size) if not any(right[prompt * size : (prompt + 1) * size])]

    @property
    def openings(self) -> list[list[int]]:
        """Return what comes before each judgement: an analysis with the form's tags, or nothing."""
        spans = self.template_spans
        return [ids[: spans[row].stop] if spans is not None else [] for row, ids in enumerate(self.responses)]


def sample(
    task: PromptedTask,
    rows: Sequence[PromptRow],
    sampling: Sampling,
    *,
    samples: int = 1,
    score_labels: bool = False,
    grad: bool = False,
) -> Rollout:
    """Sample answers to each prompt, and read their judgements.

    All `samples` of a prompt come from one pass over it, except after an analysis. `score_labels` adds the exact
    log-probability of each label (not with an analysis). With `grad`, short answers keep the gradient of the sampling
    pass, which saves the first update its forward pass. An analysis after the judgement earns no reward, so it is not
    sampled. Several processes sample their shares, and each gets the whole rollout, without gradient. Raises
    NotFiniteError when the logits are not a distribution.
    """
    keeps = not task.policy.checkpoints and not task.policy.replays
    grad = grad and keeps and _is_short(task) and _may_keep_gradient()
    sampling = replace(sampling, together=world_size() > 1 and divides(len(rows)))

    def sample_some(some: Sequence[PromptRow]) -> _Sampled:
        return _sample(task, some, sampling, samples=samples, score_labels=score_labels, grad=grad)

    with stage("sample"):
        sampled = _Sampled.joined(of_all_rows(rows, sample_some))
    if world_size() > 1 and sampling.generator is not None:  # where one process drew for all, the others follow
        sampling.generator.set_state(on_first(sampling.generator.get_state))
    figures = TokenFigures(sampled.logp_BR, sampled.value_BR, sampled.entropy_BR)
    return Rollout(
        prompts=[row.ids for row in rows for _ in range(samples)],
        golds=[row.example.gold for row in rows for _ in range(samples)],
        responses=sampled.responses,
        judgements=[read_answer(text, task.spec, task.end.stop) for text in sampled.texts],
        logp_BR=sampled.logp_BR.detach(),
        value_BR=sampled.value_BR.detach(),
        mask_BR=sampled.mask_BR,
        template_spans=sampled.template_spans,
        sampled_with_grad=figures if grad else None,
        samples=samples,
        label_logp_PL=sampled.label_logp_PL,
        examples=[row.example for row in rows for _ in range(samples)],
        rewarder=task.rewarder,
    )


@dataclass(frozen=True, slots=True)
class _Sampled:
    """The answers to some prompts; fields as in `Rollout`."""

    responses: list[list[int]]
    texts: list[str]
    logp_BR: Tensor
    value_BR: Tensor
    entropy_BR: Tensor
    mask_BR: Tensor
    template_spans: list[range] | None
    label_logp_PL: Tensor | None

    @staticmethod
    def joined(parts: Sequence[_Sampled]) -> _Sampled:
        """Return the answers of all parts, padded to the longest."""
        if len(parts) == 1:
            return parts[0]
        spans = [part.template_spans for part in parts]
        labels = [part.label_logp_PL for part in parts]
        return _Sampled(
            responses=[ids for part in parts for ids in part.responses],
            texts=[text for part in parts for text in part.texts],
            logp_BR=rows_joined([part.logp_BR for part in parts]),
            value_BR=rows_joined([part.value_BR for part in parts]),
            entropy_BR=rows_joined([part.entropy_BR for part in parts]),
            mask_BR=rows_joined([part.mask_BR for part in parts]),
            template_spans=None if spans[0] is None else [span for part in spans for span in part or ()],
            label_logp_PL=None if labels[0] is None else torch.cat([each for each in labels if each is not None]),
        )


def _sample(
    task: PromptedTask,
    rows: Sequence[PromptRow],
    sampling: Sampling,
    *,
    samples: int,
    score_labels: bool,
    grad: bool,
) -> _Sampled:
    prompts = [row.ids for row in rows for _ in range(samples)]
    label_logp_PL = None
    if task.analysis_before is not None:
        responses = respond_after_analysis(task.policy, prompts, task.analysis_before, task.end, sampling)
    else:
        expected = expected_answers(task, scored=score_labels)
        state = task.policy.prefill([row.ids for row in rows], grad=grad, expected=expected)
        if score_labels:
            frozen = replace(state.fork(), grad=False)
            label_logp_PL = label_logps(task.policy, frozen, expected, sampling.temperature).cpu()
        if samples == 1:
            responses = respond(task.policy, state, task.end, sampling)
        else:
            responses = respond_several(task.policy, state, task.end, sampling, samples)
    tensors = (responses.logp_BR, responses.value_BR, responses.entropy_BR, responses.mask_BR)
    return _Sampled(responses.ids, responses.texts, *tensors, responses.template_spans, label_logp_PL)


def score(rollout: Rollout, spec: TaskSpec, config: RewardConfig, *, common_scale: bool = False) -> Tensor:
    """Return the reward of each answer, float32 ``[B]``.

    With `common_scale`, divide by the task's largest reward (`reward_scale`) to put several tasks on one scale.
    Whitening does not rescale the KL penalty and the value loss, which then weigh the same in each task. Raises
    DataError for a row without a gold answer, NotFiniteError, RewardError.
    """
    rewarder = rollout.rewarder or build_rewarder(config, spec)
    return torch.tensor(on_first(lambda: rewarder.score(rollout, common_scale=common_scale)))


def exact_values(rollout: Rollout, spec: TaskSpec, config: RewardConfig, *, common_scale: bool = False) -> Tensor:
    """Return the exact expected reward of an answer to each prompt, once per answer: float32 ``[B]``.

    The rollout must have scored the labels. A metric's credit is left out: it is a difference to other answers already.
    """
    assert rollout.label_logp_PL is not None
    reward_PL, unreadable_P = rewards_of_labels(rollout, spec, config, common_scale=common_scale)
    return expected_reward(rollout.label_logp_PL, reward_PL, unreadable_P).repeat_interleave(rollout.samples)


def rewards_of_labels(
    rollout: Rollout, spec: TaskSpec, config: RewardConfig, *, common_scale: bool = False
) -> tuple[Tensor, Tensor]:
    """Return each prompt's reward of each label, ``[P, L]``, and of an unreadable answer, ``[P]``.

    A metric's credit is left out.
    """
    rewarder = rollout.rewarder or build_rewarder(config, spec)
    rows, prompts = rollout.examples[:: rollout.samples], rollout.prompts[:: rollout.samples]
    every = every_answer(spec)
    reward_PL = torch.tensor(
        on_first(lambda: rewarder.of_each(rows, prompts, every, common_scale=common_scale, metric=False))
    )
    return reward_PL, torch.tensor(rewarder.of_unreadable(rows, common_scale=common_scale, metric=False))


def can_score_labels(task: PromptedTask) -> bool:
    """Return whether every right answer is a label whose probability can be computed."""
    return task.spec.lists_all and task.analysis_before is None


def _may_keep_gradient() -> bool:
    """Return whether an update may go back through the pass that sampled.

    It may when all rows are in that pass, in one process.
    """
    passes = rows_per_pass()
    return world_size() == 1 and (passes is None or passes.one_pass)


def _is_short(task: PromptedTask) -> bool:
    return task.analysis_before is None and task.end.max_tokens <= MAX_GRAD_TOKENS
