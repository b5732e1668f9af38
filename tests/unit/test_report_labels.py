"""Figures per label in table.md and in the report."""

import itertools

import pytest
from test_report_html import comparison, judged, page_of, task, write_run
from test_report_tables import row

from adjudge.report.labels import label_columns, label_figures
from adjudge.report.markdown import comparison_markdown


def figures(gold, predicted, precision, recall, f1):
    return {"gold": gold, "predicted": predicted, "precision": precision, "recall": recall, "f1": f1}


PER_LABEL = {"Bad": figures(60, 50, 0.8, 0.6667, 0.7273), "Good": figures(40, 50, 0.6, 0.75, 0.6667)}
NEVER = {"Bad": figures(60, 100, 0.6, 1.0, 0.75), "Good": figures(40, 0, None, 0.0, 0.0)}


def test_each_method_is_a_column_of_the_table_of_labels():
    table = {"rows": [row("sft", 0.7, per_label=PER_LABEL), row("zero-shot", 0.6, per_label=NEVER)]}
    text = comparison_markdown(table)
    assert (
        "| label | rows |                  sft |            zero-shot |\n"
        "| ----- | ---: | -------------------: | -------------------: |\n"
        "| Bad   |   60 | 0.727 (0.800, 0.667) | 0.750 (0.600, 1.000) |\n"
        "| Good  |   40 | 0.667 (0.600, 0.750) |     0.000 (–, 0.000) |\n"
        "\n"
        "glue/sst2: F1 per label, and in brackets precision and recall; – where a label was never answered.\n"
    ) in text


def test_a_single_method_has_a_column_per_figure():
    head, lines = label_columns(label_figures({"rows": [row("sft", 0.7, per_label=PER_LABEL)]}, "glue/sst2"))
    assert head == ["label", "rows", "answered", "precision", "recall", "F1"]
    assert lines[0] == ["Bad", "60", "50", "0.800", "0.667", "0.727"]


def test_several_seeds_give_the_mean_of_those_that_have_a_figure():
    table = {"rows": [row("sft", 0.7, 0, per_label=PER_LABEL), row("sft", 0.6, 1, per_label=NEVER)]}
    bad, good = label_figures(table, "glue/sst2")["sft"]
    assert (bad.precision, bad.f1) == (pytest.approx(0.7), pytest.approx(0.73865))
    assert (good.precision, good.recall, good.predicted) == (0.6, pytest.approx(0.375), 25)


def test_number_tasks_and_older_runs_have_no_table_of_labels():
    assert label_figures({"rows": [row("sft", 0.7)]}, "glue/sst2") == {}
    older = {"Bad": {"gold": 60, "predicted": 50, "recall": 0.5}}
    ((item,),) = label_figures({"rows": [row("sft", 0.7, per_label=older)]}, "glue/sst2").values()
    assert item.texts == ("–", "0.500", "–")
    assert "| Bad   |   60 |       50 |  0.500 |" in comparison_markdown({"rows": [row("sft", 0.7, per_label=older)]})


def test_columns_of_dashes_are_dropped():
    unmeasured = {"peak_rss_gib": None, "seconds": {}}
    text = comparison_markdown({"rows": [row("sft", 0.7, **unmeasured), row("ppo", 0.8, **unmeasured)]})
    assert "memory" not in text
    assert "seconds" not in text
    assert "memory" in comparison_markdown({"rows": [row("sft", 0.7, **unmeasured), row("ppo", 0.8)]})


def per_label_run(root, method, words):
    per_label = {word: figures(1, 1, 1.0, 1.0, 1.0) for word in words}
    write_run(root / method, method, judged(*((w, w) for w in words)), spec=task(words), per_label=per_label)


def test_the_page_has_a_table_of_labels_per_method(tmp_path):
    for method in ("sft", "ppo"):
        per_label_run(tmp_path, method, ("Bad <b>", "Good"))
    page = page_of(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert html.count('<table class="figures labels">') == 2
    assert "<b>" not in html.split("<main")[1].split("<script")[0].replace("<bdi>", "")
    assert "Bad <b> 1 1 1.000 1.000 1.000" in page.text
    assert '<details class="bylabel" open>' in html


def test_many_labels_are_folded_up(tmp_path):
    per_label_run(tmp_path, "sft", tuple(f"label {n}" for n in range(13)))
    page_of(tmp_path)
    assert '<details class="bylabel">' in (tmp_path / "report.html").read_text()


def headings(page):
    return [int(tag[1]) for tag in page.tags if tag in {"h1", "h2", "h3", "h4"}]


def test_headings_skip_no_level(tmp_path):
    one = page_of(comparison(tmp_path / "one"))
    for name in ("glue/sst2", "glue/cola"):
        write_run(
            tmp_path / "two" / name.replace("/", "-"), "sft", judged(("Negative", "Negative")), spec=task(name=name)
        )
    two = page_of(tmp_path / "two")
    for page in (one, two):
        levels = headings(page)
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert 3 not in headings(one) and 3 in headings(two)


def test_the_page_has_no_column_of_dashes(tmp_path):
    write_run(tmp_path / "r", "sft", judged(("Negative", "Negative")), peak_rss_gib=None, prompts_per_s=None)
    text = page_of(tmp_path / "r").text
    assert "GiB, peak" not in text and "rows/s" not in text
    assert "training rows" in text
