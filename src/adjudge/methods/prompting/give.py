"""Answers from a user's graph of facts whose gaps the model fills, after GIVE (arXiv 2410.08475).

Nothing is trained.

1. The graph's nodes that a row names are its entities. Each makes a group with the nodes nearest to it.
2. For two groups the model judges statements that could join them: a member, a relation, a member. Yes makes a fact,
   No its opposite, Maybe neither. Where none gets a Yes, a node between them in the graph does.
3. Three answers, each with the one before: from the model's facts, with what it holds to be false, with the triples
   of the graph. A set that is empty asks for no answer. A row without entities is judged as by zero-shot.

Differs from the paper:

1. Entities and relations of a row are matched by name, where the paper has a large model list them.
2. Statements are judged by the likeliest of three words, and a relation is chosen among the graph's frequent ones.
3. Paths of two triples are joined on the node between them; the authors' code pairs them by their place in two lists.
4. ``give.use=paste`` is a control: the triples that name an entity stand before the row, and nothing else is asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from adjudge.config import Config, GiveConfig
from adjudge.errors import RunError
from adjudge.evaluation.asking import Asker, Spent, asking_mode, questions_out
from adjudge.evaluation.knowledge import Embed, Facts, Finder, Known, truth_task
from adjudge.evaluation.pairwise import row_text
from adjudge.evaluation.predict import Judge
from adjudge.evaluation.triples import Graph, Triple, read_triples
from adjudge.methods.base import Method, Trained
from adjudge.models.chat_api import Outgoing
from adjudge.models.encoder import load_encoder
from adjudge.prompts.answers import answer_text
from adjudge.runs.folder import Run
from adjudge.system.console import note
from adjudge.system.files import write_text
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example, Prediction

TRIPLES, FACTS, KNOWLEDGE = "triples.tsv", "facts.jsonl", "knowledge.jsonl"
MAX_TOKENS = 64
"""The longest name that the encoder reads."""


class GiveJudge:
    """Judges rows with what is known about them; see `Judge`."""

    def __init__(self, asker: Asker, spec: TaskSpec, config: GiveConfig, finder: Finder, log: Path | None) -> None:
        self.spec, self.finder = spec, finder
        self._asker, self._config, self._log = asker, config, log
        self._field = "known_facts"
        while self._field in spec.fields:
            self._field += "_"
        self._task = spec.model_copy(
            update={
                "fields": {**spec.fields, self._field: self._field},
                "optional": (*spec.optional, self._field),
                "template": f"{{% if {self._field} %}}{{{{ {self._field} }}}}\n\n{{% endif %}}{spec.template}",
            }
        )
        self.spent: dict[str, Any] = {}
        """What the latest judging took, and how many statements and relations were asked for or known already."""

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row by its last answer; see `Judge.judge`. Raises what asking the model raises."""
        facts, graph = self.finder.facts, self.finder.graph
        self._asker.spent, facts.asked, facts.reused = Spent(), 0, 0
        texts = [row_text(row, self.spec) for row in examples]
        if self._config.use == "paste":
            rows = [Known(graph.entities(text)) for text in texts]
            for known in rows:
                known.expert = set(graph.touching(known.entities)[: self._config.facts])
            answers = [
                self._answer(examples, [self._facts(known, known.expert) for known in rows], title, probabilities)
            ]
        else:
            rows = self.finder.find(texts)
            answers = self._progressive(examples, rows, title, probabilities=probabilities)
        without = sum(not known.entities for known in rows)
        if examples and without == len(examples):
            note(f"{self.spec.name}: no row names a node of {self._config.triples}, so every answer is zero-shot's")
        counts = {"facts_asked": facts.asked, "facts_reused": facts.reused, "rows_without_entities": without}
        self.spent = {**self._asker.spent.record(self._asker.config), **counts}
        self._keep(examples, rows, answers)
        return [replace(each, fields=row.fields, id=row.id) for row, each in zip(examples, answers[-1], strict=True)]

    def _progressive(
        self, examples: Sequence[Example], rows: Sequence[Known], title: str, *, probabilities: bool
    ) -> list[list[Prediction]]:
        """Return the three answers of each row; one whose facts are none is the answer before it."""
        first = self._answer(examples, [self._facts(known, known.true) for known in rows], title, probabilities)
        answers = [first]
        for name in ("false", "expert"):
            before = answers[-1]
            todo = [index for index, known in enumerate(rows) if getattr(known, name)]
            texts = [self._more(rows[index], before[index], expert=name == "expert") for index in todo]
            predictions = self._answer([examples[index] for index in todo], texts, title, probabilities)
            answers.append([*before])
            for index, answer in zip(todo, predictions, strict=True):
                answers[-1][index] = answer
        return answers

    def _answer(
        self, examples: Sequence[Example], facts: Sequence[str], title: str, probabilities: bool
    ) -> list[Prediction]:
        rows = [
            replace(row, fields={**row.fields, self._field: text}) for row, text in zip(examples, facts, strict=True)
        ]
        return self._asker.ask(self._task, rows, "run", title, probabilities=probabilities)

    def _more(self, known: Known, before: Prediction, *, expert: bool) -> str:
        # A prompt that is too long loses the end of this: what the graph says stands before what the model guessed.
        parts = [self._facts(known, known.expert, "What is known for sure:")] if expert else []
        parts.append(self._facts(known, known.true))
        if before.value is not None:
            parts.append(f"An earlier answer from less: {answer_text(before.value, self.spec)}")
        parts.append(self._facts(known, known.false, "What is not true:"))
        return "\n".join(part for part in parts if part)

    def _facts(self, known: Known, triples: set[Triple], heading: str = "What is known:") -> str:
        lines = [triple.text for triple in known.ordered(triples, self._config.facts)]
        return "\n".join([heading, *lines]) if lines else ""

    def _keep(
        self, examples: Sequence[Example], rows: Sequence[Known], answers: Sequence[Sequence[Prediction]]
    ) -> None:
        if self._log is None:
            return
        lines = []
        for index, (row, known) in enumerate(zip(examples, rows, strict=True)):
            sets = {name: sorted(getattr(known, name)) for name in ("true", "false", "expert")}
            values = [stage[index].value for stage in answers]
            record = {"id": row.id, "entities": known.entities, "groups": known.groups, **sets, "answers": values}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
        write_text(self._log, "".join(lines))


