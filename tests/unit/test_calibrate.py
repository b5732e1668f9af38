"""Temperatures of runs: which rows they are fitted on, where they are stored, and what then follows them."""

import csv
import json
import shutil

import pytest
from fake_method import FakeJudge, by_first_word, install, reviews, write_reviews
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError
from adjudge.experiments.calibrate import calibrate_run
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.experiments.rows import rows_for
from adjudge.runs.calibration import read_calibration, temperature_of
from adjudge.runs.folder import Run, read_json

T = 2.361  # 0.99 for answers of which 7 in 8 are right: log 99 / log 7


@pytest.fixture(autouse=True)
def judges(monkeypatch):
    """SFT is a rule that is right in 7 of 8 rows, with a probability of 0.99."""
    monkeypatch.setattr(FakeJudge, "sure", 0.99)
    return install(monkeypatch, "sft", by_first_word)


def settings(*overrides):
    plain = ["method=sft", "evaluation.resamples=100", "evaluation.decode=labels"]
    return load_config(overrides=[*plain, *overrides])


def run_of(tmp_path, *overrides, rows=400, name="run"):
    execute(settings(*overrides), reviews(tmp_path, rows), tmp_path / name)
    return tmp_path / name


def scores(folder):
    return read_json(folder / "scores.json")["probabilities"]


def cli(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_finished_run_is_calibrated_on_rows_it_did_not_learn_from(tmp_path):
    run = run_of(tmp_path, "data.train_rows=40")
    before = (run / "predictions/dev.jsonl").read_bytes()
    assert "calibrated" not in scores(run)
    fitted = calibrate_run(run)["reviews"]
    assert fitted["temperature"] == pytest.approx(T, rel=0.1)
    assert fitted["source"] == "unused training rows"
    assert fitted["rows"] == 320 - 40  # a fifth of the table is judged
    assert fitted["ece"]["after"] < fitted["ece"]["before"] / 2
    assert fitted["log_loss"]["after"] < fitted["log_loss"]["before"]
    assert read_calibration(run) == {"reviews": fitted}
    assert read_json(run / "adapter/judge.json")["calibration"] == {"reviews": fitted}
    assert "temperature 2." in (run / "adapter/README.md").read_text()
    assert scores(run)["temperature"] == fitted["temperature"]
    assert scores(run)["calibrated"]["ece"]["value"] < scores(run)["own"]["ece"]["value"] / 2
    assert (run / "predictions/dev.jsonl").read_bytes() == before
    assert calibrate_run(run)["reviews"] == fitted  # the same rows again


def test_no_row_is_learned_or_judged(tmp_path):
    spec, config = reviews(tmp_path, 400), settings("data.train_rows=40", "calibration.rows=100")
    rows = rows_for(config, [spec])
    (held,) = rows.calibration
    known = {row.fields["text"] for part in (rows.parts[0].rows, rows.eval_rows[0]) for row in part}
    assert len(held.rows) == 100 and not known & {row.fields["text"] for row in held.rows}
    plain = rows_for(settings("data.train_rows=40"), [spec])
    assert rows.parts[0].rows == plain.parts[0].rows  # training loses no row
    assert rows.sha256() != plain.sha256()
    assert rows_for(config, [spec]).calibration == rows.calibration


def test_rows_are_kept_from_training_where_none_are_left_over(tmp_path):
    run = run_of(tmp_path, "calibration.rows=60")
    fitted = read_calibration(run)["reviews"]
    assert (fitted["source"], fitted["rows"]) == ("held-out training rows", 60)
    assert read_json(run / "training.json")["train_rows"] == 320 - 60
    assert scores(run)["temperature"] == fitted["temperature"]
    assert read_json(run / "adapter/judge.json")["calibration"]["reviews"] == fitted


def test_too_few_rows_to_keep_some_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"calibration\.rows=200 would hold out 200 of 320 training rows, and leave 120"
    ):
        run_of(tmp_path, "calibration.rows=200")
    assert not (tmp_path / "run").exists()


def test_a_run_stopped_before_its_calibration_goes_on_with_the_same_result(tmp_path):
    whole = run_of(tmp_path, "calibration.rows=60", name="whole")
    stopped = run_of(tmp_path, "calibration.rows=60", name="stopped")
    for name in ("calibration.json", "scores.json", "predictions/dev.jsonl"):
        (stopped / name).unlink()
    Run.open(stopped).set_state("interrupted")
    execute(settings("calibration.rows=60"), reviews(tmp_path, 400), stopped, resume=True)
    for name in ("calibration.json", "predictions/dev.jsonl", "adapter/judge.json"):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    assert scores(stopped) == scores(whole)


def test_a_repeated_run_has_the_same_temperature(tmp_path):
    run = run_of(tmp_path, "calibration.rows=60")
    again = rerun(run)
    (part,) = [part for part in compare_runs(run, again) if part.name == "calibration"]
    assert part.equal and "temperature" in part.detail
    assert (again / "calibration.json").read_bytes() == (run / "calibration.json").read_bytes()


