"""Train the encoder baseline: a tiny random BERT, and the bundled MiniLM on a few rated sentences."""

import math

import pytest
import torch
from running import load_one, logged, train_one
from safetensors.torch import load_file
from specs import label_task, number_task

from adjudge.config import load_config
from adjudge.errors import AdjudgeError, DataError, ModelError, NotFiniteError, RunError
from adjudge.models.encoder import Texts, load_encoder, texts_of
from adjudge.runs.folder import Run
from adjudge.types import Example

LABELS = label_task("Negative", "Positive")
NUMBERS = number_task(-4, 4)


def label_rows(count=16):
    fillers = ["the film", "a very very very plot", "the plot and the film and a plot", "film"]
    rows = []
    for index in range(count):
        word, gold = (("good", "Positive"), ("bad", "Negative"))[index % 2]
        rows.append(Example(f"r:{index}", {"text": f"{fillers[index // 2 % 4]} {word}"}, gold))
    return rows


def number_rows(count=16):
    return [Example(row.id, row.fields, 3.0 if row.gold == "Positive" else -2.5) for row in label_rows(count)]


def make_run(folder, model, **settings):
    values = {"encoder.model": str(model), "encoder.epochs": 20, "encoder.batch_size": 6, "encoder.optimizer.lr": 3e-3}
    values["encoder.min_steps"] = 0
    values |= {"method": "encoder", "runtime.device": "cpu"} | {
        key.replace("__", "."): value for key, value in settings.items()
    }
    return Run.create(folder, load_config(values=values))


def weights_of(run):
    return load_file(run.folder / "encoder" / "model.safetensors")


def test_separable_rows_are_learned_logged_saved_and_loaded(tiny_bert, tmp_path):
    rows = label_rows()
    run = make_run(tmp_path / "run", tiny_bert)
    with run:
        judge = train_one("encoder", run, LABELS, rows)
    predictions = judge.judge(rows, probabilities=True)
    assert [p.value for p in predictions] == [row.gold for row in rows]
    assert [p.id for p in predictions] == [row.id for row in rows]
    assert all(p.text == p.value and math.isclose(sum(p.probabilities.values()), 1, abs_tol=1e-5) for p in predictions)
    assert all(max(p.probabilities, key=p.probabilities.get) == p.value for p in predictions)
    log = logged(run)
    assert [record["step"] for record in log] == list(range(1, 61))  # 16 rows are 3 batches of 6, 6 and 4
    assert log[-1]["rows"] == 20 * 16
    assert log[-1]["loss"] < 0.1 < log[0]["loss"]
    assert log[0]["lr"] < max(record["lr"] for record in log) == pytest.approx(3e-3)
    again = load_one("encoder", Run.open(run.folder), LABELS).judge(rows, probabilities=True)
    assert again == predictions
    assert not any(p.probabilities for p in judge.judge(rows))
    assert judge.judge([]) == []


def test_numbers_are_learned_and_stay_in_range(tiny_bert, tmp_path):
    rows = number_rows()
    run = make_run(tmp_path / "run", tiny_bert, encoder__epochs=30)
    judge = train_one("encoder", run, NUMBERS, rows)
    predictions = judge.judge(rows)
    assert max(abs(p.value - row.gold) for p, row in zip(predictions, rows, strict=True)) < 1.0
    assert all(-4 <= p.value <= 4 and p.text == f"{p.value:.1f}" and not p.probabilities for p in predictions)
    with torch.no_grad():
        judge.encoder.model.classifier.bias.add_(100)
    assert {p.value for p in judge.judge(rows)} == {4.0}


