"""Watch a policy's answers while it trains, to detect a collapse onto one label early."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from adjudge.config import GuardConfig
from adjudge.errors import GuardError
from adjudge.prompts.answers import is_right
from adjudge.system.console import warn
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Judgement, Value

WINDOW = 128
"""Number of recent answers the warnings are based on."""


class AnswerWatch:
    """Counts sampled answers, and warns or stops the run when they cross a limit of `GuardConfig`.

    A warning is shown once, and again only after the figure was back within its limit. With `named`, warnings name the
    task: a mixture has one watch per task.
    """

    def __init__(self, spec: TaskSpec, limits: GuardConfig | None = None, *, named: bool = False) -> None:
        self._spec, self._limits = spec, limits or GuardConfig()
        self._where = f"{spec.name}: " if named else ""
        self._recent: deque[tuple[Value | None, Value | None]] = deque(maxlen=WINDOW)
        self._warned: set[str] = set()
        self._sums = [0.0, 0.0, 0.0]
        """Answers since the last full window, their learned reward, and how many were right."""
        self._best: list[float] | None = None
        """Mean learned reward and share of right answers of the window with the most right ones."""
        self._fooled = ""
        """How the last full window has a higher learned reward and fewer right answers, or nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return the recent answers, the warnings in force, and the learned rewards so far."""
        scores = {"sums": self._sums, "best": self._best, "fooled": self._fooled}
        return {"recent": [list(pair) for pair in self._recent], "warned": sorted(self._warned), "scores": scores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._recent = deque(((gold, value) for gold, value in state["recent"]), maxlen=WINDOW)
        self._warned = set(state["warned"])
        if "scores" in state:
            scores = state["scores"]
            self._sums, self._best, self._fooled = list(scores["sums"]), scores["best"], scores["fooled"]

    def check(self, kl: float) -> None:
        """Warn of each figure outside its limit. `kl` is the batch's mean KL in nats per answer.

        Raises GuardError for a kind of warning named in `stop_on`.
        """
        limits = self._limits
        too_far = limits.max_kl is not None and kl > limits.max_kl
        self._once(
            "kl", too_far, f"the KL to the reference is {kl:.3g} nats per answer: the policy has moved too far from it"
        )
        self._once("score", bool(self._fooled), self._fooled)
        if len(self._recent) < WINDOW:
            return
        golds, values = zip(*self._recent, strict=True)
        readable = [value for value in values if value is not None]
        word, count = Counter(readable).most_common(1)[0] if readable else ("", 0)
        gold_share = max(Counter(golds).values()) / len(golds)
        max_share = limits.one_label_share
        one_label = not self._spec.is_number and count > max_share * len(values) and gold_share < max_share
        self._once(
            "one_label",
            one_label,
            f"{count} of the last {len(values)} sampled answers are '{word}': the policy is collapsing onto one label",
        )
        self._once(
            "unreadable",
            len(values) - len(readable) > limits.unreadable_share * len(values),
            f"{len(values) - len(readable)} of the last {len(values)} sampled answers are unreadable",
        )

    def _once(self, kind: str, active: bool, text: str) -> None:
        first = active and kind not in self._warned
        (self._warned.add if active else self._warned.discard)(kind)
        if first and kind in self._limits.stop_on:
            raise GuardError(
                f"{self._where}{text}. The run stopped, as guard.stop_on demands; --resume continues it anyway."
            )
        if first:
            warn(f"{self._where}{text}")

    def see(
        self, golds: Sequence[Value | None], judgements: Sequence[Judgement], score: float | None = None
    ) -> dict[str, Any]:
        """Add a batch of answers and return its figures for the log. `score` is their mean learned reward.

        ``right`` and ``unreadable`` are shares of all answers. A number is right within 0.5 of the gold answer, on any
        range. Label tasks add ``recall`` (per label) and ``label_entropy`` (nats); number tasks add ``mean_error`` of
        the readable answers.
        """
        values = [judgement.value for judgement in judgements]
        self._recent.extend(zip(golds, values, strict=True))
        figures: dict[str, Any] = {
            "unreadable": sum(value is None for value in values) / len(values),
            "right": sum(map(is_right, values, golds)) / len(values),
        }
        if self._spec.is_number:
            pairs = [
                (gold, value)
                for gold, value in zip(golds, values, strict=True)
                if gold is not None and value is not None
            ]
            errors = [abs(float(gold) - float(value)) for gold, value in pairs]
            figures["mean_error"] = sum(errors) / len(errors) if errors else None
        else:
            figures |= {"recall": recall(golds, values, self._spec.words), "label_entropy": entropy(values)}
        if score is not None:
            self._compare(len(values), score, figures["right"])
        return figures

    def _compare(self, answers: int, score: float, right: float) -> None:
        """Compare each full window of answers with the one that had the most right ones."""
        for index, value in enumerate((1.0, score, right)):
            self._sums[index] += answers * value
        count, *sums = self._sums
        if count < WINDOW:
            return
        now_score, now_right = (value / count for value in sums)
        self._sums, self._fooled = [0.0, 0.0, 0.0], ""
        if self._best is None or now_right >= self._best[1]:
            self._best = [now_score, now_right]
        elif now_score > self._best[0] and now_right < self._best[1] - self._limits.right_fall:
            self._fooled = (
                f"the learned reward rose from {self._best[0]:.2f} to {now_score:.2f}, while the share of right "
                f"answers fell from {self._best[1]:.2f} to {now_right:.2f}: the policy pleases the reward model alone"
            )


def recall(
    golds: Sequence[Value | None], values: Sequence[Value | None], words: Sequence[str]
) -> dict[str, float | None]:
    """Return, per label, the share of its rows answered with it; None for a label without rows."""
    shares: dict[str, float | None] = {}
    for word in words:
        answered = [value for gold, value in zip(golds, values, strict=True) if gold == word]
        shares[word] = sum(value == word for value in answered) / len(answered) if answered else None
    return shares


def entropy(values: Sequence[Value | None]) -> float:
    """Return the entropy of the readable answers in nats; 0 when all are one label."""
    counts = Counter(value for value in values if value is not None)
    total = counts.total()
    return sum(count / total * math.log(total / count) for count in counts.values()) if total else 0.0