def test_other_rows_are_scored_with_the_runs_temperature(tmp_path):
    run = run_of(tmp_path, "calibration.rows=60")
    more = write_reviews(tmp_path / "more.csv", 480)
    result = cli("evaluate", "--run", run, "--data", more)
    assert result.exit_code == 0, result.output
    assert "temperature" in result.stdout and "how far the label probabilities can be believed" in result.stdout
    (folder,) = (run / "evaluations").iterdir()
    assert scores(folder)["temperature"] == temperature_of(run, "reviews")


def test_without_calibration_the_run_is_as_it_was(tmp_path):
    run = run_of(tmp_path)
    assert not (run / "calibration.json").exists() and temperature_of(run, "reviews") is None
    assert read_json(run / "adapter/judge.json")["calibration"] is None
    assert read_json(run / "training.json")["train_rows"] == 320


def test_a_run_that_learned_from_all_rows_wants_a_file(tmp_path):
    run = run_of(tmp_path)
    with pytest.raises(ConfigError, match=r"learned from all 320 training rows .* --data FILE.* calibration.rows=64"):
        calibrate_run(run)
    with pytest.raises(DataError, match="learned from or judged all of its rows"):
        calibrate_run(run, data=tmp_path / "reviews.csv")
    more = write_reviews(tmp_path / "more.csv", 480)
    fitted = calibrate_run(run, data=more)["reviews"]
    assert (fitted["rows"], fitted["source"]) == (80, "rows of more.csv")
    assert fitted["temperature"] == pytest.approx(T, rel=0.1)


def test_rows_of_a_program_calibrate_as_their_file_does(tmp_path):
    run = run_of(tmp_path)
    with write_reviews(tmp_path / "more.csv", 480).open() as file:
        rows = list(csv.DictReader(file))
    of_file = calibrate_run(run, data=tmp_path / "more.csv")["reviews"]
    renamed = [{"song": row["text"], "verdict": row["label"]} for row in rows]
    opened = adjudge.open_run(run)
    for given, names in ((rows, {}), (renamed, {"text": "song", "label": "verdict"})):
        of_rows = opened.calibrate(data=given, **names)["reviews"]
        assert of_rows["source"] == "given rows"
        assert [of_rows[key] for key in ("rows", "temperature")] == [of_file[key] for key in ("rows", "temperature")]


def test_all_right_leaves_the_temperature_at_one(tmp_path, capsys):
    run = run_of(tmp_path)
    right = tmp_path / "right.csv"
    right.write_text("text,label\n" + "".join(f"good song {n},good\n" for n in range(20)))
    assert calibrate_run(run, data=right)["reviews"]["temperature"] == 1.0
    error = " ".join(capsys.readouterr().err.split())
    assert "a temperature fitted on 20 rows is rough" in error and "all 20 rows are judged right" in error


def test_numbers_have_nothing_to_calibrate(tmp_path):
    table = tmp_path / "stars.csv"
    table.write_text("text,stars\n" + "".join(f"film {n},{n % 7 + 0.5}\n" for n in range(40)))
    spec = adjudge.infer_task(table, ["text"], "stars")
    with pytest.raises(ConfigError, match=r"calibration\.rows is for labels"):
        execute(settings("calibration.rows=5"), spec, tmp_path / "run")
    execute(settings("evaluation.decode=greedy"), spec, tmp_path / "run")
    with pytest.raises(ConfigError, match="answered with numbers"):
        calibrate_run(tmp_path / "run")


def test_sets_of_labels_are_not_calibrated(tmp_path):
    table = tmp_path / "topics.csv"
    table.write_text(
        "text,topics\n" + "".join(f"good film {n},{('good', 'bad', 'good|bad')[n % 3]}\n" for n in range(40))
    )
    spec = adjudge.infer_task(table, ["text"], "topics", kind="several")
    execute(settings("evaluation.decode=greedy"), spec, tmp_path / "run")
    with pytest.raises(ConfigError, match="answered with sets of labels"):
        calibrate_run(tmp_path / "run")


def test_each_task_of_several_has_its_temperature(tmp_path):
    spec = reviews(tmp_path, 400)
    specs = [spec, spec.model_copy(update={"name": "songs"})]
    run = tmp_path / "run"
    execute(settings("calibration.rows=50"), specs, run)
    assert read_calibration(run).keys() == {"reviews", "songs"}
    assert scores(run / "tasks/songs")["temperature"] == temperature_of(run, "songs")
    fitted = calibrate_run(run, spec=specs[1])
    assert fitted.keys() == {"songs"} and read_calibration(run).keys() == {"reviews", "songs"}


def test_predictions_are_calibrated_and_answers_stay(tmp_path):
    run = run_of(tmp_path, "data.train_rows=40")
    (before,) = adjudge.open_run(run).predict(["good one"])
    judge = adjudge.open_run(run)
    temperature = judge.calibrate()["reviews"]["temperature"]
    (after,) = judge.predict(["good one"])
    assert (before.value, before.probabilities["good"]) == (after.value, 0.99)
    assert after.probabilities["good"] == pytest.approx(7 / 8, abs=0.02)
    assert judge.calibration["reviews"]["temperature"] == temperature
    assert [p.abstained for p in judge.predict(["good", "bad"], min_confidence={"good": 0.9})] == [True, False]
    assert (
        judge.predict(["good"], costs={"good": {"good": 0, "bad": 1}, "bad": {"good": 20, "bad": 0}})[0].value == "bad"
    )