def test_one_seed_gives_one_result(tiny_bert, tmp_path):
    runs = [
        make_run(tmp_path / name, tiny_bert, seed=seed, encoder__epochs=2)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    for run in runs:
        torch.rand(7)  # the generator's state before a run must not matter
        train_one("encoder", run, LABELS, label_rows())
    first, second, other = (weights_of(run) for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_without_a_learning_rate_the_body_stays_as_it_was(tiny_bert, tmp_path):
    run = make_run(tmp_path / "run", tiny_bert, encoder__epochs=1, encoder__optimizer__lr=0.0)
    train_one("encoder", run, LABELS, label_rows())
    before, after = load_file(tiny_bert / "model.safetensors"), weights_of(run)
    shared = [name for name in before if f"bert.{name}" in after]
    assert shared
    assert all(torch.equal(before[name], after[f"bert.{name}"]) for name in shared)


def test_batching_and_padding_do_not_change_a_score(tiny_bert):
    encoder = load_encoder(str(tiny_bert), load_config().runtime, 24, ("No", "Yes"))
    rows = [texts_of(row.fields) for row in label_rows(7)]
    alone = torch.cat([encoder.score([row], 1) for row in rows])
    assert torch.allclose(encoder.score(rows, 3), alone, atol=1e-6)


def test_a_pair_is_two_segments_and_further_fields_join_the_second(tiny_bert):
    assert texts_of({"a": "good"}) == Texts("good")
    assert texts_of({"a": "good", "b": "bad", "c": "plot"}) == Texts("good", "bad\nplot")
    encoder = load_encoder(str(tiny_bert), load_config().runtime, 24, ("No", "Yes"))
    assert encoder.lengths([Texts("good film", "bad plot"), Texts("good", "bad")]) == [7, 5]
    pair, joined = encoder.score([Texts("good", "bad")], 1), encoder.score([Texts("good bad")], 1)
    assert not torch.allclose(pair, joined)


def test_a_row_longer_than_the_encoder_reads_is_shortened_and_counted(tiny_bert, tmp_path, capsys):
    long = Example("r:x", {"text": "good " * 100}, "Positive")
    run = make_run(tmp_path / "run", tiny_bert, encoder__epochs=1, encoder__max_tokens=512)
    judge = train_one("encoder", run, LABELS, [*label_rows(3), long])
    assert "1 of 4 training rows are longer than 24 tokens" in capsys.readouterr().err
    assert judge.judge([long])[0].value in LABELS.words


def test_a_loss_that_is_not_finite_stops_before_the_update(tiny_bert, tmp_path):
    run = make_run(tmp_path / "run", tiny_bert)
    rows = number_rows(4)
    rows[2] = Example("r:nan", rows[2].fields, math.inf)
    with pytest.raises(NotFiniteError, match="Step 1: the loss"), run:
        train_one("encoder", run, NUMBERS, rows)
    assert run.state == "failed"
    assert not (run.folder / "encoder").exists()


@pytest.mark.parametrize(
    ("rows", "spec", "says"),
    [
        ([], LABELS, "no training rows"),
        ([Example("f.csv:3", {"text": "good"}, None)], LABELS, r"f\.csv:3: the gold answer None"),
        ([Example("f.csv:3", {"text": "good"}, "Maybe")], LABELS, "'Maybe' is none of Negative, Positive"),
        ([Example("f.csv:3", {"text": "good"}, "good")], NUMBERS, "'good' is not a number"),
    ],
)
def test_rows_that_cannot_be_learned_from_are_named(rows, spec, says, tiny_bert, tmp_path):
    with pytest.raises(DataError, match=says):
        train_one("encoder", make_run(tmp_path / "run", tiny_bert), spec, rows)


def test_a_run_is_loaded_only_for_the_task_it_was_trained_on(tiny_bert, tmp_path):
    run = make_run(tmp_path / "run", tiny_bert, encoder__epochs=1)
    with pytest.raises(RunError, match="no trained encoder"):
        load_one("encoder", run, LABELS)
    train_one("encoder", run, LABELS, label_rows(4))
    with pytest.raises(RunError, match="answers Negative, Positive, but the task mine wants a number"):
        load_one("encoder", run, NUMBERS)
    with pytest.raises(RunError, match="wants Bad, Good"):
        load_one("encoder", run, label_task("Bad", "Good"))


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(ModelError, match="Did you mean 'minilm-l6'"):
        train_one("encoder", make_run(tmp_path / "run", "minilm-16"), LABELS, label_rows(4))


def test_the_bundled_encoder_learns_from_real_sentences(tmp_path):
    from adjudge.setup.fetch import fetch
    from adjudge.tasks.catalogue import load_task
    from adjudge.tasks.reading.draw import take_rows
    from adjudge.tasks.reading.sources import load_split

    try:
        fetch("vader")
        fetch("minilm-l6")
    except AdjudgeError as error:
        pytest.skip(f"cannot be fetched here: {error}")
    spec = load_task("vader/movies")
    rows = take_rows(load_split(spec, "train"), 12, seed=0)
    run = make_run(tmp_path / "run", "minilm-l6", encoder__epochs=4, encoder__batch_size=4, encoder__optimizer__lr=2e-4)
    judge = train_one("encoder", run, spec, rows)
    log = logged(run)
    assert log[-1]["loss"] < log[0]["loss"]
    right = sum(p.value == p.gold for p in judge.judge(rows))
    assert right >= 10  # of 12 rows that it was trained on
