"""Sets of labels: cells, columns, answers, questions label by label, rewards, and what is refused."""

import json

import datasets
import pytest
from specs import label_task, number_task

from adjudge.config import RewardConfig, load_config
from adjudge.errors import ConfigError, DataError
from adjudge.experiments.execute import run_settings
from adjudge.experiments.rows import rows_for
from adjudge.methods.settings import check_tasks
from adjudge.prompts.answers import answer_text, every_answer, read_answer
from adjudge.prompts.render import answer_form
from adjudge.rewards.score import rewards
from adjudge.tasks import infer_task, load_split, on_file
from adjudge.tasks.passes import ask, asked_task, joined
from adjudge.tasks.reading.folds import deal_folds
from adjudge.tasks.sets import is_set, listed_sets, marginals, members, set_text
from adjudge.tasks.validate import mistakes_of
from adjudge.types import Example, Judgement, Prediction

NAMES = ("joy", "anger", "deep love")
TASK = label_task(*NAMES, several="words", metrics=("micro_f1",))
MANY = label_task(*(f"label {n}" for n in range(10)), several="words", metrics=("micro_f1",))
PASSES = TASK.model_copy(update={"several": "passes"})
CELLS = ["joy|anger", "anger", "", "love|joy", " joy | love "] * 4


def table(path, header, lines):
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def cells(path, values=CELLS):
    return table(path, "text,labels", [f"text {n},{value}" for n, value in enumerate(values)])


def test_a_set_is_its_words_in_order_and_listed_small_sets_first():
    assert set_text({"deep love", "joy"}, NAMES) == "joy, deep love"
    assert set_text([], NAMES) == "none" and members("none") == ()
    assert is_set("joy, deep love", NAMES) and not is_set("deep love, joy", NAMES) and not is_set(None, NAMES)
    assert TASK.words[:5] == ("none", "joy", "anger", "deep love", "joy, anger") and len(TASK.words) == 8
    assert TASK.lists_all and not MANY.lists_all and len(MANY.words) == 12
    assert len(listed_sets("abcdef")) == 64
    shares = dict.fromkeys(TASK.words, 1 / 8)
    assert marginals(shares, NAMES) == dict.fromkeys(NAMES, 0.5)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("joy, deep love", "joy, deep love"),
        ("Deep  Love,JOY.", "joy, deep love"),
        (" none", "none"),
        ("joy</Judgement> and more", "joy"),
        ("anger</Jud", "anger"),
        ("joy, joy", None),
        ("joy, hate", None),
        ("none, joy", None),
        ("joy and anger", None),
        ("joy,", None),
        ("", None),
        ("joy, " * 5000, None),
    ],
)
def test_an_answer_is_read_in_any_order_and_nothing_is_guessed(text, value):
    assert read_answer(text, TASK, "line").value == value
    if value is not None:
        assert read_answer(answer_text(value, TASK), TASK, "line").value == value


def test_the_form_names_the_labels_and_sets_of_many_are_not_listed():
    assert "all that apply of: joy, anger, deep love" in answer_form(TASK)
    assert [answer.value for answer in every_answer(TASK)] == list(TASK.words)
    with pytest.raises(ConfigError, match=r"2\^10 sets of its 10 labels, too many to list"):
        every_answer(MANY)
    assert read_answer("label 3, label 1, label 7", MANY, "line").value == "label 1, label 3, label 7"
    with pytest.raises(DataError, match="'label 3, label 1' is not one of its answer words"):
        answer_text("label 3, label 1", MANY)


def test_cells_with_bars_are_read(tmp_path, capsys):
    path = cells(tmp_path / "t.csv")
    spec = infer_task(path, ["text"], "labels", ["joy", "anger", "love=deep love"], kind="several")
    assert spec.names == NAMES and spec.metrics[0] == "micro_f1"
    assert 'all that apply of "joy", "anger" and "deep love", or "none"' in spec.instruction
    golds = {row.gold for split in ("train", "dev") for row in load_split(spec, split)}
    assert golds == {"joy, anger", "anger", "none", "joy, deep love"}
    assert infer_task(path, ["text"], "labels", kind="several").names == ("anger", "joy", "love")
    passes = infer_task(path, ["text"], "labels", kind="passes")
    assert passes.several == "passes" and 'answer "Yes" if the label that is named applies' in passes.instruction
    infer_task(cells(tmp_path / "one.csv", ["a", "a|b", "b"] * 4), ["text"], "labels")
    assert "give --kind several" in " ".join(capsys.readouterr().err.split())


