"""Estimates of a dry run: what is measured, and what is made of it."""

import io
import json

import pytest
from fake_method import reviews
from rich.console import Console

from adjudge.config import load_config
from adjudge.errors import ModelError
from adjudge.experiments import dry_run
from adjudge.experiments.compare import dry_run as estimate_comparison
from adjudge.experiments.dry_run import Estimate, Planned, estimate, expected_length, planned_runs
from adjudge.experiments.execute import execute
from adjudge.report.estimates import HEAD, duration_text, estimate_lines, estimate_notes, tokens_text
from adjudge.report.terminal import text_table


@pytest.fixture(autouse=True)
def _no_fetching(monkeypatch):
    monkeypatch.setattr(dry_run, "ensure_model", lambda config: None)


@pytest.fixture
def spec(tmp_path):
    return reviews(tmp_path, rows=500)  # 400 to train on, 100 to judge


class Measured:
    """A runner: writes the logs of a run with these seconds per step, and remembers what it was asked for."""

    def __init__(self, step_s, loading_s=5.0, judging_s_per_row=0.5, **peaks):
        self.step_s, self.loading_s, self.judging_s, self.peaks = step_s, loading_s, judging_s_per_row, peaks
        self.config = None

    def __call__(self, config, specs, folder, **_):
        self.config = config
        folder.mkdir()
        for name, record in (
            ("timings.jsonl", lambda step, s: {"step": step, "seconds": s, "tokens": 160}),
            ("metrics.jsonl", lambda step, s: {"step": step, "rows": 16 * step}),
        ):
            lines = [json.dumps(record(step, s)) for step, s in enumerate(self.step_s, 1)]
            (folder / name).write_text("".join(line + "\n" for line in lines))
        judged = config.data.eval_rows
        train_s = self.loading_s + sum(s if isinstance(s, float) else sum(s.values()) for s in self.step_s)
        seconds = {"setup": 1.0, "train": train_s, "evaluate": judged * self.judging_s}
        return {"seconds": seconds, "n": judged, "peak_rss_gib": 1.5, **self.peaks}


def planned(spec, *overrides):
    return planned_runs([(load_config(overrides=overrides), [spec])])[0]


def test_a_run_takes_its_loading_its_steps_and_its_judging(spec):
    runner = Measured([9.0, 2.0, 2.0])  # the first one is slow: it is not the median
    result = estimate(planned(spec, "method=sft", "evaluation.batch_size=10"), runner)
    assert (runner.config.data.train_rows, runner.config.data.eval_rows) == (3 * 16, 3 * 10)
    assert (runner.config.sft.epochs, runner.config.sft.min_steps) == (1, 0)
    steps = 2 * 400 / 16  # two epochs
    assert result.seconds == pytest.approx(1 + 5 + steps * 2.0 + 100 * 0.5)
    assert result.train_tokens == pytest.approx(2 * 400 * 10)
    assert (result.train_rows, result.judged_rows, result.peak_rss_gib) == (400, 100, 1.5)


def test_the_steps_of_a_warm_start_are_counted_by_their_own_seconds(spec):
    sampled = {"sample": 1.0, "update": 3.0}
    runner = Measured([1.0, 1.0, 1.0, sampled, sampled, sampled])
    result = estimate(planned(spec, "method=ppo", "ppo.warm_start=0.25", "ppo.epochs=4", "data.train_rows=160"), runner)
    assert runner.config.ppo.warm_start == 0.5
    assert runner.config.data.train_rows == 6 * 16
    steps = 50  # the fewest: five passes over ten batches
    assert result.seconds == pytest.approx(1 + 5 + 12 * 1.0 + (steps - 12) * 4.0 + 100 * 0.5)


def test_validation_is_counted(spec):
    settings = ("method=sft", "checkpoint.validate_every=10", "checkpoint.validation_rows=16")
    result = estimate(planned(spec, *settings), Measured([2.0, 2.0, 2.0]))
    steps = 3 * 24  # 384 rows are left to train on; two passes would be fewer than 50 steps
    assert result.seconds == pytest.approx(1 + 5 + steps * 2.0 + 8 * 16 * 0.5 + 100 * 0.5)


