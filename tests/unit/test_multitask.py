"""Test runs of one adapter for several tasks.

The tests cover the rows, the folders, another evaluation, and the comparison with single runs.
"""

import re

import pytest
from fake_method import MIXED, by_first_word, install, write_reviews
from running import logged

from adjudge.config import load_config
from adjudge.errors import ConfigError, ModelError, RunError
from adjudge.experiments.compare import compare
from adjudge.experiments.evaluate import evaluate_run, evaluate_tasks, load_judge
from adjudge.experiments.execute import execute
from adjudge.experiments.pick_run import pick_run
from adjudge.methods.registry import METHODS, parse_name
from adjudge.methods.settings import own_settings
from adjudge.report.collect import collect
from adjudge.report.html import render_report
from adjudge.report.suites import suite_scores
from adjudge.runs.folder import Run, read_json
from adjudge.runs.tasks import joint_name, pick_task, read_tasks, result_folders, write_tasks
from adjudge.submission.submit import plan
from adjudge.tasks import infer_task, load_split, load_task, take_rows


def right(example):
    """The gold answer, and 1 where the gold answer is a number other than 0."""
    return min(example.gold, 1.0) if isinstance(example.gold, float) else example.gold


@pytest.fixture
def tasks(tmp_path):
    """Two label tasks with labels of their own and a number task; 32, 64 and 16 training rows."""
    reviews = infer_task(write_reviews(tmp_path / "reviews.csv", 40), ["text"], "label")
    lines = [
        "text,label",
        *(f"{'ball' if number % 2 else 'vote'} {number},{'sport' if number % 2 else 'news'}" for number in range(80)),
    ]
    (tmp_path / "topics.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "stars.csv").write_text(
        "text,label\n" + "".join(f"stars {number},{number % 12 / 2}\n" for number in range(20))
    )
    topics = infer_task(tmp_path / "topics.csv", ["text"], "label")
    stars = infer_task(tmp_path / "stars.csv", ["text"], "label")
    assert [len(load_split(spec, "train")) for spec in (reviews, topics, stars)] == [32, 64, 16]
    assert (topics.words, stars.is_number) == (("news", "sport"), True)
    return [reviews.model_copy(update={"name": "own/reviews"}), topics, stars]


@pytest.fixture
def built(monkeypatch):
    MIXED.clear()
    return {"sft": install(monkeypatch, "sft", by_first_word), "ppo": install(monkeypatch, "ppo", right)}


def settings(*overrides):
    return load_config(overrides=["evaluation.resamples=100", *overrides])


def drawn():
    """Of the last mixture: task to ids."""
    return dict(MIXED[-1])


def ids(spec, count, seed=0):
    return [row.id for row in take_rows(load_split(spec, "train"), count, seed)]


def test_a_mixture_leaves_a_result_for_each_task_and_their_mean(tasks, built, tmp_path):
    scores = execute(settings("method=ppo", "data.train_rows=56"), tasks, tmp_path / "r")
    run = Run.open(tmp_path / "r")
    assert (run.state, run.config.method, run.config.task) == ("complete", "ppo", "own/reviews,topics,stars")
    assert read_tasks(tmp_path / "r") == tasks
    assert result_folders(tmp_path / "r") == [
        tmp_path / "r/tasks" / name for name in ("own-reviews", "topics", "stars")
    ]
    parts = [Run.open(folder) for folder in result_folders(tmp_path / "r")]
    assert [part.config.task for part in parts] == ["own/reviews", "topics", "stars"]
    assert [part.state for part in parts] == ["complete"] * 3
    assert [len(part.predictions("dev")) for part in parts] == [8, 16, 4]
    assert [part.scores()["primary"] for part in parts] == ["accuracy", "accuracy", "pearson"]
    values = [part.scores()["metrics"][part.scores()["primary"]]["value"] for part in parts]
    assert values[:2] == [1.0, 1.0]
    assert values[2] < 1
    assert scores == run.scores()
    assert (scores["primary"], scores["n"], scores["train_rows"]) == ("mean_primary", 28, 56)
    assert scores["metrics"]["mean_primary"]["value"] == pytest.approx(sum(values) / 3)
    assert {name: part["task_rows"] for name, part in scores["tasks"].items()} == {
        "own/reviews": 16,
        "topics": 32,
        "stars": 8,
    }
    assert [part.scores()["train_rows"] for part in parts] == [56] * 3
    assert [part.scores()["method"] for part in parts] == ["multi-ppo"] * 3
    assert len(built["ppo"]) == 1


