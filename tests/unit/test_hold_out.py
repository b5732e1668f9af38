"""``data.hold_out``: training rows that are judged in place of the split, and not learned from."""

import pytest
from fake_method import by_first_word, install, reviews, write_reviews

from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError
from adjudge.experiments.compare import compare
from adjudge.experiments.evaluate import evaluate_run
from adjudge.experiments.execute import execute
from adjudge.experiments.rows import eval_rows_for, rows_for
from adjudge.report.html import render_report
from adjudge.tasks import infer_task, load_split


def settings(*overrides):
    return load_config(overrides=["method=sft", "evaluation.resamples=100", *overrides])


def texts(rows):
    return {row.fields["text"] for row in rows}


def test_held_out_rows_are_training_rows_and_the_same_for_every_seed_and_method(tmp_path):
    spec = reviews(tmp_path, 400)
    train, dev = (texts(load_split(spec, split)) for split in ("train", "dev"))
    drawn = [rows_for(settings("data.hold_out=60", f"seed={seed}"), [spec]) for seed in (0, 1)]
    held = drawn[0].eval_rows[0]
    assert len(held) == 60 and texts(held) < train and not texts(held) & dev
    assert held == drawn[1].eval_rows[0] == eval_rows_for(settings("data.hold_out=60", "method=zero-shot"), spec)
    assert texts(drawn[0].parts[0].rows) == train - texts(held)


def test_a_row_with_the_texts_of_a_held_out_row_is_not_learned_from(tmp_path):
    file = tmp_path / "twice.csv"
    rows = "".join(f"{'good' if n % 2 else 'bad'} song {n},{'good' if n % 2 else 'bad'}\n" for n in range(50))
    file.write_text("text,label\n" + rows * 2)
    dev = write_reviews(tmp_path / "dev.csv", 400)
    drawn = rows_for(settings("data.hold_out=20"), [infer_task(file, ["text"], "label", dev=dev)])
    assert not texts(drawn.eval_rows[0]) & texts(drawn.parts[0].rows)
    assert len(drawn.eval_rows[0]) == 20


def test_scores_table_and_report_say_what_was_judged(tmp_path, monkeypatch, capsys):
    install(monkeypatch, "sft", by_first_word)
    spec = reviews(tmp_path, 400)
    table = compare(settings("data.hold_out=60"), [spec], ["sft"], [0], tmp_path / "out", runner=execute)
    assert (table["rows"][0]["n"], table["rows"][0]["hold_out"]) == (60, 60)
    assert "reviews: 60 rows held out of train to judge, 260 to train on." in " ".join(capsys.readouterr().err.split())
    assert "reviews: 60 held-out training rows judged." in (tmp_path / "out/table.md").read_text()
    page = render_report([tmp_path / "out"], tmp_path / "page.html").read_text()
    assert "<dt>split</dt><dd><bdi>held-out training rows</bdi></dd>" in page
    _, again = evaluate_run(tmp_path / "out/reviews/sft/seed-0", out=tmp_path / "again")
    assert (again["n"], again["hold_out"]) == (60, 60)
    _, of_dev = evaluate_run(tmp_path / "out/reviews/sft/seed-0", split="dev", out=tmp_path / "dev")
    assert of_dev["n"] == 80 and "hold_out" not in of_dev


@pytest.mark.parametrize("other", ["data.folds=3", "data.eval_rows=10", "data.split=test"])
def test_other_ways_to_choose_judged_rows_are_refused(other):
    with pytest.raises(ConfigError, match="held-out training rows are judged, so data"):
        settings("data.hold_out=10", other)


def test_more_rows_than_are_left_to_learn_from_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.hold_out=200 would judge 200 of its training rows and leave 120"):
        rows_for(settings("data.hold_out=200"), [reviews(tmp_path, 400)])
