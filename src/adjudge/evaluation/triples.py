"""A graph of facts from a user's table of triples.

It gives its nodes, the nodes that a text names, and what joins two of them. Names are compared without regard to case,
and ``_`` is a space. Nothing depends on the order of the file's lines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from adjudge.errors import DataError
from adjudge.system.console import note
from adjudge.tasks.reading.same_text import normal_text

COLUMNS = ("head", "relation", "tail")
_WORD = re.compile(r"\w+")


class Triple(NamedTuple):
    """A fact: the head stands in the relation to the tail."""

    head: str
    relation: str
    tail: str

    @property
    def text(self) -> str:
        """Return the fact as a sentence."""
        return f"{self.head} {self.relation} {self.tail}."


def read_triples(path: Path) -> list[Triple]:
    """Return the triples of a TSV file, each once, sorted.

    Empty lines are skipped, and repeated triples are reported. Raises DataError for a file that cannot be read, a line
    without three names, or no triple at all.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file. Name a TSV file with head, relation and tail.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    facts: list[Triple] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        cells = [" ".join(cell.replace("_", " ").split()) for cell in line.split("\t")]
        if len(cells) != len(COLUMNS):
            raise DataError(
                f"{path}:{number}: has {len(cells)} column{'s' * (len(cells) != 1)}; a fact has three, separated by "
                f"tabs: {', '.join(COLUMNS)}."
            )
        if not all(cells):
            empty = COLUMNS[cells.index("")]
            raise DataError(f"{path}:{number}: the {empty} is empty. Write its name, or remove the line.")
        facts.append(Triple(*cells))
    if not facts:
        raise DataError(
            f"{path}: holds no triple. Write one fact per line: head, relation and tail, separated by tabs."
        )
    spelled: dict[str, str] = {}
    for name in sorted({name for triple in facts for name in triple}):
        spelled.setdefault(normal_text(name), name)
    triples = sorted({Triple(*(spelled[normal_text(name)] for name in triple)) for triple in facts})
    if repeated := len(facts) - len(triples):
        note(f"{path}: {repeated} of {len(facts)} lines repeat a triple and count once")
    return triples


class Graph:
    """Triples as a graph."""

    def __init__(self, triples: Iterable[Triple]) -> None:
        self.triples = sorted(set(triples))
        self._from: dict[str, list[Triple]] = {}
        for triple in self.triples:
            self._from.setdefault(triple.head, []).append(triple)

    @cached_property
    def nodes(self) -> list[str]:
        """Return the names of heads and tails, sorted."""
        return sorted({name for triple in self.triples for name in (triple.head, triple.tail)})

    @cached_property
    def relations(self) -> list[str]:
        """Return the relations, the most frequent first, those of equal frequency sorted."""
        counts = Counter(triple.relation for triple in self.triples)
        return sorted(counts, key=lambda relation: (-counts[relation], relation))

    def entities(self, text: str) -> list[str]:
        """Return the nodes that a text names, in its order, each once.

        Of overlapping names the longest from the left counts. A name is a run of whole words, whatever stands between
        them.
        """
        return _named(text, self._node_words)

    def relations_in(self, text: str) -> list[str]:
        """Return the relations that a text names, as `entities` does."""
        return _named(text, self._relation_words)

    def edges(self, heads: Iterable[str], tails: Iterable[str]) -> list[Triple]:
        """Return the triples from any of `heads` to any of `tails`, sorted."""
        wanted = set(tails)
        return sorted(
            triple for head in sorted(set(heads)) for triple in self._from.get(head, ()) if triple.tail in wanted
        )

    def between(self, heads: Sequence[str], tails: Sequence[str]) -> list[str]:
        """Return the nodes, sorted, in the middle of a path of two triples from `heads` to `tails`."""
        ends = {*heads, *tails}
        reached = {triple.tail for head in heads for triple in self._from.get(head, ())} - ends
        return sorted(node for node in reached if any(t.tail in tails for t in self._from.get(node, ())))

    def touching(self, entities: Sequence[str]) -> list[Triple]:
        """Return the triples with an end among the entities: those with both first, else sorted."""
        names = set(entities)
        ends = {triple: (triple.head in names) + (triple.tail in names) for triple in self.triples}
        return sorted((triple for triple, count in ends.items() if count), key=lambda triple: (-ends[triple], triple))

    @cached_property
    def _node_words(self) -> dict[tuple[str, ...], str]:
        return _by_words(self.nodes)

    @cached_property
    def _relation_words(self) -> dict[tuple[str, ...], str]:
        return _by_words(sorted(self.relations))


def _by_words(names: Iterable[str]) -> dict[tuple[str, ...], str]:
    known: dict[tuple[str, ...], str] = {}
    for name in names:
        if words := tuple(_WORD.findall(name.casefold())):
            known.setdefault(words, name)
    return known


def _named(text: str, known: dict[tuple[str, ...], str]) -> list[str]:
    words = _WORD.findall(text.replace("_", " ").casefold())
    longest = max(map(len, known), default=0)
    names: dict[str, None] = {}
    begin = 0
    while begin < len(words):
        for length in range(min(longest, len(words) - begin), 0, -1):
            if (name := known.get(tuple(words[begin : begin + length]))) is not None:
                names[name] = None
                begin += length
                break
        else:
            begin += 1
    return list(names)
