"""The comparison around the methods: reuse, refusal, failure, interruption, and the table."""

import subprocess
import sys

import pytest
from fake_method import by_first_word, install, reviews, write_reviews

from adjudge.config import Config, load_config
from adjudge.errors import ConfigError, DataError, ModelError, RunError
from adjudge.experiments.cells import plan_cells
from adjudge.experiments.compare import compare
from adjudge.experiments.evaluate import evaluate_run, load_judge
from adjudge.experiments.execute import execute
from adjudge.experiments.judging import score_line
from adjudge.experiments.rows import EVAL_SEED
from adjudge.runs.folder import Run, differences, read_json
from adjudge.system.files import Lock, write_json
from adjudge.tasks import infer_task, load_split, take_rows
from adjudge.tasks.spec import Source

FAST = ["evaluation.resamples=100"]


@pytest.fixture
def spec(tmp_path):
    return reviews(tmp_path)


@pytest.fixture
def built(monkeypatch):
    return {
        "zero-shot": install(monkeypatch, "zero-shot", lambda example: "good"),
        "sft": install(monkeypatch, "sft", by_first_word),
        "ppo": install(monkeypatch, "ppo", lambda example: example.gold),
    }


def run(config, spec, out, methods=("zero-shot", "sft"), seeds=(0,), **options):
    return compare(config, [spec], methods, seeds, out, runner=execute, **options)


def settings(*overrides):
    return load_config(overrides=[*FAST, *overrides])


def test_every_cell_has_a_run_folder_and_a_row(spec, built, tmp_path):
    table = run(settings(), spec, tmp_path / "out", seeds=(0, 3), command="adjudge compare …")
    places = [row["run"] for row in table["rows"]]
    assert places == [f"reviews/{method}/seed-{seed}" for method in ("zero-shot", "sft") for seed in (0, 3)]
    for row, place in zip(table["rows"], places, strict=True):
        assert {key: row[key] for key in row if key != "run"} == Run.open(tmp_path / "out" / place).scores()
        assert Run.open(tmp_path / "out" / place).state == "complete"
    assert read_json(tmp_path / "out" / "table.json") == table
    assert table["schema"] == 1
    assert table["command"] == "adjudge compare …"
    assert (table["failed"], table["unfinished"]) == ([], 0)
    assert "sft" in (tmp_path / "out" / "table.md").read_text()
    assert "<html" in (tmp_path / "out" / "report.html").read_text()


def test_scores_hold_the_contract(spec, built, tmp_path):
    row = run(settings("data.train_rows=12", "data.eval_rows=6"), spec, tmp_path / "out", methods=["sft"])["rows"][0]
    contract = (
        "schema task method model seed split n train_rows primary metrics unreadable seconds prompts_per_s peak_rss_gib"
    )
    assert set(contract.split()) <= set(row)
    assert (row["n"], row["train_rows"], row["split"], row["overlap"]) == (6, 12, "dev", 0)
    assert set(row["metrics"]["accuracy"]) == {"value", "low", "high"}
    assert {"train", "evaluate"} <= set(row["seconds"])
    assert row["prompts_per_s"] > 0
    assert 0 < row["peak_rss_gib"] < 64


@pytest.mark.parametrize(("method", "rows"), [("zero-shot", 0), ("few-shot", 5 + 3), ("sft", 12)])
def test_training_rows_are_those_the_method_learned_from(method, rows, spec, monkeypatch, tmp_path):
    install(monkeypatch, method, by_first_word)
    table = run(settings("data.train_rows=12", "prompt.prior_rows=3"), spec, tmp_path / "out", methods=[method])
    assert table["rows"][0]["train_rows"] == rows


def test_untrained_methods_spend_no_time_on_training(spec, built, tmp_path):
    by_method = {row["method"]: row for row in run(settings(), spec, tmp_path / "out")["rows"]}
    assert by_method["zero-shot"]["seconds"]["train"] == 0
    assert "train_prompts_per_s" not in by_method["zero-shot"]
    assert by_method["sft"]["train_prompts_per_s"] > 0


