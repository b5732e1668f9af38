"""Cross-validation: how rows are dealt into folds, and a comparison over folds."""

from collections import Counter

import pytest
from fake_method import MIXED, by_first_word, install, reviews, write_reviews

from adjudge.config import load_config
from adjudge.errors import ConfigError, ModelError, RunError
from adjudge.evaluation.score import score
from adjudge.experiments.compare import compare
from adjudge.experiments.evaluate import evaluate_run
from adjudge.experiments.execute import execute
from adjudge.experiments.pick_run import pick_run
from adjudge.experiments.rerun import compare_runs, rerun
from adjudge.experiments.rows import rows_for
from adjudge.report.collect import collect
from adjudge.report.html import render_report
from adjudge.runs.folder import Run, read_json
from adjudge.tasks import deal_folds, infer_task, load_split
from adjudge.tasks.spec import Source
from adjudge.types import Example


@pytest.fixture
def spec(tmp_path):
    return reviews(tmp_path)


@pytest.fixture
def built(monkeypatch):
    return {
        "zero-shot": install(monkeypatch, "zero-shot", lambda example: "good"),
        "sft": install(monkeypatch, "sft", by_first_word),
    }


def settings(*overrides):
    return load_config(overrides=["evaluation.resamples=100", *overrides])


def folded(spec, out, *overrides, methods=("zero-shot", "sft"), seeds=(0,), folds=4, **options):
    specs = spec if isinstance(spec, list) else [spec]
    return compare(settings(f"data.folds={folds}", *overrides), specs, methods, seeds, out, runner=execute, **options)


def rows(golds, groups=None, texts=None):
    return [
        Example(f"f.csv:{n}", {"text": texts[n] if texts else f"text {n}"}, gold, groups[n] if groups else "")
        for n, gold in enumerate(golds)
    ]


# ---- dealing


def test_every_label_is_spread_evenly(spec):
    examples = rows(["good"] * 23 + ["bad"] * 7)
    fold_of = deal_folds(spec, examples, 5, seed=0)
    assert sorted(Counter(fold_of).values()) == [6] * 5
    per_fold = Counter((fold, row.gold) for fold, row in zip(fold_of, examples, strict=True))
    assert {per_fold[fold, "bad"] for fold in range(1, 6)} == {1, 2}
    assert {per_fold[fold, "good"] for fold in range(1, 6)} == {4, 5}


def test_the_same_seed_deals_the_same_folds_and_another_seed_others(spec):
    examples = rows(["good", "bad"] * 20)
    assert deal_folds(spec, examples, 4, 0) == deal_folds(spec, list(examples), 4, 0)
    assert deal_folds(spec, examples, 4, 0) != deal_folds(spec, examples, 4, 1)


def test_rows_with_equal_texts_and_rows_of_a_group_share_a_fold(spec):
    texts = [f"text {n // 2}" if n < 20 else f"TEXT  {n // 2}" for n in range(40)]
    fold_of = deal_folds(spec, rows(["good", "good", "bad", "bad"] * 10, texts=texts), 4, 0)
    assert all(fold_of[n] == fold_of[n + 1] for n in range(0, 40, 2))
    grouped = rows(["good", "bad", "bad"] * 12, groups=[f"question {n // 3}" for n in range(36)])
    fold_of = deal_folds(spec, grouped, 4, 0)
    assert all(len(set(fold_of[n : n + 3])) == 1 for n in range(0, 36, 3))
    assert sorted(Counter(fold_of).values()) == [9] * 4


