"""What flows through the house: examples, prompts, judgements, predictions.

Legend of the shape letters used everywhere as suffixes: ``B`` prompts in a batch, ``P`` prompt tokens,
``R`` response tokens,
``T`` prompt and response tokens, ``V`` vocabulary, ``D`` hidden width, ``L`` labels, ``N`` rows, ``S`` resamples.
Masks are boolean with True = a real token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | float
"""An answer that could be read: a label word for label tasks, a number for number tasks."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task: named texts and, where it is labelled, the gold answer.

    `gold` is the answer *word* (``"Positive"``) of a label task, the number of a number task, or None when unlabelled.
    `id` is unique within its split and names the row in errors and prediction files, e.g. ``"dev.tsv:17"`` (file and line).
    """

    id: str
    fields: Mapping[str, str]
    gold: Value | None = None
    group: str = ""
    """Rows of one group are scored together (the answer options of a question); empty for a row that stands alone."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """What is known of the row and never shown to a model: its official index, the phenomenon it tests."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One rendered prompt: the token ids up to and including the opened answer slot."""

    ids: tuple[int, ...]
    shortened: bool = False
    """True when a field was cut to fit the token limit."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What could be read from a response. `value` is None when it was unreadable; it is never guessed."""

    text: str
    value: Value | None

    @property
    def readable(self) -> bool:
        """Whether the text was one answer and nothing else."""
        return self.value is not None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One judged row: what was asked, what came back, what it was read as."""

    id: str
    fields: Mapping[str, str]
    gold: Value | None
    text: str
    value: Value | None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Probability per label word (sums to 1 over the labels); empty when not asked for or for number tasks."""
    group: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    """As in the example."""

    @classmethod
    def of(
        cls, example: Example, text: str, value: Value | None, probabilities: Mapping[str, float] | None = None
    ) -> Prediction:
        """What came back for `example`."""
        return cls(
            example.id, example.fields, example.gold, text, value, probabilities or {}, example.group, example.tags
        )
