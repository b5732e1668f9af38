"""Values of the states inside an analysis: the mean reward of fresh continuations from each.

A state is a prompt with the beginning of an analysis. Each distinct state is run once, and all its continuations go on
from there: they finish the analysis, and judge. They serve for values alone.

Shapes: ``B`` answers, ``R`` response tokens, ``S`` steps of the longest answer; ``N`` distinct states, ``P`` prompts,
``L`` labels.

Source: arXiv 2410.01679.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adjudge.config import RewardConfig, VineConfig
from adjudge.prompts.answers import CLOSING_ANALYSIS, every_answer, read_answer
from adjudge.rewards.rewarder import build_rewarder
from adjudge.rl.losses import expected_reward
from adjudge.rollout.analysis import open_next
from adjudge.rollout.answer_end import AnalysisEnd
from adjudge.rollout.collect import Rollout, rewards_of_labels
from adjudge.rollout.label_scoring import MOST_COPIES, expected_answers, label_logps
from adjudge.rollout.prompted import PromptedTask
from adjudge.rollout.sampler import Sampling, respond
from adjudge.system.parallel import divides, of_all_rows, on_first, world_size
from adjudge.system.timing import stage
from adjudge.types import Example, Judgement, Value

_SENTENCE_END = re.compile(r"""[.!?]["')\]]*\s*$""")


class State(NamedTuple):
    """A prompt of the batch, and how its answer begins; `closed` where the judgement comes next."""

    prompt: int
    beginning: tuple[int, ...]
    closed: bool = False


class StepValues(NamedTuple):
    """The steps of each answer, and the values of the states in which they begin, 0 after the last."""

    value_BS: Tensor
    steps_B: Tensor
    step_BR: Tensor
    """Each token's step, counted from 0."""
    figures: dict[str, Any]


class _Ends(NamedTuple):
    """Continuations of some states: each judgement, or its label's chances, and what comes before it."""

    openings: list[list[int]]
    texts: list[str]
    label_logps: list[list[float]]
    tokens: int
    """Number of tokens that were sampled."""


class _Answers(NamedTuple):
    """Continuations, as `adjudge.rewards.rewarder.Answers` has them."""

    examples: Sequence[Example]
    golds: Sequence[Value | None]
    judgements: Sequence[Judgement]
    prompts: Sequence[Sequence[int]]
    openings: Sequence[Sequence[int]]


