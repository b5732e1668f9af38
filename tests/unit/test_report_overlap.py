"""Warnings about judged rows that were among the training rows."""

from adjudge.report.overlap import dropped_lines, overlap_lines


def row(task, method, overlap, n=100, **more):
    return {"task": task, "method": method, "overlap": overlap, "n": n, **more}


def test_sentence_per_task_names_the_methods_and_the_largest_count():
    rows = [
        row("a", "zero-shot", 0, overlap_exact=0),
        row("a", "sft", 3, overlap_exact=2),
        row("a", "sft", 5, overlap_exact=4),
        row("a", "encoder", 5, overlap_exact=4),
        row("b", "sft", 1, overlap_exact=1),
        row("c", "sft", 0, overlap_exact=0),
    ]
    assert overlap_lines({"rows": rows}) == [
        "a: up to 5 (5.0 %) of the judged rows are among the training rows too, 4 of them letter for letter "
        "(sft, encoder): the figures may flatter",
        "b: 1 (1.0 %) of the judged rows are among the training rows too, 1 of them letter for letter "
        "(sft): the figures may flatter",
    ]


def test_rows_without_overlap_counts():
    assert overlap_lines({}) == overlap_lines({"rows": [row("a", "sft", None), {"task": "a", "method": "ppo"}]}) == []
    (line,) = overlap_lines({"rows": [row("a", "sft", 1200, n=None)]})
    assert line == "a: 1,200 of the judged rows are among the training rows too (sft): the figures may flatter"


def test_dropped_rows_are_named_once_per_file():
    rows = [
        row("a", "sft", 0, dropped_rows={"/data/dev.csv": 1200}),
        row("a", "ppo", 0, dropped_rows={"/data/dev.csv": 1200}),
        row("b", "ppo", 0, dropped_rows={"/other/dev.jsonl": 1}),
        row("c", "ppo", 0, dropped_rows={}),
        row("d", "ppo", 0),
    ]
    assert dropped_lines({"rows": rows}) == [
        "1,200 bad rows of dev.csv dropped, so not judged (data.bad_rows=drop)",
        "1 bad row of dev.jsonl dropped, so not judged (data.bad_rows=drop)",
    ]
