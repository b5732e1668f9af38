"""Settings of the machine, and of the trackers that a run reports to, which change nothing in it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from adjudge.config.base import Settings, split_names
from adjudge.errors import nearest

TRACKERS = ("trackio", "tensorboard", "wandb", "mlflow")
"""The experiment trackers that a run can report to."""


class RuntimeConfig(Settings):
    """The machine."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto: the fastest here")
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none", description="precision of the fixed weights (needs bitsandbytes)"
    )
    shard_base: bool = Field(
        False,
        description="several processes: divide the frozen weights among them, and gather a layer while it runs; "
        "less memory, more time",
    )
    checkpoint_activations: bool = Field(
        False, description="compute activations again in the backward pass: less memory, more time"
    )
    micro_batch_size: int | Literal["auto"] | None = Field(
        None,
        description="most rows in one pass with gradient, for every method; auto: halved when memory runs out; "
        "unset: a method's own setting alone",
    )
    cuda_graphs: bool = Field(
        True, description="on a GPU: capture passes and replay them, without Python between their kernels"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; unset: all cores")
    trust_remote_code: str | None = Field(
        None, description="name of the one model whose own Python code may run; unset: none"
    )

    @field_validator("shard_base")
    @classmethod
    def _of_plain_weights(cls, divides: bool, info: ValidationInfo) -> bool:
        if divides and (quantization := info.data.get("quantization", "none")) != "none":
            raise ValueError(
                f"weights of runtime.quantization={quantization} cannot be divided over processes; leave one of the "
                "two settings out"
            )
        return divides

    @field_validator("micro_batch_size")
    @classmethod
    def _rows(cls, size: int | str | None) -> int | str | None:
        if isinstance(size, int) and size < 1:
            raise ValueError("write auto, or a number from 1")
        return size

    @field_validator("trust_remote_code", mode="before")
    @classmethod
    def _by_name(cls, trusted: Any) -> Any:
        if trusted is False:  # reads naturally for "none"
            return None
        if trusted is True:
            raise ValueError("write the name of the model whose code may run, not true")
        return trusted


class TrackingConfig(Settings):
    """Experiment trackers which a run reports to. They change nothing in the run."""

    report_to: tuple[str, ...] = Field((), description=f"trackers: {', '.join(TRACKERS)}; several with commas")
    project: str | None = Field(
        None, description="the trackers' project or experiment; unset: their environment variable, else adjudge"
    )
    run_name: str | None = Field(
        None, description="name of the tracked run, in a comparison its beginning; unset: TASK-METHOD-seedN"
    )

    @field_validator("report_to", mode="before")
    @classmethod
    def _listed(cls, report_to: Any) -> Any:
        return () if report_to is None or report_to == "none" else split_names(report_to)

    @field_validator("report_to")
    @classmethod
    def _trackers(cls, report_to: tuple[str, ...]) -> tuple[str, ...]:
        for name in report_to:
            if name not in TRACKERS:
                raise ValueError(f"there is no tracker '{name}'.{nearest(name, TRACKERS)}")
        return tuple(dict.fromkeys(report_to))
