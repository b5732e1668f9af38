"""The comparison as text: summaries, table.md, the terminal's table and the sentences below it."""

import re

import pytest
from rich.console import Console

from adjudge.report.certainty import certainties
from adjudge.report.markdown import comparison_markdown, markdown_table
from adjudge.report.sentences import incomplete_lines, table_notes, verdict_line
from adjudge.report.summary import best_values, ranked, summarise
from adjudge.report.terminal import results_table
from adjudge.report.text import decimal, p_text, visible
from adjudge.tasks.scoring.metrics import METRICS, Metric


def row(method: str, value: float, seed: int = 0, **more) -> dict:
    scores = {
        "task": "glue/sst2",
        "method": method,
        "model": "smollm2-135m",
        "seed": seed,
        "split": "dev",
        "n": 100,
        "train_rows": 1000,
        "primary": "accuracy",
        "metrics": {"accuracy": {"value": value, "low": value - 0.02, "high": value + 0.02}},
        "unreadable": 0,
        "seconds": {"train": 142.4, "evaluate": 3.21},
        "prompts_per_s": 31.0,
        "peak_rss_gib": 1.5,
    }
    return scores | more


def test_probabilities_have_a_table_before_and_after_calibration():
    own = {name: {"value": 0.2, "low": 0.1, "high": 0.3} for name in ("ece", "brier", "log_loss", "auroc")}
    after = own | {"ece": {"value": 0.05, "low": None, "high": None}, "auroc": {"value": None}}
    scores = {"rows": 100, "own": own, "calibrated": after, "temperature": 2.5, "ece_by_chance": 0.041}
    table = {"rows": [row("sft", 0.8, probabilities=scores), row("ppo", 0.7)]}
    text = comparison_markdown(table)
    lines = [line.replace(" ", "") for line in text.splitlines()]
    assert "|method|temperature|ECE|Brier|logloss|AUROC|" in lines
    assert "|sft|–|0.200[0.100,0.300]|0.200[0.100,0.300]|0.200[0.100,0.300]|0.200[0.100,0.300]|" in lines
    assert "|sft|2.50|0.050|0.200[0.100,0.300]|0.200[0.100,0.300]|–|" in lines
    assert "On 100 rows chance alone gives an ECE of about 0.041. ppo: answers were read, without probabilities" in text
    assert "ECE" not in comparison_markdown({"rows": [row("sft", 0.8)]})


def test_probabilities_over_seeds_have_the_pooled_interval():
    def scored(value, **more):
        return {"own": {"ece": {"value": value, "low": value - 0.01, "high": value + 0.01}}, "rows": 9, **more}

    rows = [row("sft", 0.8, seed, probabilities=scored(0.1 + seed / 10)) for seed in (0, 1)]
    summary = [{"task": "glue/sst2", "method": "sft", "probabilities": scored(0.15)}]
    (item,) = certainties({"rows": rows, "summary": summary}, "glue/sst2")
    assert str(item.figures["ece"]) == "0.150 [0.140, 0.160]"
    (item,) = certainties({"rows": rows}, "glue/sst2")
    assert str(item.figures["ece"]) == "0.150"


TEST = {
    "task": "glue/sst2",
    "metric": "accuracy",
    "a": "sft",
    "b": "ppo",
    "difference": -0.012,
    "p": 0.07,
    "p_holm": 0.21,
    "test": "mcnemar",
}