def test_cells_with_lists_are_read(tmp_path):
    lines = [
        json.dumps({"text": f"text {n}", "labels": [["joy", "anger"], ["anger"], [], ["love"]][n % 4]})
        for n in range(24)
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(lines))
    spec = infer_task(path, ["text"], "labels", kind="several")
    assert spec.names == ("anger", "joy", "love")
    golds = {row.gold for split in ("train", "dev") for row in load_split(spec, split)}
    assert golds == {"anger, joy", "anger", "none", "love"}
    path.write_text("\n".join(lines).replace('["love"]', '["love", "love"]'))
    with pytest.raises(DataError, match=r"t\.jsonl:4: .* names a label twice"):
        infer_task(path, ["text"], "labels", kind="several")


def test_class_numbers_in_lists_have_the_names_of_the_file(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=["joy", "anger", "love"]))}
    )
    rows = {"text": [f"text {n}" for n in range(24)], "labels": [[0, 1], [1], [], [2]] * 6}
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "t.parquet")
    spec = infer_task(tmp_path / "t.parquet", ["text"], "labels", kind="several")
    assert spec.names == ("joy", "anger", "love")
    golds = {row.gold for split in ("train", "dev") for row in load_split(spec, split)}
    assert golds == {"joy, anger", "anger", "none", "love"}


def test_columns_of_yes_and_no_are_read(tmp_path):
    lines = [f"text {n},{n % 2},{('yes', 'No', '')[n % 3]}" for n in range(12)]
    path = table(tmp_path / "t.csv", "text,joy,deep_love", lines)
    spec = infer_task(path, ["text"], ["joy", "deep_love"], kind="several")
    assert spec.names == ("joy", "deep love") and spec.gold_columns == ("joy", "deep_love") and spec.label is None
    rows = {row.fields["text"]: row.gold for split in ("train", "dev") for row in load_split(spec, split)}
    assert [rows[f"text {n}"] for n in range(4)] == ["deep love", "joy", "none", "joy, deep love"]
    other = cells(tmp_path / "other.csv", ["joy", "joy|deep_love"])
    assert [row.gold for row in load_split(on_file(spec, other, label="labels"), "dev")] == ["joy", "joy, deep love"]
    assert len(load_split(on_file(spec, path), "dev")) == 12


@pytest.mark.parametrize(
    ("lines", "label", "kind", "message"),
    [
        (["x,1,maybe"] * 3, ["a", "b"], "several", "2: 'maybe' in column 'b' is neither yes nor no"),
        (["x,1,0"] * 3, ["a", "c"], "several", "there is no column 'c'"),
        (["x,1,0"] * 3, ["a", "b"], None, "write the name of one column"),
        (["x,1,0"] * 3, ["a", "a"], "several", "a column is named twice"),
        (["x,u|u,0"] * 3, "a", "several", "2: 'u.u' in column 'a' names a label twice"),
        (["x,u|v,0", ",u,0"], "a", "several", "3: field 'text'"),
        (["x,,0"] * 3, "a", "several", "column 'a' has no label: at least two"),
        (["x,u|none,0"] * 3, "a", "several", "or is 'none'"),
    ],
)
def test_bad_labels_are_named_with_their_place(lines, label, kind, message, tmp_path):
    path = table(tmp_path / "t.csv", "text,a,b", lines)
    with pytest.raises(Exception, match=message) as caught:
        infer_task(path, ["text"], label, kind=kind)
    assert caught.type.__name__ in ("DataError", "TaskError")


def test_an_unknown_label_in_a_later_file_is_an_error(tmp_path):
    spec = infer_task(cells(tmp_path / "t.csv"), ["text"], "labels", kind="several")
    with pytest.raises(DataError, match=r"other.csv:2: 'hate' in column 'labels' is not a label"):
        load_split(on_file(spec, cells(tmp_path / "other.csv", ["joy|hate"])), "dev")


def test_mistakes_of_a_task_file():
    tree = TASK.model_dump(mode="json") | {"several": "words", "group": "g", "metrics": ["accuracy"]}
    tree["labels"] = {"a|b": "x, y", "c": "None", "d": "z"}
    found = " ".join(mistakes_of(tree))
    for part in ("'group' does not go with 'several'", "no word has a comma", "has a '|'", "'None'", "sets of labels"):
        assert part in found, part
    assert "only for tasks with 'several'" in " ".join(mistakes_of(tree | {"several": None, "indicators": True}))


