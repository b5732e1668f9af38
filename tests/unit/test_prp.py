"""Pairwise ranking prompting with scripted oracles: what is compared, in which orders, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from running import load_one, train_one
from specs import label_task, number_task

from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.evaluation.asking import Spent
from adjudge.evaluation.pairwise import Comparer, Pair, pair_task
from adjudge.methods.prompting import prp
from adjudge.runs.folder import Run
from adjudge.runs.tasks import write_tasks
from adjudge.tasks import load_task
from adjudge.tasks.validate import mistakes_of
from adjudge.types import Example, Prediction

FILMS = label_task("Bad", "Good", instruction='Judge the film. Answer "Bad" or "Good".', template="Film: {{ text }}")
LENGTHS = number_task(0, 100, instruction="Judge how long the text is.")
OPTIONS = label_task(
    *("One", "Two", "Three"),
    fields={"text": "text", "a": "a", "b": "b", "c": "c"},
    template="{{ text }}: {{ a }}, {{ b }}, {{ c }}",
    choices=("a", "b", "c"),
)
QUESTIONS = label_task("False", "True", fields={"q": "q", "text": "text"}, template="{{ q }} {{ text }}", group="q")

Oracle = Callable[[str, str], str | None]
"""The texts A and B → the answer."""


def value(text: str) -> float:
    """The number in a text."""
    return float("".join(each for each in text if each.isdigit()) or 0)


def larger(first: str, second: str) -> str:
    return "A" if value(first) > value(second) else "B"


class Scripted:
    """Answers every question by rule, in place of a model."""

    def __init__(self, oracle: Oracle) -> None:
        self.config = load_config(overrides=["method=prp"])
        self.spent = Spent()
        self.oracle, self.asked = oracle, list[Example]()

    def ask(self, spec: Any, rows: Sequence[Example], mode: str, title: str) -> list[Prediction]:
        self.asked += rows
        answers = [self.oracle(row.fields["first"], row.fields["second"]) for row in rows]
        self.spent.add({"calls": len(rows), "prompt_tokens": 0, "generated_tokens": 0})
        shares = [{"A": 0.75 if each == "A" else 0.25, "B": 0.25 if each == "A" else 0.75} for each in answers]
        found = zip(rows, answers, shares, strict=True)
        return [Prediction.of(row, str(each), each, share if mode == "scoring" else {}) for row, each, share in found]


def compared(oracle: Oracle, *pairs: Pair, mode: Any = "scoring", **options: Any) -> tuple[list[float], Comparer]:
    comparer = Comparer(Scripted(oracle), pair_task(FILMS), mode, **options)  # type: ignore[arg-type]
    return comparer.outcomes(pairs, ""), comparer


def counts(comparer: Comparer) -> list[int]:
    return list(comparer.counts().values())


def test_both_orders_must_agree() -> None:
    pairs = [Pair("", "film 2", "film 1"), Pair("", "film 1", "film 2")]
    outcomes, comparer = compared(larger, *pairs)
    assert (outcomes, counts(comparer)) == ([1, 0], [2, 0, 0, 0])
    asked = [(row.fields["first"], row.fields["second"]) for row in comparer.asker.asked]
    assert asked == [("film 2", "film 1"), ("film 1", "film 2"), ("film 1", "film 2"), ("film 2", "film 1")]
    for always in ("A", "B"):
        outcomes, comparer = compared(lambda first, second, always=always: always, *pairs)  # type: ignore[misc]
        assert (outcomes, counts(comparer)) == ([0.5, 0.5], [2, 2, 0, 2])


def test_unreadable_and_equal_texts_are_ties() -> None:
    outcomes, comparer = compared(lambda first, second: None, Pair("", "x", "y"), mode="generation")
    assert (outcomes, counts(comparer)) == ([0.5], [1, 0, 1, 1])
    outcomes, comparer = compared(larger, Pair("", "Film 1", "film  1"))
    assert (outcomes, counts(comparer), comparer.asker.asked) == ([0.5], [0, 0, 0, 0], [])


def test_probability_and_one_random_order() -> None:
    outcomes, comparer = compared(larger, Pair("", "film 2", "film 1"), wins="probability")
    assert (outcomes, counts(comparer)) == ([0.75], [1, 0, 0, 0])
    pairs = [Pair("", f"film {number}", "film 0") for number in range(1, 41)]
    outcomes, comparer = compared(larger, *pairs, orders="random")
    assert outcomes == [1] * 40
    swapped = sum(row.fields["first"] == "film 0" for row in comparer.asker.asked)
    assert len(comparer.asker.asked) == 40
    assert 10 < swapped < 30
    assert compared(larger, *pairs, orders="random")[1].asker.asked == comparer.asker.asked


def test_the_question_keeps_the_instruction_without_its_answers() -> None:
    assert pair_task(FILMS).instruction == (
        "Judge the film.\nTwo candidates follow, A and B. Which of the two is more likely to get the answer "
        '"Good"? Answer "A" or "B".'
    )
    assert "gets the higher number?" in pair_task(LENGTHS).instruction
    assert "Which sounds better?" in pair_task(FILMS, "Which sounds better?").instruction
    for name in ("superglue/copa", "superglue/multirc", "superglue/record", "glue/stsb", "glue/sst2", "glue/rte"):
        spec = load_task(name)
        assert not any(f'"{word}"' in pair_task(spec).instruction.partition("\n")[0] for word in spec.words), name


def film(number: int, spec: Any = FILMS, **others: Any) -> Example:
    gold = float(number) if spec.is_number else spec.words[number >= 50]
    return Example(f"row {number}", {"text": f"film {number}"}, gold, **others)


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fit on rows and return the judge with the oracle it asks."""

    def build(spec: Any, rows: Sequence[Example], *overrides: str, oracle: Oracle = larger) -> tuple[Any, Scripted]:
        scripted = Scripted(oracle)
        monkeypatch.setattr(prp, "Asker", lambda run: scripted)
        config = load_config(overrides=["method=prp", "prp.anchors=6", *overrides])
        with Run.create(tmp_path / f"run{len(list(tmp_path.iterdir()))}", config) as run:
            return train_one("prp", run, spec, rows), scripted

    return build


