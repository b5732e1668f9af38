"""What a model and a graph of facts know about rows, after GIVE (arXiv 2410.08475).

The entities of a row are the graph's nodes that its texts name. Each makes a group with the nodes nearest to it. For
each two groups, statements that could join them are asked of the model, once per statement and run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from adjudge.config import GiveConfig
from adjudge.errors import RunError
from adjudge.evaluation.asking import Asker, Mode
from adjudge.evaluation.triples import Graph, Triple
from adjudge.system.files import SURROGATES
from adjudge.tasks.answer_words import folded
from adjudge.tasks.spec import Source, TaskSpec
from adjudge.types import Example, Prediction

Embed = Callable[[Sequence[str]], Tensor]
"""Names → vectors of length 1, ``[N, D]``."""

_Question = tuple[str, str, str, str]
"""What is asked, the head, the relation ("" where that is asked), and the tail."""

UNRELATED = "unrelated"
YES, NO, MAYBE = "Yes", "No", "Maybe"


@dataclass(slots=True)
class Known:
    """What is known about one row."""

    entities: list[str]
    groups: list[list[str]] = field(default_factory=list)
    asked_relations: list[str] = field(default_factory=list)
    """The relations that the row's texts name."""
    true: set[Triple] = field(default_factory=set)
    """What the model holds to be true."""
    false: set[Triple] = field(default_factory=set)
    """What the model holds to be false."""
    expert: set[Triple] = field(default_factory=set)
    """Triples of the graph itself between the groups."""

    def ordered(self, triples: Iterable[Triple], count: int) -> list[Triple]:
        """Return the first triples: those with most of the row's entities, then sorted."""
        names = set(self.entities)
        return sorted(triples, key=lambda t: (-(t.head in names) - (t.tail in names), t))[:count]


@dataclass(slots=True)
class _Join:
    """Two groups to join, and what was found between them."""

    known: Known
    left: list[str]
    right: list[str]
    relations: list[str] = field(default_factory=list)
    found: bool = False
    """Whether a statement got a Yes; a relation that the model merely names joins nothing."""

    def pairs(self) -> list[tuple[str, str]]:
        return [(head, tail) for head in self.left for tail in self.right if head != tail]

    def statements(self) -> list[Triple]:
        return [Triple(head, relation, tail) for head, tail in self.pairs() for relation in self.relations]


class Facts:
    """What the model was asked about statements and relations; kept in a file, so nothing is asked twice."""

    def __init__(
        self, asker: Asker, graph: Graph, config: GiveConfig, mode: Mode, path: Path, *, keep: bool = True
    ) -> None:
        """Begin with the answers of the file; add to it unless `keep` is False.

        Raises RunError when the file is damaged.
        """
        self._asker, self._mode, self._path, self._keep = asker, mode, path, keep
        self._truth = truth_task()
        offered = {"": "", folded(UNRELATED): UNRELATED}  # names that would be read as the same answer are one
        for relation in graph.relations:
            offered.setdefault(folded(relation), relation)
        self._relation = relation_task([*offered.values()][2 : 2 + config.relations])
        self._known = _read(path, mend=keep)
        self.asked, self.reused = 0, 0

    def judged(self, statements: Iterable[Triple]) -> dict[Triple, str | None]:
        """Return Yes, No or Maybe for each statement; None for an unreadable answer."""
        rows = {("true", *triple): {"statement": triple.text} for triple in statements}
        answers = self._answers(self._truth, rows, "asking for facts")
        return {Triple(*key[1:]): answer for key, answer in answers.items()}

    def related(self, pairs: Iterable[tuple[str, str]]) -> set[Triple]:
        """Return the relation that the model names from the first to the second of each pair, if any."""
        if len(self._relation.words) < 2:
            return set()
        rows = {("related", head, "", tail): {"first": head, "second": tail} for head, tail in pairs}
        answers = self._answers(self._relation, rows, "asking for relations")
        named = {key: answer for key, answer in answers.items() if answer is not None and answer != UNRELATED}
        return {Triple(head, answer, tail) for (_, head, _, tail), answer in named.items()}

    def _answers(
        self, task: TaskSpec, rows: Mapping[_Question, dict[str, str]], title: str
    ) -> dict[_Question, str | None]:
        todo = sorted(key for key in rows if key not in self._known)
        examples = [Example(" | ".join(key), rows[key]) for key in todo]
        for key, answer in zip(todo, self._asker.ask(task, examples, self._mode, title), strict=True):
            self._known[key] = None if answer.value is None else str(answer.value)
        if todo and self._keep:
            with self._path.open("a", encoding="utf-8", errors=SURROGATES, newline="") as file:
                file.writelines(json.dumps([*key, self._known[key]], ensure_ascii=False) + "\n" for key in todo)
        self.asked, self.reused = self.asked + len(todo), self.reused + len(rows) - len(todo)
        return {key: self._known[key] for key in rows}


