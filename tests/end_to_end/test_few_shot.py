"""Few-shot runs that weigh label words: judged, served, predicted and repeated, the answers stay the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_method import reviews

from adjudge.config import load_config
from adjudge.errors import ConfigError, RunError
from adjudge.experiments.evaluate import evaluate_run, load_judge
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.methods.prompting import showing
from adjudge.runs.folder import Run
from adjudge.ship.export import export_judge
from adjudge.ship.serving.judges import ServedJudge
from adjudge.types import Example

WEIGHED = ["prompt.prior=training-rows", "prompt.prior_rows=4", "prompt.demonstration_orders=2"]


@pytest.fixture
def run(request, tiny_llama: Path, tiny_bert: Path, tmp_path: Path, monkeypatch) -> Run:
    """A finished run with the choice of demonstrations that the test names."""
    monkeypatch.setattr(showing, "ENCODER", str(tiny_bert))
    plain = ["method=few-shot", f"model={tiny_llama}", "prompt.demonstrations=2", "evaluation.resamples=100"]
    overrides = [*plain, "runtime.dtype=float32", *WEIGHED, f"prompt.demonstration_choice={request.param}"]
    execute(load_config(overrides=overrides), reviews(tmp_path), tmp_path / "run")
    return Run.open(tmp_path / "run")


EACH = pytest.mark.parametrize("run", ["balanced", "nearest"], indirect=True)


@EACH
def test_what_was_judged_is_served_and_repeated(run: Run) -> None:
    scores, predictions = run.scores(), run.predictions("dev")
    assert (scores["decode"], scores["unreadable"]) == ("labels", 0)
    assert scores["train_rows"] == (6 if run.config.prompt.demonstration_choice == "balanced" else 32)
    rows = [Example(each.id, each.fields) for each in predictions]
    _, spec, judge = load_judge(run.folder)
    served = ServedJudge("reviews", spec, judge).answer(rows, count_tokens=True)
    assert [each.prediction.value for each in served] == [each.value for each in predictions]
    assert [each.prediction.probabilities for each in served] == [each.probabilities for each in predictions]
    tokens = [sum(len(task.renderer.prompt(row).ids) for task in judge.tasks) for row in rows]
    assert [each.prompt_tokens for each in served] == tokens
    parts = compare_runs(run.folder, rerun(run.folder))
    assert [part for part in parts if not part.equal] == []
    assert {"demonstrations", "label_priors.json", "predictions"} <= {part.name for part in parts}


@EACH
def test_what_it_cannot_do_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answers with the likeliest; a greedy answer would ignore the weights"):
        evaluate_run(run.folder, decode="greedy")
    assert run.scores()["decode"] == "labels"
    with pytest.raises(RunError, match="adapter"):
        export_judge(run.folder, "merged", tmp_path / "out")