def test_untrained_methods_are_judged_alone_and_floors_are_not_run(spec):
    runner = Measured([])
    result = estimate(planned(spec, "method=zero-shot"), runner)
    assert (result.seconds, result.train_tokens, result.train_rows) == (pytest.approx(1 + 5 + 50), None, 0)
    floor = estimate(planned(spec, "method=tfidf"), lambda *_, **__: pytest.fail("was run"))
    assert (floor.seconds, floor.peak_rss_gib, floor.train_rows) == (None, None, 400)
    assert estimate_lines([floor])[0][5] == "seconds"
    for longer in (["method=setfit"], ["method=linear", "linear.states=policy"]):
        long = estimate(planned(spec, *longer), lambda *_, **__: pytest.fail("was run"))
        assert estimate_lines([long])[0][5] == "not measured"


def test_a_method_that_cannot_be_measured_says_why(spec, capsys):
    def fail(*_, **__):
        raise ModelError("there is no such model")

    result = estimate(planned(spec, "method=sft"), fail)
    assert result.problem == "there is no such model"
    assert estimate_lines([result])[0][5] == "failed"
    assert estimate_notes([result])[-1] == "vader/movies sft failed: there is no such model"
    assert "cannot be measured" in capsys.readouterr().err


def test_runs_that_differ_by_seed_are_measured_once_and_nothing_is_written(spec, monkeypatch, tmp_path):
    measured = []

    def estimates(runs):
        measured.extend(runs)
        return []

    monkeypatch.setattr("adjudge.experiments.compare.estimate_all", estimates)
    estimate_comparison(load_config(), [spec], ["zero-shot", "sft"], [0, 1, 2], tmp_path / "out")
    assert [(each.method, each.runs) for each in measured] == [("zero-shot", 3), ("sft", 3)]
    assert not (tmp_path / "out").exists()


def test_a_real_model_is_measured(tiny_llama, tmp_path):
    spec = reviews(tmp_path)
    settings = ["method=ppo", f"model={tiny_llama}", "ppo.batch_size=4", "evaluation.resamples=100"]
    result = estimate(Planned(load_config(overrides=settings), (spec,)), execute)
    assert result.problem == ""
    assert result.seconds > 0
    assert result.train_tokens > 32 * 7 * 50, "seven passes over 32 prompts of more than 50 tokens"
    assert result.peak_rss_gib > 0


def test_the_table_fits_80_columns_and_is_labelled_as_an_estimate():
    long = Estimate("superglue/multirc", "multi-reinforce", 10, 27_243, 4_848, 12e6, 200_000.0, 12.5, 70.2)
    short = Estimate("glue/rte", "tfidf", 1, 100, 10)
    lines = estimate_lines([long, short])
    assert lines[0][3:] == ["12.0 M", "4,848", "2 d 7 h", "12.5 / 70.2"]
    shown = io.StringIO()
    Console(file=shown, width=80).print(text_table(HEAD, lines))
    assert max(map(len, shown.getvalue().splitlines())) <= 80
    notes = estimate_notes([long, short], jobs=2)
    assert notes[0].startswith("estimates")
    assert "--jobs 2" in notes[3]
    assert all(len(note) <= 160 for note in notes)


def test_rough_durations_and_tokens():
    assert [duration_text(s) for s in (4.2, 300, 5_990, 11_400)] == ["4 s", "5 min", "1 h 40 min", "3 h 10 min"]
    assert [tokens_text(n) for n in (None, 840, 12_345, 4.5e6, 2e9)] == ["–", "840", "12.3 k", "4.5 M", "2.0 G"]


def test_long_runs_come_before_short_ones():
    names = ["tfidf", "zero-shot", "linear", "sft", "few-shot", "ppo", "encoder", "dpo"]
    ordered = sorted(names, key=lambda name: expected_length(load_config(values={"method": name})))
    assert ordered == ["ppo", "dpo", "sft", "encoder", "zero-shot", "few-shot", "tfidf", "linear"]