def rendered(table: dict, width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as shown:
        console.print(results_table(table))
    return shown.get()


def test_a_gpus_memory_stands_beside_the_machines():
    table = {"rows": [row("sft", 0.8, peak_gpu_gib=12.304), row("tfidf", 0.7), row("ppo", 0.7, 1, peak_gpu_gib=2)]}
    assert "peak memory (GiB, host / GPU)" in markdown_table(table)
    assert "1.50 / 12.30 |" in markdown_table(table)
    assert "|                          1.50 |" in markdown_table(table)
    assert "1.50 / 12.30" in rendered(table, 80)
    assert summarise({"rows": [row("a", 1, seed, peak_gpu_gib=seed) for seed in (1, 2)]})[0].peak_text == "1.50 / 2.00"


def test_markdown_table_is_exact():
    table = {"rows": [row("zero-shot", 0.55, train_rows=0, unreadable=3), row("ppo", 0.884)], "tests": [TEST]}
    assert markdown_table(table) == (
        "| method    |             accuracy | unreadable | training rows "
        "| seconds (train / evaluate) | peak memory (GiB) |\n"
        "| --------- | -------------------: | ---------: | ------------: "
        "| -------------------------: | ----------------: |\n"
        "| zero-shot | 0.550 [0.530, 0.570] |  3 (3.0 %) |             0 "
        "|                  142 / 3.2 |              1.50 |\n"
        "| ppo       | 0.884 [0.864, 0.904] |  0 (0.0 %) |         1,000 "
        "|                  142 / 3.2 |              1.50 |\n"
        "\n"
        "Intervals are 95 %. glue/sst2 dev: 100 rows judged.\n"
        "\n"
        "- ppo has the highest accuracy 0.884. Not every other method was tested against it.\n"
        "- ppo − sft on accuracy: +0.012, p = 0.21 after Holm (McNemar): not significant\n"
    )


def test_markdown_escapes_names():
    text = markdown_table({"rows": [row("a|b\n<img src=x>", 0.5)], "tests": []})
    line = text.splitlines()[2]
    assert "a\\|b⟦U+000A⟧\\<img src=x>" in line
    assert line.replace("\\|", "").count("|") == 7


def test_table_without_rows():
    text = markdown_table({"rows": [], "tests": [], "unfinished": 2})
    assert text == "No run is finished yet.\n\n- 2 runs are not finished yet\n"


def test_interval_of_one_seed_is_kept_and_several_seeds_need_a_pooled_one():
    single, multiple = summarise({"rows": [row("sft", 0.8), row("ppo", 0.8, 0), row("ppo", 0.9, 1)]})
    assert (single.metrics["accuracy"].low, single.metrics["accuracy"].high) == pytest.approx((0.78, 0.82))
    assert multiple.metrics["accuracy"].value == pytest.approx(0.85)
    assert multiple.metrics["accuracy"].low is None
    assert multiple.seeds == (0, 1)


def test_several_seeds_use_the_pooled_interval():
    pooled = {"task": "glue/sst2", "method": "ppo", "metrics": {"accuracy": {"value": 0.85, "low": 0.8, "high": 0.88}}}
    (summary,) = summarise({"rows": [row("ppo", 0.8, 0), row("ppo", 0.9, 1)], "summary": [pooled]})
    assert str(summary.metrics["accuracy"]) == "0.850 [0.800, 0.880]"


def test_seeds_give_the_mean_of_unreadable_answers_and_the_peak_of_memory():
    (summary,) = summarise(
        {"rows": [row("ppo", 0.8, 0, unreadable=1), row("ppo", 0.9, 1, unreadable=4, peak_rss_gib=2.5)]}
    )
    assert (summary.unreadable, summary.unreadable_share, summary.peak_rss_gib) == (2.5, 0.025, 2.5)


@pytest.mark.parametrize("metric", ["mae", "error_rate"])
def test_error_metrics_are_ranked_and_bolded_by_their_smallest_value(metric, monkeypatch):
    error_rate = Metric("error_rate", "Error rate", "labels", METRICS["accuracy"].measure, higher_is_better=False)
    monkeypatch.setitem(METRICS, "error_rate", error_rate)

    def scored(method: str, value: float) -> dict:
        return row(method, 0.5, primary=metric, metrics={metric: {"value": value, "low": value, "high": value}})

    table = {"rows": [scored("a", 0.9), scored("b", 0.2)]}
    assert [item.method for item in ranked(summarise(table))] == ["b", "a"]
    assert best_values(summarise(table), [metric]) == {metric: 0.2}
    console = Console(width=100, force_terminal=True, color_system="standard")
    with console.capture() as shown:
        console.print(results_table(table))
    assert re.findall(r"\x1b\[1m *(0\.\d+)", shown.get()) == ["0.200"]


def test_task_column_needs_several_tasks():
    one = markdown_table({"rows": [row("ppo", 0.5)]})
    two = markdown_table({"rows": [row("ppo", 0.5), row("ppo", 0.5, task="glue/cola")], "tests": [TEST]})
    assert not one.startswith("| task")
    assert two.startswith("| task")
    assert "- glue/sst2: ppo − sft on accuracy" in two


def figures(**values: float) -> dict:
    return {name: {"value": value, "low": value - 0.1, "high": value + 0.1} for name, value in values.items()}


MIXED = {
    "rows": [
        row("sft", 0.5, task="glue/mrpc", primary="f1", metrics=figures(accuracy=0.7, f1=0.8)),
        row("ppo", 0.5, task="glue/mrpc", primary="f1", metrics=figures(accuracy=0.9, f1=0.6)),
        row("sft", 0.5, task="superglue/multirc", primary="f1a", metrics=figures(f1a=0.4, group_exact=0.1), groups=12),
        row("sft", 0.5, task="superglue/axb", primary="matthews", metrics=figures(matthews=0.2)),
    ]
}


def test_tasks_with_different_metrics_share_two_columns():
    lines = markdown_table(MIXED).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines[:1] + lines[2:6]]
    assert cells == [
        ["task", "method", "primary metric", "other metrics"],
        ["glue/mrpc", "sft", "f1 0.800 [0.700, 0.900]", "accuracy 0.700 [0.600, 0.800]"],
        ["glue/mrpc", "ppo", "f1 0.600 [0.500, 0.700]", "accuracy 0.900 [0.800, 1.000]"],
        ["superglue/multirc", "sft", "f1a 0.400 [0.300, 0.500]", "group_exact 0.100 [0.000, 0.200]"],
        ["superglue/axb", "sft", "matthews 0.200 [0.100, 0.300]", "–"],
    ]
    assert "superglue/multirc dev: 100 rows judged in 12 groups" in markdown_table(MIXED)


