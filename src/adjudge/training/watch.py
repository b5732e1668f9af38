"""Watching what a policy answers while it trains, so that a collapse onto one label is seen at once."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from adjudge.config import GuardConfig
from adjudge.errors import GuardError
from adjudge.system.console import warn
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Judgement, Value

WINDOW = 128
"""Answers that the warnings look back over."""


class AnswerWatch:
    """Counts sampled answers; warns (once per spell) of what `GuardConfig` sets limits to, or stops the run when asked to.

    With `named`, the warnings name the task: there is one watch for each task of a mixture.
    """

    def __init__(self, spec: TaskSpec, limits: GuardConfig | None = None, *, named: bool = False) -> None:
        self._spec, self._limits = spec, limits or GuardConfig()
        self._where = f"{spec.name}: " if named else ""
        self._recent: deque[tuple[Value | None, Value | None]] = deque(maxlen=WINDOW)
        self._warned: set[str] = set()

    def state_dict(self) -> dict[str, Any]:
        """The answers it looks back over, and what it has warned of."""
        return {"recent": [list(pair) for pair in self._recent], "warned": sorted(self._warned)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` left off."""
        self._recent = deque(((gold, value) for gold, value in state["recent"]), maxlen=WINDOW)
        self._warned = set(state["warned"])

    def check(self, kl: float) -> None:
        """Warn of what is beyond its limit after a batch of mean `kl` nats per answer. Raises GuardError for what `stop_on` names."""
        limits = self._limits
        beyond = limits.max_kl is not None and kl > limits.max_kl
        self._once("kl", beyond, f"the KL to the reference is {kl:.3g} nats an answer: the policy has left it")
        if len(self._recent) < WINDOW:
            return
        golds, values = zip(*self._recent, strict=True)
        read = [value for value in values if value is not None]
        word, count = Counter(read).most_common(1)[0] if read else ("", 0)
        gold_share = max(Counter(golds).values()) / len(golds)
        most = limits.one_label_share
        one_label = not self._spec.is_number and count > most * len(values) and gold_share < most
        self._once(
            "one_label",
            one_label,
            f"{count} of the last {len(values)} sampled answers are '{word}': the policy is collapsing onto one label",
        )
        self._once(
            "unreadable",
            len(values) - len(read) > limits.unreadable_share * len(values),
            f"{len(values) - len(read)} of the last {len(values)} sampled answers are unreadable",
        )

    def _once(self, kind: str, happens: bool, text: str) -> None:
        first = happens and kind not in self._warned
        (self._warned.add if happens else self._warned.discard)(kind)
        if first and kind in self._limits.stop_on:
            raise GuardError(f"{self._where}{text}. Stopped, as guard.stop_on asks; --resume goes on all the same.")
        if first:
            warn(f"{self._where}{text}")

    def see(self, golds: Sequence[Value | None], judgements: Sequence[Judgement]) -> dict[str, Any]:
        """Take in a batch; returns its figures: right, unreadable (shares), and for label tasks recall per label and label entropy."""
        values = [judgement.value for judgement in judgements]
        self._recent.extend(zip(golds, values, strict=True))
        figures: dict[str, Any] = {"unreadable": sum(value is None for value in values) / len(values)}
        if self._spec.is_number:
            pairs = [
                (gold, value)
                for gold, value in zip(golds, values, strict=True)
                if gold is not None and value is not None
            ]
            errors = [abs(float(gold) - float(value)) for gold, value in pairs]
            figures |= {
                "right": sum(error < 0.5 for error in errors) / len(values),
                "mean_error": sum(errors) / len(errors) if errors else None,
            }
        else:
            figures["right"] = sum(gold == value for gold, value in zip(golds, values, strict=True)) / len(values)
            figures |= {"recall": recall(golds, values, self._spec.words), "label_entropy": entropy(values)}
        return figures


def recall(
    golds: Sequence[Value | None], values: Sequence[Value | None], words: Sequence[str]
) -> dict[str, float | None]:
    """Share of each label's rows that were answered with it; None for a label that no row has."""
    found: dict[str, float | None] = {}
    for word in words:
        answered = [value for gold, value in zip(golds, values, strict=True) if gold == word]
        found[word] = sum(value == word for value in answered) / len(answered) if answered else None
    return found


def entropy(values: Sequence[Value | None]) -> float:
    """Entropy of the readable answers' distribution, in nats; 0 when all are one label."""
    counts = Counter(value for value in values if value is not None)
    total = counts.total()
    return sum(count / total * math.log(total / count) for count in counts.values()) if total else 0.0
