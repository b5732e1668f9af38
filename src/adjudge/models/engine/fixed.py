"""Passes of few shapes: the sizes of a packed batch, rounded up, and all its indices in one tensor.

A captured pass (graphs.py) reads its input from one place, and each shape is captured anew. So batches are filled up
to rounded sizes: tokens, rows and requested states that no other token sees and that earn no gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from adjudge.models.engine.batch import Rows
from adjudge.models.engine.packing import Packing


class FixedShape(NamedTuple):
    """Sizes of a packed batch, each rounded up."""

    common: int
    """Tokens of the prefix; never rounded, since padding there would be seen."""
    rows: int
    longest: int
    """More than the longest rest has, so that the first row ends with padding."""
    tokens: int
    """Tokens of all rests."""
    wanted: int

    @classmethod
    def around(cls, rows: Rows, *, steps: int) -> FixedShape:
        """Return the shape that these rows fit into, with about `steps` sizes between a number and its double."""
        lengths = list(map(len, rows.rests))
        count, longest = rounded(len(lengths), 1, 4), rounded(max(lengths) + 1, 32, 4)
        tokens = min(rounded(sum(lengths), 128, steps), count * longest)
        return cls(len(rows.prefix), count, longest, tokens, rounded(sum(rows.predicting), 16, steps))

    @property
    def sizes(self) -> list[int]:
        """Return the lengths of the parts of `indices`."""
        whole = self.common + self.tokens
        return [whole, whole, self.rows * self.longest, self.rows, self.tokens, self.wanted]

    def indices(self, rows: Rows) -> Tensor:
        """Return these rows' ids, positions, grid, lengths, cells and requested tokens in one CPU tensor."""
        # Lists, not tensors: a tensor's functions wake all threads for a few hundred numbers.
        ids, positions = list(rows.prefix), list(range(self.common))
        grid: list[int] = []
        cells: list[int] = []
        wanted: list[int] = []
        begin = 0
        for row, (rest, predicting) in enumerate(zip(rows.rests, rows.predicting, strict=True)):
            length = len(rest)
            ids += rest
            positions += range(self.common, self.common + length)
            grid += range(begin, begin + length)
            grid += [begin + length - 1] * (self.longest - length)
            cells += range(row * self.longest, row * self.longest + length)
            wanted += range(begin + length - predicting, begin + length)
            begin += length
        lengths = list(map(len, rows.rests))
        padding = self.longest - 1  # the first row's last cell, which has no gradient
        parts = zip((ids, positions, grid, lengths, cells, wanted), (0, 0, 0, 0, padding, 0), self.sizes, strict=True)
        return torch.tensor([number for part, fill, size in parts for number in [*part, *[fill] * (size - len(part))]])

    def unpack(self, indices: Tensor) -> tuple[Tensor, Tensor, Packing]:
        """Return the whole sequence's ids, positions and packing, as views of `indices` on any device."""
        ids, positions, grid, length_B, real_M, wanted_K = indices.split(self.sizes)
        grid_BT = grid.view(self.rows, self.longest)
        packing = Packing(
            ids_M=ids[self.common :],
            position_M=positions[self.common :],
            grid_BT=grid_BT,
            is_real_BT=torch.arange(self.longest, device=indices.device) < length_B[:, None],
            real_M=real_M,
            wanted_K=wanted_K,
            common=self.common,
        )
        return ids, positions, packing


def rounded(number: int, least: int, steps: int) -> int:
    """Round up to a multiple of `least`, and to one of `steps` sizes between a power of two and the next."""
    step = max(least, 2 ** (max(1, number).bit_length() - 1) // steps)
    return -(-number // step) * step