@pytest.mark.parametrize("width", [100, 160])
def test_terminal_table_with_mixed_tasks_bolds_the_best_primary_metric(width):
    console = Console(width=width, force_terminal=True, color_system="standard")
    with console.capture() as shown:
        console.print(results_table(MIXED))
    styled = shown.get()
    assert "superglue/multirc" in styled
    bold = re.findall(r"\x1b\[1m *(\w+ 0\.\d+)", styled)
    assert bold == ["f1 0.800"]


@pytest.mark.parametrize("width", [80, 200])
def test_terminal_table_shows_every_figure(width):
    text = rendered({"rows": [row("zero-shot", 0.55, unreadable=3), row("ppo", 0.884)]}, width)
    for wanted in ("zero-shot", "0.550 [0.530, 0.570]", "3 (3.0 %)", "1,000", "142 / 3.2", "1.50", "100 rows judged"):
        assert wanted in text


def test_terminal_table_with_two_metrics_fits_80_columns():
    two = {"accuracy": {"value": 0.9, "low": 0.88, "high": 0.92}, "mcc": {"value": -0.1, "low": -0.2, "high": 0.0}}
    text = rendered({"rows": [row("zero-shot", 0.9, metrics=two), row("ppo", 0.9, metrics=two)]}, 80)
    assert "[0.880, 0.920]" in text
    assert "[−0.200, 0.000]" in text


def test_terminal_table_shows_markup_in_names_as_text():
    assert "[bold]x[/bold]" in rendered({"rows": [row("[bold]x[/bold]", 0.5)]})


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, "ppo − sft on accuracy: +0.012, p = 0.21 after Holm (McNemar): not significant"),
        ({"p_holm": 0.0004}, "ppo − sft on accuracy: +0.012, p < 0.001 after Holm (McNemar): significant"),
        (
            {"difference": 0.3, "p_holm": 0.03},
            "sft − ppo on accuracy: +0.300, p = 0.030 after Holm (McNemar): significant",
        ),
        ({"p_holm": None}, "ppo − sft on accuracy: +0.012, p = 0.070, uncorrected (McNemar): not significant"),
        ({"p_holm": None, "p": None}, "ppo − sft on accuracy: +0.012, not tested"),
        (
            {"test": "paired permutation"},
            "ppo − sft on accuracy: +0.012, p = 0.21 after Holm (paired permutation): not significant",
        ),
    ],
)
def test_verdict_of_a_paired_test(change, wanted):
    assert verdict_line(TEST | change) == wanted


def collapsed(word: str, **more) -> dict:
    gold = {
        "Negative": {"gold": 60, "predicted": 0, "recall": 0.0},
        "Positive": {"gold": 40, "predicted": 0, "recall": 0.0},
    }
    return row("zero-shot", 0.5, per_label=gold, majority={"word": word, "share": 1.0, "one_label": True}, **more)


