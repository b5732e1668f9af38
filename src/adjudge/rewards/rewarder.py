"""The rewards of one task: right or wrong, the user's functions, a metric, and weights of labels.

reward = label weight × (own reward + Σ function weight × function) + metric weight × N × credit

The own reward is match weight × the task's, or what a reward model gives, or both (`reward.kind`). Balanced numbers are
paid what they earn beyond their mean over the training rows (`reward.balance`).

A method, or the loop around it, builds one `Rewarder` per task. Shapes: ``B`` answers, ``L`` labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, Protocol, runtime_checkable

from adjudge.config import RewardConfig
from adjudge.rewards.function import RewardFunction
from adjudge.rewards.learned import LEARNED, Ratings, mixed_reward
from adjudge.rewards.metric import MetricCredit
from adjudge.rewards.numeric import MeanRewards
from adjudge.rewards.score import reward_scale, rewards
from adjudge.rewards.weights import balanced_weights, is_balanced
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Judgement, Value

Decode = Callable[[Sequence[int]], str]
"""Token ids to text."""


def build_rewarder(
    config: RewardConfig,
    spec: TaskSpec,
    train_rows: Sequence[Example] = (),
    functions: Sequence[RewardFunction] = (),
    decode: Decode | None = None,
    learned: Ratings | None = None,
) -> Rewarder:
    """Return the rewarder of a task.

    `functions` are the settings' functions, loaded, and `decode` is for them. `learned` holds what the settings' reward
    model gives. Raises ConfigError for a metric which the task does not have.
    """
    return Rewarder(config, spec, [row.gold for row in train_rows], functions, decode, learned)


class Answers(Protocol):
    """Answers to prompts, such as a rollout; all lists have one entry per answer."""

    @property
    def examples(self) -> Sequence[Example]:
        """Return the rows."""

    @property
    def golds(self) -> Sequence[Value | None]:
        """Return the right answers."""

    @property
    def judgements(self) -> Sequence[Judgement]:
        """Return the answers."""

    @property
    def prompts(self) -> Sequence[Sequence[int]]:
        """Return the token ids of the prompts."""

    @property
    def openings(self) -> Sequence[Sequence[int]]:
        """Return the token ids before each judgement: an analysis, or nothing."""


@runtime_checkable
class _Stateful(Protocol):
    """Ratings which carry something from step to step."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Rewarder:
    """Rewards the answers of one task. Its state is the window of the metric."""

    def __init__(
        self,
        config: RewardConfig,
        spec: TaskSpec,
        train_golds: Sequence[Value | None] = (),
        functions: Sequence[RewardFunction] = (),
        decode: Decode | None = None,
        learned: Ratings | None = None,
    ) -> None:
        if len(functions) != len(config.functions):
            raise ValueError(f"{len(functions)} reward functions are loaded of {len(config.functions)} in the settings")
        if functions and decode is None:
            raise ValueError("reward functions read prompts as text: give `decode`")
        if (config.kind != "match") != (learned is not None):
            raise ValueError(f"reward.kind={config.kind}: give `learned` for a learned reward, and for no other")
        if config.balance and not train_golds:
            raise ValueError("reward.balance reads the answers of the training rows: give `train_golds`")
        self.config, self.spec = config, spec
        self._functions, self._decode, self._learned = functions, decode, learned
        self._function_weights = config.function_weights or (1.0,) * len(functions)
        balanced = is_balanced(config, spec) and len(train_golds) > 0
        self._balance = balanced_weights(train_golds) if balanced and spec.number is None else {}
        self._means = MeanRewards(train_golds, spec.number) if balanced and spec.number is not None else None
        self._metric = MetricCredit(config, spec) if config.metric is not None else None
        self._figures: dict[str, float | None] = {}

    def score(self, answers: Answers, *, common_scale: bool = False) -> list[float]:
        """Return the reward of each answer, and remember the answers for the metric.

        With `common_scale`, the task's own reward is divided by its largest size (`reward_scale`); functions and credit
        are on one scale already. Raises DataError for a row without a gold answer, NotFiniteError, RewardError.
        """
        scores, self._figures = self._row_rewards(
            *(answers.golds, answers.examples, answers.judgements, answers.prompts, common_scale),
            answers.openings if self._learned is not None else (),
        )
        if self._metric is not None:
            credits = self._metric.of_answers(answers.golds, [judgement.value for judgement in answers.judgements])
            scores = [score + self.config.metric_weight * part for score, part in zip(scores, credits, strict=True)]
            self._figures[self._metric.name] = self._metric.value
        return scores

    def of_others(self, answers: Answers, *, common_scale: bool = False) -> list[float]:
        """Return the reward of each answer that is sampled beside those to learn from, such as for a value.

        The metric's credit is left out, the answers are not remembered for it, and `figures` stay.
        """
        scores, _ = self._row_rewards(
            *(answers.golds, answers.examples, answers.judgements, answers.prompts, common_scale),
            answers.openings if self._learned is not None else (),
        )
        return scores

    def of_each(
        self,
        examples: Sequence[Example],
        prompts: Sequence[Sequence[int]],
        answers: Sequence[Judgement],
        *,
        common_scale: bool = False,
        metric: bool = True,
    ) -> list[list[float]]:
        """Return, per row, the reward of each of the `answers`: ``[B][L]``.

        Functions get the answer's text as completion. The metric's context is its window alone, which `remember` fills;
        without `metric` its credit is left out.
        """
        scores, _ = self._row_rewards(
            [row.gold for row in examples for _ in answers],
            [row for row in examples for _ in answers],
            [answer for _ in examples for answer in answers],
            [prompt for prompt in prompts for _ in answers],
            common_scale,
        )
        credit_BL = self._credits(examples, [answer.value for answer in answers], metric)
        return [
            [scores[row * len(answers) + index] + credit for index, credit in enumerate(credits)]
            for row, credits in enumerate(credit_BL)
        ]

    def of_unreadable(
        self, examples: Sequence[Example], *, common_scale: bool = False, metric: bool = True
    ) -> list[float]:
        """Return the reward of an unreadable answer to each row: ``[B]``.

        It is the task's own reward of one, weighted; with functions and ``match_weight`` 0 as if that were 1. Functions
        are not asked: there is no text to give them.
        """
        unreadable = self._unreadable(examples[0].gold, common_scale)
        return [
            self._weight(row.gold) * unreadable + credit
            for row, (credit,) in zip(examples, self._credits(examples, [None], metric), strict=True)
        ]

    def remember(self, golds: Sequence[Value | None], judgements: Sequence[Judgement]) -> None:
        """Add answers to the metric's window, for a method which samples none. `score` does it by itself."""
        if self._metric is not None:
            self._metric.remember(golds, [judgement.value for judgement in judgements])

    def figures(self) -> dict[str, Any]:
        """Return parts of the last answers' rewards to log: the means of functions and of the learned reward.

        The metric is among them; there may be nothing.
        """
        return {"rewards": dict(self._figures)} if self._figures else {}

    @property
    def has_state(self) -> bool:
        """True if it carries something from step to step."""
        return (self._metric is not None and self.config.metric_window > 0) or isinstance(self._learned, _Stateful)

    def state_dict(self) -> dict[str, Any]:
        """Return what it carries from step to step."""
        state = self._metric.state_dict() if self._metric is not None else {}
        return state | ({LEARNED: self._learned.state_dict()} if isinstance(self._learned, _Stateful) else {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if self._metric is not None:
            self._metric.load_state_dict(state)
        if isinstance(self._learned, _Stateful):
            self._learned.load_state_dict(state[LEARNED])

    def _row_rewards(
        self,
        golds: Sequence[Value | None],
        examples: Sequence[Example],
        judgements: Sequence[Judgement],
        prompts: Sequence[Sequence[int]],
        common_scale: bool,
        openings: Sequence[Sequence[int]] = (),
    ) -> tuple[list[float], dict[str, float | None]]:
        """Return what rows pay without the metric, and the mean of each function and of a learned reward."""
        figures: dict[str, float | None] = {}
        scale, factor = self._scale(common_scale), self.config.match_factor
        scores = [
            factor * (score - self._common(judgement)) / scale
            for score, judgement in zip(rewards(judgements, golds, self.spec, self.config), judgements, strict=True)
        ]
        if self._learned is not None:
            learned = self._learned.of_answers(examples, judgements, openings)
            readable = [reward for reward in learned if reward is not None]
            figures[LEARNED] = fmean(readable) if readable else None
            unreadable = self._unreadable(golds[0], common_scale)
            scores = [
                unreadable if reward is None else self._with_learned(reward, score)
                for reward, score in zip(learned, scores, strict=True)
            ]
        if self._functions:
            assert self._decode is not None
            texts = {ids: self._decode(ids) for ids in {tuple(prompt) for prompt in prompts}}
            prompt_texts = [texts[tuple(prompt)] for prompt in prompts]
            for function, weight in zip(self._functions, self._function_weights, strict=True):
                parts = function.rewards(prompt_texts, examples, judgements)
                figures[function.name] = fmean(parts)
                scores = [score + weight * part for score, part in zip(scores, parts, strict=True)]
        return [score * self._weight(gold) for score, gold in zip(scores, golds, strict=True)], figures

    def _with_learned(self, learned: float, match: float) -> float:
        if self.config.kind == "learned":
            return learned
        assert self._learned is not None
        label, other = (learned, match) if self._learned.rates_labels else (match, learned)
        return mixed_reward(label, other, self.config.threshold)

    def _unreadable(self, gold: Value | None, common_scale: bool) -> float:
        (unreadable,) = rewards([Judgement("", None)], [gold], self.spec, self.config)
        factor = self.config.match_factor
        if self._functions or self._learned is not None:
            factor = factor or 1.0  # they are not asked, and nothing else would keep answers readable
        return unreadable * factor / self._scale(common_scale)

    def _common(self, judgement: Judgement) -> float:
        """Return what the answer earns whatever the row, which balanced numbers are paid less."""
        return 0.0 if self._means is None else self._means.of(judgement)

    def _weight(self, gold: Value | None) -> float:
        return self._balance.get(gold, 1.0) * (self.config.weights or {}).get(str(gold), 1.0)

    def _credits(self, examples: Sequence[Example], values: Sequence[Value | None], metric: bool) -> list[list[float]]:
        """Return, per row, the weighted credit of each answer; None is an unreadable one."""
        if self._metric is None or not metric:
            return [[0.0] * len(values)] * len(examples)
        credit_BA = self._metric.of_each([row.gold for row in examples], values)
        return [[self.config.metric_weight * credit for credit in credits] for credits in credit_BA]

    def _scale(self, common: bool) -> float:
        return reward_scale(self.spec, self.config) if common else 1.0
