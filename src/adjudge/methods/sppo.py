"""SPPO: move each answer's log-ratio to the worth of its win rate against the last iteration's policy.

1. At the start of an iteration the policy becomes the reference, which is the opponent too.
2. The opponent answers each prompt several times. A right answer beats a wrong one, equals win half the time; an
   answer's win rate P is against the prompt's sampled answers, itself among them.
3. The best and the worst answer are taught: half the sum of (log-ratio to the reference − η (P − ½))².

``answers=labels`` is ours: every label, weighted by the opponent's probability of it, with its exact win rate. Answers
that are no label count as wrong in it and are not taught. With it, ``log_z=exact`` takes the exact normaliser in place
of η / 2.

Differs from arXiv 2405.00675:

1. The gold answer decides who wins, where the paper asks a preference model.
2. η is 2. The paper's 1000 belongs to soft win rates and long answers: two tokens cannot move by hundreds of nats.
3. The iterations share the steps of one run, with one optimizer and one schedule. The first is preceded by a warm
   start. The rate and batch sizes are ours.

Shapes: ``B`` prompts, ``G`` sampled answers to each, ``A`` answers that are run, labels first, ``L`` labels.
Source: arXiv 2405.00675.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adjudge.config import SppoConfig
from adjudge.errors import ConfigError
from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rl.kl import with_other
from adjudge.rl.preference import log_normaliser, win_rate, win_rate_among
from adjudge.rollout.collect import sample
from adjudge.rollout.label_scoring import labels_of
from adjudge.rollout.pairs import gold_labels
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.rollout.sampler import Sampling
from adjudge.runs.folder import Run
from adjudge.system.timing import stage
from adjudge.training.mixture import TaskRows
from adjudge.training.preference import Targets, learn_targets


def train_sppo(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train against the policy of the iteration before. Raises ConfigError, DataError and NotFiniteError."""
    config = run.config.sppo
    if config.log_z == "exact" and config.answers == "sampled":
        raise ConfigError("sppo.log_z=exact needs the probability of every answer. Use sppo.answers=labels with it.")
    with adapter_loop(run, parts, config, prompt_rows, samples=True, iterations=config.iterations) as loop:
        for step in loop:
            loop.begins_iteration(step)
            with loop.policy.reference():
                targets = ask_opponent(step.task, step.rows, config, loop.sampling)
            figures, answers = learn_targets(step.task, step.rows, targets, loop.optimizer, config)
            loop.log(step, {"iteration": loop.iteration_of(step), **figures, "lr": loop.lr}, answers)
    return loop.finish()


def ask_opponent(
    task: PromptedTask, rows: Sequence[PromptRow], config: SppoConfig, generator: torch.Generator
) -> Targets:
    """Return the answers to teach, and the log-ratio each is to reach.

    Raises DataError for a row without a gold answer.
    """
    words, gold_B = task.spec.words, torch.tensor(gold_labels(task, rows))
    labels = task.taught_labels()
    if config.answers == "labels":
        with stage("reference"):
            ref_logp_BL = labels_of(task, rows, 1.0).cpu()
        right_BL = torch.nn.functional.one_hot(gold_B, len(words)).float()
        win_BL = win_rate(right_BL, (ref_logp_BL.exp() * right_BL).sum(1))
        centre_B1 = torch.full((len(rows), 1), config.eta / 2)
        if config.log_z == "exact":
            every_BA = with_other(ref_logp_BL).softmax(1)
            win_BA = torch.cat([win_BL, win_BL.amin(1, keepdim=True)], dim=1)  # other answers are wrong too
            centre_B1 = log_normaliser(win_BA, every_BA, config.eta)[:, None]
        target_BL = config.eta * win_BL - centre_B1
        return Targets([labels] * len(rows), ref_logp_BL, target_BL, ref_logp_BL.exp(), ties=0)
    rollout = sample(task, rows, Sampling(generator), samples=config.samples, score_labels=True)
    assert rollout.label_logp_PL is not None
    win_BG = win_rate_among(torch.tensor(rollout.right).reshape(len(rows), config.samples))
    taught_BT = torch.stack([win_BG.argmax(1), win_BG.argmin(1)], dim=1)
    logp_BG = rollout.logp_BR.sum(1).reshape(win_BG.shape)
    zeros_BL = torch.zeros(len(rows), len(words))
    answers = [
        [*labels, *(rollout.responses[index * config.samples + offset] for offset in places)]
        for index, places in enumerate(taught_BT.tolist())
    ]
    return Targets(
        answers,
        torch.cat([rollout.label_logp_PL, logp_BG.gather(1, taught_BT)], dim=1),
        torch.cat([zeros_BL, config.eta * (win_BG.gather(1, taught_BT) - 0.5)], dim=1),
        torch.cat([zeros_BL, torch.full(taught_BT.shape, 0.5)], dim=1),
        ties=int((win_BG.amax(1) == win_BG.amin(1)).sum()),
    )


METHOD = adapter_method(train_sppo)