class Finder:
    """Finds what is known about rows."""

    def __init__(self, facts: Facts, graph: Graph, config: GiveConfig, mode: Mode, asker: Asker, embed: Embed) -> None:
        self.facts, self.graph = facts, graph
        self._config, self._mode, self._asker, self._embed = config, mode, asker, embed
        self._choice = choice_task(config.paths)
        self._vectors_ND: Tensor | None = None

    def find(self, texts: Sequence[str]) -> list[Known]:
        """Return what is known about rows with these texts."""
        rows = [self._named(text) for text in texts]
        for known in rows:
            known.groups = [[entity, *self._nearest(entity)] for entity in known.entities]
        inner = {(group[0], other) for known in rows for group in known.groups for other in group[1:]}
        joins = [
            (text, self._join(known, *pair)) for text, known in zip(texts, rows, strict=True) for pair in _two(known)
        ]
        related = self.facts.related(inner)
        for known in rows:
            members = {(group[0], other) for group in known.groups for other in group[1:]}
            known.true |= {triple for triple in related if (triple.head, triple.tail) in members}
        self._fill([join for _, join in joins])
        self._go_around([(text, join) for text, join in joins if not join.found])
        return rows

    def _named(self, text: str) -> Known:
        entities = self.graph.entities(text)
        longest = sorted(entities, key=lambda name: (-len(name), entities.index(name)))[: self._config.entities]
        return Known([name for name in entities if name in longest], asked_relations=self.graph.relations_in(text))

    def _nearest(self, entity: str) -> list[str]:
        if not self._config.neighbours:
            return []
        nodes = self.graph.nodes
        if self._vectors_ND is None:
            self._vectors_ND = self._embed(nodes)
        cosine_N = self._vectors_ND @ self._vectors_ND[nodes.index(entity)]
        order = torch.argsort(cosine_N, descending=True, stable=True).tolist()
        return [nodes[index] for index in order if nodes[index] != entity][: self._config.neighbours]

    def _join(self, known: Known, left: list[str], right: list[str]) -> _Join:
        """Return the join of two groups, in the direction in which the graph joins them."""
        if not self._reaches(left, right) and self._reaches(right, left):
            left, right = right, left
        return self._related(_Join(known, left, right))

    def _reaches(self, left: list[str], right: list[str]) -> bool:
        return bool(self.graph.edges(left, right) or self.graph.between(left, right))

    def _related(self, join: _Join) -> _Join:
        edges = self.graph.edges(join.left, join.right)
        join.known.expert |= set(edges)
        join.relations = sorted({*join.known.asked_relations, *(edge.relation for edge in edges)})
        return join

    def _fill(self, joins: Sequence[_Join]) -> None:
        """Ask for the statements that could join groups, and for relations of their members."""
        verdicts = self.facts.judged({triple for join in joins for triple in join.statements()})
        related = self.facts.related({pair for join in joins for pair in join.pairs()})
        for join in joins:
            answers = {triple: verdicts[triple] for triple in join.statements()}
            pairs = set(join.pairs())
            named = {t for t in related if (t.head, t.tail) in pairs and t not in answers}  # what is judged is judged
            yes = {triple for triple, answer in answers.items() if answer == YES}
            join.found = bool(yes)
            join.known.true |= yes | named
            join.known.false |= {triple for triple, answer in answers.items() if answer == NO}

    def _go_around(self, joins: Sequence[tuple[str, _Join]]) -> None:
        """Join groups by a node between them, where no statement got a Yes.

        The model picks the most useful node.
        """
        between = [
            (text, join, nodes[: self._config.paths])
            for text, join in joins
            if (nodes := self.graph.between(join.left, join.right))
        ]
        questions = [
            Example(f"path {number}", {"text": text, "paths": _listed(middles)})
            for number, (text, _, middles) in enumerate(between)
            if len(middles) > 1
        ]
        answers = {each.id: each for each in self._asker.ask(self._choice, questions, self._mode, "choosing paths")}
        sides = []
        for number, (_, join, middles) in enumerate(between):
            middle = middles[_picked(answers.get(f"path {number}"), len(middles))]
            sides += [_Join(join.known, join.left, [middle]), _Join(join.known, [middle], join.right)]
        self._fill([self._related(side) for side in sides])


