"""A policy prompted with one task: how rows become prompts, and where its answers and analyses end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from adjudge.config import Config
from adjudge.errors import ConfigError, DataError
from adjudge.models.policy import Policy
from adjudge.prompts.render import Renderer
from adjudge.rewards.rewarder import Rewarder
from adjudge.rewards.weights import balanced_weights
from adjudge.rollout.answer_end import AnalysisEnd, answer_end
from adjudge.system.console import warn
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prompt

_TAG_TOKENS = 24
"""Room for the tags between a judgement and its analysis."""


class Prompted(Protocol):
    """A row as a method prepares it, with its prompt."""

    @property
    def ids(self) -> Sequence[int]:
        """Return the token ids of the prompt."""


class PromptRow(NamedTuple):
    """A row and the token ids of its prompt."""

    example: Example
    ids: tuple[int, ...]

    @property
    def id(self) -> str:
        """Return the row's id."""
        return self.example.id

    @property
    def tokens(self) -> int:
        """Return the length of the prompt."""
        return len(self.ids)


class PromptedTask:
    """A policy and the task it is prompted with. Sampling, training and evaluation share it."""

    def __init__(
        self,
        policy: Policy,
        spec: TaskSpec,
        config: Config,
        demonstrations: Sequence[Example] = (),
        renderer: Renderer | None = None,
    ) -> None:
        """Prompt with `renderer`; without one, with the same `demonstrations` before every row.

        Raises ConfigError for a prompt that the policy's instruction embeddings cannot go with.
        """
        self.policy, self.spec, self.config = policy, spec, config
        self.renderer = renderer or Renderer(policy.tokenizer, spec, config.prompt, demonstrations)
        if policy.embeddings is not None:
            if config.prompt.analysis == "before":
                raise ConfigError(
                    "the adapter has instruction embeddings, which cannot go with prompt.analysis=before: where an "
                    "analysis stands, in the prompt or in the answer, decides what is added. Start from another run."
                )
            policy.embeddings.know(self.renderer.instruction_ids())
        end_ids = self.renderer.end_ids(policy.end_ids)
        self.end = answer_end(policy.tokenizer, end_ids, spec, config.answer)
        analysis = AnalysisEnd(policy.tokenizer, tuple(end_ids), config.answer.analysis_tokens)
        self.analysis_before = analysis if config.prompt.analysis == "before" else None
        self.analysis_after = analysis if config.prompt.analysis is True else None
        self.rewarder: Rewarder | None = None
        """Rewards its answers; set where a policy learns from rewards."""
        self.prior: Mapping[str, float] | None = None
        """What the probability of each label word is divided by; None for nothing."""

    @property
    def response_tokens(self) -> int:
        """Return the largest number of tokens after a prompt: the answer, and any analysis with its tags."""
        analysis = self.analysis_before or self.analysis_after
        return self.end.max_tokens + (analysis.max_tokens + _TAG_TOKENS if analysis else 0)

    @property
    def sampled_tokens(self) -> int:
        """Return the most tokens the policy writes while it learns: the answer, and an analysis before it."""
        return self.end.max_tokens + (self.analysis_before.max_tokens if self.analysis_before else 0)

    def taught_labels(self) -> list[list[int]]:
        """Return the token ids to teach for each label word of the task, with the answer's end."""
        return [self.end.taught_ids(word, self.spec) for word in self.spec.words]


def check_lengths(task: PromptedTask, examples: Sequence[Example], prompts: Sequence[Prompt]) -> None:
    """Raise ConfigError for the first prompt that, with its answer, exceeds the model's positions.

    Positions that are computed (rotary ones) do not run out: beyond those of its training, such a model gets a warning.
    """
    most, name = task.policy.positions, task.policy.name
    if most is None:
        return
    for example, prompt in zip(examples, prompts, strict=True):
        tokens, more = len(prompt.ids), task.response_tokens
        if most.fixed and tokens + more > most.count:
            raise ConfigError(
                f"{example.id}: its prompt has {tokens:,} tokens and an answer up to {more}, but {name} has only "
                f"{most.count:,} positions{most.why}. Set prompt.max_tokens={max(most.count - more, 16)}: longer "
                "prompts are then shortened in the row's longest field. Or use a model with more positions."
            )
        if not most.fixed and tokens > most.count:
            warn(
                f"{example.id}: its prompt has {tokens:,} tokens, more than the {most.count:,} that {name} is made "
                f"for; such answers may be poor. prompt.max_tokens={most.count} shortens them."
            )
            return


def prompt_rows(task: PromptedTask, examples: Sequence[Example]) -> list[PromptRow]:
    """Render the prompt of each row. Raises ConfigError for one that the model has no positions for."""
    prompts = task.renderer.prompts(examples)
    check_lengths(task, examples, prompts)
    return [PromptRow(example, prompt.ids) for example, prompt in zip(examples, prompts, strict=True)]


def taught_row(task: PromptedTask, row: PromptRow) -> TaughtRow:
    """Return a prompt with the gold answer and its end to teach. Raises DataError without one."""
    if row.example.gold is None:
        raise DataError(f"{row.id}: has no gold answer to learn from.")
    return TaughtRow(list(row.ids), task.end.taught_ids(row.example.gold, task.spec), row.id)


class TaughtRow(NamedTuple):
    """A training row as token ids: the given ones, then the taught ones."""

    given: list[int]
    taught: list[int]
    id: str = ""
    weight: float = 1.0
    """How often the row counts in the loss."""
    ref_logp: float | None = None
    """The reference's log-probability of the taught tokens, where the deviation from it is measured."""

    @property
    def ids(self) -> list[int]:
        """Return the given tokens: the prompt, unless the prompt is taught too."""
        return self.given

    @property
    def tokens(self) -> int:
        """Return the number of given and taught tokens."""
        return len(self.given) + len(self.taught)


def taught_rows(
    task: PromptedTask,
    examples: Sequence[Example],
    *,
    loss: Literal["answer", "sequence"] = "answer",
    balanced: bool = False,
) -> list[TaughtRow]:
    """Return each row's prompt, and the gold answer with its end to teach.

    With ``loss="sequence"`` the prompt is taught too, except for its first token. With `balanced`, rows are weighted so
    that all labels of the examples count the same. Raises DataError for a row without a
    gold answer.
    """
    rows = [taught_row(task, row) for row in prompt_rows(task, examples)]
    if loss == "sequence":
        rows = [TaughtRow(row.given[:1], [*row.given[1:], *row.taught], row.id) for row in rows]
    if balanced:
        weights = balanced_weights([example.gold for example in examples])
        rows = [row._replace(weight=weights[example.gold]) for row, example in zip(rows, examples, strict=True)]
    return rows
