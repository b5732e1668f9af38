"""The audit of labels: what is suspicious, how it is ranked, what is planted, and what is written."""

import csv
import json

import pytest
from fake_method import FakeJudge, by_first_word, install, reviews, write_reviews
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.evaluation.label_errors import rank_doubtful
from adjudge.experiments.audit import audit
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.tasks import infer_task
from adjudge.types import Prediction

WORDS = ("bad", "good")


@pytest.fixture(autouse=True)
def method(monkeypatch):
    monkeypatch.setattr(FakeJudge, "sure", 0.9)
    install(monkeypatch, "tfidf", by_first_word)


def predicted(number, gold, p_good, words=WORDS):
    chances = dict(zip(words, (1 - p_good, p_good), strict=True))
    return Prediction(str(number), {"text": f"row {number}"}, gold, "", max(chances, key=chances.get), chances)


def run(spec, out, **options):
    config = load_config(overrides=["evaluation.resamples=100", "data.folds=2"])
    return audit(config, spec, "tfidf", out, runner=execute, **options)


def rows_of(out):
    with (out / "suspicious.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_whose_label_the_judge_surely_rejects_are_suspicious_and_come_first():
    rows = [predicted(n, WORDS[n % 2], (0.1, 0.9)[n % 2]) for n in range(40)]
    rows += [predicted(40, "good", 0.05), predicted(41, "bad", 0.8), predicted(42, "good", 0.45)]
    doubts = rank_doubtful(WORDS, rows)
    assert [doubt.prediction.id for doubt in doubts[:3]] == ["40", "41", "42"]
    assert [doubt.score for doubt in doubts[:3]] == pytest.approx([0.05, 0.2, 0.45])
    assert doubts[0].suspicious and doubts[0].likelier == "bad"
    assert not any(doubt.suspicious for doubt in doubts[3:])
    assert len(doubts) == len(rows)


def test_a_label_without_rows_is_left_out_and_the_likelier_label_is_another_one():
    words = ("bad", "mixed", "good")
    chances = {"bad": 0.2, "mixed": 0.5, "good": 0.3}
    rows = [Prediction(str(n), {}, ("bad", "good")[n % 2], "", "mixed", chances) for n in range(10)]
    doubts = rank_doubtful(words, rows)
    assert {doubt.likelier for doubt in doubts} == {"bad", "good"}
    assert all(doubt.likelier != doubt.prediction.gold for doubt in doubts)
    assert doubts[0].score == pytest.approx(0.4)


def test_rows_without_probabilities_or_with_one_label_are_refused():
    with pytest.raises(DataError, match="Row 0 has no probability"):
        rank_doubtful(WORDS, [Prediction("0", {}, "good", "", "good"), predicted(1, "bad", 0.5)])
    with pytest.raises(DataError, match=r"one label \(good\)"):
        rank_doubtful(WORDS, [predicted(n, "good", 0.5) for n in range(4)])


def test_the_rows_that_contradict_the_judge_are_written(tmp_path):
    found = run(reviews(tmp_path, 80), tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert found["suspicious"] == len(rows) == 10
    assert found["right"] == pytest.approx(0.875)
    assert list(rows[0]) == ["row", "given", "likelier", "score", "text"]
    for row in rows:
        number = int(row["text"].split()[-1])
        assert number % 8 == 0
        assert row["row"] == f"reviews.csv:{number + 2}"
        assert (row["given"], row["likelier"], row["score"]) == ("good", "bad", "0.1")
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["folds"] == 2


def test_planted_errors_are_found_by_a_judge_that_sees_them(tmp_path):
    path = tmp_path / "clean.csv"
    path.write_text("text,label\n" + "".join(f"{WORDS[n % 2]} film {n},{WORDS[n % 2]}\n" for n in range(100)))
    spec = infer_task(path, ["text"], "label")
    found = run(spec, tmp_path / "out", plant=0.05, every_row=True)
    assert found["planted"] == {
        "rows": 5, "first_rows": 10, "among_first": 5, "suspicious": 5, "likelier_is_right": 5,
    }  # fmt: skip
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 100
    assert [row["planted"] for row in rows] == ["yes"] * 5 + ["no"] * 95
    assert [row["suspicious"] for row in rows] == ["yes"] * 5 + ["no"] * 95
    assert path.read_text().count("bad film") == 50  # the user's file is as it was


def test_drawn_rows_are_audited_alone_and_finished_folds_are_reused(tmp_path):
    spec = reviews(tmp_path, 80)
    assert run(spec, tmp_path / "out", rows=40)["rows"] == 40
    built = []
    config = load_config(overrides=["evaluation.resamples=100", "data.folds=2"])
    again = audit(config, spec, "tfidf", tmp_path / "out", rows=40, runner=lambda *given, **more: built.append(given))
    assert again["rows"] == 40 and not built
    with pytest.raises(RunError, match="--force"):
        run(spec, tmp_path / "out", rows=60)


def test_texts_with_quotes_line_breaks_and_carriage_returns_survive(tmp_path):
    path = tmp_path / "ugly.csv"
    texts = [f'{WORDS[n % 2]} "film",\r{n}' for n in range(20)]
    texts[0] = 'good =1+1 "oh"\nsecond, line'
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["text", "label"])
        writer.writerows([text, WORDS[n % 2]] for n, text in enumerate(texts))
    run(infer_task(path, ["text"], "label"), tmp_path / "out", every_row=True)
    assert {row["text"] for row in rows_of(tmp_path / "out")} == set(texts)


def test_numbers_and_wrong_shares_are_refused(tmp_path):
    path = tmp_path / "stars.csv"
    path.write_text("text,stars\n" + "".join(f"film {n},{n / 10}\n" for n in range(30)))
    with pytest.raises(ConfigError, match="is answered with a number: an audit is of labels"):
        run(infer_task(path, ["text"], "stars"), tmp_path / "out")
    with pytest.raises(ConfigError, match="give a share from 0 to"):
        run(reviews(tmp_path, 40), tmp_path / "out", plant=0.7)


@pytest.mark.parametrize("plant", [0.0, 0.4])
def test_rows_of_one_label_are_refused_before_anything_is_judged(plant, tmp_path):
    path = tmp_path / "rare.csv"
    path.write_text("text,label\n" + "".join(f"good film {n},good\n" for n in range(60)) + "bad film,bad\n")
    spec = infer_task(path, ["text"], "label")
    with pytest.raises(DataError, match="The 3 rows drawn have one label: no other one could be right"):
        run(spec, tmp_path / "out", plant=plant, rows=3)
    assert not (tmp_path / "out").exists()


def test_a_metric_of_the_tasks_own_that_needs_tags_does_not_stand_in_the_way(tmp_path):
    spec = reviews(tmp_path, 40).model_copy(update={"metrics": ("record_f1", "record_em")})
    assert run(spec, tmp_path / "out")["task"] == spec.name


def test_without_cleanlab_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cleanlab.filter", None)
    with pytest.raises(ConfigError, match=r"pip install 'adjudge\[audit\]'"):
        run(reviews(tmp_path, 40), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_verb_prints_what_it_found(tmp_path, monkeypatch):
    monkeypatch.setattr("adjudge.experiments.compare.CellProcesses", InProcess)
    own = ["--data", str(write_reviews(tmp_path / "r.csv", 80)), "--text", "text", "--label", "label"]
    out = tmp_path / "out"
    call = ["audit", *own, "--method", "tfidf", "--folds", "2", "--out", str(out), "evaluation.resamples=100"]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    assert "r: 10 of 80 labels are suspicious. tfidf in 2 folds judged 87.5% of the rows" in result.output
    assert str(out / "suspicious.csv") in result.output.replace("\n", "")


@pytest.mark.parametrize(
    ("given", "states", "layer"),
    [([], "both", "middle"), (["linear.layer=3"], "both", 3), (["--method", "linear"], "encoder", None)],
)
def test_without_a_method_the_judge_has_settings_of_its_own(given, states, layer, tmp_path, monkeypatch):
    monkeypatch.setattr("adjudge.experiments.compare.CellProcesses", InProcess)
    install(monkeypatch, "linear", by_first_word)
    own = ["--data", str(write_reviews(tmp_path / "r.csv", 80)), "--text", "text", "--label", "label"]
    call = ["audit", *own, "--folds", "2", "--out", str(tmp_path / "out"), "evaluation.resamples=100", *given]
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0, result.output
    config = Run.open(tmp_path / "out/r/linear/seed-0-fold-1").config
    assert (config.linear.states, config.linear.layer) == (states, layer)


class InProcess:
    """Runs cells in this process."""

    def __enter__(self):
        return execute

    def __exit__(self, *_):
        pass
