"""The HTML report, rendered from run folders which the tests write."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from adjudge.config import load_config
from adjudge.errors import RunError
from adjudge.report.certainty import certainties
from adjudge.report.collect import collect
from adjudge.report.curves import panels, recall_panel
from adjudge.report.examples import example_set, outcome
from adjudge.report.html import render_report
from adjudge.report.plots import confusion, interval_chart, scatter, ticks
from adjudge.report.sentences import headline
from adjudge.report.summary import summarise
from adjudge.runs.folder import Run, read_json
from adjudge.system.files import write_json
from adjudge.types import Prediction

HOSTILE = (
    "</script><script>alert(1)</script> <img src=x onerror=alert(2)> {{ 7*7 }} {% raw %} \u202egnp.exe \ud800 <!--"
)


def task(words=("Negative", "Positive"), number=None, name="glue/sst2", title="Film reviews") -> dict:
    return {
        "name": name,
        "title": title,
        "fields": {"sentence": "sentence"},
        "instruction": "Judge.",
        "template": "{{ sentence }}",
        "labels": {str(i): word for i, word in enumerate(words)} if words else None,
        "number": number,
        "metrics": ["accuracy"] if words else ["pearson"],
        "source": {},
    }


def write_run(
    folder: Path,
    method: str,
    predictions: list[Prediction],
    *,
    spec=None,
    seed=0,
    metrics=(),
    state="complete",
    value=0.8,
    **more,
) -> dict:
    spec = spec or task()
    run = Run.create(folder, load_config(values={"method": method, "task": spec["name"], "seed": seed}))
    (folder / "task.yaml").write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    for record in metrics:
        run.log(record)
    run.set_state(state, "" if state == "complete" else "stopped by the user")
    if state != "complete":
        return {}
    (folder / "predictions").mkdir()
    keys = ("id", "fields", "gold", "value", "text", "probabilities")
    lines = [json.dumps({key: getattr(p, key) for key in keys}) + "\n" for p in predictions]
    (folder / "predictions" / "dev.jsonl").write_text("".join(lines), encoding="utf-8")
    primary = spec["metrics"][0]
    scores = {
        "task": spec["name"],
        "method": method,
        "model": "smollm2-135m",
        "seed": seed,
        "split": "dev",
        "n": len(predictions),
        "train_rows": 100,
        "primary": primary,
        "metrics": {primary: {"value": value, "low": value - 0.1, "high": value + 0.1}},
        "unreadable": sum(p.value is None for p in predictions),
        "seconds": {"train": 1.0, "evaluate": 2.0},
        "prompts_per_s": 5.0,
        "peak_rss_gib": 1.0,
    }
    run.write_scores(scores | more)
    return scores | more


def judged(*answers: tuple[str, str | None], text="a film") -> list[Prediction]:
    return [
        Prediction(f"dev.tsv:{i}", {"sentence": f"{text} {i}"}, gold, value or "Not sure", value)
        for i, (gold, value) in enumerate(answers, 1)
    ]


def comparison(root: Path, *, tests=()) -> Path:
    rows = []
    for method, value, answers in (
        (
            "sft",
            0.75,
            (("Positive", "Positive"), ("Negative", "Positive"), ("Negative", "Negative"), ("Positive", None)),
        ),
        (
            "ppo",
            0.9,
            (("Positive", "Positive"), ("Negative", "Negative"), ("Negative", "Negative"), ("Positive", "Negative")),
        ),
    ):
        folder = root / "glue-sst2" / method / "seed-0"
        log = [
            {"step": s, "prompts": 16 * s, "reward": s / 10, "recall": {"Negative": 0.5, "Positive": None}}
            for s in range(1, 9)
        ]
        rows.append(
            write_run(folder, method, judged(*answers), value=value, metrics=log)
            | {"run": f"glue-sst2/{method}/seed-0"}
        )
    write_json(root / "table.json", {"rows": rows, "tests": list(tests), "command": "adjudge compare --task glue/sst2"})
    return root


def sure(*shares: tuple[str, float]) -> list[Prediction]:
    """Rows by gold label and the probability of Positive."""
    return [
        Prediction(
            f"dev.tsv:{i}",
            {"sentence": f"film {i}"},
            gold,
            "",
            "Positive" if p > 0.5 else "Negative",
            {"Negative": 1 - p, "Positive": p},
        )
        for i, (gold, p) in enumerate(shares, 1)
    ]


def test_reliability_and_risk_are_drawn_before_and_after_calibration(tmp_path):
    rows = sure(("Positive", 0.99), ("Negative", 0.99), ("Negative", 0.02), ("Positive", 0.6))
    figure = {"value": 0.2, "low": 0.1, "high": 0.3}
    scores = dict.fromkeys(("ece", "brier", "log_loss", "auroc"), figure)
    whole = {"rows": 4, "own": scores, "calibrated": scores, "temperature": 3.0, "ece_by_chance": 0.1}
    write_run(tmp_path / "a", "sft", rows, probabilities=whole)
    write_run(tmp_path / "b", "ppo", rows, probabilities={"rows": 4, "own": scores})
    write_run(tmp_path / "c", "zero-shot", judged(("Positive", "Positive")))
    html = render_report([tmp_path], tmp_path / "report.html").read_text()
    after, before = re.findall(r'aria-label="((?:sft|ppo): confidence against[^"]*)"', html)
    if after.startswith("ppo"):
        after, before = before, after
    assert "Its own probabilities: of the 3 surest rows, with a mean confidence of 0.987, 0.667 are right." in before
    assert "After calibration" in after and "After calibration" not in before
    assert html.count('class="hollow"') == 2  # the two bins of the calibrated method's own probabilities
    (risk,) = re.findall(r'aria-label="(Wrong answers among[^"]*)"', html)
    assert "sft 0.250 wrong of all rows" in risk and "zero-shot" not in risk
    assert "How sure it is" in html and "temperature" in html
    alone = render_report([tmp_path / "c"], tmp_path / "alone.html").read_text()
    assert "How sure it is" not in alone


class Page(HTMLParser):
    """The page as a browser sees it: text, elements, references to other places."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.scripts: dict[str, str] = {}
        self._script: str | None = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.references += [
            value for name, value in attrs if name in {"src", "href", "xlink:href", "action", "data", "srcset"}
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self._script = attributes.get("id") or "code" if tag == "script" else None

    def handle_endtag(self, tag):
        self._script = None

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def data(self) -> dict:
        return json.loads(self.scripts["data"])


def page_of(*folders: Path) -> Page:
    out = render_report(list(folders), folders[0] / "report.html")
    return Page(out.read_text(encoding="utf-8"))


TEST = {
    "task": "glue/sst2",
    "metric": "accuracy",
    "a": "sft",
    "b": "ppo",
    "difference": -0.15,
    "p": 0.1,
    "p_holm": 0.1,
    "test": "mcnemar",
}


def test_page_of_a_comparison(tmp_path):
    page = page_of(comparison(tmp_path, tests=[TEST]))
    assert "Film reviews" in page.text
    assert (
        "A tie: ppo with accuracy 0.900, and sft 0.750. "
        "No paired test tells them from the first (p ≥ 0.05 after Holm). "
        "More judged rows or seeds might: --folds 5, --seeds 0,1,2." in page.text
    )
    assert "ppo − sft on accuracy: +0.150, p = 0.10 after Holm (McNemar): not significant" in page.text
    assert "adjudge compare --task glue/sst2" in page.text
    for heading in (
        "How well each method judges",
        "Reward per answer",
        "Recall per label: ppo",
        "What was answered",
        "Provenance",
    ):
        assert heading in page.text
    assert page.tags.count("main") == 1


def suite_runs(root: Path, *tasks: str, **more) -> Path:
    for name in tasks:
        for method, value in (("sft", 0.5), ("ppo", 0.7)):
            spec = task(name=name, title=f"Title of {name}")
            write_run(
                root / name.replace("/", "-") / method / "seed-0", method, judged(), spec=spec, value=value, **more
            )
    return root


def test_a_floor_without_a_model_names_none(tmp_path):
    answers = judged(("Positive", "Positive"), ("Negative", "Negative"))
    write_run(tmp_path / "glue-sst2/sft/seed-0", "sft", answers)
    write_run(tmp_path / "glue-sst2/tfidf/seed-0", "tfidf", answers, model="")
    assert [run.model for run in collect([tmp_path]).runs] == ["smollm2-135m", ""]
    page = render_report([tmp_path], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<dt>model</dt><dd><bdi>smollm2-135m</bdi></dd>" in page


def test_suite_averages_name_their_missing_tasks(tmp_path):
    page = page_of(suite_runs(tmp_path, "glue/sst2", "glue/rte"))
    assert "SST-2 0.700 0.500 MRPC – –" in page.text
    assert re.search(r"mean of the tasks that are there 0.700 ± 0.\d+ \(2 of 9\) 0.500 ± 0.\d+ \(2 of 9\)", page.text)
    assert "ppo, sft: the mean is without glue/cola, glue/mrpc" in page.text
    assert "GLUE average" not in page.text
    assert "#suite-1" in page.references


def test_single_task_of_a_suite_has_no_average(tmp_path):
    page = page_of(suite_runs(tmp_path, "glue/sst2"))
    assert "mean of the tasks" not in page.text
    assert not any(reference.startswith("#suite") for reference in page.references)


def test_phenomena_have_one_column_per_method(tmp_path):
    figures = {
        "matthews": {"value": 0.25, "low": 0.1, "high": 0.4},
        "accuracy": {"value": 0.625, "low": 0.5, "high": 0.7},
    }
    diagnostics = [
        {"category": "Logic", "phenomenon": None, "n": 80, "metrics": figures},
        {"category": "Logic", "phenomenon": HOSTILE.replace("\ud800", ""), "n": 18, "metrics": figures},
    ]
    page = page_of(suite_runs(tmp_path, "glue/ax", diagnostics=diagnostics))
    assert "Logic, all 80 0.250 0.100 to 0.400 accuracy 0.625 0.250 0.100 to 0.400 accuracy 0.625" in page.text
    assert "18 (few) 0.250 accuracy 0.625 0.250 accuracy 0.625" in page.text
    assert "Few: fewer than 30 rows" in page.text
    assert "img" not in page.tags


def test_page_fetches_nothing(tmp_path):
    page = page_of(comparison(tmp_path))
    assert page.references
    assert all(reference.startswith("#") or reference == "data:," for reference in page.references)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    html = html.replace(load_config().api.base_url, "")  # a setting, shown as text
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html
    assert not {"iframe", "object", "embed", "img"} & set(page.tags)


def test_hostile_text_stays_text(tmp_path):
    words = ("</style><b onclick=x>", "a\"b'|&")
    predictions = [
        Prediction(HOSTILE, {"sentence": HOSTILE}, words[0], HOSTILE, None),
        Prediction("2", {"sentence": "x"}, words[1], "y", words[1]),
    ]
    name = HOSTILE.replace("\ud800", "")  # a lone surrogate cannot be written to YAML
    metrics = [{"step": 1, "recall": {words[0]: 0.5}, name: 1.0}]
    write_run(tmp_path / "run", name, predictions, spec=task(words, title=name), metrics=metrics)
    page = page_of(tmp_path / "run")
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert page.handlers == []
    row = page.data["tasks"][0]["rows"][0]
    assert row["fields"] == [HOSTILE]
    assert row["answers"][0][1] == HOSTILE
    assert page.data["tasks"][0]["words"] == list(words)
    assert "{{ 7*7 }}" in page.text
    assert "⟦U+202E⟧" in page.text
    assert "<" not in page.scripts["data"]


def test_browser_data_has_answer_and_outcome_per_method(tmp_path):
    data = page_of(comparison(tmp_path)).data["tasks"][0]
    assert data["judges"] == [{"method": "sft", "seed": 0}, {"method": "ppo", "seed": 0}]
    assert [[answer[0] for answer in row["answers"]] for row in data["rows"]] == [
        ["right", "right"],
        ["wrong", "right"],
        ["right", "right"],
        ["unreadable", "wrong"],
    ]
    assert data["rows"][3]["answers"][0] == ["unreadable", "Not sure", None, None]
    assert data["rows"][3]["gold"] == "Positive"


def test_matrix_cells_link_to_filtered_examples(tmp_path):
    page = page_of(comparison(tmp_path))
    assert "#task=glue%2Fsst2&method=sft&gold=Negative&answer=Positive" in page.references
    assert "#task=glue%2Fsst2&method=sft&gold=Positive&outcome=unreadable" in page.references


def test_unfinished_runs_are_listed(tmp_path):
    root = comparison(tmp_path)
    folder = root / "glue-sst2" / "encoder" / "seed-0"
    write_run(folder, "encoder", [], state="interrupted", metrics=[{"step": 1, "loss": 0.5}])
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write('{"step": 2, "loss": "é'.encode()[:-1])  # killed in the middle of a character
    page = page_of(root)
    assert "encoder , seed 0: interrupted : stopped by the user; not evaluated" in page.text
    assert "Loss" in page.text


@pytest.mark.parametrize("with_tasks", [True, False], ids=["stopped while training", "stopped while set up"])
def test_unfinished_run_over_several_tasks_is_listed_with_each_task(with_tasks, tmp_path):
    folder = tmp_path / "multi-task" / "multi-ppo" / "seed-0"
    specs = [task(), task(name="glue/cola")]
    run = Run.create(folder, load_config(values={"method": "ppo", "task": "glue/sst2,glue/cola"}))
    if with_tasks:
        (folder / "tasks.yaml").write_text("---\n".join(yaml.safe_dump(spec) for spec in specs), encoding="utf-8")
        run.log({"step": 1, "task": "glue/cola", "prompts": 16, "reward": 0.5})
    run.set_state("interrupted", "stopped by the user")
    found = collect([tmp_path])
    assert [(run.task, run.method, run.state) for run in found.runs] == [
        (name, "multi-ppo", "interrupted") for name in ("glue/sst2", "glue/cola")
    ]
    assert [len(run.metrics) for run in found.runs] == [0, int(with_tasks)]
    assert page_of(tmp_path).text.count("multi-ppo , seed 0: interrupted") == 2


def test_run_that_was_judged_and_not_scored_is_shown_with_its_answers(tmp_path):
    write_run(tmp_path / "r", "sft", judged(("Positive", "Negative")))
    (tmp_path / "r" / "scores.json").unlink()
    Run.open(tmp_path / "r").set_state("failed", "no space left")
    page = page_of(tmp_path / "r")
    assert "failed : no space left" in page.text
    assert page.data["tasks"][0]["rows"][0]["answers"] == [["wrong", "Negative", "Negative", None]]


def test_comparison_without_a_table(tmp_path):
    write_run(tmp_path / "glue-sst2" / "sft" / "seed-0", "sft", [], state="running")
    assert "No result yet." in page_of(tmp_path).text


def test_complete_runs_of_an_earlier_comparison_are_skipped(tmp_path):
    root = comparison(tmp_path)
    write_run(root / "glue-sst2" / "old" / "seed-0", "old", judged(("Positive", "Positive")))
    assert [run.method for run in collect([root]).runs] == ["sft", "ppo"]


def test_single_run_without_log(tmp_path):
    write_run(tmp_path / "run", "zero-shot", judged(("Positive", "Positive")), value=0.5)
    page = page_of(tmp_path / "run")
    assert "zero-shot reaches accuracy 0.500. 95 % interval 0.400 to 0.600." in page.text
    assert "Learning curves" not in page.text


def test_number_task_has_a_scatter_plot(tmp_path):
    spec = task(None, {"low": 0, "high": 5}, name="glue/stsb", title="Similarity")
    predictions = [Prediction(str(i), {"sentence": "x"}, float(i), str(i), i + 0.4 * i) for i in range(4)] + [
        Prediction("9", {"sentence": "x"}, 2.0, "two", None)
    ]
    write_run(tmp_path / "run", "sft", predictions, spec=spec)
    page = page_of(tmp_path / "run")
    assert "5 answers, 1 unreadable" in page.text
    assert "within 0.5 of the gold number" in page.text
    assert [row["answers"][0][0] for row in page.data["tasks"][0]["rows"]] == [
        "right",
        "right",
        "wrong",
        "wrong",
        "unreadable",
    ]


def test_several_tasks_have_an_overview(tmp_path):
    comparison(tmp_path / "a")
    write_run(
        tmp_path / "b", "sft", judged(("Yes", "Yes")), spec=task(("Yes", "No"), name="glue/cola", title="Acceptability")
    )
    page = page_of(tmp_path / "a", tmp_path / "b")
    assert "2 tasks compared" in page.text
    assert "Overview" in page.text
    assert [item["task"] for item in page.data["tasks"]] == ["glue/sst2", "glue/cola"]


def test_same_cell_in_two_folders_gets_two_names(tmp_path):
    for name in ("first", "second"):
        write_run(tmp_path / name, "ppo", judged(("Positive", "Positive")))
    assert collect([tmp_path / "first", tmp_path / "second"]).methods == ("ppo", "ppo (second)")
    assert collect([tmp_path / "first", tmp_path / "second/../first"]).methods == ("ppo",)


def test_folders_of_one_name_are_told_apart_and_their_rows_too(tmp_path):
    folders = [tmp_path / name / "seed-0" for name in ("a", "b", "c")]
    for folder, gold in zip(folders, ("Positive", "Negative", "Positive"), strict=True):
        write_run(folder, "sft", judged((gold, "Positive")))
    assert collect(folders).methods == ("sft", "sft (b/seed-0)", "sft (c/seed-0)")
    (shown,) = page_of(*folders).data["tasks"]
    assert [(row["gold"], [answer and answer[0] for answer in row["answers"]]) for row in shown["rows"]] == [
        ("Positive", ["right", None, "right"]),
        ("Negative", [None, "wrong", None]),
    ]


def test_a_run_that_was_calibrated_after_the_comparison_is_shown_so(tmp_path):
    comparison(tmp_path)
    folder = tmp_path / "glue-sst2/sft/seed-0"
    figure = {"value": 0.2, "low": 0.1, "high": 0.3}
    scores = dict.fromkeys(("ece", "brier", "log_loss", "auroc"), figure)
    whole = {"rows": 4, "own": scores, "calibrated": scores, "temperature": 3.0, "ece_by_chance": 0.1}
    write_json(folder / "scores.json", {**read_json(folder / "scores.json"), "probabilities": whole})
    (own, calibrated) = certainties(collect([tmp_path]).table, "glue/sst2")
    assert (own.temperature, calibrated.temperature) == (None, 3.0)


def test_run_stopped_during_setup_is_interrupted(tmp_path):
    write_run(tmp_path, "sft", [], state="running")
    (tmp_path / "status.json").unlink()
    (run,) = collect([tmp_path]).runs
    assert (run.state, run.reason) == ("interrupted", "stopped while it was set up")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scores.json", "{", "scores.json"),
        ("scores.json", '{"task": "t", "method": "m"}', "has no 'metrics'"),
        ("scores.json", "[]", "is not a JSON object"),
        ("predictions/dev.jsonl", '{"id": "1"}\n', "dev.jsonl:1"),
        ("predictions/dev.jsonl", '{"id": NaN}\n', "NaN"),
        ("metrics.jsonl", "\nnot json\n", "metrics.jsonl:2"),
        ("task.yaml", "name: x\n", "is not a task"),
        ("config.yaml", "- 1\n", "holds no settings"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    write_run(tmp_path, "sft", judged(("Positive", "Positive")))
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=re.escape(message)):
        collect([tmp_path])


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(RunError, match="neither a run folder"):
        collect([tmp_path])
    with pytest.raises(RunError, match="no such folder"):
        collect([tmp_path / "nothing"])
    with pytest.raises(RunError, match="nothing to report"):
        collect([])
    root = comparison(tmp_path)
    table = json.loads((root / "table.json").read_text(encoding="utf-8"))
    table["rows"][0]["run"] = "gone"
    write_json(root / "table.json", table)
    with pytest.raises(RunError, match="which is not there"):
        collect([root])


def test_limited_examples_keep_all_errors_of_the_best_run(tmp_path):
    answers = [("Positive", "Negative" if i % 2 else "Positive") for i in range(100)]
    better = [("Positive", "Negative" if i in {6, 8, 60} else "Positive") for i in range(100)]
    write_run(tmp_path / "a", "sft", judged(*answers))
    write_run(tmp_path / "b", "ppo", judged(*better))
    collection = collect([tmp_path / "a", tmp_path / "b"])
    chosen = example_set("glue/sst2", collection.spec("glue/sst2"), collection.runs, limit=20)
    names = [row["id"] for row in chosen.data["rows"]]
    assert {"dev.tsv:7", "dev.tsv:9", "dev.tsv:61"} <= set(names)
    assert (len(names), chosen.shown, chosen.total, chosen.errors_left_out) == (20, 20, 100, 53 - 20)
    assert names == sorted(names, key=lambda name: int(name.split(":")[1]))


def test_outcomes():
    def of(gold, value, near=None):
        return outcome(Prediction("1", {}, gold, "", value), near)

    assert (of("a", "a"), of("a", "b"), of("a", None), of(None, "a")) == ("right", "wrong", "unreadable", "unlabelled")
    assert (of(2.0, 2.5, 0.5), of(2.0, 2.6, 0.5)) == ("right", "wrong")


def test_headline_without_a_paired_test():
    rows = [
        {"task": "t", "method": m, "primary": "accuracy", "n": 9, "metrics": {"accuracy": {"value": v}}}
        for m, v in (("a", 0.5), ("b", 0.7))
    ]
    sentence, certainty = headline(summarise({"rows": rows})[::-1], [])
    assert sentence == "b has the highest accuracy 0.700."
    assert certainty == "Not every other method was tested against it."


def test_a_method_is_best_only_where_every_test_says_so():
    rows = [
        {
            "task": "t",
            "method": m,
            "primary": "accuracy",
            "n": 9,
            "metrics": {"accuracy": {"value": v, "low": v - 0.1, "high": 1}},
        }
        for m, v in (("c", 0.9), ("b", 0.7), ("a", 0.5))
    ]
    best_first = summarise({"rows": rows})

    def tests(with_b, with_a):
        pairs = (("b", "c", with_b), ("c", "a", with_a))
        return [{"a": one, "b": two, "metric": "accuracy", "p_holm": p} for one, two, p in pairs]

    assert headline(best_first, tests(0.01, 0.002), ("Yes", 0.6)) == (
        "c is best: accuracy 0.900.",
        "It leads b by 0.200; all tests: p = 0.010 or less.",
    )
    assert headline(best_first, tests(0.2, 0.002), ("Yes", 0.6))[0] == "A tie: c with accuracy 0.900, and b 0.700."
    assert headline(best_first, tests(0.2, 0.3))[0] == "A tie: c with accuracy 0.900, and b 0.700, a 0.500."
    assert headline(best_first, tests(0.01, 0.002), ("Yes", 0.85)) == (
        "No method beats always answering Yes (0.850).",
        "The highest is c with accuracy 0.900; its 95 % interval begins at 0.800.",
    )
    assert headline(best_first[:1], [], ("Yes", 0.6)) == ("c reaches accuracy 0.900.", "95 % interval 0.800 to 1.000.")


def test_confusion_counts():
    matrix = confusion("sft", 2, ("No", "Yes"), judged(("Yes", "Yes"), ("Yes", "No"), ("Yes", None), ("No", "No")))
    assert matrix.columns == ("No", "Yes", "unreadable")
    assert [(gold, total, [cell.count for cell in cells]) for gold, total, cells in matrix.rows] == [
        ("No", 1, [1, 0, 0]),
        ("Yes", 3, [1, 1, 1]),
    ]


def test_confusion_of_many_labels_counts_every_row():
    answers = [(f"label {i % 30}", f"label {i % 7}") for i in range(300)]
    matrix = confusion("sft", 2, (), judged(*answers))
    assert len(matrix.rows) == 11
    assert matrix.left_out == 19
    assert all(sum(cell.count for cell in cells) == total for _, total, cells in matrix.rows)


def test_interval_chart_keeps_values_inside_the_axis():
    rows = [
        {
            "task": "t",
            "method": m,
            "primary": "accuracy",
            "n": 9,
            "metrics": {"accuracy": {"value": v, "low": v - 0.01, "high": v + 0.01}},
        }
        for m, v in (("a", 0.5), ("b", 0.99))
    ]
    chart = interval_chart("accuracy", summarise({"rows": rows}), rows, ("a", "b"), ("Yes", 0.51))
    assert chart.ticks[-1].text == "1.0"
    assert all(0 <= row.low < row.at < row.high <= 100 for row in chart.rows)
    assert chart.reference.text == "always Yes: 0.510"


@pytest.mark.parametrize(
    ("low", "high"),
    [(0.0, 0.0), (0.5, 0.5), (-3, 1), (0.871, 0.893), (0, 1e-5), (-1e6, 1e6), (1e-14, 1e-14), (1 - 1e-13, 1)],
)
def test_ticks_cover_the_range(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low
    assert marks[-1] >= high
    assert 2 <= len(marks) <= 8


def test_panels_of_logged_quantities():
    long = [
        {"step": s, "rows": 16, "loss": 1 / s, "odd_thing": 2.0, "note": "text", "flag": True, "recall": {"a": None}}
        for s in range(1, 2000)
    ]
    drawn = panels([("sft", 2, long), ("ppo", 3, [{"step": 1, "loss": 3.0}]), ("zero-shot", 0, [])])
    assert [panel.key for panel in drawn] == ["loss", "odd_thing"]
    assert [curve.name for curve in drawn[0].curves] == ["sft", "ppo"]
    assert len(drawn[0].curves[0].xs) <= 240
    assert drawn[0].x_range[1] > 16 * 1900  # rows per step are summed up
    assert recall_panel("recall", long) is None


def test_scatter_with_unreadable_answers_only():
    rows = [Prediction(str(i), {}, 1.0, "?", None) for i in range(3)]
    plot = scatter("sft", 2, (0.0, 5.0), rows)
    assert (plot.n, plot.unreadable, plot.dots) == (3, 3, ())