def truth_task() -> TaskSpec:
    """Return the question whether a statement is true."""
    instruction = (
        f'Judge whether the statement below is true. Answer "{YES}" if it is, "{NO}" if it is not, and "{MAYBE}" if '
        "that cannot be said."
    )
    return _task({"statement": "statement"}, instruction, "Statement: {{ statement }}", (YES, NO, MAYBE))


def relation_task(relations: Sequence[str]) -> TaskSpec:
    """Return the question in which of some relations one thing stands to another."""
    instruction = (
        f'Name the relation in which the first thing below stands to the second. Answer "{UNRELATED}" if it stands in '
        "none of them."
    )
    fields = {"first": "first", "second": "second"}
    return _task(fields, instruction, "First: {{ first }}\nSecond: {{ second }}", (*relations, UNRELATED))


def choice_task(count: int) -> TaskSpec:
    """Return the question which of some numbered things helps most with a text."""
    instruction = "Judge which of the things listed below helps most to answer the question. Answer with its number."
    words = tuple(str(number) for number in range(1, max(2, count) + 1))
    return _task({"text": "text", "paths": "paths"}, instruction, "Question: {{ text }}\n{{ paths }}", words)


def _task(fields: dict[str, str], instruction: str, template: str, words: Sequence[str]) -> TaskSpec:
    return TaskSpec(
        name="facts",
        title="Facts",
        fields=fields,
        instruction=instruction,
        template=template,
        labels={word: word for word in words},
        metrics=("accuracy",),
        source=Source(),
    )


def _two(known: Known) -> list[tuple[list[str], list[str]]]:
    return list(combinations(known.groups, 2))


def _listed(names: Sequence[str]) -> str:
    return "\n".join(f"{number}: {name}" for number, name in enumerate(names, 1))


def _picked(answer: Prediction | None, count: int) -> int:
    """Return the index of the chosen one of `count` things.

    It is that of the first for an unreadable answer or another number.
    """
    if answer is None or answer.value is None:
        return 0
    if answer.probabilities:
        return max(range(count), key=lambda index: answer.probabilities[str(index + 1)])
    number = int(answer.value)
    return number - 1 if number <= count else 0


def _read(path: Path, *, mend: bool) -> dict[_Question, str | None]:
    """Return the answers that a file keeps, without an unfinished last line, which `mend` cuts off.

    Raises RunError for a damaged file.
    """
    if not path.is_file():
        return {}
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if mend and whole < len(content):
        os.truncate(path, whole)
    try:
        records = [json.loads(line) for line in content[:whole].splitlines()]
        return {(kind, head, relation, tail): answer for kind, head, relation, tail, answer in records}
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}. Remove it to ask again.") from None
