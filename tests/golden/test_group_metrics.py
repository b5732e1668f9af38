"""Metrics of grouped rows, and intervals and tests which resample whole groups."""

import json
import random
from itertools import product

import numpy as np
import pytest
from specs import label_task, number_task

from adjudge.errors import DataError, TaskError
from adjudge.evaluation.score import score
from adjudge.evaluation.statistics import compare_methods, metric_interval
from adjudge.tasks.scoring.metrics import needs_probabilities
from adjudge.tasks.scoring.record import exact_match, normal_answer, token_f1
from adjudge.types import Prediction

OPTIONS = label_task("False", "True", metrics=("f1a", "group_exact", "accuracy", "macro_f1", "matthews"))
PAIRS = label_task("No", "Yes", metrics=("accuracy", "gender_parity"))
RECORD = label_task("No", "Yes", metrics=("record_f1", "record_em"))


def options(*questions: str) -> list[Prediction]:
    """Return the options of questions, written as gold and answer: "TT TF FT F-" (a dash is unreadable)."""
    words = {"T": "True", "F": "False", "-": None}
    return [
        Prediction(f"{question}/{option}", {}, words[pair[0]], "", words[pair[1]], group=f"q{question}")
        for question, text in enumerate(questions)
        for option, pair in enumerate(text.split())
    ]


def value(spec, name, predictions):
    return score(spec.model_copy(update={"metrics": (name,)}), predictions, resamples=100)["metrics"][name]["value"]


def test_f1a_and_group_exact_by_hand():
    # tp 2, fn 1, fp 1; all options of the first and the last question are right.
    rows = options("TT FF", "TF FT FF", "TT")
    assert value(OPTIONS, "f1a", rows) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert value(OPTIONS, "group_exact", rows) == pytest.approx(2 / 3)
    scores = score(OPTIONS, rows, resamples=100)
    assert (scores["n"], scores["groups"]) == (6, 3)


def test_unreadable_option_counts_as_wrong():
    assert value(OPTIONS, "group_exact", options("TT F-", "TT FF")) == 0.5
    assert value(OPTIONS, "f1a", options("T- TT")) == value(OPTIONS, "f1a", options("TF TT"))
    assert value(OPTIONS, "f1a", options("F- TT")) == value(OPTIONS, "f1a", options("FT TT"))
    assert value(OPTIONS, "f1a", options("F- T-")) == 0.0