def test_one_label_for_every_row_is_a_warning():
    assert table_notes({"rows": [collapsed("Negative")]}) == [
        "always answering Negative would be right in 0.600 of the rows",
        "zero-shot answers Negative for every row (a majority-label result)",
    ]
    assert table_notes({"rows": [collapsed("Positive")]})[1:] == [
        "zero-shot answers Positive for every row (a one-label result)"
    ]


def test_one_label_in_one_of_two_seeds_names_the_seed():
    other = row("zero-shot", 0.6, 1, majority={"word": "Negative", "share": 0.6, "one_label": False})
    line = table_notes({"rows": [collapsed("Negative"), other]})[-1]
    assert line == "zero-shot (seed 0) answers Negative for every row (a majority-label result)"


def test_the_terminal_lists_the_tests_of_the_best_method_only():
    names = ("a", "b", "c", "d", "e")
    rows = [row(name, 0.5 + index / 10) for index, name in enumerate(names)]
    pairs = [(one, two) for index, one in enumerate(names) for two in names[index + 1 :]]
    tests = [{"task": "glue/sst2", "a": one, "b": two, "metric": "accuracy", "p_holm": 0.01} for one, two in pairs]
    whole, short = (table_notes({"rows": rows, "tests": tests}, short=short) for short in (False, True))
    assert whole[0] == short[0] == "e is best: accuracy 0.900. It leads d by 0.100; all tests: p = 0.010 or less."
    assert len(whole) == 1 + 10 and len(short) == 1 + 4 + 1
    assert short[-1] == "6 more paired tests are in table.md" and all("e" in line for line in short[1:-1])


GOLD = {
    "Negative": {"gold": 60, "recall": 0.7},
    "Positive": {"gold": 40, "recall": 0.0},
    "Odd": {"gold": 2, "recall": 0.0},
}


def test_signs_of_too_little_training_are_warnings():
    def notes(**more):
        return table_notes({"rows": [row("sft", 0.7, per_label=GOLD, **more)]})[1:]

    assert notes() == ["sft never finds Positive"]
    assert notes(fit={"right": 0.9, "loss": 0.1, "loss_before": 0.11}) == notes()
    (_, little) = notes(fit={"right": 0.61, "loss": 0.4, "loss_before": 0.9})
    assert little.startswith(
        "sft has learned little: at the end 0.61 of its training rows were judged right, and one label"
    )
    (_, falling) = notes(fit={"right": 0.9, "loss": 0.3, "loss_before": 0.6})
    assert falling.startswith("sft: its loss still fell at the end (0.60 → 0.30)")


def test_many_unreadable_answers_are_a_warning():
    assert table_notes({"rows": [row("sft", 0.5, unreadable=4)]}) == []
    (line,) = table_notes({"rows": [row("sft", 0.5, unreadable=7)]})
    assert line == "sft: 7 (7.0 %) of 100 answers are unreadable and count as wrong"


def test_unreadable_warning_for_metrics_of_probabilities():
    (line,) = table_notes(
        {"rows": [row("sft", 0.5, unreadable=70, primary="record_f1", metrics=figures(record_f1=0.5))]}
    )
    assert (
        line == "sft: 70 (70.0 %) of 100 answers are unreadable; its metrics take probabilities and do not count them"
    )
    (line,) = table_notes({"rows": [row("sft", 0.5, unreadable=70, metrics=figures(accuracy=0.5, record_f1=0.5))]})
    assert line.endswith("unreadable and count as wrong")


def test_failed_and_unfinished_cells_are_listed():
    table = {
        "rows": [],
        "failed": [{"task": "t", "method": "ppo", "seed": 1, "reason": "out of memory"}],
        "unfinished": 1,
    }
    assert incomplete_lines(table) == ["t: ppo (seed 1) failed: out of memory", "1 run is not finished yet"]


def test_rounding_and_signs_of_numbers():
    assert decimal(-0.0001) == "0.000"
    assert decimal(-0.25) == "−0.250"
    assert p_text(0.04999) == "p = 0.050"


def test_invisible_characters_are_spelled_out():
    assert visible("a\u202eb\ud800c\x00") == "a⟦U+202E⟧b⟦U+D800⟧c⟦U+0000⟧"
    assert visible("naïve 日本 שלום") == "naïve 日本 שלום"