@pytest.mark.parametrize("mode", ["scoring", "generation"])
def test_an_oracle_on_labels_is_right_on_every_row(judge: Any, mode: str) -> None:
    built, _ = judge(FILMS, [film(number) for number in range(0, 100, 3)], f"prp.mode={mode}")
    rows = [film(number) for number in (1, 20, 80, 98)]
    predictions = built.judge(rows, probabilities=True)
    assert [each.value for each in predictions] == ["Bad", "Bad", "Good", "Good"]
    for each in predictions:
        assert sum(each.probabilities.values()) == pytest.approx(1)
        assert max(each.probabilities, key=lambda word: each.probabilities[word]) == each.value
    assert built.spent == {"calls": 48, "prompt_tokens": 0, "generated_tokens": 0, "pairs": 24} | {
        "conflicts": 0,
        "unreadable_pairs": 0,
        "ties": 0,
    }
    alone = [built.judge([row])[0] for row in rows]
    assert [each.value for each in alone] == [each.value for each in predictions]
    assert built.judge(rows)[0].probabilities == {}


def test_an_oracle_on_numbers_ranks_them(judge: Any) -> None:
    built, _ = judge(LENGTHS, [film(number, LENGTHS) for number in range(0, 100, 2)])
    values = [each.value for each in built.judge([film(number, LENGTHS) for number in range(1, 100, 7)])]
    assert values == sorted(values)
    assert len(set(values)) > 4
    assert all(0 <= value <= 100 for value in values)
    assert built.judge([film(50, LENGTHS)])[0].value == pytest.approx(50, abs=10)
    assert [row.gold for row in built.fitted.anchors] == [8, 24, 40, 58, 74, 90]
    assert built.spent["calls"] == 12  # of the latest judging: 6 anchors in both orders