@dataclass(slots=True)
class Vine:
    """Values the states of a task's answers by `config.rollouts` continuations each, drawn by `sampling`.

    With `labels`, a continuation's judgement is not sampled: the exact expected reward over the labels takes its place.
    `tokens` counts what was sampled.
    """

    task: PromptedTask
    config: VineConfig
    reward: RewardConfig
    sampling: Sampling
    labels: bool = False
    common_scale: bool = False
    tokens: int = 0

    def step_values(self, rollout: Rollout) -> StepValues:
        """Cut each analysis into at most `config.steps` + 1 steps, and value the states in which they begin.

        The judgement belongs to the last step; with `labels` it is a step of its own. Raises NotFiniteError,
        RewardError.
        """
        first, spans = self.task.analysis_before, rollout.template_spans
        assert first is not None and spans is not None
        cuts, states = [], []
        for answer, (ids, span) in enumerate(zip(rollout.responses, spans, strict=True)):
            prompt, inner_cuts = answer // rollout.samples, step_cuts(first, ids[: span.start], self.config)
            begun = [State(prompt, tuple(ids[:cut])) for cut in (0, *inner_cuts)]
            closed = [State(prompt, tuple(ids[: span.stop]), closed=True)] if self.labels else []
            cuts.append([*inner_cuts, span.start] if self.labels else inner_cuts)
            states.append([*begun, *closed])
        with stage("values"):
            returns = self._returns(
                rollout, dict.fromkeys(state for answer_states in states for state in answer_states)
            )
        longest = max(map(len, states))
        value_BS = torch.tensor(
            [
                [float(_mean(returns[state])) for state in answer_states] + [0.0] * (longest - len(answer_states))
                for answer_states in states
            ]
        )
        token_R = torch.arange(rollout.mask_BR.shape[1])
        step_BR = torch.stack(
            [
                (token_R >= torch.tensor(answer_cuts)[:, None]).sum(0) if answer_cuts else 0 * token_R
                for answer_cuts in cuts
            ]
        )
        return StepValues(
            value_BS,
            torch.tensor([len(answer_states) for answer_states in states]),
            step_BR,
            self._figures(cuts, returns),
        )

    def _figures(self, cuts: Sequence[Sequence[int]], returns: dict[State, Tensor]) -> dict[str, Any]:
        inside = [len(answer_cuts) - self.labels for answer_cuts in cuts]
        value_N = torch.stack([_mean(each) for each in returns.values()])
        noise = [float(each.var() / len(each)) for each in returns.values() if len(each) > 1]
        return {
            "steps": sum(len(answer_cuts) + 1 for answer_cuts in cuts) / len(cuts),
            "split": sum(count > 0 for count in inside) / len(inside),
            "value_states": len(returns),
            "value_variance": float(value_N.var(correction=0)),
            "value_noise": sum(noise) / len(noise) if noise else None,
            "extra_tokens": self.tokens,
        }

    def _returns(self, rollout: Rollout, states: dict[State, None]) -> dict[State, Tensor]:
        """Return the rewards of each state's continuations; of a closed state its one exact value."""
        prompts, spec = rollout.prompts[:: rollout.samples], self.task.spec
        examples = rollout.examples[:: rollout.samples]
        copies = {state: 1 if state.closed else self.config.rollouts for state in states}
        ordered = sorted(states, key=lambda state: state.closed)
        ends = [
            *self._ended([state for state in ordered if not state.closed], prompts),
            *self._ended([state for state in ordered if state.closed], prompts),
        ]
        rows = [state.prompt for state in ordered for _ in range(copies[state])]
        if self.labels:
            reward_PL, unreadable_P = rewards_of_labels(rollout, spec, self.reward, common_scale=self.common_scale)
            logp_EL = torch.tensor([logps for part in ends for logps in part.label_logps])
            found_E = expected_reward(logp_EL, reward_PL[rows], unreadable_P[rows])
        else:
            answers = _Answers(
                examples=[examples[row] for row in rows],
                golds=[examples[row].gold for row in rows],
                judgements=[read_answer(text, spec, self.task.end.stop) for part in ends for text in part.texts],
                prompts=[prompts[row] for row in rows],
                openings=[opening for part in ends for opening in part.openings],
            )
            rewarder = rollout.rewarder or build_rewarder(self.reward, spec)
            found_E = torch.tensor(on_first(lambda: rewarder.of_others(answers, common_scale=self.common_scale)))
        return dict(zip(ordered, found_E.split([copies[state] for state in ordered]), strict=True))

    def _ended(self, states: Sequence[State], prompts: Sequence[Sequence[int]]) -> list[_Ends]:
        """Continue states that are all closed, or all open, in parts that fit into memory."""
        closed = bool(states) and states[0].closed
        each = (1 if closed else self.config.rollouts) * (len(every_answer(self.task.spec)) if self.labels else 1)
        size = max(1, MOST_COPIES // each)
        parts: list[_Ends] = []
        for start in range(0, len(states), size):
            some = states[start : start + size]
            sampling = replace(self.sampling, together=world_size() > 1 and divides(len(some)))

            def run(own_states: Sequence[State], sampling: Sampling = sampling) -> _Ends:
                return self._continued([(prompts[state.prompt], state) for state in own_states], sampling)

            parts += of_all_rows(some, run)
        self.tokens += sum(part.tokens for part in parts)
        generator = self.sampling.generator
        if world_size() > 1 and generator is not None:  # where one process drew for all, the others follow
            generator.set_state(on_first(generator.get_state))
        return parts

    def _continued(self, begun: Sequence[tuple[Sequence[int], State]], sampling: Sampling) -> _Ends:
        policy, first, end = self.task.policy, self.task.analysis_before, self.task.end
        assert first is not None
        prompts = [[*prompt, *state.beginning] for prompt, state in begun]
        openings, tokens = [list(state.beginning) for _, state in begun], 0
        if not begun[0][1].closed:
            copies = self.config.rollouts
            once = policy.prefill(prompts)
            repeated = torch.arange(len(begun), device=policy.device).repeat_interleave(copies)
            room = [first.max_tokens - len(state.beginning) for _, state in begun for _ in range(copies)]
            analyses = respond(policy, once.keep(repeated), first, sampling, room=room)
            opened = open_next(first, [prompt for prompt in prompts for _ in range(copies)], analyses.ids)
            given = [len(prompt) for prompt, _ in begun for _ in range(copies)]
            openings = [ids[length:] for ids, length in zip(opened.prompts, given, strict=True)]
            prompts, tokens = opened.prompts, sum(map(len, analyses.ids))
        if self.labels:
            label_ids = expected_answers(self.task, scored=True)
            state = policy.prefill(prompts, expected=label_ids)
            return _Ends(openings, [], label_logps(policy, state, label_ids, sampling.temperature).tolist(), tokens)
        judgements = respond(policy, policy.prefill(prompts), end, sampling)
        return _Ends(openings, judgements.texts, [], tokens + sum(map(len, judgements.ids)))


def _mean(return_K: Tensor) -> Tensor:
    """Return the mean.

    Of equal returns it is exactly theirs, so rounding makes no advantage where there is none.
    """
    return return_K[0] + (return_K - return_K[0]).mean()


def step_cuts(end: AnalysisEnd, analysis: Sequence[int], config: VineConfig) -> list[int]:
    """Return where in an analysis, in tokens, new steps begin: at most `config.steps`, spread evenly.

    A sentence ends with ``.``, ``!`` or ``?`` before white space, the closing tag, or the end of the analysis. No place
    is inside the closing tag, or at the token limit, where nothing can be continued.
    """
    last = min(len(analysis), end.max_tokens - 1)
    texts = [end.text(analysis[:count]) for count in range(len(analysis) + 1)]
    open_ones = [count for count in range(1, last + 1) if not _in_closing_tag(texts[count])]
    if config.split == "sentences":
        ended = [_ends_sentence(text, texts[-1][len(text) :]) for text in texts]
        places = [count for count in open_ones if ended[count] and not ended[count - 1]]
    else:
        places = open_ones
    if len(places) <= config.steps:
        return places
    return [places[step * (len(places) + 1) // (config.steps + 1) - 1] for step in range(1, config.steps + 1)]


def _ends_sentence(text: str, following: str) -> bool:
    if _SENTENCE_END.search(text) is None:
        return False
    closes = following.startswith(CLOSING_ANALYSIS) or CLOSING_ANALYSIS.startswith(following)
    return closes or text[-1].isspace() or following[0].isspace()


def _in_closing_tag(text: str) -> bool:
    ends = (CLOSING_ANALYSIS[:length] for length in range(1, len(CLOSING_ANALYSIS) + 1))
    return any(text.endswith(each) for each in ends)