def build_judges(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Read the triples, keep them in the run, and return the judges.

    Raises DataError for triples with mistakes.
    """
    triples = read_triples(Path(str(run.config.give.triples)).expanduser())
    write_text(run.folder / TRIPLES, "".join("\t".join(triple) + "\n" for triple in triples))
    note(f"{len(triples):,} triples with {len(Graph(triples).nodes):,} nodes: {run.config.give.triples}")
    return Trained(_judges(run, [part.spec for part in parts], triples, keep=True))


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[Judge]:
    """Return a finished run's judges, with its triples. Raises RunError when these are missing."""
    path = run.folder / TRIPLES
    if not path.is_file():
        raise RunError(f"{path} is missing: the facts of the run. Evaluate with them again with another --out.")
    return _judges(run, specs, read_triples(path), keep=run.resumed)


def _judges(run: Run, specs: Sequence[TaskSpec], triples: Sequence[Triple], *, keep: bool) -> list[Judge]:
    """Return the judges; with `keep`, they add to the files of the run."""
    config, graph = run.config.give, Graph(triples)
    mode = asking_mode(config.mode, run.config, "give.mode")
    asker = Asker(run)
    facts = Facts(asker, graph, config, mode, run.folder / FACTS, keep=keep)
    finder = Finder(facts, graph, config, mode, asker, _embed(run))
    return [GiveJudge(asker, spec, config, finder, run.folder / KNOWLEDGE if keep else None) for spec in specs]


def _embed(run: Run) -> Embed:
    """Return the function that gives names their vectors; the encoder is loaded when it is first called."""

    def embed(names: Sequence[str]) -> Tensor:
        encoder = load_encoder(run.config.give.encoder, run.config.runtime, MAX_TOKENS, ())
        return encoder.vectors(names, run.config.evaluation.batch_size)

    return embed


def outgoing(config: Config, spec: TaskSpec, _train: Sequence[Example], judged: Sequence[Example]) -> Outgoing:
    """Return what a run would send to an API, at most. Raises DataError for triples with mistakes."""
    settings, graph = config.give, Graph(read_triples(Path(str(config.give.triples)).expanduser()))
    texts = [row_text(row, spec) for row in judged]
    letters = sum(map(len, texts))
    if settings.use == "paste":
        pasted = sum(len(t.text) for text in texts for t in graph.touching(graph.entities(text))[: settings.facts])
        return questions_out(spec, config, len(judged), letters + pasted)
    longest = max(len(triple.text) for triple in graph.triples)
    questions = 0
    for text in texts:
        count = min(settings.entities, len(graph.entities(text)))
        relations = len(graph.relations_in(text)) + len(graph.relations)
        joins, size = count * (count - 1) // 2, 1 + settings.neighbours
        pairs = size * (size + 2)  # of two groups, and of both with a node between them
        questions += count * settings.neighbours + joins * (pairs * (relations + 1) + 1)
    answers = questions_out(spec, config, 3 * len(judged), 3 * (letters + 3 * settings.facts * longest * len(judged)))
    return answers + questions_out(truth_task(), config, questions, questions * longest)


METHOD = Method(build_judges, load_judges, outgoing)
