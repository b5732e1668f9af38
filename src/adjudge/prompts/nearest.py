"""Demonstrations that differ per row: the training rows nearest to it.

Nearness is the cosine of the vectors of an encoder, averaged over the fields of a row. The nearest is shown last, next
to the row. A row is never shown itself, nor any row of the same text.

Source: arXiv 2101.06804 (KATE), with a sentence encoder that is not fine-tuned on the task.

Legend: ``N`` training rows, ``D`` width of a row's vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from adjudge.config import PromptConfig
from adjudge.models.encoder import Encoder
from adjudge.prompts.render import Renderer
from adjudge.tasks.reading.same_text import text_key
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prompt

Embed = Callable[[Sequence[Example]], Tensor]
"""Rows → vectors of length 1, ``[N, D]`` float32."""


def embedding(encoder: Encoder, spec: TaskSpec, batch_size: int) -> Embed:
    """Return the function that gives rows their vectors: those of their fields, one after the other."""
    fields = list(spec.fields)

    def embed(rows: Sequence[Example]) -> Tensor:
        columns = [encoder.vectors([row.fields[name] for row in rows], batch_size) for name in fields]
        return torch.cat(columns, dim=1) / len(fields) ** 0.5

    return embed


_MOST_PIECES = 10_000
"""Pieces of long rows whose rows are remembered."""


class Neighbours:
    """Finds the training rows that are nearest to a row."""

    def __init__(self, rows: Sequence[Example], vectors_ND: Tensor, embed: Embed, count: int) -> None:
        self._rows, self._vectors_ND, self._embed, self._count = rows, vectors_ND, embed, count
        self._keys = [text_key(row.fields) for row in rows]

    def of(self, examples: Sequence[Example]) -> list[list[Example]]:
        """Return each row's neighbours, the nearest last; each text once, and never the row's own."""
        if not examples or not self._count:
            return [[] for _ in examples]
        return [
            self._nearest(example, vector_D) for example, vector_D in zip(examples, self._embed(examples), strict=True)
        ]

    def _nearest(self, example: Example, vector_D: Tensor) -> list[Example]:
        cosine_N = self._vectors_ND @ vector_D
        taken, nearest = {text_key(example.fields)}, []
        for index in cosine_N.argsort(descending=True, stable=True).tolist():
            if self._keys[index] not in taken:
                taken.add(self._keys[index])
                nearest.append(self._rows[index])
            if len(nearest) == self._count:
                break
        return nearest[::-1]


class NearestRenderer(Renderer):
    """Renders each row after its own demonstrations, in one order of their nearness."""

    def __init__(
        self, tokenizer: Any, spec: TaskSpec, config: PromptConfig, neighbours: Neighbours, order: Sequence[int]
    ) -> None:
        super().__init__(tokenizer, spec, config)
        self._neighbours, self._order = neighbours, order
        self._whole: dict[str, Example] = {}
        """The rows that pieces were cut from, by the text of the piece."""

    def text(self, example: Example) -> str:
        """Return the prompt as text, with special tokens spelled out."""
        return self._renderers([example])[0].text(example)

    def prompt(self, example: Example) -> Prompt:
        """Return one row as a prompt; see `Renderer.prompt`."""
        return self._renderers([example])[0].prompt(example)

    def prompts(self, examples: Sequence[Example]) -> list[Prompt]:
        """Return the rows as prompts, in their order."""
        renderers = self._renderers(examples)
        return [renderer.prompt(example) for renderer, example in zip(renderers, examples, strict=True)]

    def pieces(self, example: Example) -> list[Example]:
        """Return a row that is too long as several rows; see `Renderer.pieces`."""
        pieces = self._renderers([example])[0].pieces(example)
        for piece in pieces:
            self._whole[text_key(piece.fields)] = example
        while len(self._whole) > _MOST_PIECES:  # a server judges for weeks
            del self._whole[next(iter(self._whole))]
        return pieces

    def _renderers(self, examples: Sequence[Example]) -> list[Renderer]:
        # A piece has its row's neighbours: with its own, the row itself would be among them.
        rows_asked = [self._whole.get(text_key(example.fields), example) for example in examples]
        shown = [[rows[index] for index in self._order] for rows in self._neighbours.of(rows_asked)]
        return [Renderer(self._tokenizer, self.spec, self.config, rows) for rows in shown]
