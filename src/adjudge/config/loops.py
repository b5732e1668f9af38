"""What the training loops read, whatever the method."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from adjudge.config.base import Settings
from adjudge.config.groups import OptimizerConfig


class LoopConfig(Settings):
    """What the outer loop of every training method reads."""

    epochs: int = Field(1, ge=1, description="passes over the training rows")
    min_steps: int = Field(50, ge=0, description="fewest steps: a small file gets more passes; 0: epochs alone decide")
    batch_size: int = Field(16, ge=1, description="rows per step")
    optimizer: OptimizerConfig = OptimizerConfig()

    def passes(self, steps: int) -> int:
        """Return the passes over rows that make this number of steps per pass."""
        return max(self.epochs, -(-self.min_steps // max(1, steps)))


class WarmStartConfig(LoopConfig):
    """What every method reads which first fine-tunes on the right answers, and then learns in its own way."""

    epochs: int = Field(2, ge=1, description="passes over the training rows, the warm start's included")
    warm_start: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the steps that first fine-tune on the right answers, which makes the reference; "
        "unset: 0.5, or 0.2 where the answers are numbers; 0: none; runs with init or prompt.analysis=before have none",
    )
    warm_start_limit: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the steps up to which the warm start goes on where its answers are not yet better than "
        "one answer for all rows; unset: 0.75, and 0 where the answers are numbers; 0: it never does",
    )
    warm_start_lr: float = Field(3e-4, ge=0, description="peak learning rate of the warm start")
    micro_batch_size: int | None = Field(None, ge=1, description="prompts in one pass; gradients accumulate")
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-4)

    def decided(self, *, numbers: bool) -> Self:
        """Return the settings with an unset warm start decided, by whether all answers are `numbers`."""
        share, limit = (0.2, 0.0) if numbers else (0.5, 0.75)
        return self.model_copy(
            update={
                "warm_start": share if self.warm_start is None else self.warm_start,
                "warm_start_limit": limit if self.warm_start_limit is None else self.warm_start_limit,
            }
        )