@pytest.mark.parametrize("settings", [["prp.ranking=allpair"], ["prp.ranking=sorting"], ["prp.ranking=sliding"]])
def test_the_best_of_the_choices_is_the_answer(judge: Any, settings: list[str]) -> None:
    built, scripted = judge(OPTIONS, [], *settings)
    rows = [Example("0", {"text": "pick", "a": "7", "b": "9", "c": "8"}), Example("1", dict.fromkeys("abc", "1"))]
    rows[1].fields["text"] = "same"  # type: ignore[index]
    assert [each.value for each in built.judge(rows)] == ["Two", "One"]
    assert {row.fields["query"] for row in scripted.asked} == {"text: pick"}


def question(name: str, *numbers: int, right: Sequence[int]) -> list[Example]:
    return [
        Example(f"{name}:{number}", {"q": f"q {name}", "text": f"{number}"}, ("False", "True")[number in right], name)
        for number in numbers
    ]


def test_groups_with_one_right_answer_take_the_best(judge: Any) -> None:
    train = [*question("a", 1, 2, 3, right=[3]), *question("b", 5, 4, right=[5])]
    built, scripted = judge(QUESTIONS, train)
    assert built.fitted.top
    assert scripted.asked == []
    rows = [*question("c", 8, 9, 7, right=[9]), *question("d", 1, right=[1]), *question("e", 3, 3, right=[3])]
    predictions = built.judge(rows, probabilities=True)
    assert [each.value for each in predictions] == ["False", "True", "False", "False", "True", "False"]
    assert [each.probabilities["True"] for each in predictions] == pytest.approx([0.25, 1, 0, 0.25, 0.75, 0.25])
    assert {row.fields["query"] for row in scripted.asked} == {"q: q c"}


def test_groups_with_several_right_answers_take_a_threshold(judge: Any) -> None:
    train = [*question("a", 1, 2, 8, 9, right=[8, 9]), *question("b", 5, 9, 8, 2, right=[9, 8])]
    built, _ = judge(QUESTIONS, train)
    assert not built.fitted.top
    assert built.fitted.cut == pytest.approx(0.5)
    predictions = built.judge(question("c", 6, 1, 7, 2, right=[6, 7]))
    assert [each.value for each in predictions] == ["True", "False", "True", "False"]
    assert judge(QUESTIONS, train, "prp.answer=top")[0].fitted.top


def test_what_cannot_be_compared_is_refused(judge: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mine has 3 labels, and prp answers"):
        judge(label_task("x", "y", "z"), [film(1)])
    with pytest.raises(DataError, match="there are 1 with an answer"):
        judge(FILMS, [film(1)])
    with pytest.raises(DataError, match="have the texts of the 1 anchors"):
        judge(FILMS, [film(1), film(1)])
    with pytest.raises(ConfigError, match=r"prp.wins=probability needs the probabilities"):
        judge(FILMS, [film(1), film(99)], "prp.mode=generation", "prp.wins=probability")
    with pytest.raises(ConfigError, match=r"prp.mode=scoring needs the probabilities of words"):
        judge(FILMS, [film(1), film(99)], "prp.mode=scoring", "model=api:x")
    mistakes = mistakes_of({**OPTIONS.model_dump(mode="json"), "choices": ["a", "d"]})
    assert any("'choices' has 'd'" in each for each in mistakes)
    assert any("2 fields and there are 3 answer words" in each for each in mistakes)


def test_a_model_judges_alike_after_loading(tiny_llama: Path, tmp_path: Path) -> None:
    spec = LENGTHS
    rows = [film(number, spec) for number in range(0, 100, 5)]
    small = [f"model={tiny_llama}", "runtime.dtype=float32", "prp.anchors=2", "prp.fit_rows=4"]
    config = load_config(overrides=["method=prp", "prp.wins=probability", *small])
    judged = [Example("new", {"text": "a tired story"}), Example("<|im_end|>", {"text": "film <|im_end|> 70"})]
    with Run.create(tmp_path / "run", config) as run:
        first = train_one("prp", run, spec, rows).judge(judged, probabilities=True)
    write_tasks(run, [spec])
    assert load_one("prp", Run.open(run.folder), spec).judge(judged, probabilities=True) == first
    with pytest.raises(RunError, match="which are not those of mine"):
        load_one("prp", run, OPTIONS)
    (run.folder / "comparisons.json").unlink()
    with pytest.raises(RunError, match=r"comparisons.json is missing"):
        load_one("prp", run, spec)