@pytest.mark.parametrize(
    ("overrides", "counts"),
    [
        (["data.train_rows=56"], [16, 32, 8]),  # proportional
        (["data.train_rows=30", "data.mixture=equal"], [10, 10, 10]),
        (["data.train_rows=90", "data.mixture=equal"], [32, 42, 16]),  # two have no more
        (["data.mixture=equal"], [16, 16, 16]),
        ([], [32, 64, 16]),
        (["data.train_rows=1000"], [32, 64, 16]),
    ],
)
def test_the_rows_are_shared_and_drawn_as_a_single_run_draws_them(overrides, counts, tasks, built, tmp_path):
    execute(settings("method=sft", "seed=3", *overrides), tasks, tmp_path / "r")
    assert drawn() == {spec.name: ids(spec, count, seed=3) for spec, count in zip(tasks, counts, strict=True)}


def test_a_task_without_a_row_is_refused_before_there_is_a_folder(tasks, built, tmp_path):
    with pytest.raises(ConfigError, match=r"stars would get no row of the 3 .*--mixture equal"):
        execute(settings("method=sft", "data.train_rows=3"), tasks, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_what_cannot_be_mixed_is_refused(tasks, built, tmp_path):
    for config, specs, message in [
        ("encoder", tasks, "encoder takes one task.*sft, ppo"),
        ("few-shot", tasks, "few-shot takes one task"),
        ("sft", [tasks[0], tasks[0]], "the same name"),
        ("sft", [tasks[0], tasks[0].model_copy(update={"name": "own-reviews"})], "the same name"),
        ("multi-sft", tasks[:1], "several tasks.*or use sft"),
    ]:
        with pytest.raises(ConfigError, match=message):
            execute(settings(f"method={config}"), specs, tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_one_task_is_a_plain_run(tasks, built, tmp_path):
    one = execute(settings("method=sft"), tasks[0], tmp_path / "a")
    other = execute(settings("method=sft"), tasks[0], tmp_path / "b")
    timed = {"seconds", "prompts_per_s", "peak_rss_gib", "train_prompts_per_s"}
    assert {key: value for key, value in one.items() if key not in timed} == {
        key: value for key, value in other.items() if key not in timed
    }
    names = [
        sorted(path.relative_to(tmp_path / run).as_posix() for path in (tmp_path / run).rglob("*")) for run in "ab"
    ]
    assert names[0] == names[1]
    assert not {"tasks", "tasks.yaml"} & set(names[0])
    assert (tmp_path / "a/config.yaml").read_text() == (tmp_path / "b/config.yaml").read_text()
    assert MIXED == []


def test_judged_rows_that_any_task_trains_on_are_counted(tasks, built, tmp_path, capsys):
    """The dev rows of one task are training rows of another here, as WSC's and WNLI's sentences could be."""
    (tmp_path / "train.csv").write_text(
        "text,label\n" + "".join(f"a film {number},{'good' if number % 2 else 'bad'}\n" for number in range(6))
    )
    dev = load_split(tasks[1], "train")[:3]
    (tmp_path / "dev.csv").write_text(
        "text,label\n" + "".join(f"{row.fields['text'].upper()},good\n" for row in dev) + "b,bad\n"
    )
    other = infer_task(tmp_path / "train.csv", ["text"], "label", dev=tmp_path / "dev.csv")
    scores = execute(settings("method=ppo"), [tasks[1], other], tmp_path / "r")
    assert {name: part["overlap"] for name, part in scores["tasks"].items()} == {"topics": 0, "train": 3}
    assert scores["overlap"] == 3
    assert "train: 3 (75.0 %) of the 4 judged rows are among the training rows" in capsys.readouterr().err
    execute(settings("method=ppo", "data.drop_overlap=true"), [tasks[1], other], tmp_path / "dropped")
    assert [len(rows) for rows in drawn().values()] == [61, 6]
    assert Run.open(tmp_path / "dropped").scores()["overlap"] == 0


def test_a_mixture_is_not_replaced_unasked_and_replaced_whole(tasks, built, tmp_path):
    execute(settings("method=sft"), tasks, tmp_path / "r")
    with pytest.raises(RunError, match="complete"):
        execute(settings("method=sft"), tasks, tmp_path / "r")
    with pytest.raises(RunError, match="another configuration"):
        execute(settings("method=sft", "data.mixture=equal"), tasks, tmp_path / "r")
    execute(settings("method=sft"), tasks[:2], tmp_path / "r", force=True)
    assert sorted(path.name for path in (tmp_path / "r/tasks").iterdir()) == ["own-reviews", "topics"]
    execute(settings("method=sft"), tasks[2], tmp_path / "r", force=True)
    assert not (tmp_path / "r/tasks").exists()
    assert not (tmp_path / "r/tasks.yaml").exists()


def test_evaluating_a_mixture_as_it_was_rewrites_its_own_results(tasks, built, tmp_path):
    first = execute(settings("method=ppo"), tasks, tmp_path / "r")
    for folder in result_folders(tmp_path / "r"):
        (folder / "scores.json").unlink()
    ((folder, again),) = evaluate_tasks(tmp_path / "r")
    assert folder == tmp_path / "r"
    assert again["tasks"] == first["tasks"]
    assert again["seconds"]["train"] == first["seconds"]["train"]
    assert len(built["ppo"]) == 1
    assert not (tmp_path / "r/evaluations").exists()


def test_one_of_its_tasks_is_evaluated_by_name(tasks, built, tmp_path):
    first = execute(settings("method=ppo"), tasks, tmp_path / "r")
    before = (tmp_path / "r/tasks/topics/scores.json").read_bytes()
    ((folder, scores),) = evaluate_tasks(tmp_path / "r", spec=tasks[0])
    assert folder == tmp_path / "r/tasks/own-reviews"
    assert scores["rows_sha256"] == first["rows_sha256"]
    assert (tmp_path / "r/tasks/topics/scores.json").read_bytes() == before
    assert Run.open(tmp_path / "r").scores()["tasks"] == first["tasks"]


@pytest.mark.parametrize("change", [{"decode": "labels"}, {"eval_rows": 3}, {"split": "train"}])
def test_another_evaluation_of_all_its_tasks_leaves_its_own_results_alone(change, tasks, built, tmp_path):
    execute(settings("method=ppo"), tasks, tmp_path / "r")
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*.json*")}
    results = evaluate_tasks(tmp_path / "r", **change)
    assert [scores["task"] for _, scores in results] == [spec.name for spec in tasks]
    assert all(folder.parent == tmp_path / "r/evaluations" for folder, _ in results)
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_is_evaluated_on_a_task_with_other_answers(tasks, built, tmp_path):
    """An adapter of RTE, asked about AX: its answers are those the other task asks for, or unreadable."""
    for name, specs in (("one", tasks[:1]), ("several", tasks[:2])):
        execute(settings("method=ppo"), specs, tmp_path / name)
        before = {path: path.read_bytes() for path in (tmp_path / name).rglob("*") if path.is_file()}
        ((folder, scores),) = evaluate_tasks(tmp_path / name, spec=tasks[2])
        assert folder == tmp_path / name / "evaluations/stars-dev-greedy"
        assert scores["trained_on"] == ",".join(spec.name for spec in specs)
        assert (scores["task"], scores["primary"], scores["n"]) == ("stars", "pearson", 4)
        assert {path: path.read_bytes() for path in before} == before
    execute(settings("method=sft"), tasks[:1], tmp_path / "lost")
    ((_, scores),) = evaluate_tasks(tmp_path / "lost", spec=tasks[1])
    assert scores["unreadable"] == scores["n"] == 16


def test_several_results_have_no_one_folder(tasks, built, tmp_path):
    execute(settings("method=ppo"), tasks, tmp_path / "r")
    with pytest.raises(ConfigError, match="name the task with --task"):
        evaluate_tasks(tmp_path / "r", split="train", out=tmp_path / "o")
    ((folder, _),) = evaluate_tasks(tmp_path / "r", spec=tasks[1], split="train", out=tmp_path / "o")
    assert folder == tmp_path / "o"


def test_which_task_has_to_be_said(tasks, built, tmp_path):
    execute(settings("method=ppo"), tasks, tmp_path / "r")
    for use in (load_judge, evaluate_run):
        with pytest.raises(RunError, match=r"several tasks.*--task.*own/reviews, topics, stars"):
            use(tmp_path / "r")
    with pytest.raises(RunError, match=r"not trained on topic\. There is: own/reviews"):
        pick_task(tmp_path / "r", "topic")
    _, spec, judge = load_judge(tmp_path / "r", spec=pick_task(tmp_path / "r", "topics"))
    assert spec == tasks[1]
    assert [p.value for p in judge.judge(load_split(spec, "dev")[:2])] == [
        row.gold for row in load_split(spec, "dev")[:2]
    ]


def test_an_evaluation_that_was_stopped_is_done_later(tasks, monkeypatch, tmp_path):
    seen = []

    def answer(example):
        seen.append(example.id)
        if len(seen) == 12:  # in the second task
            raise KeyboardInterrupt
        return right(example)

    install(monkeypatch, "sft", answer)
    with pytest.raises(KeyboardInterrupt) as caught:
        execute(settings("method=sft"), tasks, tmp_path / "r")
    assert caught.value.args == (str(tmp_path / "r"),)
    assert Run.open(tmp_path / "r").state == "interrupted"
    assert collect([tmp_path / "r"]).runs[0].state == "interrupted"
    ((_, scores),) = evaluate_tasks(tmp_path / "r")
    assert scores["n"] == 28
    assert Run.open(tmp_path / "r").state == "complete"


def test_the_report_of_a_mixture_shows_each_task_with_its_part_of_the_curve(tasks, built, tmp_path):
    execute(settings("method=ppo", "data.train_rows=56"), tasks, tmp_path / "r")
    found = collect([tmp_path / "r"])
    assert sorted(found.tasks) == ["own/reviews", "stars", "topics"]
    assert {run.task: [record["rows"] for record in run.metrics] for run in found.runs} == {
        "own/reviews": [16],
        "topics": [32],
        "stars": [8],
    }
    page = render_report([tmp_path / "r"], tmp_path / "report.html").read_text()
    assert page.count('<section id="task-') >= 3


def twins(tasks, methods, out, *overrides, seeds=(0,), **options):
    return compare(settings(*overrides), tasks, methods, seeds, out, runner=execute, **options)


def test_a_mixture_beside_its_single_task_twins_with_the_same_rows(tasks, built, tmp_path):
    """At 20 rows a task the twins have 20, 20 and 16: the mixture has these 56, each once."""
    table = twins(tasks, ["sft", "multi-sft"], tmp_path / "out", "data.train_rows=20")
    assert drawn() == {spec.name: ids(spec, count) for spec, count in zip(tasks, (20, 20, 16), strict=True)}
    assert [(row["task"], row["method"]) for row in table["rows"]] == [
        (spec.name, method) for spec in tasks for method in ("sft", "multi-sft")
    ]
    assert [row["train_rows"] for row in table["rows"]] == [20, 56, 20, 56, 16, 56]
    assert table["rows"][1]["run"] == "multi-task/multi-sft/seed-0/tasks/own-reviews"
    assert [(test["task"], test["a"], test["b"]) for test in table["tests"]] == [
        (spec.name, "sft", "multi-sft") for spec in tasks
    ]
    assert [(entry["task"], entry["method"]) for entry in table["summary"]] == [
        (row["task"], row["method"]) for row in table["rows"]
    ]
    assert (table["failed"], table["unfinished"]) == ([], 0)
    assert len(re.findall(r"^\| \S+ +\| multi-sft ", (tmp_path / "out/table.md").read_text(), re.MULTILINE)) == 3
    page = (tmp_path / "out/report.html").read_text()
    assert "multi-sft" in page
    assert "own/reviews,topics" not in page.partition("Provenance")[0]


def test_without_a_number_of_rows_the_mixture_has_all_of_its_twins(tasks, built, tmp_path):
    twins(tasks, ["multi-ppo"], tmp_path / "out")
    assert drawn() == {spec.name: ids(spec, count) for spec, count in zip(tasks, (32, 64, 16), strict=True)}


def test_another_mixture_keeps_the_budget(tasks, built, tmp_path):
    table = twins(
        tasks, ["multi-sft"], tmp_path / "out", "data.train_rows=20", "data.mixture=proportional", seeds=(0, 1)
    )
    assert [len(rows) for rows in drawn().values()] == [16, 32, 8]
    assert {row["train_rows"] for row in table["rows"]} == {56}
    assert MIXED[0] != MIXED[1]


def test_finished_mixtures_are_reused_until_something_changes(tasks, built, tmp_path):
    first = twins(tasks, ["sft", "multi-sft"], tmp_path / "out")
    again = twins(tasks, ["sft", "multi-sft", "multi-ppo"], tmp_path / "out")
    assert (len(built["sft"]), len(built["ppo"])) == (4, 1)
    assert [row for row in again["rows"] if row["method"] != "multi-ppo"] == first["rows"]
    with pytest.raises(RunError, match=r"data\.mixture equal → proportional"):
        twins(tasks, ["multi-sft"], tmp_path / "out", "data.mixture=proportional")
    changed = [tasks[0], tasks[1].model_copy(update={"instruction": "Other words."}), tasks[2]]
    with pytest.raises(RunError, match="another version of the task"):
        twins(changed, ["multi-sft"], tmp_path / "out")
    write_reviews(tmp_path / "reviews.csv", 44)
    with pytest.raises(RunError, match=r"data\.train_rows 112 → |other rows"):
        twins(tasks, ["multi-sft"], tmp_path / "out")
    twins(tasks, ["multi-sft"], tmp_path / "out", force=True)
    assert len(built["sft"]) == 5


def test_a_mixture_that_fails_is_listed_once_and_the_others_go_on(tasks, built, monkeypatch, tmp_path):
    def fail(_run):
        raise ModelError("no")

    install(monkeypatch, "ppo", right, before=fail)
    table = twins(tasks[:2], ["sft", "multi-ppo"], tmp_path / "out")
    (failure,) = table["failed"]
    assert (failure["task"], failure["method"], failure["reason"]) == ("own/reviews,topics", "multi-ppo", "no")
    assert [row["method"] for row in table["rows"]] == ["sft", "sft"]


def test_a_mixture_of_one_task_is_none(tasks, built, tmp_path):
    with pytest.raises(ConfigError, match="several tasks"):
        twins(tasks[:1], ["multi-sft"], tmp_path / "out")


def test_names_of_methods_on_several_tasks():
    assert parse_name("multi-sft") == (METHODS["sft"], True)
    assert parse_name("sft") == (METHODS["sft"], False)
    for wrong, near in (("multi-sfd", "multi-sft"), ("multi-encoder", "encoder"), ("multi-", "multi-")):
        with pytest.raises(ConfigError, match=near):
            parse_name(wrong)


def test_the_mixture_is_no_setting_of_a_run_over_one_task():
    for method, tasks, kept in (("sft", 1, None), ("zero-shot", 1, None), ("sft", 2, "equal")):
        assert own_settings(settings(f"method={method}", "data.mixture=equal"), tasks).data.mixture == kept


def test_the_folder_of_many_tasks_has_a_short_name():
    assert joint_name(["glue/cola", "mine"]) == "glue-cola-mine"
    many = [f"superglue/task-number-{number}" for number in range(12)]
    assert re.fullmatch(r"12-tasks-[0-9a-f]{8}", joint_name(many))
    assert joint_name(many) != joint_name(many[::-1])


def test_records_say_what_was_drawn(tasks, built, tmp_path):
    execute(settings("method=sft", "data.train_rows=56"), tasks, tmp_path / "r")
    training = read_json(tmp_path / "r/training.json")
    assert (training["tasks"]["stars"]["task_rows"], training["tasks"]["stars"]["overlap"]) == (8, 0)
    assert training["train_rows"] == 56
    assert [record["task"] for record in logged(Run.open(tmp_path / "r"))] == ["own/reviews", "topics", "stars"]


def test_a_submission_takes_all_tasks_of_a_run_over_several(tmp_path):
    tasks = [load_task("glue/rte"), load_task("glue/mnli")]
    for name, specs in (("several", tasks), ("again", tasks[:1])):
        write_tasks(Run.create(tmp_path / name, settings("method=multi-sft")), specs)
    parts = plan([tmp_path / "several"], partial=True)
    assert [(part.spec.name, part.run.folder.name) for part in parts] == [
        (name, "several") for name in ("glue/mnli", "glue/mnli-mm", "glue/rte", "glue/ax")
    ]
    with pytest.raises(RunError, match="both runs of glue/rte"):
        plan([tmp_path / "several", tmp_path / "again"], partial=True)


def test_the_averages_say_that_a_mixture_failed():
    row = {"primary": "accuracy", "metrics": {"accuracy": {"value": 0.5}}, "method": "sft", "n": 4}
    rows = [{**row, "task": "glue/sst2"}, {**row, "task": "glue/rte"}]
    failed = [{"task": "glue/sst2,glue/rte", "method": "multi-sft", "seed": 0, "run": "multi-task/multi-sft/seed-0"}]
    ((_, mixture),) = suite_scores({"rows": rows, "failed": failed})
    assert mixture.method == "multi-sft"
    assert {"glue/sst2 (failed)", "glue/rte (failed)"} <= set(mixture.missing)


def test_a_comparison_that_a_mixture_wins_judges_with_it(tasks, built, tmp_path):
    compare(settings("data.eval_rows=8"), tasks[:2], ["multi-ppo"], [0], tmp_path / "out", runner=execute)
    with pytest.raises(RunError, match="several tasks"):
        pick_run(tmp_path / "out")
    folder = pick_run(tmp_path / "out", "topics")
    assert (folder / "tasks.yaml").is_file() and load_judge(folder, spec=pick_task(folder, "topics"))[1] == tasks[1]
