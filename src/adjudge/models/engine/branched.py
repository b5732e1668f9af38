"""The state after prompts that were run in one pass with the answers expected to them.

Feeding a token of an expected answer runs nothing: the state after it is there. A row whose answer is another one
strays, and goes on with the keys and values of its prompt.

Shapes: ``B`` rows of the state, ``P`` prompts, ``N`` states after a prompt, ``D`` width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from adjudge.models.engine.packing import Packing
from adjudge.models.engine.prefix import Prefilled, copy_cache

Extend = Callable[[Prefilled, Tensor], tuple[Tensor, Prefilled]]
"""Feeds further tokens of every row; returns their hidden states ``[B, T, D]`` and the new state."""


class Row(NamedTuple):
    """Where a row of the state stands."""

    prompt: int
    fed: tuple[int, ...]
    """What was fed after the prompt."""
    stray: int = -1
    """Its index among `Branched.strays`; −1 for an expected answer."""
    place: int = 0
    """Its row there."""


@dataclass(slots=True)
class Branched(Prefilled):
    """Prompts whose expected answers were run with them. `cache`, masks and positions are empty."""

    packed: Prefilled | None = None
    """The state after the prompts, without a mask; its cache is that of the whole pass, as `packing` lays it out."""
    packing: Packing | None = None
    hidden_PND: Tensor = field(default_factory=lambda: torch.empty(0))
    """The states after each prompt, and after each beginning of an expected answer to it."""
    places: Mapping[tuple[int, ...], int] = field(default_factory=dict)
    """Where the state after each beginning is; 0 for none."""
    rows: Sequence[Row] = ()
    strays: Sequence[Prefilled] = ()
    """The states of rows that went another way, one per step at which some did."""
    keeps_for_nothing: ClassVar[bool] = True

    @classmethod
    def of(
        cls, packed: Prefilled, packing: Packing, hidden_PND: Tensor, places: Mapping[tuple[int, ...], int]
    ) -> Branched:
        """Return the state after the prompts."""
        nothing = torch.zeros(0, dtype=torch.long, device=hidden_PND.device)
        state = cls(None, nothing, nothing, packed.hidden_BD, packed.grad, packed=packed, packing=packing)
        rows = [Row(prompt, ()) for prompt in range(len(hidden_PND))]
        return replace(state, hidden_PND=hidden_PND, places=places, rows=rows)

    def fork(self) -> Branched:
        """Return a copy that can be continued without touching this one."""
        return replace(self, strays=[stray.fork() for stray in self.strays])

    def keep(self, rows_B: Tensor) -> Branched:
        """Return a state of these rows, in this order, each as often as named; this state is used up."""
        return replace(self, rows=[self.rows[row] for row in rows_B.tolist()], hidden_BD=self.hidden_BD[rows_B])

    def extend(self, ids_BT: Tensor, extend: Extend) -> tuple[Tensor, Branched]:
        """Feed one more token of every row, as `Engine.extend` does."""
        rows = [row._replace(fed=(*row.fed, *ids)) for row, ids in zip(self.rows, ids_BT.tolist(), strict=True)]
        ahead = [index for index, row in enumerate(rows) if row.stray < 0 and row.fed in self.places]
        leaving = [index for index, row in enumerate(rows) if row.stray < 0 and row.fed not in self.places]
        order, device = list(ahead), ids_BT.device
        state_A = [rows[index].prompt * len(self.places) + self.places[rows[index].fed] for index in ahead]
        parts = [self.hidden_PND.flatten(0, 1)[state_A]]
        strays: list[Prefilled] = []

        def go_on(indices: Sequence[int], stray: Prefilled, place_K: Sequence[int], fed_KT: Tensor) -> None:
            hidden_KTD, after = extend(stray.keep(torch.tensor(place_K, device=device)), fed_KT)
            for place, index in enumerate(indices):
                rows[index] = rows[index]._replace(stray=len(strays), place=place)
            order.extend(indices)
            parts.append(hidden_KTD[:, -1])
            strays.append(after)

        for number, stray in enumerate(self.strays):
            if staying := [index for index, row in enumerate(self.rows) if row.stray == number]:
                go_on(staying, stray, [self.rows[index].place for index in staying], ids_BT[staying])
        if leaving:
            fed_KT = torch.tensor([rows[index].fed for index in leaving], device=device)
            go_on(leaving, self._begun(), [rows[index].prompt for index in leaving], fed_KT)
        hidden_BD = torch.cat(parts)[torch.tensor(order, device=device).argsort()]
        return hidden_BD[:, None], replace(self, rows=rows, strays=strays, hidden_BD=hidden_BD)

    def _begun(self) -> Prefilled:
        """Return the state after the prompts, with a cache of their keys and values."""
        assert self.packed is not None and self.packing is not None
        cache = copy_cache(self.packed.cache)
        with torch.set_grad_enabled(self.grad):
            mask_PS = self.packing.spread(cache, self.packed.position_B + 1 - self.packing.common)
        return replace(self.packed, cache=cache, mask_BT=mask_PS, grad=self.grad)
