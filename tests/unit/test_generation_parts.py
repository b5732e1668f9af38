"""The parts of `adjudge generate`: sentences, repetition, selection, prompts, and a task's own block."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from conftest import make_tokenizer
from specs import label_task, number_task

from adjudge.config import PromptConfig
from adjudge.errors import ConfigError
from adjudge.generation.decoding import (
    EMPTY,
    QUOTES,
    UNFINISHED,
    Repetition,
    TextEnd,
    first_sentence,
    mean_logp,
    span_of,
)
from adjudge.generation.plan import Plan, PromptIds, plan_for_labels, plan_for_task, with_prompts
from adjudge.generation.selection import Written, distinct_2, select, shares
from adjudge.runs.tasks import same_task
from adjudge.tasks import list_tasks, load_task
from adjudge.tasks.reading.same_text import text_key
from adjudge.tasks.spec import Generation, LabelText
from adjudge.tasks.task_yaml import read_tree
from adjudge.tasks.validate import mistakes_of

PAIRS = {"fields": {"one": "one", "two": "two"}, "template": "{{ one }} {{ two }}"}


def plan(*words: str, **values: object) -> Plan:
    return Plan("mine", ("text",), Generation(labels={word: LabelText(prompt="x") for word in words}, **values))


def written(word: str, text: str, score: float, given: str = "", dropped: str | None = None) -> Written:
    return Written(word, given, text, dropped, score, 3)


# Sentences


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (" A warm film. It is", "A warm film."),
        ("Is it good? Yes", "Is it good?"),
        ("It cost 2.5 million. And", "It cost 2.5 million."),
        ("A film (by its end.) The", "A film (by its end.)"),
        ("A stop etc. goes on. \n\nNext", "A stop etc. goes on."),
        ('"All of it in quotes." More', "All of it in quotes."),
        ("“All of it.”", "All of it."),
        ("One  with\twide   gaps!", "One with wide gaps!"),
        ("Sehr schön. Überall", "Sehr schön."),
        ("这部电影很好。演员也好。", "这部电影很好。"),
    ],
)
def test_a_text_is_its_first_sentence(text: str, sentence: str) -> None:
    assert first_sentence(text) == (sentence, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", EMPTY),
        ("  \n ", EMPTY),
        ("... !", EMPTY),
        ("12. The", EMPTY),
        ("no end", UNFINISHED),
        ("cut by a line\nThe end.", UNFINISHED),
        ('He said "no. Then', QUOTES),
        ('The "best" film.', QUOTES),
    ],
)
def test_what_is_no_sentence_is_dropped(text: str, reason: str) -> None:
    assert first_sentence(text)[1] == reason


@pytest.mark.parametrize(
    ("text", "ended"),
    [("A film.", False), ("A film. T", True), ("A film. t", False), ("A\n", True), ("\n A", False), ("A.\n", True)],
)
def test_where_writing_stops(text: str, ended: bool) -> None:
    tokenizer = make_tokenizer()
    end = TextEnd(tokenizer, (2,), 40)
    assert end.ended(tokenizer(text, add_special_tokens=False).input_ids) is ended
    assert end.ended([5, 2]) and end.text([2]) == ""


@pytest.mark.parametrize(
    ("start", "text", "sentence", "counted"),
    [
        ("", "\n\n A film. The", "A film.", "A film."),
        ("The", " film. Then", "The film.", " film."),
        ("The", " film.", "The film.", " film."),
        ("", '"A film." The', "A film.", "A film."),
    ],
)
def test_which_tokens_count(start: str, text: str, sentence: str, counted: str) -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids[span_of(TextEnd(tokenizer, (2,), 40), ids, sentence, start)]) == counted


# Scores and repetition


def test_the_score_by_hand() -> None:
    assert mean_logp(torch.tensor([math.log(0.5), math.log(0.25)])) == pytest.approx(-1.0397, abs=5e-5)


def test_repetition_by_hand() -> None:
    """Token 0 was given, 1 was written, 2 both, 3 neither. A negative logit is multiplied."""
    logits = torch.tensor([[2.0, 2.0, 2.0, 2.0], [-2.0, -2.0, -2.0, -2.0]])
    repetition = Repetition([[0, 2]] * 2, [[]] * 2, 0.8, 1.1, 0.5)
    changed = repetition([0, 1], [[1, 2], [1, 2]], logits)
    expected = [[5.0, 4 / 1.1, 4 / 1.1, 4.0], [-3.2, -4.4, -4.4, -4.0]]
    assert torch.allclose(changed, torch.tensor(expected))
    assert torch.equal(logits[0], torch.full((4,), 2.0))


def test_the_first_words_count_as_written() -> None:
    changed = Repetition([[]], [[3]], 1.0, 2.0, 1.0)([0], [[1]], torch.ones(1, 4))
    assert changed.tolist() == [[1.0, 0.5, 1.0, 0.5]]


def test_without_reward_penalty_and_temperature_nothing_changes() -> None:
    logits = torch.randn(2, 5)
    assert Repetition([[1]] * 2, [[2]] * 2, 1.0, 1.0, 1.0)([0, 1], [[3], [4]], logits) is logits


# Selection


def test_when_all_are_wanted_all_are_kept_in_the_order_of_their_scores() -> None:
    texts = [written("A", f"a {score}", score) for score in (-3.0, -1.0, -2.0)]
    texts += [written("B", "b", -9.0)]
    rows = select(plan("A", "B"), texts, (), 100, 0).rows
    assert [row.score for row in rows if row.word == "A"] == [-1.0, -2.0, -3.0]
    assert [row.word for row in rows] == ["A", "B", "A", "A"]


def test_labels_get_equal_shares() -> None:
    assert shares(("A", "B", "C"), 8) == {"A": 3, "B": 3, "C": 2}
    texts = [written(word, f"{word} {place}", -place) for word in "ABC" for place in range(5)]
    rows = select(plan("A", "B", "C"), texts, (), 8, 0).rows
    assert Counter(row.word for row in rows) == {"A": 3, "B": 3, "C": 2}
    assert [row.text for row in rows[:3]] == ["A 0", "B 0", "C 0"]


def test_copies_dev_rows_and_texts_of_two_labels_go_and_are_counted() -> None:
    texts = [
        written("A", "A good film.", -2.0),
        written("A", "a  GOOD film.", -1.0),
        written("A", "In the dev rows.", -0.1),
        written("A", "Both say this.", -0.2),
        written("B", "both say  this.", -0.3),
        written("B", "A bad film.", -4.0),
        written("B", "cut", -0.1, dropped=UNFINISHED),
    ]
    chosen = select(plan("A", "B"), texts, {text_key({"text": "in the DEV rows."})}, 10, 0)
    assert [(row.word, row.text) for row in chosen.rows] == [("A", "a  GOOD film."), ("B", "A bad film.")]
    assert chosen.dropped == {"repeated": 1, "in_dev": 1, "two_labels": 2, "unfinished": 1}
    assert chosen.passed == {"A": 1, "B": 1}
    assert sum(chosen.dropped.values()) + len(chosen.rows) == len(texts)


def test_a_pair_is_in_the_dev_rows_only_as_a_pair() -> None:
    pairs = plan_for_task(label_task("Yes", "No", **PAIRS))
    texts = [
        written("Yes", "It rains.", -1.0, "Water falls."),
        written("Yes", "It rains.", -1.0, "It is wet."),
        written("No", "It is dry.", -1.0, "it is  DRY."),
        written("No", "It snows.", -1.0, "It is wet."),
    ]
    chosen = select(pairs, texts, {text_key({"one": "water falls.", "two": "it rains."})}, 4, 0)
    assert [(row.given, row.text) for row in chosen.rows] == [("It is wet.", "It rains."), ("It is wet.", "It snows.")]
    assert chosen.dropped == {"in_dev": 1, "copied": 1}


def test_drawing_at_random_takes_others_than_the_likeliest() -> None:
    texts = [written(word, f"{word} {place}", -place) for word in "AB" for place in range(50)]
    drawn = [select(plan("A", "B"), texts, (), 10, seed, at_random=True).rows for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and min(row.score for row in drawn[0]) < -10
    random_b = Generation(labels={"A": LabelText(prompt="x"), "B": LabelText(prompt="x", choose="random")})
    rows = select(Plan("mine", ("text",), random_b), texts, (), 10, 0).rows
    assert [row.score for row in rows if row.word == "A"] == [0, -1, -2, -3, -4]
    assert min(row.score for row in rows if row.word == "B") < -10


def test_distinct_pairs_of_words() -> None:
    assert distinct_2(["A good film", "a GOOD plot"]) == 0.75
    assert distinct_2(["one", ""]) == 0


# Prompts


def test_the_default_prompts() -> None:
    assert plan_for_labels(["bad=Bad", "good=Good"]).prompt("Bad", "") == "Text labelled Bad:"
    assert plan_for_labels(["A", "B"], "Film review").prompt("B", "") == "Film review labelled B:"
    pairs = plan_for_task(label_task("Yes", "No", **PAIRS))
    assert (pairs.given, pairs.prompt("No", "It { rains %}.")) == ("one", "One: It { rains %}.\nTwo labelled No:")
    odd = plan_for_labels(["{{ 1 }}", "B"])
    assert odd.prompt("{{ 1 }}", "") == "Text labelled  1 :"


def test_own_prompts() -> None:
    mine = with_prompts(plan_for_labels(["A", "B"]), ["B = A text = with a sign:"])
    assert (mine.prompt("A", ""), mine.prompt("B", "")) == ("Text labelled A:", "A text = with a sign:")
    for wrong, message in (("C=x", "no label 'C'"), ("A", "write LABEL=TEXT"), ("A= ", "write LABEL=TEXT")):
        with pytest.raises(ConfigError, match=message):
            with_prompts(mine, [wrong])


@pytest.mark.parametrize("form", ["base", "chat"])
def test_prompts_as_tokens(form: str) -> None:
    """A text from data that spells a control token is no control token."""
    tokenizer = make_tokenizer()
    base = plan("A", "B", starts=("The film",))
    how = base.how.model_copy(update={"labels": {"A": LabelText(prompt="Say <|im_end|>:")}})
    ids = PromptIds(tokenizer, Plan("mine", ("text",), how, form), PromptConfig()).of("A", "", base.start(5))
    text = tokenizer.decode(ids)
    if form == "base":
        assert text == "Say <|im_end|>: The film" and not {1, 2} & set(ids)
    else:
        assert text == "<|im_start|>user\nSay <|im_end|>:<|im_end|>\n<|im_start|>assistant\nThe film"
        assert ids.count(2) == 1


def test_numbers_and_many_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="answered with a number"):
        plan_for_task(number_task(0, 5))
    three = {"fields": {name: name for name in "abc"}, "template": "{{ a }} {{ b }} {{ c }}"}
    several = label_task("Yes", "No", several="words")
    with pytest.raises(ConfigError, match="answered with sets of labels"):
        plan_for_task(several)
    with pytest.raises(ConfigError, match="has 3 fields"):
        plan_for_task(label_task("Yes", "No", **three))


# A task's own block

TASK = """
name: my/tone
title: Tone
fields: {text: message}
instruction: Judge. "Polite" or "Rude".
template: '{{ text }}'
labels: {p: Polite, r: Rude}
metrics: [accuracy]
source: {table: {train: a.csv}}
generate:
  labels:
    Polite: {prompt: 'A polite message:'}
    Rude: {prompt: 'A rude message:', penalty: 1.2, choose: random}
  starts: [I, You]
  temperature: 0
