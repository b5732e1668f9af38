"""Critique-GRPO: groups of sampled answers, joined by refinements that were written after a critique.

One step: sample several answers per prompt, score them, tell the model of each whether it is correct, and sample it
again. One such refinement per prompt, a right one if there is, joins the group. All advantages are relative to the mean
of this union. Sampled answers are learned by the policy-gradient loss. A refinement is learned as an answer to the
prompt alone, without the critique, and shaped: a token's gradient is largest where it has the probability `shaping`.

Differs from arXiv 2506.03106, whose loss was read in its published code:

1. The critiques are templates. The paper also has ones by a large model, and ones by the model itself.
2. Advantages are not divided by a deviation; the code's trainer does so by default.
3. The loss is divided by the longest possible answer and by the answers of a full group, also where none was refined.
4. The loss of the sampled answers is clipped. In the only update of a batch the ratio is 1, and this does nothing.
5. Rows whose answers are all right are not refined.
6. Refinements keep their tokens; the code writes them as text and reads them anew.
7. Batch sizes and the optimizer are ours. Without an analysis before the judgement, the first steps are supervised
   (`warm_start`), and a critique of a label alone points at another label.

Source: arXiv 2506.03106; the shaped term is that of arXiv 2504.14945.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from adjudge.config import Config
from adjudge.errors import ConfigError
from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rl.advantages import per_token, relative_to_all
from adjudge.rl.kl import kl_per_response
from adjudge.rollout.collect import sample, score
from adjudge.rollout.forward import reference_logp
from adjudge.rollout.prompted import prompt_rows
from adjudge.rollout.refine import refinable_rows, refine, refined_scores
from adjudge.rollout.sampler import Sampling
from adjudge.runs.folder import Run
from adjudge.system.console import warn
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import Others, ReferencePenalty, clipped_updates


def train_critique_grpo(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on sampled answers and on refinements of them. Raises ConfigError, NotFiniteError."""
    config = run.config.critique_grpo
    for part in parts:
        check_critiques(run.config, part.spec)
    rows_of = partial(refinable_rows, kind=config.critique) if config.kept else prompt_rows
    with adapter_loop(run, parts, config, rows_of, samples=True) as loop:
        for step in loop:
            one_pass, common_scale = config.is_one_pass(len(step.rows)), loop.multi_task
            sampling = Sampling.of(config, loop.sampling)
            rollout = sample(step.task, step.rows, sampling, samples=config.samples, grad=one_pass)
            score_B = score(rollout, step.task.spec, config.reward, common_scale=common_scale)
            refined = refine(step.task, rollout, config.critique, sampling, config.kept)
            score_N = refined_scores(refined, step.task, config.reward, common_scale=common_scale)
            ref_logp_BR = reference_logp(loop.policy, rollout, config.temperature)
            advantage_B, advantage_N = relative_to_all(score_B, config.samples, score_N, refined.prompt_N)
            longest = len(step.rows) * (config.samples + config.kept) * step.task.sampled_tokens
            weight = float(rollout.mask_BR.sum()) / longest  # from a mean over tokens to one over a constant
            others = None
            if refined.rollout is not None:
                others = Others(refined.rollout, refined.prompt_N, advantage_N * weight, config.shaping)
            weight_BR = rollout.mask_BR * weight
            updates = clipped_updates(
                *(loop.policy, loop.optimizer, rollout, per_token(advantage_B, rollout.mask_BR) * weight),
                *(config, loop.order),
                penalty=ReferencePenalty(ref_logp_BR, config.kl, weight_BR) if config.kl else None,
                others=others,
                by_answers=True,
            )
            figures = {
                "reward": float(score_B.mean()),
                "kl": float(kl_per_response(rollout.logp_BR, ref_logp_BR, rollout.mask_BR).mean()),
                "tied": float((advantage_B.reshape(len(step.rows), -1).abs().amax(1) < 1e-6).float().mean()),
                **refined.figures,
            }
            loop.log(step, {**figures, **updates, "lr": loop.lr}, rollout)
    return loop.finish()


def check_critiques(config: Config, spec: TaskSpec) -> None:
    """Warn where a critique gives the right answer away. Raises ConfigError for a metric as reward."""
    settings = config.critique_grpo
    if settings.reward.metric is not None:
        raise ConfigError(
            "critique-grpo takes no critique_grpo.reward.metric: its credit is a difference to the other answers of a "
            "batch, and refinements are not among them. Use grpo, or leave it out."
        )
    if not settings.kept or settings.critique == "gold":
        return
    labels = len(spec.words)
    if config.prompt.analysis != "before":
        warn(
            f"{spec.name}: without an analysis before the judgement there is only a label to criticise, and "
            f"'incorrect' leaves {labels - 1} of {labels}. Set prompt.analysis=before for critiques of reasons."
        )
    elif labels == 2:
        warn(f"{spec.name} has two labels, so 'incorrect' names the right one: a critique gives the answer away.")


METHOD = adapter_method(train_critique_grpo)
