"""The settings of the methods that search or refine prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adjudge.config.base import Settings


class PromptSearchConfig(Settings):
    """What the methods read which search an instruction: they choose it on held-out training rows."""

    validation_rows: int = Field(
        48, ge=1, description="training rows that candidates are compared on, at most half of them; the rest is shown"
    )
    score: Literal["auto", "probability", "right"] = Field(
        "auto",
        description="score of a judged row: the right label's probability, or 1 for a right answer and 0 for another; "
        "auto: the first where the model gives probabilities. Numbers: 1 - error / range. Unreadable: 0",
    )


class BpoConfig(PromptSearchConfig):
    """The instruction rewritten from right and wrong answers, after BPO (arXiv 2311.04155)."""

    rewrites: int = Field(4, ge=0, description="rewritten instructions that the writer draws; 0: none, as zero-shot")
    pairs: int = Field(4, ge=1, description="wrong answers that the writer is shown, each beside the right one")
    select: Literal["best", "first"] = Field(
        "best",
        description="best: the highest score on held-out training rows, the original among them; first: the first "
        "rewrite that can be used, unscored",
    )
    texts: tuple[str, ...] = Field((), description="rewritten instructions of your own; given: no model writes any")


class GepaConfig(PromptSearchConfig):
    """Reflective prompt evolution (arXiv 2507.19457)."""

    calls: int = Field(600, ge=1, description="rows that may be judged in the search; ends within one step after it")
    minibatch: int = Field(3, ge=1, description="training rows that a new instruction is written from and tried on")


class GepaEditsConfig(GepaConfig):
    """GEPA's search with scripted edits in place of reflection."""


class IipConfig(Settings):
    """Steps before each judgement: a program's lines, or questions (arXiv 2410.06667)."""

    lines: str | None = Field(None, description="field of a row that is given line by line; unset: the task's")
    steps: tuple[str, ...] | None = Field(
        None, description="questions that are answered before the judgement, one by one; unset: the task's procedure"
    )
    max_tokens: int = Field(32, ge=1, description="longest answer to a step")
