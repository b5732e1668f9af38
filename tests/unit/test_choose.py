"""Test the experiments of `benchmarks.choose`: their tables of rows, decision rules, and report."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from adjudge.config import load_config  # noqa: E402
from adjudge.tasks import load_split  # noqa: E402
from adjudge.types import Prediction  # noqa: E402
from benchmarks.choose import run  # noqa: E402
from benchmarks.choose.plans import PLANS, Arm  # noqa: E402
from benchmarks.choose.report import cost, decided, report  # noqa: E402
from benchmarks.choose.tables import TABLES, generating, make_table  # noqa: E402

ROWS = 400


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an SST-2 of 400 training rows and 20 dev rows, in the official layout."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "glue" / "SST-2").mkdir(parents=True)
    for split, rows in (("train", ROWS), ("dev", 20)):
        lines = [f"{split} sentence {row} is {'good' if row % 2 else 'bad'}\t{row % 2}" for row in range(rows)]
        (folder / "glue" / "SST-2" / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return folder


def rows_of(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["sentence"], row["sentiment"]) for row in csv.DictReader(file)]


def right(rows: list[tuple[str, str]]) -> float:
    return sum(("good" in text) == (label == "Positive") for text, label in rows) / len(rows)


def test_noise_flips_training_labels_only(data_dir: Path, tmp_path: Path) -> None:
    make_table("noisy-40", data_dir, tmp_path)
    train, dev = rows_of(tmp_path / "noisy-40.csv"), rows_of(tmp_path / "noisy-40-dev.csv")
    assert len(train) == ROWS and right(train) == pytest.approx(0.6, abs=0.08)
    assert len(dev) == 20 and right(dev) == 1


def test_a_skewed_table_is_skewed_in_both_parts(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.choose.tables.POOL", 100)
    spec = make_table("skewed", data_dir, tmp_path)
    train, dev = rows_of(tmp_path / "skewed.csv"), rows_of(tmp_path / "skewed-dev.csv")
    assert Counter(label for _, label in train) == {"Positive": 90, "Negative": 10}
    assert right(train) == right(dev) == 1 and not {text for text, _ in train} & {text for text, _ in dev}
    assert spec.primary == "macro_f1"


def test_cut_rows_to_judge_come_from_the_training_rows(data_dir: Path, tmp_path: Path) -> None:
    spec = make_table("cut:glue/sst2", data_dir, tmp_path)
    train, dev = (load_split(spec, split, data_dir) for split in ("train", "dev"))
    texts = [{next(iter(row.fields.values())) for row in part} for part in (train, dev)]
    assert len(dev) == ROWS // 4 and len(train) == ROWS - len(dev) and not texts[0] & texts[1]
    assert all(text.startswith("train") for text in texts[1])


def test_generated_rows_are_learned_and_the_same_rows_judged(data_dir: Path, tmp_path: Path) -> None:
    def planned() -> dict[str, run.Job]:
        return {job.arm.name: job for job in run.plan_jobs("generate", data_dir, tmp_path, seeds=1)}

    planned()
    tables = tmp_path / "tables"
    assert generating("random", data_dir, tables) == (
        f"adjudge generate --task glue/sst2 --data-dir {data_dir} --rows 600 --out {tables}/generated-random.csv"
        " --select random"
    )
    (tables / "generated-top.csv").write_text("sentence,label\nA good film.,Positive\nA bad film.,Negative\n")
    jobs = planned()
    assert generating("top", data_dir, tables) is None
    learned = load_split(jobs["sft, generated"].spec, "train")
    assert [(row.fields["sentence"], row.gold) for row in learned] == [
        ("A good film.", "Positive"),
        ("A bad film.", "Negative"),
    ]
    judged = [load_split(jobs[name].spec, "dev") for name in ("sft", "sft, generated")]
    assert [row.id for row in judged[0]] == [row.id for row in judged[1]] and len(judged[0]) == 20


def predictions(*likely: float) -> list[Prediction]:
    """Return rows of gold Negative, Positive, Negative, … with the probability of Negative."""
    return [
        Prediction(
            f"t:{row}",
            {},
            ("Negative", "Positive")[row % 2],
            "",
            "Negative" if p > 0.5 else "Positive",
            {"Negative": p, "Positive": 1 - p},
        )
        for row, p in enumerate(likely)
    ]


def test_costs_by_hand() -> None:
    assert [cost("Positive", "Negative"), cost("Negative", "Positive"), cost("Negative", "Negative")] == [5, 1, 0]
    assert cost("Negative", None) == 5


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        ("answer", ["Negative", "Negative", "Positive", "Positive"]),
        ("cost", ["Negative", "Positive", "Positive", "Positive"]),  # Negative only above 5/6
        ("prior", ["Negative", "Negative", "Positive", "Positive"]),  # the mean probability is 0.5
        ("oracle", ["Negative", "Positive", "Positive", "Positive"]),
    ],
)
def test_decision_rules(decision: str, expected: list[str], data_dir: Path, tmp_path: Path) -> None:
    spec = make_table("reviews", data_dir, tmp_path)
    rows = decided(Arm("a", "sft", decision=decision), spec, predictions(0.9, 0.8, 0.2, 0.1))
    assert [row.value for row in rows] == expected


def test_every_experiment_has_valid_settings(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.choose.tables.POOL", 100)
    for name, plan in PLANS.items():
        sst2_only = replace(plan, tasks=tuple(task for task in plan.tasks if task in TABLES or task == "glue/sst2"))
        run.PLANS[name] = sst2_only
        try:
            jobs = run.plan_jobs(name, data_dir, tmp_path)
        finally:
            run.PLANS[name] = plan
        assert len({job.folder for job in jobs}) == len(jobs)
        for job in jobs:
            assert load_config(values=job.values).method == job.arm.method
        assert {arm.of for arm in plan.arms if arm.of} <= {arm.name for arm in plan.arms}
        assert set(plan.against) <= {arm.name for arm in plan.arms}


def test_runs_and_their_table(data_dir: Path, tmp_path: Path, able: Path) -> None:
    settings = [
        f"model={able}",
        "data.train_rows=8",
        "data.eval_rows=8",
        "evaluation.resamples=100",
        "runtime.device=cpu",
        "sft.min_steps=0",
        "exact.min_steps=0",
    ]
    jobs = run.plan_jobs("costs", data_dir, tmp_path, settings, seeds=1)
    jobs = [job for job in jobs if job.arm.name in ("sft", "exact, costs as reward")]
    for job in jobs:
        assert "accuracy" in run._run(job)
    table = report("costs", jobs)
    assert "8 training rows, 8 judged." in table and "mean cost" in table
    lines = {line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")}
    assert {"sft", "sft, least expected cost", "sft, best threshold on these rows", "exact, costs as reward"} < lines
    assert "ppo, costs as reward" not in lines
    broken = replace(jobs[0], values={**jobs[0].values, "model": "no-such-model"}, folder=tmp_path / "broken")
    assert "There is no model 'no-such-model'" in run._run(broken)


def test_a_run_that_another_needs_comes_first(
    data_dir: Path, tmp_path: Path, able: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = Arm(
        "exact after sft", "exact", {"exact.min_steps": 0}, first=("init", Arm("before", "sft", {"sft.min_steps": 0}))
    )
    monkeypatch.setitem(PLANS, "two", replace(PLANS["own-file"], arms=(arm,), rows=8, eval_rows=8))
    settings = [f"model={able}", "evaluation.resamples=100", "runtime.device=cpu"]
    (job,) = run.plan_jobs("two", data_dir, tmp_path, settings, seeds=1)
    assert job.first is not None
    broken = replace(job, first=replace(job.first, values={**job.first.values, "model": "no-such-model"}))
    assert "not begun, since the run before it failed" in run._run(broken)
    assert "accuracy" in run._run(job)
    assert (job.first.folder / "scores.json").is_file()
