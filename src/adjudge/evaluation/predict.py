"""Judges: what turns rows into predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from adjudge.types import Example, Prediction


class Judge(Protocol):
    """Anything that judges rows: a prompted policy or a fine-tuned encoder."""

    def judge(self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging") -> list[Prediction]:
        """Judge each row; as many predictions as rows, in their order. Shows progress under `title`.

        With `probabilities`, each prediction of a label task carries a probability per label word.
        """
        ...
