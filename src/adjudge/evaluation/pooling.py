"""One prediction for a row that was judged in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction


def pooled(
    example: Example, pieces: Sequence[Prediction], spec: TaskSpec, how: Literal["mean", "max"], *, probabilities: bool
) -> Prediction:
    """Return the prediction for a row from those for its pieces.

    Of labels it is the likeliest by the pieces' mean probabilities (``mean``), or by those of the piece that is surest
    of its label (``max``). Of numbers it is the mean of those that can be read; with none, it is unreadable.
    """
    if spec.number is not None:
        values = [float(piece.value) for piece in pieces if piece.value is not None]
        if not values:
            return Prediction.of(example, pieces[0].text, None)
        value = fmean(values)
        return Prediction.of(example, f"{value:.{spec.number.decimals}f}", value)
    if how == "mean":
        shares = {word: fmean(piece.probabilities[word] for piece in pieces) for word in spec.words}
    else:
        shares = dict(max(pieces, key=lambda piece: max(piece.probabilities.values())).probabilities)
    word = max(shares, key=lambda word: shares[word])
    return Prediction.of(example, word, word, shares if probabilities else {})