def test_a_judge_that_left_its_run_takes_the_temperature_along(tmp_path):
    run = run_of(tmp_path, "calibration.rows=60")
    fake = json.loads((run / "adapter/judge.json").read_text())
    inside = adjudge.open_run(run).predict(["good one"])[0].probabilities
    moved = shutil.move(run / "adapter", tmp_path / "moved")
    (moved / "adapter").mkdir()
    (moved / "adapter/fake.txt").write_text("trained")  # where the fake looks for its weights
    assert temperature_of(moved, "reviews") == fake["calibration"]["reviews"]["temperature"]
    assert adjudge.open_judge(moved).predict(["good one"])[0].probabilities == inside
    with pytest.raises(ConfigError, match="left its run, and its training rows with it"):
        calibrate_run(moved)
    fitted = calibrate_run(moved, data=write_reviews(tmp_path / "more.csv", 80))
    assert json.loads((moved / "judge.json").read_text())["calibration"] == fitted
    assert fitted["reviews"]["rows"] == 80


def test_predict_holds_answers_back(tmp_path):
    run = run_of(tmp_path, "data.train_rows=40")
    new = tmp_path / "new.csv"
    new.write_text("text,note\ngood film,a\nbad film,b\nodd film,c\n")
    command = ["predict", "--run", run, "--input", new, "--out", tmp_path / "out.csv", "--force"]
    result = cli(*command, "--min-confidence", "good=0.995", "--min-confidence", "0.5")
    assert result.exit_code == 0, result.output
    assert "3 rows judged, 1 answers unreadable, 1 held back" in " ".join(result.stderr.split())
    assert "are not calibrated, so they may be too sure" in " ".join(result.stderr.split())
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert list(rows[0]) == ["text", "note", "label", "p_bad", "p_good", "unreadable", "abstained"]
    assert [(row["label"], row["unreadable"], row["abstained"]) for row in rows] == [
        ("", "false", "true"),
        ("bad", "false", "false"),
        ("", "true", "false"),
    ]
    assert cli("calibrate", "--run", run).exit_code == 0
    result = cli(*command, "--abstain-share", "0.34")
    assert "not calibrated" not in result.stderr
    assert "1 answers unreadable, 0 held back" in " ".join(result.stderr.split())  # the unreadable one is the third
    assert float(next(csv.DictReader((tmp_path / "out.csv").open()))["p_good"]) == pytest.approx(7 / 8, abs=0.02)


def test_predict_answers_what_costs_least(tmp_path):
    run = run_of(tmp_path, "calibration.rows=60")
    new, costs = tmp_path / "new.csv", tmp_path / "costs.csv"
    new.write_text("text\ngood film\nbad film\n")
    costs.write_text("gold,good,bad,abstain\ngood,0,1,0.5\nbad,100,0,0.5\n")
    command = ["predict", "--run", run, "--input", new, "--costs", costs]
    for suffix in ("parquet", "jsonl"):
        result = cli(*command, "--out", tmp_path / f"out.{suffix}")
        assert "1 held back, expected cost" in " ".join(result.stderr.split()), result.output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["label"], row["abstained"]) for row in rows] == [(None, True), ("bad", False)]
    _, read = adjudge.tasks.read_table(tmp_path / "out.parquet")
    assert [row["abstained"] for row in read] == ["true", "false"]


def test_mistakes_on_the_command_line(tmp_path):
    run = run_of(tmp_path, "data.train_rows=40")
    new = write_reviews(tmp_path / "new.csv", 4)
    predict = ["predict", "--run", run, "--input", new, "--out", tmp_path / "out.csv"]
    for arguments, message in (
        ([*predict, "--min-confidence", "goood=0.9"], "no label 'goood'"),
        ([*predict, "--min-confidence", "0.9", "--abstain-share", "0.1"], "give one of them"),
        ([*predict, "--costs", tmp_path / "none.csv"], "none.csv: there is no such file"),
        (["calibrate", "--run", run, "--text", "a"], "name the file with --data"),
        (["calibrate", "--run", run, "--data", new, "--rows", "5"], "leave --rows out"),
        (["calibrate", "--run", tmp_path], "is no run folder"),
        (["calibrate", "--run", run, "lora.r=8"], "lora.r stays as it is"),
    ):
        result = cli(*arguments)
        assert result.exit_code == 2 and message in " ".join(result.stderr.split()), result.output
    assert not (tmp_path / "out.csv").exists()


def test_a_damaged_record_is_an_error(tmp_path):
    run = run_of(tmp_path, "calibration.rows=60")
    (run / "calibration.json").write_text('{"tasks": {"reviews": {"temperature": 0}}}')
    result = cli("predict", "--run", run, "--input", tmp_path / "reviews.csv", "--out", tmp_path / "out.csv")
    assert result.exit_code == 2 and "holds no temperatures" in " ".join(result.stderr.split())
