"""The data types that every room shares: examples, prompts, judgements, predictions.

Shapes are suffixes of names: ``B`` prompts in a batch, ``P`` prompt tokens, ``R`` response tokens, ``T`` prompt and
response tokens, ``V`` vocabulary, ``D`` hidden width, ``L`` labels, ``N`` rows, ``S`` resamples. Masks are boolean with
True = a real token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | float
"""A readable answer: a label word for label tasks, a number for number tasks."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task: named texts and, if labelled, the gold answer."""

    id: str
    """Name of the row in errors and prediction files, unique in its split: file and line, as ``"dev.tsv:17"``."""
    fields: Mapping[str, str]
    gold: Value | None = None
    """The answer word (``"Positive"``) of a label task, the number of a number task; None when unlabelled."""
    group: str = ""
    """Rows of one group are scored together, such as the answer options of a question; empty for a single row."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Facts about the row that a model never sees, such as its official index or the phenomenon it tests."""


@dataclass(frozen=True, slots=True)
class Explained(Example):
    """A worked example with an explanation of its gold answer, which is shown before the answer."""

    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One rendered prompt: the token ids up to and including the opened answer slot."""

    ids: tuple[int, ...]
    shortened: bool = False
    """True when a field was cut to fit the token limit."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer read from a response. An unreadable one has the value None; it is never guessed."""

    text: str
    value: Value | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One judged row: the example, the response, and the answer read from it."""

    id: str
    fields: Mapping[str, str]
    gold: Value | None
    text: str
    value: Value | None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Probability per label word, summing to 1; empty for number tasks or when not requested."""
    group: str = ""
    """The example's group."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """The example's tags."""
    abstained: bool = False
    """True for an answer that was held back: `value` is then None, and `text` still has the answer."""

    @classmethod
    def of(
        cls, example: Example, text: str, value: Value | None, probabilities: Mapping[str, float] | None = None
    ) -> Prediction:
        """Return the prediction for `example`."""
        return cls(
            example.id, example.fields, example.gold, text, value, probabilities or {}, example.group, example.tags
        )
