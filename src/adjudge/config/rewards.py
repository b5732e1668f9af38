"""The settings of the reward, shared by all methods which learn from rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from adjudge.config.base import Settings


class RewardConfig(Settings):
    """The score of a judgement, given once at its end."""

    kind: Literal["match", "learned", "mixed"] = Field(
        "match",
        description="of a readable answer: right or wrong (match), what a reward model gives the label (learned), or "
        "that up to a threshold, plus right or wrong (mixed)",
    )
    model: str | None = Field(None, description="run folder of the reward model, for kind=learned and kind=mixed")
    threshold: float = Field(
        1.0,
        description="of kind=mixed: most that the learned part can add, in standard deviations of the labels' rewards",
    )
    right: float = Field(1.0, description="reward of the right label")
    wrong: float = Field(-1.0, description="reward of a wrong label")
    unreadable: float = Field(-3.0, description="reward of an unreadable answer; number tasks pay -range/2")
    distance: Literal["auto", "none", "linear", "quadratic"] = Field(
        "auto",
        description="of labels in an order: a wrong one pays between right and wrong, by its distance or the square of "
        "it, wrong for the farthest; auto: linear where the task's labels are ordered",
    )
    sets: Literal["f1", "jaccard", "exact"] = Field(
        "f1",
        description="of an answer that is a set of labels: from wrong to right by the F1 or the Jaccard index of the "
        "two sets, or right only when they are equal",
    )
    match_weight: float | None = Field(
        None, description="weight of the rewards above, for numbers of the distance; unset: 1, with functions 0"
    )
    costs: dict[str, dict[str, float]] | None = Field(
        None, description="gold label to answered label to reward, in place of right and wrong for this pair"
    )
    weights: dict[str, float] | None = Field(
        None, description="gold label to a factor of the row's reward; labels that are not named: 1"
    )
    balance: bool | None = Field(
        None,
        description="one answer for all rows is to earn nothing: a label's reward times training rows / (labels * "
        "training rows of the gold label), a number's less its mean over the training rows; unset: only without "
        "functions, costs, weights and metric, and not for sets of labels",
    )
    functions: tuple[str, ...] = Field(
        (), description="your own rewards, FILE.py:NAME each, summed; the code in these files runs"
    )
    function_weights: tuple[float, ...] | None = Field(None, description="weight of each function; unset: 1 each")
    metric: str | None = Field(
        None, description="one of the task's metrics: each answer is credited with its part in it"
    )
    metric_credit: Literal["flip", "leave-one-out", "linear"] | None = Field(
        None,
        description="against the row answered otherwise (flip), the row left out, or to first order (linear, f1 only); "
        "unset: flip, for numbers leave-one-out",
    )
    metric_weight: float = Field(1.0, description="weight of the credit, which is scaled by the number of rows")
    metric_window: int = Field(
        256, ge=0, description="earlier judgements that the metric is computed over, beside the batch's; 0: none"
    )

    @field_validator("functions", mode="before")
    @classmethod
    def _listed(cls, functions: Any) -> Any:
        listed = [part.strip() for part in functions.split(",")] if isinstance(functions, str) else functions
        for function in listed if isinstance(listed, list | tuple) else ():
            file, _, name = str(function).rpartition(":")
            if not file or not name:
                raise ValueError(f"'{function}' is no reward function: write FILE.py:NAME")
        return listed

    @field_validator("weights", "costs", mode="before")
    @classmethod
    def _words(cls, mapping: Any) -> Any:
        inner = mapping.values() if isinstance(mapping, Mapping) else ()
        keys = [key for part in (mapping, *inner) if isinstance(part, Mapping) for key in part]
        if any(isinstance(key, bool) for key in keys):
            raise ValueError("YAML reads Yes and No as true and false: quote them, as in {'No': 1, 'Yes': 5}")
        return mapping

    @property
    def is_plain(self) -> bool:
        """True if right and wrong alone decide on the reward."""
        return self.kind == "match" and not (self.functions or self.costs or self.weights or self.metric)

    @property
    def match_factor(self) -> float:
        """Return the weight of the task's own reward: `match_weight`, by default 1, or 0 with functions.

        A learned reward takes its place, so it is 0 then.
        """
        if self.kind == "learned":
            return 0.0
        if self.match_weight is not None:
            return self.match_weight
        return 0.0 if self.functions else 1.0