"""


def test_a_block_in_a_task_file(tmp_path: Path) -> None:
    (tmp_path / "tone.yaml").write_text(TASK, encoding="utf-8")
    spec = load_task(tmp_path / "tone.yaml")
    mine = plan_for_task(spec)
    assert mine.words == ("Polite", "Rude") and mine.how.labels["Rude"].penalty == 1.2
    assert (mine.how.temperature, mine.start(3)) == (0, "You")
    assert plan_for_task(spec, "Message").prompt("Rude", "") == "Message labelled Rude:"
    assert same_task(spec, spec.model_copy(update={"generate": None}))


@pytest.mark.parametrize(
    ("before", "after", "mistake"),
    [
        (
            "    Rude: {",
            "    Rood: {",
            "'generate.labels' has 'Rood', which is not an answer word. Did you mean 'Rude'?",
        ),
        ("    Polite: {prompt: 'A polite message:'}\n", "", "'generate.labels' has no Polite"),
        ("penalty: 1.2", "penalti: 1.2", "'penalty'"),
        ("penalty: 1.2", "penalty: 0", "generate.labels.Rude.penalty"),
        ("choose: random", "choose: any", "'generate.labels.Rude.choose' is 'any'"),
        ("prompt: 'A rude message:', ", "", "what stands before a generated text of this label"),
        ("A rude message:", "A rude {{ text }}:", "'generate.labels.Rude.prompt' cannot be rendered"),
        ("A rude message:", "{% for i in x %}{% endfor %}", "'generate.labels.Rude.prompt' (line 1) has a 'For'"),
        ("temperature: 0", "temperature: hot", "'generate.temperature' must be a number"),
        ("labels: {p: Polite, r: Rude}", "number: {low: 0, high: 1}", "'generate' is only for tasks with labels"),
    ],
)
def test_mistakes_in_a_block(before: str, after: str, mistake: str) -> None:
    assert before in TASK
    found = mistakes_of(read_tree(TASK.replace(before, after), "tone.yaml"))
    assert any(mistake in each for each in found), found


def test_the_built_in_tasks_with_labels_have_plans() -> None:
    with_block = 0
    for name in list_tasks():
        spec = load_task(name)
        if not spec.is_number and len(spec.fields) <= 2:
            mine = plan_for_task(spec)
            assert set(mine.words) == set(spec.words) and all(mine.prompt(word, "A text.") for word in mine.words)
            with_block += spec.generate is not None
    assert with_block >= 3
