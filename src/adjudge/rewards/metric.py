"""A metric as reward: each answer is credited with its part in the metric of many judgements.

Accuracy is a mean over rows, so its parts are the rewards of right and wrong. F1, Matthews and correlations are not:
what an answer is worth depends on the others. With the other answers fixed, M the metric and N the number of rows, an
answer's credit, times N, is one of:

1. ``flip``: M − the mean of M over the row's other labels. An unreadable answer is compared with the same baseline,
   which does not depend on the answer. With two labels this is M − M with the answer flipped.
2. ``leave-one-out``: M − M without the row.
3. ``linear`` (F1 only): the derivative of F1 = 2 tp / S in the answer. Answering positive is worth (2 − F1) / S where
   that is right and −F1 / S where it is wrong; answering negative is worth 0.

Where the metric is undefined, the credit is 0. For accuracy, ``flip`` gives +1 and −1 for two labels.

The credit of a row is ours. Source: difference rewards, arXiv 2012.11258 (2), and counterfactual baselines,
arXiv 1705.08926 (1).

Shapes: ``N`` rows, ``B`` rows of the batch, ``L`` labels, ``S`` ways to change one answer, ``U`` = N.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adjudge.config import RewardConfig
from adjudge.errors import ConfigError, nearest
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Value

if TYPE_CHECKING:
    from adjudge.tasks.scoring.metrics import Array, BatchMetric

CHUNK = 256
"""Changed copies of all rows which are measured together: their confusion counts take memory."""


def check_metric(config: RewardConfig, spec: TaskSpec) -> None:
    """Raise ConfigError for a metric, or a kind of credit, which the task cannot have."""
    from adjudge.tasks.scoring.metrics import METRICS

    name = config.metric
    if name is None:
        return
    if name not in spec.metrics:
        raise ConfigError(
            f"reward.metric: {spec.name} is not scored by '{name}'.{nearest(name, spec.metrics)} "
            "Name one of the task's metrics, or add it to `metrics` in its task file."
        )
    if spec.several:
        raise ConfigError(
            f"reward.metric: {spec.name} is answered with sets of labels, whose metrics have no credit. Leave it "
            "unset; reward.sets=f1 or jaccard pays the likeness of two sets."
        )
    if METRICS[name].grouped:
        plain = [other for other in spec.metrics if not METRICS[other].grouped]
        raise ConfigError(
            f"reward.metric: '{name}' scores groups of rows, so single answers have no credit in it. "
            f"{'Use: ' + ', '.join(plain) if plain else 'Leave reward.metric unset'}."
        )
    credit = credit_of(config, spec)
    if credit == "flip" and spec.is_number:
        raise ConfigError(
            f"reward.metric_credit=flip compares an answer with the other labels, but {spec.name} is answered with a "
            "number. Use leave-one-out."
        )
    if credit == "linear" and name != "f1":
        raise ConfigError(f"reward.metric_credit=linear is for f1, not for {name}. Use flip or leave-one-out.")


def credit_of(config: RewardConfig, spec: TaskSpec) -> str:
    """Return the kind of credit: as set, or flip for labels and leave-one-out for numbers."""
    return config.metric_credit or ("leave-one-out" if spec.is_number else "flip")


class MetricCredit:
    """Credits answers with their part in a metric of these answers and those before (the window)."""

    def __init__(self, config: RewardConfig, spec: TaskSpec) -> None:
        from adjudge.tasks.scoring.metrics import METRICS

        check_metric(config, spec)
        assert config.metric is not None
        self.spec, self.name, self.credit = spec, config.metric, credit_of(config, spec)
        self._sign = 1.0 if METRICS[self.name].higher_is_better else -1.0
        self._window: deque[tuple[Value | None, Value | None]] = deque(maxlen=config.metric_window)
        self.value: float | None = None
        """The metric of the last answers and the window; None where it is undefined."""

    def state_dict(self) -> dict[str, Any]:
        """Return the window."""
        return {"window": [list(pair) for pair in self._window]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._window = deque(((gold, value) for gold, value in state["window"]), maxlen=self._window.maxlen)

    def of_answers(self, golds: Sequence[Value | None], values: Sequence[Value | None]) -> list[float]:
        """Return the credit of each answer, times the number of rows, and remember the answers."""
        window = list(self._window)
        gold_N, pred_N = self._encoded([*window, *zip(golds, values, strict=True)])
        rows = range(len(window), len(gold_N))
        credits = self._credits(gold_N, pred_N, rows)
        self.value = self._metric(gold_N, pred_N)
        self.remember(golds, values)
        return credits

    def of_each(self, golds: Sequence[Value | None], answers: Sequence[Value | None]) -> list[list[float]]:
        """Return, per row, the credit of each of the `answers` after the window; None is an unreadable one."""
        window = list(self._window)
        per_row: dict[Value | None, list[float]] = {}
        for gold in dict.fromkeys(golds):
            per_row[gold] = [
                self._credits(*self._encoded([*window, (gold, answer)]), [len(window)])[0] for answer in answers
            ]
        return [per_row[gold] for gold in golds]

    def remember(self, golds: Sequence[Value | None], values: Sequence[Value | None]) -> None:
        """Add answers to the window."""
        self._window.extend(zip(golds, values, strict=True))

    def _encoded(self, pairs: Sequence[tuple[Value | None, Value | None]]) -> tuple[Array, Array]:
        from adjudge.tasks.scoring.metrics import encode

        return encode(self.spec, [gold for gold, _ in pairs], [value for _, value in pairs])

    def _metric(self, gold_N: Array, pred_N: Array) -> float | None:
        """Return the metric, higher is better; None where it is undefined."""
        if not is_defined(self.spec, self.name, gold_N, pred_N):
            return None
        return float(self._measure(gold_N[None], pred_N[None])[0])

    def _measure(self, gold_SN: Array, pred_SN: Array) -> Array:
        """Return the metric of each copy of the rows, higher is better."""
        import numpy as np

        function = batch_metric(self.spec, self.name)
        parts = [
            function(np.stack([gold_SN[start : start + CHUNK], pred_SN[start : start + CHUNK]]))
            for start in range(0, len(gold_SN), CHUNK)
        ]
        return self._sign * np.concatenate(parts)

    def _credits(self, gold_N: Array, pred_N: Array, rows: Sequence[int]) -> list[float]:
        value = self._metric(gold_N, pred_N)
        if value is None:
            return [0.0] * len(rows)
        if self.credit == "linear":
            credit_B = self._linear(gold_N, pred_N, rows)
        elif self.credit == "flip":
            credit_B = self._flip(gold_N, pred_N, rows, value)
        else:
            credit_B = self._leave_one_out(gold_N, pred_N, rows, value)
        return [float(credit) * len(gold_N) for credit in credit_B]

    def _flip(self, gold_N: Array, pred_N: Array, rows: Sequence[int], value: float) -> Array:
        import numpy as np

        labels = len(self.spec.words)
        pred_SN = np.tile(pred_N, (len(rows) * labels, 1))
        for index, row in enumerate(rows):
            pred_SN[index * labels : (index + 1) * labels, row] = np.arange(labels)
        value_BL = self._measure(np.broadcast_to(gold_N, pred_SN.shape), pred_SN).reshape(-1, labels)
        # For a readable answer this is value − the mean over the other labels.
        return (value - value_BL.mean(1)) * labels / (labels - 1)

    def _leave_one_out(self, gold_N: Array, pred_N: Array, rows: Sequence[int], value: float) -> Array:
        import numpy as np

        if len(gold_N) < 2:
            return np.zeros(len(rows))
        kept_BN = np.stack([np.delete(np.arange(len(gold_N)), row) for row in rows])
        return value - self._measure(gold_N[kept_BN], pred_N[kept_BN])

    def _linear(self, gold_N: Array, pred_N: Array, rows: Sequence[int]) -> Array:
        import numpy as np

        from adjudge.tasks.scoring.metrics import positive_index

        positive = positive_index(self.spec)
        is_gold_N, is_pred_N = gold_N == positive, answered_positive(gold_N, pred_N, positive)
        size = is_gold_N.sum() + is_pred_N.sum()
        f1 = 2 * (is_gold_N & is_pred_N).sum() / size
        credit_N = np.where(is_pred_N, np.where(is_gold_N, 2 - f1, -f1) / size, 0.0)
        return credit_N[list(rows)]


def batch_metric(spec: TaskSpec, name: str) -> BatchMetric:
    """Return the metric as a function of stacked, encoded golds and answers: ``[2, S, N]`` to ``[S]``."""
    from adjudge.tasks.scoring.metrics import measure
    from adjudge.types import Prediction

    answer: Value = spec.number.low if spec.number is not None else spec.words[0]
    return measure(spec, name, [Prediction("", {}, answer, "", answer)]).value


def answered_positive(gold_N: Array, pred_N: Array, positive: int) -> Array:
    """Return which rows count as answered positive. An unreadable answer is always the wrong one."""
    from adjudge.tasks.scoring.metrics import UNREADABLE

    return (pred_N == positive) | ((pred_N == UNREADABLE) & (gold_N != positive))


def is_defined(spec: TaskSpec, name: str, gold_N: Array, pred_N: Array) -> bool:
    """Return whether a metric of these rows is defined.

    F1 needs a positive among gold answers or predictions; Matthews and correlations need two different answers in both.
    """
    import numpy as np

    from adjudge.tasks.scoring.metrics import positive_index

    if name in ("matthews", "pearson", "spearman"):
        return bool(np.ptp(gold_N) > 0 and np.ptp(pred_N) > 0)
    if name == "f1":
        positive = positive_index(spec)
        return bool((gold_N == positive).any() or answered_positive(gold_N, pred_N, positive).any())
    return len(gold_N) > 0