def test_large_groups_are_evened_out_by_small_ones(spec):
    sizes = [12, 9, 7, 5, 3] + [1] * 24
    groups = [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]
    fold_of = deal_folds(spec, rows(["good", "bad"] * (sum(sizes) // 2), groups=groups), 3, 0)
    assert sorted(Counter(fold_of).values()) == [20, 20, 20]


def test_numbers_are_spread_over_their_range(tmp_path):
    lines = [f"text {number},{number / 10}" for number in range(60)]
    (tmp_path / "stars.csv").write_text("text,stars\n" + "\n".join(lines) + "\n")
    spec = infer_task(tmp_path / "stars.csv", ["text"], "stars")
    fold_of = deal_folds(spec, rows([number / 10 for number in range(60)]), 3, 0)
    means = [sum(n for n in range(60) if fold_of[n] == fold) / 20 for fold in (1, 2, 3)]
    assert max(means) - min(means) < 4


@pytest.mark.parametrize(
    ("golds", "folds", "message"),
    [
        (["good"] * 20 + ["bad"] * 3, 5, r"the label 'bad' has 3 different texts, too few for 5.*--folds 3 or fewer"),
        (["good"] * 20 + ["bad"], 5, r"the label 'bad' has 1 different texts.*join it with another label"),
        (["good", "bad"], 3, r"reviews has 2 different texts, too few for 3 folds"),
    ],
)
def test_too_few_rows_are_refused_with_the_label(golds, folds, message, spec):
    with pytest.raises(ConfigError, match=message):
        deal_folds(spec, rows(golds), folds, 0)


def test_a_label_whose_rows_are_one_text_is_too_rare(spec):
    texts = [f"text {n}" for n in range(20)] + ["the same"] * 6
    with pytest.raises(ConfigError, match=r"'bad' has 1 different texts"):
        deal_folds(spec, rows(["good"] * 20 + ["bad"] * 6, texts=texts), 3, 0)


# ---- settings


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.folds=1"], r"data\.folds' = 1.*greater than or equal to 2"),
        (["data.folds=3", "data.eval_rows=5"], r"data\.folds.*--eval-rows"),
        (["data.folds=3", "data.split=test"], r"data\.folds.*--split"),
        (["data.folds=3", "data.fold=4"], r"data\.fold' = 4.*there are 3 folds"),
        (["data.fold=1"], r"data\.fold' = 1.*data\.folds=K too"),
    ],
)
def test_settings_that_contradict_folds_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        settings(*overrides)


def test_one_run_needs_the_fold_that_it_judges(spec, built, tmp_path):
    with pytest.raises(ConfigError, match=r"needs data\.fold.*compare --folds 4"):
        execute(settings("method=sft", "data.folds=4"), spec, tmp_path / "r")
    scores = execute(settings("method=sft", "data.folds=4", "data.fold=2"), spec, tmp_path / "r")
    assert (scores["folds"], scores["fold"], scores["n"], scores["train_rows"]) == (4, 2, 10, 30)


# ---- a comparison


def test_every_row_is_judged_once_per_seed_and_never_by_what_learned_from_it(spec, built, tmp_path):
    table = folded(spec, tmp_path / "out", seeds=(0, 1))
    every = {row.id for split in ("train", "dev") for row in load_split(spec, split)}
    dealt = {}
    for method in ("zero-shot", "sft"):
        for seed in (0, 1):
            judged = []
            for fold in (1, 2, 3, 4):
                run = Run.open(tmp_path / f"out/reviews/{method}/seed-{seed}-fold-{fold}")
                assert (run.config.data.folds, run.config.data.fold, run.state) == (4, fold, "complete")
                ids = [p.id for p in run.predictions("dev")]
                learned = {row.id for part in rows_for(run.config, [spec]).parts for row in part.rows}
                assert not learned & set(ids)
                assert learned | set(ids) == every or method == "zero-shot"
                assert dealt.setdefault((seed, fold), ids) == ids, "the same folds for every method"
                judged += ids
            assert len(judged) == len(every)
            assert set(judged) == every
    assert dealt[0, 1] != dealt[1, 1]
    assert [(row["method"], row["seed"]) for row in table["rows"]] == [
        (method, seed) for method in ("zero-shot", "sft") for seed in (0, 1)
    ]


def test_the_table_pools_the_folds(spec, built, tmp_path):
    table = folded(spec, tmp_path / "out")
    row = table["rows"][1]
    parts = [Run.open(tmp_path / "out" / part) for part in row["fold_runs"]]
    assert row["fold_runs"] == [f"reviews/sft/seed-0-fold-{fold}" for fold in (1, 2, 3, 4)]
    assert row["run"] == "reviews/sft/seed-0-pooled"
    predictions = [p for part in parts for p in part.predictions("dev")]
    assert Run.open(tmp_path / "out" / row["run"]).predictions("dev") == predictions
    pooled = score(spec, predictions, resamples=100)
    assert {key: row[key] for key in pooled} == pooled
    assert row["metrics"]["accuracy"]["value"] == pytest.approx(35 / 40)
    assert (row["n"], row["folds"], row["train_rows"], row["overlap"]) == (40, 4, 30, 0)
    assert row["seconds"]["train"] == pytest.approx(sum(part.scores()["seconds"]["train"] for part in parts))
    (test,) = table["tests"]
    assert (test["test"], test["difference"]) == ("mcnemar", pytest.approx(0.5 - 35 / 40))
    assert [(entry["method"], entry["n"]) for entry in table["summary"]] == [("zero-shot", 40), ("sft", 40)]
    assert "reviews: 40 rows judged, each once in 4 folds." in (tmp_path / "out/table.md").read_text()


def test_finished_folds_are_reused_and_a_stopped_one_goes_on(spec, built, tmp_path):
    first = folded(spec, tmp_path / "out", methods=["sft"])
    folder = tmp_path / "out/reviews/sft/seed-0-fold-3"
    Run.open(folder).set_state("interrupted")
    (folder / "training.json").unlink()
    second = folded(spec, tmp_path / "out", methods=["sft"])
    assert [path.name for path in built["sft"]] == [f"seed-0-fold-{fold}" for fold in (1, 2, 3, 4, 3)]
    assert second["rows"][0]["metrics"] == first["rows"][0]["metrics"]
    assert second["rows"][0]["pooled_from"] != first["rows"][0]["pooled_from"]
    with pytest.raises(RunError, match=r"data\.folds 4 → 5.*--force"):
        folded(spec, tmp_path / "out", methods=["sft"], folds=5)


def test_a_method_is_in_the_table_when_all_its_folds_are_finished(spec, built, monkeypatch, tmp_path):
    def fail(run):
        if run.config.data.fold == 2:
            raise ModelError("out of memory")

    install(monkeypatch, "sft", by_first_word, before=fail)
    table = folded(spec, tmp_path / "out")
    assert [row["method"] for row in table["rows"]] == ["zero-shot"]
    (failed,) = table["failed"]
    assert (failed["method"], failed["fold"], failed["run"]) == ("sft", 2, "reviews/sft/seed-0-fold-2")
    assert "sft (seed 0, fold 2) failed: out of memory" in (tmp_path / "out/table.md").read_text()


def test_one_fold_is_repeated_and_judged_again(spec, built, tmp_path):
    folded(spec, tmp_path / "out", methods=["sft"])
    folder = tmp_path / "out/reviews/sft/seed-0-fold-2"
    assert all(part.equal for part in compare_runs(folder, rerun(folder, tmp_path / "again")))
    before = Run.open(folder).predictions("dev")
    assert evaluate_run(folder)[0] == folder
    assert Run.open(folder).predictions("dev") == before
    for other in ({"split": "train"}, {"eval_rows": 3}):
        with pytest.raises(ConfigError, match="would draw rows it knows"):
            evaluate_run(folder, **other)
    _, scores = evaluate_run(folder, spec=spec.model_copy(update={"name": "other"}), out=tmp_path / "elsewhere")
    assert "fold" not in scores
    with pytest.raises(RunError, match="no"):
        rerun(tmp_path / "out/reviews/sft/seed-0-pooled")


def test_a_new_file_is_judged_with_the_first_fold(spec, built, tmp_path, capsys):
    folded(spec, tmp_path / "out")
    assert pick_run(tmp_path / "out") == tmp_path / "out/reviews/sft/seed-0-fold-1"
    assert "the first of 4 folds" in capsys.readouterr().err


def test_the_report_shows_pooled_answers_and_every_folds_curve(spec, built, tmp_path):
    folded(spec, tmp_path / "out", methods=["sft"])
    for without_table in (False, True):
        if without_table:
            (tmp_path / "out/table.json").unlink()
        found = collect([tmp_path / "out"])
        assert [row["n"] for row in found.table["rows"]] == [40]
        assert sorted((run.fold or 0, len(run.predictions)) for run in found.runs) == [
            (0, 40),
            *((fold, 0) for fold in (1, 2, 3, 4)),
        ]
    page = render_report([tmp_path / "out"], tmp_path / "report.html").read_text()
    assert "4 folds" in page
    assert ", seed 0, fold 3" in page
    single = collect([tmp_path / "out/reviews/sft/seed-0-fold-2"])
    assert single.methods == ("sft (fold 2)",)


def test_a_task_with_its_own_dev_rows_is_folded_over_its_training_rows(built, tmp_path, capsys):
    write_reviews(tmp_path / "train.csv", 24)
    (tmp_path / "dev.csv").write_text("text,label\ngood other,good\nbad other,bad\n")
    spec = infer_task(tmp_path / "train.csv", ["text"], "label", dev=tmp_path / "dev.csv")
    table = folded(spec, tmp_path / "out", methods=["sft"], folds=3)
    assert table["rows"][0]["n"] == 24
    assert all(
        p.id.startswith("train.csv") for p in Run.open(tmp_path / "out/train/sft/seed-0-pooled").predictions("dev")
    )
    said = capsys.readouterr().err
    assert "24 rows of train (its own dev rows are left aside) in 3 folds, each row judged once per seed" in said
    folder, scores = evaluate_run(tmp_path / "out/train/sft/seed-0-fold-1", split="dev", out=tmp_path / "dev")
    assert (folder, scores["n"], scores["split"]) == (tmp_path / "dev", 2, "dev")


def test_groups_stay_whole(built, tmp_path):
    lines = [f"{('good', 'bad')[n % 2]} film number {n},{('good', 'bad')[n % 2]},p{n // 3}" for n in range(60)]
    (tmp_path / "all.csv").write_text("text,label,page\n" + "\n".join(lines) + "\n")
    spec = reviews(tmp_path).model_copy(
        update={
            "group": "page",
            "metrics": ("group_exact", "accuracy"),
            "source": Source(table={"train": str(tmp_path / "all.csv")}),
        }
    )
    table = folded(spec, tmp_path / "out", methods=["sft"])
    assert (table["rows"][0]["n"], table["rows"][0]["groups"]) == (60, 20)
    page_of = {}
    for fold in (1, 2, 3, 4):
        for prediction in Run.open(tmp_path / f"out/reviews/sft/seed-0-fold-{fold}").predictions("dev"):
            assert page_of.setdefault(prediction.group, fold) == fold


def test_training_rows_are_drawn_from_the_other_folds(spec, built, tmp_path):
    table = folded(spec, tmp_path / "out", "data.train_rows=12", methods=["sft"])
    assert table["rows"][0]["train_rows"] == 12


def test_folds_of_a_mixture(built, tmp_path):
    MIXED.clear()
    one, other = reviews(tmp_path), infer_task(write_reviews(tmp_path / "other.csv", 24), ["text"], "label")
    table = folded([one, other], tmp_path / "out", methods=["sft", "multi-sft"], folds=3)
    assert [(row["task"], row["method"], row["n"]) for row in table["rows"]] == [
        (task, method, n) for task, n in (("reviews", 40), ("other", 24)) for method in ("sft", "multi-sft")
    ]
    assert table["rows"][1]["run"] == "multi-task/multi-sft/seed-0-pooled/tasks/reviews"
    for fold, parts in enumerate(MIXED, 1):
        for task, learned in parts:
            folder = tmp_path / f"out/multi-task/multi-sft/seed-0-fold-{fold}/tasks/{task}"
            assert not set(learned) & {p.id for p in Run.open(folder).predictions("dev")}
    assert "multi-sft" in (tmp_path / "out/report.html").read_text()


def test_folds_do_not_start_from_a_run_that_learned_their_rows(spec, built, monkeypatch, tmp_path):
    execute(settings("method=sft"), spec, tmp_path / "whole")
    with pytest.raises(ConfigError, match=r"learned from rows that data\.folds would judge"):
        folded(spec, tmp_path / "out", f"init={tmp_path / 'whole'}", methods=["sft"])
    folded(spec, tmp_path / "out", methods=["sft"])
    start = tmp_path / "out/reviews/sft/seed-0-fold-2"
    scores = execute(settings("method=sft", "data.folds=4", "data.fold=2", f"init={start}"), spec, tmp_path / "on")
    assert scores["fold"] == 2


def test_pooled_rows_count_once_in_scores_json(spec, built, tmp_path):
    folded(spec, tmp_path / "out", methods=["sft"])
    scores = read_json(tmp_path / "out/reviews/sft/seed-0-pooled/scores.json")
    assert sum(figures["gold"] for figures in scores["per_label"].values()) == 40
    assert len(scores["pooled_from"]) == 4