def test_all_methods_and_seeds_judge_the_same_rows(spec, built, tmp_path):
    run(settings("data.eval_rows=5"), spec, tmp_path / "out", seeds=(0, 1, 2))
    ids = {
        tuple(p.id for p in Run.open(path.parent).predictions("dev"))
        for path in (tmp_path / "out").rglob("scores.json")
    }
    assert ids == {tuple(row.id for row in take_rows(load_split(spec, "dev"), 5, EVAL_SEED))}


def test_the_summary_is_the_mean_over_seeds(spec, monkeypatch, tmp_path):
    right_in = {0: 1.0, 1: 0.0}

    def remember(run):
        seed_of["now"] = run.config.seed

    seed_of = {"now": 0}
    other = {"good": "bad", "bad": "good"}
    install(monkeypatch, "sft", lambda e: e.gold if right_in[seed_of["now"]] else other[e.gold], before=remember)
    table = run(settings(), spec, tmp_path / "out", methods=["sft"], seeds=(0, 1))
    assert [row["metrics"]["accuracy"]["value"] for row in table["rows"]] == [1.0, 0.0]
    summary = table["summary"][0]
    assert summary["seeds"] == [0, 1]
    assert summary["metrics"]["accuracy"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert summary["peak_rss_gib"] == max(row["peak_rss_gib"] for row in table["rows"])


def test_each_pair_of_methods_is_tested_once(spec, built, tmp_path):
    table = run(settings(), spec, tmp_path / "out", methods=("zero-shot", "sft", "ppo"))
    pairs = [(test["a"], test["b"]) for test in table["tests"]]
    assert pairs == [("zero-shot", "sft"), ("zero-shot", "ppo"), ("sft", "ppo")]
    assert all(set(test) >= {"task", "metric", "difference", "p", "p_holm", "test"} for test in table["tests"])
    assert all(test["p"] <= test["p_holm"] <= 1 for test in table["tests"])


def test_finished_cells_are_reused_and_named(spec, built, tmp_path, capsys):
    first = run(settings(), spec, tmp_path / "out")
    capsys.readouterr()
    second = run(settings(), spec, tmp_path / "out", seeds=(0, 1))
    assert len(built["sft"]) == 2
    said = capsys.readouterr().err
    assert f"reusing {tmp_path / 'out' / 'reviews' / 'sft' / 'seed-0'}" in said
    assert [row for row in second["rows"] if row["seed"] == 0] == first["rows"]


@pytest.mark.parametrize("state", ["interrupted", "failed", "running"])
def test_unfinished_cells_are_run_again(state, spec, built, tmp_path):
    run(settings(), spec, tmp_path / "out", methods=["sft"])
    folder = tmp_path / "out/reviews/sft/seed-0"
    Run.open(folder).set_state(state)
    run(settings(), spec, tmp_path / "out", methods=["sft"])
    assert len(built["sft"]) == 1, "its training was complete: only the judging is done again"
    Run.open(folder).set_state(state)
    (folder / "training.json").unlink()
    table = run(settings(), spec, tmp_path / "out", methods=["sft"])
    assert len(built["sft"]) == 2
    assert len(table["rows"]) == 1


def test_a_cell_of_other_settings_is_refused_before_anything_runs(spec, built, tmp_path):
    run(settings(), spec, tmp_path / "out", methods=["sft"])
    with pytest.raises(RunError, match=r"sft\.epochs 2 → 3.*--force"):
        run(settings("sft.epochs=3"), spec, tmp_path / "out", methods=("ppo", "sft"))
    assert not built["ppo"]
    table = run(settings("sft.epochs=3"), spec, tmp_path / "out", methods=["sft"], force=True)
    assert len(built["sft"]) == 2
    assert len(table["rows"]) == 1


def test_force_replaces_only_what_differs(spec, built, tmp_path):
    run(settings(), spec, tmp_path / "out", methods=("sft", "ppo"))
    run(settings("sft.epochs=3"), spec, tmp_path / "out", methods=("sft", "ppo"), force=True)
    assert (len(built["sft"]), len(built["ppo"])) == (2, 1)


def test_force_replaces_a_run_that_cannot_go_on(spec, built, tmp_path):
    run(settings(), spec, tmp_path / "out", methods=["sft"])
    folder = tmp_path / "out/reviews/sft/seed-0"
    Run.open(folder).set_state("interrupted")
    (folder / "training.json").unlink()
    (folder / "checkpoints/step-00000001").mkdir(parents=True)
    (folder / "checkpoints/step-00000001/state.json").write_text("{")
    table = run(settings(), spec, tmp_path / "out", methods=["sft"])
    assert "with --force" in table["failed"][0]["reason"]
    assert len(run(settings(), spec, tmp_path / "out", methods=["sft"], force=True)["rows"]) == 1


def test_methods_that_a_new_command_leaves_out_of_the_table_are_named(spec, built, tmp_path, capsys):
    run(settings(), spec, tmp_path / "out", methods=("zero-shot", "sft"))
    assert "leaves out" not in capsys.readouterr().err
    run(settings(), spec, tmp_path / "out", methods=["ppo"])
    said = " ".join(capsys.readouterr().err.split())
    assert "lists zero-shot, sft, which this command leaves out" in said and "--methods zero-shot,sft,ppo" in said


def test_other_weights_of_the_model_make_another_run(spec, built, tmp_path):
    run(settings(), spec, tmp_path / "out", methods=["sft"])
    path = tmp_path / "out/reviews/sft/seed-0/environment.json"
    recorded = read_json(path)
    recorded["model"]["sha256"]["model.safetensors"] = "0" * 64
    write_json(path, recorded)
    with pytest.raises(RunError, match=r"other weights of the model \(model\.safetensors of .* changed\)"):
        run(settings(), spec, tmp_path / "out", methods=["sft"])


def test_where_the_data_lie_does_not_make_another_run(spec, built, tmp_path):
    run(settings(), spec, tmp_path / "out", methods=["sft"])
    run(settings("data.data_dir=elsewhere"), spec, tmp_path / "out", methods=["sft"])
    assert len(built["sft"]) == 1


def test_changed_rows_make_another_run(spec, built, tmp_path):
    run(settings(), spec, tmp_path / "out", methods=["sft"])
    write_reviews(tmp_path / "reviews.csv", rows=44)
    with pytest.raises(RunError, match="other rows"):
        run(settings(), spec, tmp_path / "out", methods=["sft"])


def test_a_changed_task_makes_another_run(spec, built, tmp_path):
    run(settings(), spec, tmp_path / "out", methods=["sft"])
    with pytest.raises(RunError, match="another version of the task"):
        run(settings(), spec.model_copy(update={"instruction": "Other words."}), tmp_path / "out", methods=["sft"])


def test_a_folder_of_other_files_is_refused(spec, built, tmp_path):
    (tmp_path / "out/reviews/sft/seed-0").mkdir(parents=True)
    (tmp_path / "out/reviews/sft/seed-0/mine.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(RunError, match="no run folder"):
            run(settings(), spec, tmp_path / "out", methods=["sft"], force=force)


def test_a_cell_that_fails_is_listed_and_the_others_go_on(spec, built, monkeypatch, tmp_path, capsys):
    def fail(_run):
        raise ModelError("there is no such model")

    install(monkeypatch, "zero-shot", by_first_word, before=fail)
    table = run(settings(), spec, tmp_path / "out")
    assert [row["method"] for row in table["rows"]] == ["sft"]
    assert table["failed"] == [
        {
            "task": "reviews",
            "method": "zero-shot",
            "seed": 0,
            "run": "reviews/zero-shot/seed-0",
            "reason": "there is no such model",
        }
    ]
    assert Run.open(tmp_path / "out/reviews/zero-shot/seed-0").state == "failed"
    assert "there is no such model" in capsys.readouterr().err


def test_when_every_cell_fails_there_is_still_a_table(spec, monkeypatch, tmp_path):
    def fail(_run):
        raise ModelError("no")

    install(monkeypatch, "sft", by_first_word, before=fail)
    table = run(settings(), spec, tmp_path / "out", methods=["sft"])
    assert (table["rows"], len(table["failed"])) == ([], 1)


def test_an_interrupt_loses_no_finished_cell(spec, built, monkeypatch, tmp_path):
    def stop(_run):
        raise KeyboardInterrupt

    install(monkeypatch, "ppo", by_first_word, before=stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(settings(), spec, tmp_path / "out", methods=("sft", "ppo", "zero-shot"))
    folder = tmp_path / "out/reviews/ppo/seed-0"
    assert caught.value.args == (str(folder),)
    assert Run.open(folder).state == "interrupted"
    table = read_json(tmp_path / "out/table.json")
    assert [row["method"] for row in table["rows"]] == ["sft"]
    assert table["unfinished"] == 2


@pytest.fixture
def leaking(tmp_path):
    """Twelve training rows, of which two are among the three dev rows too, one of them in other letters."""
    rows = "".join(f"{label} film {number},{label}\n" for number, label in enumerate(["good", "bad"] * 6))
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    (tmp_path / "dev.csv").write_text("text,label\nGOOD  film 0,good\nbad film 1,bad\nbad other,bad\n")
    return infer_task(tmp_path / "train.csv", ["text"], "label", dev=tmp_path / "dev.csv")


def test_judged_rows_that_were_trained_on_are_counted_and_said(leaking, built, tmp_path, capsys):
    table = run(settings(), leaking, tmp_path / "out")
    assert {row["method"]: row["overlap"] for row in table["rows"]} == {"zero-shot": 0, "sft": 2}
    training = read_json(tmp_path / "out/train/sft/seed-0/training.json")
    assert (training["overlap"], training["overlap_exact"], training["overlap_share"]) == (2, 1, 2 / 3)
    assert training["overlap_first"] == [["train.csv:2", "dev.csv:2"], ["train.csv:3", "dev.csv:3"]]
    warning = (
        "2 (66.7 %) of the 3 judged rows are among the training rows too, 1 of them letter for letter "
        "(train.csv:2 = dev.csv:2, "
    )
    assert warning in capsys.readouterr().err
    sentence = (
        "train: 2 (66.7 %) of the judged rows are among the training rows too, 1 of them letter for letter (sft): "
    )
    assert sentence in (tmp_path / "out/table.md").read_text()
    assert sentence in (tmp_path / "out/report.html").read_text()


def test_training_rows_that_are_judged_too_are_left_out_before_they_are_drawn(leaking, built, tmp_path, capsys):
    table = run(settings("data.drop_overlap=true", "data.train_rows=10", "data.eval_rows=1"), leaking, tmp_path / "out")
    assert {row["method"]: (row["overlap"], row["train_rows"]) for row in table["rows"]} == {
        "zero-shot": (0, 0),
        "sft": (0, 10),
    }
    assert (
        "2 of the 12 training rows of train are in dev too and are dropped (data.drop_overlap)."
        in capsys.readouterr().err
    )
    assert "among the training rows" not in (tmp_path / "out/table.md").read_text()
    with pytest.raises(RunError, match=r"data\.drop_overlap True → False"):
        run(settings("data.train_rows=10", "data.eval_rows=1"), leaking, tmp_path / "out")


def test_judging_the_training_rows_themselves_leaves_none_to_learn_from(leaking, built, tmp_path):
    with pytest.raises(DataError, match="All of the 12 training rows of train are in train too"):
        run(settings("data.drop_overlap=true", "data.split=train"), leaking, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_evaluation_says_nothing_of_overlap(leaking, built, tmp_path):
    run(settings(), leaking, tmp_path / "out", methods=["sft"])
    _, scores = evaluate_run(tmp_path / "out/train/sft/seed-0", eval_rows=2)
    assert {key: scores[key] for key in scores if key.startswith("overlap")} == dict.fromkeys(
        ("overlap", "overlap_exact", "overlap_share", "overlap_first")
    )


def test_a_method_that_cannot_analyse_first_is_refused_before_anything_is_run(spec, built, tmp_path):
    with pytest.raises(ConfigError, match=r"sft cannot go with prompt\.analysis=before"):
        run(settings("prompt.analysis=before"), spec, tmp_path / "out", methods=("zero-shot", "sft"))
    assert built["zero-shot"] == []


def test_nothing_to_compare_is_refused(spec, tmp_path):
    for specs, methods, seeds in [
        ([], ["sft"], [0]),
        ([spec], [], [0]),
        ([spec], ["sft"], []),
        ([spec, spec], ["sft"], [0]),
    ]:
        with pytest.raises(ConfigError):
            plan_cells(Config(), specs, methods, seeds, tmp_path)


def test_differences_are_written_out():
    assert differences(Config(), load_config(overrides=["ppo.clip=0.1"])) == ["ppo.clip 0.2 → 0.1"]
    assert differences(Config(), Config()) == []


def test_evaluating_a_run_as_it_was_rewrites_its_own_result(spec, built, tmp_path):
    first = execute(settings("method=sft"), spec, tmp_path / "r")
    (tmp_path / "r/scores.json").unlink()
    folder, scores = evaluate_run(tmp_path / "r")
    assert folder == tmp_path / "r"
    assert scores["metrics"] == first["metrics"]
    assert scores["seconds"]["train"] == first["seconds"]["train"]
    assert scores["train_rows"] == first["train_rows"]
    assert len(built["sft"]) == 1


@pytest.mark.parametrize("change", [{"decode": "labels"}, {"eval_rows": 3}, {"split": "train"}])
def test_another_evaluation_leaves_the_runs_own_result_alone(change, spec, built, tmp_path):
    execute(settings("method=sft"), spec, tmp_path / "r")
    before = (tmp_path / "r/scores.json").read_bytes()
    folder, scores = evaluate_run(tmp_path / "r", **change)
    assert folder.parent == tmp_path / "r/evaluations"
    assert (tmp_path / "r/scores.json").read_bytes() == before
    assert len(Run.open(folder).predictions(scores["split"])) == scores["n"]
    assert Run.open(folder).state == "complete"


def test_a_run_is_evaluated_on_another_task(spec, built, tmp_path):
    execute(settings("method=sft"), spec, tmp_path / "r")
    other = spec.model_copy(update={"name": "other/name"})
    folder, scores = evaluate_run(tmp_path / "r", spec=other, out=tmp_path / "elsewhere")
    assert (folder, scores["task"]) == (tmp_path / "elsewhere", "other/name")


def test_an_evaluation_never_replaces_a_run_unasked(spec, built, tmp_path):
    for name in ("r", "other"):
        execute(settings("method=sft", f"seed={len(name)}"), spec, tmp_path / name)
    for out, reason in (("r", "the run that judges"), ("other", "--force")):
        with pytest.raises(RunError, match=reason):
            evaluate_run(tmp_path / "r", split="train", out=tmp_path / out)
        assert (tmp_path / out / "scores.json").is_file()
    evaluate_run(tmp_path / "r", split="train", out=tmp_path / "other", force=True)
    assert Run.open(tmp_path / "other").scores()["split"] == "train"


def test_what_was_not_trained_to_its_end_is_not_loaded(spec, built, monkeypatch, tmp_path):
    def stop(_run):
        raise KeyboardInterrupt

    install(monkeypatch, "sft", by_first_word, before=stop)
    with pytest.raises(KeyboardInterrupt):
        execute(settings("method=sft"), spec, tmp_path / "r")
    for use in (load_judge, evaluate_run):
        with pytest.raises(RunError, match="interrupted"):
            use(tmp_path / "r")


def test_an_evaluation_can_be_done_later_when_it_was_stopped(spec, monkeypatch, tmp_path):
    calls = []

    def answer(example):
        calls.append(example.id)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return example.gold

    install(monkeypatch, "sft", answer)
    with pytest.raises(KeyboardInterrupt):
        execute(settings("method=sft"), spec, tmp_path / "r")
    assert Run.open(tmp_path / "r").state == "interrupted"
    _, scores = evaluate_run(tmp_path / "r")
    assert scores["metrics"]["accuracy"]["value"] == 1.0
    assert Run.open(tmp_path / "r").state == "complete"


def test_a_split_that_is_not_there_fails_before_a_cell_is_run(spec, built, tmp_path):
    with pytest.raises(DataError, match="no split 'tset'"):
        run(settings("data.split=tset"), spec, tmp_path / "out")
    assert not built["sft"]


def test_the_line_of_a_cell_says_metric_interval_and_seconds(spec, built, tmp_path):
    row = run(settings(), spec, tmp_path / "out", methods=["ppo"])["rows"][0]
    assert score_line(row).startswith(
        "reviews ppo seed 0: accuracy 1.000 [0.631, 1.000], 0 unreadable of 8, 0 s training"
    )


def test_the_peak_is_the_processs_own():
    code = (
        "from adjudge.system.memory import peak_rss_gib\n"
        "before = peak_rss_gib()\nheld = bytearray(100 * 2**20)\nheld[::1024] = b'x' * len(held[::1024])\n"
        "print(before, peak_rss_gib())"
    )
    held = bytearray(400 * 2**20)  # what the process that starts another one holds is not the other one's
    held[::1024] = b"x" * len(held[::1024])
    before, after = map(
        float, subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.split()
    )
    assert 0.01 < before < 0.3
    assert 0.08 < after - before < 0.12


def grouped_reviews(folder, metrics):
    """Reviews three of which make a group."""
    lines = [f"{('good', 'bad')[n % 2]} film number {n},{('good', 'bad')[n % 2]},p{n // 3}" for n in range(60)]
    (folder / "all.csv").write_text("text,label,page\n" + "\n".join(lines) + "\n")
    table = {"train": str(folder / "all.csv"), "dev": str(folder / "all.csv")}
    return reviews(folder).model_copy(update={"group": "page", "metrics": metrics, "source": Source(table=table)})


def test_whole_groups_are_judged_and_single_rows_are_trained_on(built, tmp_path):
    spec = grouped_reviews(tmp_path, ("group_exact", "accuracy"))
    table = run(settings("data.train_rows=10", "data.eval_rows=10"), spec, tmp_path / "out")
    assert [(row["n"], row["groups"], row["train_rows"]) for row in table["rows"]] == [(12, 4, 0), (12, 4, 10)]
    assert [row["metrics"]["group_exact"]["value"] for row in table["rows"]] == [0.0, 1.0]
    assert table["summary"][1]["metrics"]["group_exact"] == {
        "value": 1.0,
        "low": pytest.approx(0.3976, abs=1e-4),
        "high": 1.0,
    }
    assert [(test["metric"], test["test"]) for test in table["tests"]] == [("group_exact", "paired permutation")]


@pytest.mark.parametrize(("metrics", "wanted"), [(("accuracy",), False), (("accuracy", "record_em"), True)])
def test_probabilities_are_computed_where_a_metric_ranks_answers(metrics, wanted, built, tmp_path):
    spec = grouped_reviews(tmp_path, metrics).model_copy(update={"tags": {"candidate": "text", "answers": "answers"}})
    lines = (tmp_path / "all.csv").read_text().splitlines()
    (tmp_path / "all.csv").write_text(
        "\n".join([f"{lines[0]},answers", *(f'{line},"[""film""]"' for line in lines[1:])]) + "\n"
    )
    execute(settings("method=sft"), spec, tmp_path / "r")
    assert {bool(p.probabilities) for p in Run.open(tmp_path / "r").predictions("dev")} == {wanted}


def test_a_folder_in_which_another_comparison_works_is_refused(spec, built, tmp_path):
    lock = Lock(tmp_path / "out")
    lock.acquire()
    with pytest.raises(RunError, match="Another process is working"):
        run(settings(), spec, tmp_path / "out", methods=["sft"])
    assert built["sft"] == []
    lock.release()
    assert len(run(settings(), spec, tmp_path / "out", methods=["sft"])["rows"]) == 1