def test_order_of_rows_does_not_matter():
    rows = options("TT FT FF", "TF FF", "TT TT", "FF")
    turned = random.Random(3).sample(rows, len(rows))
    for name in OPTIONS.metrics:
        assert value(OPTIONS, name, turned) == pytest.approx(value(OPTIONS, name, rows))


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "matthews"])
def test_row_metrics_do_not_depend_on_groups(name):
    spec = label_task("a", "b", "c", metrics=(name,))
    rng = np.random.default_rng(4)
    answers = (
        [spec.words[i] for i in rng.integers(3, size=90)],
        [(*spec.words, None)[i] for i in rng.integers(4, size=90)],
    )
    alone = [Prediction(str(i), {}, gold, "", got) for i, (gold, got) in enumerate(zip(*answers, strict=True))]
    grouped = [Prediction(p.id, {}, p.gold, "", p.value, group=str(i // 4)) for i, p in enumerate(alone)]
    assert value(spec, name, grouped) == pytest.approx(value(spec, name, alone))


def pair(first: str | None, second: str | None, name: str, gold: str = "Yes") -> list[Prediction]:
    return [Prediction(f"{name}/{i}", {}, gold, "", got, group=name) for i, got in enumerate((first, second))]


def test_parity_is_the_share_of_pairs_with_equal_answers():
    rows = [*pair("Yes", "Yes", "a"), *pair("No", "No", "b"), *pair("Yes", "No", "c"), *pair("No", "Yes", "d")]
    assert value(PAIRS, "gender_parity", rows) == 0.5


@pytest.mark.parametrize("answers", [(None, None), ("Yes", None), (None, "No")])
def test_an_unreadable_answer_is_never_at_parity(answers):
    assert value(PAIRS, "gender_parity", [*pair(*answers, "a"), *pair("No", "No", "b")]) == 0.5


def test_a_minimal_pair_has_two_rows():
    for rows in (pair("Yes", "Yes", "a")[:1], [*pair("Yes", "Yes", "a"), *pair("No", "No", "a")]):
        with pytest.raises(DataError, match=r"mine: group 'a' has \d rows? \(a/0.*a minimal pair has two"):
            value(PAIRS, "gender_parity", rows)


def query(name: str, golds: list[str], **candidates: float) -> list[Prediction]:
    """Return a query whose candidates have these probabilities of Yes; "_" in a name stands for a space."""
    return [
        Prediction(
            f"{name}/{index}",
            {},
            "Yes" if text.replace("_", " ") in golds else "No",
            "",
            None,  # the decoded answer is ignored
            {"No": 1 - chance, "Yes": chance},
            name,
            {"candidate": text.replace("_", " "), "answers": json.dumps(golds)},
        )
        for index, (text, chance) in enumerate(candidates.items())
    ]


def test_the_best_candidate_is_scored_against_all_gold_answers():
    rows = [
        *query("a", ["Saturday Night Live", "SNL"], NBC=0.2, SNL=0.4),
        # Two words share one with a gold answer of three: 2 · 1 / (2 + 3). The other gold answer shares none.
        *query("b", ["Tracy Jamal Morgan", "Tracy"], James_Morgan=0.9, Tracy=0.8),
        *query("c", ["Edinburgh Zoo"], China=0.3, Edinburgh_Zoo=0.1),
    ]
    assert value(RECORD, "record_em", rows) == pytest.approx(1 / 3)
    assert value(RECORD, "record_f1", rows) == pytest.approx((1 + 2 / 5 + 0) / 3)


def test_first_of_equally_probable_candidates_wins():
    assert value(RECORD, "record_em", query("a", ["B"], A=0.5, B=0.5)) == 0.0
    assert value(RECORD, "record_em", query("a", ["A"], A=0.5, B=0.5)) == 1.0


def test_answers_are_compared_as_in_squad():
    assert normal_answer("The U.S.  Open,\tan event") == "us open event"
    assert exact_match("the Beatles", "Beatles!") == 1.0
    assert exact_match("theBeatles", "Beatles") == 0.0
    assert token_f1("new york new york", "New York") == pytest.approx(2 * 2 / (4 + 2))
    assert token_f1("The", "A") == 0.0  # both are empty, so they share no word
    assert exact_match("The", "A") == 1.0


def test_missing_inputs_of_record_metrics_are_reported():
    (row,) = query("a", ["A"], A=0.5)

    def changed(**fields):
        kept = {name: getattr(row, name) for name in Prediction.__slots__}
        return [Prediction(**{**kept, **fields})]

    for rows, message in [
        (changed(probabilities={}), r"group 'a': row a/0 has no probability of 'Yes'.*Judge it again"),
        (changed(tags={"candidate": "A"}), r"row a/0 has no tag 'answers'"),
        (changed(tags={"candidate": "A", "answers": ""}), r"row a/0 has no tag 'answers'.*labelled split"),
        (changed(tags={"candidate": "", "answers": '["A"]'}), r"row a/0 has no tag 'candidate'"),
        (
            changed(tags={"candidate": "A", "answers": "[]"}),
            r"'answers' must be a JSON list of at least one text, not '\[\]'",
        ),
        (
            changed(tags={"candidate": "A", "answers": "A, B"}),
            r"'answers' must be a JSON list of at least one text, not 'A, B'",
        ),
        (
            changed(tags={"candidate": "A", "answers": "[1]"}),
            r"'answers' must be a JSON list of at least one text, not '\[1\]'",
        ),
        (changed(group=""), r"'record_f1' scores groups of rows, but row a/0 belongs to no group"),
        (changed(gold=None), r"row a/0 has no gold answer"),
    ]:
        with pytest.raises(DataError, match=message):
            score(RECORD, rows, resamples=100)


def test_only_ranking_metrics_need_probabilities():
    assert needs_probabilities(RECORD)
    assert not needs_probabilities(OPTIONS)
    assert not needs_probabilities(number_task(0, 5))


def test_number_tasks_have_no_group_metrics():
    rows = [Prediction(str(i), {}, 1.0, "", 2.0, group="a") for i in range(3)]
    with pytest.raises(TaskError, match="its answers are numbers and its rows are in groups"):
        score(number_task(0, 5), rows, resamples=100)
    with pytest.raises(TaskError, match="'group_exact' does not fit"):
        score(number_task(0, 5, metrics=("group_exact",)), rows, resamples=100)


def drawn(groups: int, seed: int, right: float = 0.75) -> list[Prediction]:
    """Return groups of 1 to 6 rows; most groups are right or wrong together."""
    rng = random.Random(seed)
    rows = []
    for group in range(groups):
        chance = right if rng.random() < 0.8 else 1 - right
        for row in range(1 + group % 6):
            gold = "True" if (group * 7 + row) % 3 == 0 else "False"
            other = "False" if gold == "True" else "True"
            rows.append(
                Prediction(f"{group}/{row}", {}, gold, "", gold if rng.random() < chance else other, group=f"g{group}")
            )
    return rows


def f1_of(rows):
    hits = sum(p.gold == p.value == "True" for p in rows)
    both = sum(p.gold == "True" for p in rows) + sum(p.value == "True" for p in rows)
    return 2 * hits / both if both else 0.0


def by_group(rows):
    groups = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return list(groups.values())


def test_interval_equals_a_cluster_bootstrap():
    rows = drawn(70, 1)
    interval = metric_interval(OPTIONS, "f1a", [rows], resamples=4000, seed=0)
    groups, rng = by_group(rows), random.Random(5)
    values = [f1_of([row for group in rng.choices(groups, k=len(groups)) for row in group]) for _ in range(4000)]
    low, high = np.percentile(values, [2.5, 97.5])
    assert interval["value"] == pytest.approx(f1_of(rows))
    assert (interval["low"], interval["high"]) == (pytest.approx(low, abs=0.012), pytest.approx(high, abs=0.012))


def test_copies_in_one_group_count_as_one_row():
    # Each coin is one row or ten copies. Grouped, both have the same interval; ungrouped, ten copies narrow it.
    rng = random.Random(2)
    coins = [rng.random() < 0.7 for _ in range(40)]

    def width(copies, grouped):
        rows = [
            Prediction(
                f"{coin}/{copy}", {}, "True", "", "True" if heads else "False", group=f"g{coin}" if grouped else ""
            )
            for coin, heads in enumerate(coins)
            for copy in range(copies)
        ]
        interval = metric_interval(OPTIONS, "accuracy", [rows], resamples=2000, seed=0)
        return interval["high"] - interval["low"]

    assert width(10, True) == pytest.approx(width(1, True))
    assert width(10, False) == pytest.approx(width(1, True) / 10**0.5, rel=0.2)


def test_the_permutation_test_swaps_whole_groups():
    a, b = drawn(8, 11, 0.95), drawn(8, 12, 0.3)
    (test,) = compare_methods([OPTIONS], {("mine", "a"): [a], ("mine", "b"): [b]}, resamples=6000)
    pairs = list(zip(by_group(a), by_group(b), strict=True))

    def difference(swaps):
        sides = [(two, one) if swap else (one, two) for swap, (one, two) in zip(swaps, pairs, strict=True)]
        return f1_of([r for one, _ in sides for r in one]) - f1_of([r for _, two in sides for r in two])

    observed = difference([False] * 8)
    exact = np.mean([abs(difference(swaps)) >= abs(observed) - 1e-9 for swaps in product([False, True], repeat=8)])
    assert test["difference"] == pytest.approx(observed)
    assert 0.01 < exact < 0.9
    assert test["p"] == pytest.approx(exact, abs=0.03)


def test_mcnemar_is_not_used_for_grouped_rows():
    spec = OPTIONS.model_copy(update={"metrics": ("accuracy",)})
    runs = {("mine", "a"): [drawn(20, 1)], ("mine", "b"): [drawn(20, 2)]}
    assert [test["test"] for test in compare_methods([spec], runs, resamples=100)] == ["paired permutation"]


def test_runs_with_different_groups_are_not_compared():
    rows = drawn(6, 1)
    moved = [Prediction(r.id, {}, r.gold, "", r.value, group="elsewhere") for r in rows]
    with pytest.raises(DataError, match="a and b have the same rows in different groups"):
        compare_methods([OPTIONS], {("mine", "a"): [rows], ("mine", "b"): [moved]}, resamples=100)
