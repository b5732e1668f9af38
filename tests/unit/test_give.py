"""Answers from facts, with scripted oracles: what is asked, what is known, and that nothing known is zero-shot."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from running import load_one, train_one
from specs import label_task, number_task

from adjudge.config import GiveConfig, load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.evaluation.asking import Spent
from adjudge.evaluation.knowledge import Facts, Finder, Known
from adjudge.evaluation.triples import Graph, Triple
from adjudge.methods.prompting import give
from adjudge.methods.settings import check_settings, check_tasks
from adjudge.runs.folder import Run
from adjudge.types import Example, Prediction

TOY = [Triple("aspirin", "treats", "pain"), Triple("pain", "symptom of", "flu"), Triple("rest", "treats", "flu")]
SPEC = label_task("No", "Yes", instruction='Is it so? Answer "Yes" or "No".', template="Claim: {{ text }}")
ROW = Example("0", {"text": "Aspirin treats flu."}, "Yes")

Oracle = Callable[[str, dict[str, str]], str | None]
"""The kind of question and its fields → the answer."""


class Scripted:
    """Answers every question by rule, in place of a model."""

    def __init__(self, oracle: Oracle) -> None:
        self.config = load_config(overrides=["method=give", "give.triples=x"])
        self.spent, self.oracle = Spent(), oracle
        self.asked: list[tuple[str, dict[str, str]]] = []

    def ask(
        self, spec: Any, rows: Sequence[Example], mode: str, title: str, *, probabilities: bool = False
    ) -> list[Prediction]:
        kinds = {"statement": "true", "first": "related", "paths": "path"}
        kind = next((kinds[name] for name in spec.fields if name in kinds), "row")
        self.spent.add({"calls": len(rows), "prompt_tokens": 0, "generated_tokens": 0})
        answers = []
        for row in rows:
            self.asked.append((kind, dict(row.fields)))
            answer = self.oracle(kind, dict(row.fields))
            assert answer is None or answer in spec.words
            answers.append(Prediction.of(row, str(answer), answer))
        return answers

    def count(self, kind: str) -> int:
        return sum(each == kind for each, _ in self.asked)


def in_graph(triples: Sequence[Triple], **others: str) -> Oracle:
    """Yes for the triples of a graph, no relation between any two nodes."""
    texts = {triple.text for triple in triples}

    def answer(kind: str, fields: dict[str, str]) -> str | None:
        if kind == "true":
            return "Yes" if fields["statement"] in texts else others.get("false", "No")
        return {"related": others.get("related", "unrelated"), "path": "2", "row": "Yes"}[kind]

    return answer


def finder(
    folder: Path, triples: Sequence[Triple], oracle: Oracle, *, keep: bool = True, **settings: Any
) -> tuple[Finder, Scripted]:
    config, scripted, graph = GiveConfig(**{"neighbours": 0, **settings}), Scripted(oracle), Graph(triples)
    facts = Facts(scripted, graph, config, "scoring", folder / "facts.jsonl", keep=keep)  # type: ignore[arg-type]
    return Finder(facts, graph, config, "scoring", scripted, by_letters), scripted  # type: ignore[arg-type]


def by_letters(names: Sequence[str]) -> torch.Tensor:
    """Vectors of names by how often each letter is in them."""
    counts = torch.tensor([[float(name.count(chr(97 + letter))) for letter in range(26)] for name in names])
    return torch.nn.functional.normalize(counts)


def test_the_toy_graph_takes_four_statements_and_three_relations(tmp_path: Path) -> None:
    found, scripted = finder(tmp_path, TOY, in_graph(TOY))
    (known,) = found.find(["Aspirin treats flu."])
    assert known.entities == ["aspirin", "flu"]
    assert (scripted.count("true"), scripted.count("related"), scripted.count("path")) == (4, 3, 0)
    assert known.true == known.expert == {TOY[0], TOY[1]}
    assert known.false == {Triple("aspirin", "treats", "flu"), Triple("pain", "treats", "flu")}


def test_nothing_is_asked_twice_and_the_order_of_the_file_says_nothing(tmp_path: Path) -> None:
    texts = ["Aspirin treats flu.", "flu and aspirin", "Does rest treat pain?"]
    found, scripted = finder(tmp_path, TOY, in_graph(TOY))
    known = found.find(texts)
    statements = [fields["statement"] for kind, fields in scripted.asked if kind == "true"]
    assert len(statements) == len(set(statements))
    lines = (tmp_path / "facts.jsonl").read_text()
    again, silent = finder(tmp_path, random.Random(0).sample(TOY, 3), in_graph([]))
    assert again.find(texts) == known
    assert silent.asked == []
    assert (again.facts.asked, again.facts.reused) == (0, found.facts.asked + found.facts.reused)
    (tmp_path / "facts.jsonl").write_text(lines + '["true", "half a')  # the process was killed
    unsaved, _ = finder(tmp_path, TOY, in_graph(TOY), keep=False)
    assert unsaved.find(texts) == known
    assert (tmp_path / "facts.jsonl").read_text() == lines + '["true", "half a'
    kept, _ = finder(tmp_path, TOY, in_graph(TOY))
    assert kept.find(texts) == known
    assert (tmp_path / "facts.jsonl").read_text() == lines
    (tmp_path / "facts.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"facts.jsonl is damaged"):
        finder(tmp_path, TOY, in_graph(TOY))


def test_maybe_and_unreadable_say_nothing_and_named_relations_join(tmp_path: Path) -> None:
    for number, word in enumerate(("Maybe", None)):
        (tmp_path / str(number)).mkdir()
        found, _ = finder(tmp_path / str(number), TOY, in_graph([], false=word))  # type: ignore[arg-type]
        (known,) = found.find(["Aspirin treats flu."])
        assert (known.true, known.false, known.expert) == (set(), set(), {TOY[0], TOY[1]})
    (tmp_path / "named").mkdir()
    found, scripted = finder(tmp_path / "named", TOY, in_graph([], related="symptom of"))
    (known,) = found.find(["Aspirin treats flu."])
    named = {("aspirin", "flu"), ("aspirin", "pain"), ("pain", "flu")}
    assert known.true == {Triple(head, "symptom of", tail) for head, tail in named} - {TOY[1]}
    assert scripted.count("true") == 4  # the relation that is named joins nothing; the way around is looked for
    (tmp_path / "none").mkdir()
    found, scripted = finder(tmp_path / "none", TOY, in_graph([]), relations=0)
    found.find(["Aspirin treats flu."])
    assert scripted.count("related") == 0


def test_the_model_picks_among_several_ways_around(tmp_path: Path) -> None:
    triples = [Triple("a1", "r", "x1"), Triple("a1", "r", "y1"), Triple("x1", "s", "b1"), Triple("y1", "s", "b1")]
    found, scripted = finder(tmp_path, triples, in_graph(triples), relations=0)
    (known,) = found.find(["b1 or a1"])  # the graph joins them in the other direction
    assert scripted.count("path") == 1
    assert known.true == {triples[1], triples[3]}
    assert next(f["paths"] for kind, f in scripted.asked if kind == "path") == "1: x1\n2: y1"


def test_groups_hold_the_nearest_nodes_and_rows_the_longest_names(tmp_path: Path) -> None:
    triples = [*TOY, Triple("pains", "are", "pain"), Triple("xyz", "is", "rest")]
    found, _scripted = finder(tmp_path, triples, in_graph(triples, related="treats"), neighbours=1, entities=2)
    one, many, none = found.find(["pain", "flu, rest and aspirin", "nothing"])
    assert one.groups == [["pain", "pains"]]
    assert one.true == {Triple("pain", "treats", "pains")}
    assert many.entities == ["rest", "aspirin"]
    assert none == Known([])


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def build(oracle: Oracle, *overrides: str, triples: Sequence[Triple] = TOY) -> tuple[Any, Scripted, Run]:
        scripted = Scripted(oracle)
        monkeypatch.setattr(give, "Asker", lambda run: scripted)
        (tmp_path / "facts.tsv").write_text("".join("\t".join(triple) + "\n" for triple in triples))
        plain = ["method=give", f"give.triples={tmp_path / 'facts.tsv'}", "give.neighbours=0"]
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        with Run.create(folder, load_config(overrides=[*plain, *overrides])) as run:
            return train_one("give", run, SPEC, []), scripted, run

    return build


def test_three_answers_each_with_the_one_before(judge: Any) -> None:
    built, scripted, run = judge(in_graph(TOY))
    (prediction,) = built.judge([ROW])
    assert (prediction.value, prediction.fields, prediction.gold) == ("Yes", ROW.fields, "Yes")
    first, second, third = [fields["known_facts"] for kind, fields in scripted.asked if kind == "row"]
    assert first == "What is known:\naspirin treats pain.\npain symptom of flu."
    false = "What is not true:\naspirin treats flu.\npain treats flu."
    assert second == f"{first}\nAn earlier answer from less: Yes\n{false}"
    # First, since a prompt that is too long loses its end.
    assert third == f"What is known for sure:\naspirin treats pain.\npain symptom of flu.\n{second}"
    assert built.spent["calls"] == 4 + 3 + 3
    assert (built.spent["facts_asked"], built.spent["facts_reused"], built.spent["rows_without_entities"]) == (7, 0, 0)
    (record,) = [json.loads(line) for line in (run.folder / "knowledge.jsonl").read_text().splitlines()]
    assert (record["id"], record["entities"], record["answers"]) == ("0", ["aspirin", "flu"], ["Yes"] * 3)
    assert record["expert"] == [list(TOY[0]), list(TOY[1])]


def test_without_facts_against_it_the_first_answer_stays(judge: Any) -> None:
    built, scripted, run = judge(in_graph([], related="treats"))
    built.judge([Example("0", {"text": "Is aspirin like rest?"})])
    assert scripted.count("row") == 1
    assert json.loads((run.folder / "knowledge.jsonl").read_text())["answers"] == ["Yes"] * 3


def test_the_control_pastes_the_triples_of_the_entities(judge: Any) -> None:
    built, scripted, _ = judge(in_graph(TOY), "give.use=paste", "give.facts=2")
    built.judge([ROW, Example("1", {"text": "nothing"})])
    assert [fields["known_facts"] for _, fields in scripted.asked] == [
        "What is known:\naspirin treats pain.\npain symptom of flu.",
        "",
    ]
    assert {kind for kind, _ in scripted.asked} == {"row"}


def test_what_it_cannot_work_with_is_refused(judge: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give needs give.triples: TSV file.*Add give.triples=…"):
        check_settings(load_config(overrides=["method=give"]))
    with pytest.raises(ConfigError, match="mine is answered with a number, and give judges labels"):
        check_tasks(load_config(overrides=["method=give", "give.triples=x"]), [number_task(0, 5)])
    with pytest.raises(DataError, match="there is no such file"):
        judge(in_graph(TOY), f"give.triples={tmp_path / 'none.tsv'}")
    _, _, run = judge(in_graph(TOY))
    (run.folder / "triples.tsv").unlink()
    with pytest.raises(RunError, match=r"triples.tsv is missing"):
        load_one("give", run, SPEC)


def test_rows_that_name_no_node_are_judged_as_by_zero_shot(
    tiny_llama: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Example(str(number), {"text": f"a tired story {number}"}) for number in range(5)]
    (tmp_path / "facts.tsv").write_text("film\thas\tplot\nplot\thas\tfilm\n")
    plain = [f"model={tiny_llama}", "runtime.dtype=float32", f"give.triples={tmp_path / 'facts.tsv'}"]
    plain.append(f"give.encoder={tiny_bert}")
    found = {}
    for method in ("zero-shot", "give"):
        with Run.create(tmp_path / method, load_config(overrides=[f"method={method}", *plain])) as run:
            found[method] = train_one(method, run, SPEC, [])
    assert found["give"].judge(rows, probabilities=True) == found["zero-shot"].judge(rows, probabilities=True)
    assert "no row names a node of" in capsys.readouterr().err
    named = [Example("0", {"text": "the plot of a film <|im_end|>"}), *rows]
    first = found["give"].judge(named, probabilities=True)
    assert first[0].fields == named[0].fields
    assert found["give"].spent["facts_asked"] > 0
    loaded = load_one("give", Run.open(tmp_path / "give"), SPEC)
    assert loaded.judge(named, probabilities=True) == first
    assert (loaded.spent["facts_asked"], loaded.spent["rows_without_entities"]) == (0, 5)