def test_questions_label_by_label_and_their_answers():
    row = Example("t:1", {"text": "wow", "label": "own"}, "joy, deep love", tags={"topic": "x"})
    spec = PASSES.model_copy(update={"fields": {"text": "text", "label": "label"}})
    questions = ask(spec, row)
    assert [(q.fields["label_"], q.gold, q.group, q.id) for q in questions] == [
        ("joy", "Yes", "t:1", "t:1#1"),
        ("anger", "No", "t:1", "t:1#2"),
        ("deep love", "Yes", "t:1", "t:1#3"),
    ]
    asked = asked_task(spec)
    assert asked.words == ("No", "Yes") and asked.template.endswith("Label: {{ label_ }}")
    assert asked_task(TASK) is TASK
    answers = [
        Prediction.of(q, text, text if text != "?" else None, {"No": 0.2, "Yes": 0.8})
        for q, text in zip(questions, ("Yes", "No", "Yes"), strict=True)
    ]
    whole = joined(spec, row, answers)
    assert (whole.value, whole.gold, whole.id, whole.tags) == ("joy, deep love", row.gold, "t:1", {"topic": "x"})
    assert whole.probabilities == dict.fromkeys(NAMES, 0.8)
    broken = [answers[0], Prediction.of(questions[1], "?", None), answers[2]]
    assert joined(spec, row, broken).value is None
    assert [q.gold for q in ask(spec, Example("t:2", {"text": "x", "label": "y"}))] == [None] * 3


@pytest.mark.parametrize(
    ("kind", "answer", "reward"),
    [
        ("f1", "joy, deep love", 1.0),
        ("f1", "joy", 1 / 3),
        ("f1", "joy, anger", 0.0),
        ("jaccard", "joy", 0.0),
        ("jaccard", "joy, anger", -1 / 3),
        ("exact", "joy", -1.0),
        ("f1", "none", -1.0),
        ("f1", None, -3.0),
    ],
)
def test_rewards_are_paid_by_likeness(kind, answer, reward):
    config = RewardConfig(sets=kind)
    assert rewards([Judgement("", answer)], ["joy, deep love"], TASK, config) == [pytest.approx(reward)]


def test_of_two_empty_sets_the_reward_is_whole():
    assert rewards([Judgement("", "none")], ["none"], TASK, RewardConfig()) == [1.0]
    assert rewards([Judgement("", "joy")], ["none"], TASK, RewardConfig(sets="jaccard")) == [-1.0]
    with pytest.raises(DataError, match="is none of its answer words"):
        rewards([Judgement("", "joy")], ["deep love, joy"], TASK, RewardConfig())


@pytest.mark.parametrize(
    ("settings", "spec", "message"),
    [
        (["method=exact"], MANY, r"exact weighs every set of its 10 labels, which are 2\^10"),
        (["method=dpo"], MANY, "dpo weighs every set"),
        (["method=encoder"], MANY, "encoder weighs every set"),
        (["method=sft", "evaluation.decode=labels"], MANY, "decode=labels weighs every set"),
        (["method=sft", "calibration.rows=10"], TASK, "calibration.rows is for one label per row"),
        (["method=sft", "calibration.rows=10"], PASSES, "calibration.rows is for one label per row"),
        (["method=ppo", "ppo.reward.metric=micro_f1"], TASK, "reward.sets=f1"),
        (["method=ppo", "ppo.reward.balance=true"], TASK, "reward.balance is for one label per row"),
        (["method=sft", "evaluation.decode=mean"], MANY, "decode=mean weighs every set"),
        (["method=sft", "evaluation.decode=mean"], number_task(0, 50), "501 answers from 0 to 50 with 1 decimals"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_loaded(settings, spec, message):
    with pytest.raises(ConfigError, match=message):
        check_tasks(load_config(overrides=settings), [spec])


@pytest.mark.parametrize("method", ["zero-shot", "few-shot", "tfidf", "linear", "sft", "ppo", "grpo"])
def test_methods_that_read_answers_take_many_labels(method):
    check_tasks(load_config(overrides=[f"method={method}"]), [MANY])
    with pytest.raises(ConfigError, match="long_texts=mean joins the pieces of a row that has one label"):
        check_tasks(load_config(overrides=[f"method={method}", "evaluation.long_texts=mean"]), [TASK])
    check_tasks(load_config(overrides=["method=exact"]), [TASK, PASSES, MANY.model_copy(update={"several": "passes"})])


def test_few_shot_reads_sets_in_words_and_weighs_yes_and_no():
    config = load_config(overrides=["method=few-shot"])
    in_words = run_settings(config, [MANY])
    assert (in_words.prompt.prior, in_words.evaluation.decode) == ("none", "greedy")
    assert run_settings(config, [PASSES]).evaluation.decode == "labels"


def test_rows_are_drawn_and_folded_as_rows(tmp_path):
    spec = infer_task(cells(tmp_path / "t.csv"), ["text"], "labels", kind="passes")
    rows = rows_for(load_config(overrides=["method=sft", "data.train_rows=6", "data.eval_rows=3"]), [spec])
    assert rows.train_count == 6 and len(rows.eval_rows[0]) == 3
    rare = [Example(str(n), {"text": f"t{n}"}, gold) for n, gold in enumerate([*["joy"] * 9, "joy, anger"])]
    assert sorted(set(deal_folds(TASK, rare, 5, 0))) == [1, 2, 3, 4, 5]
