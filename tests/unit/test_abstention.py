"""Doubtful answers: thresholds, the least sure share, and costs."""

import json

import pytest
from specs import label_task, number_task

from adjudge.errors import ConfigError, DataError
from adjudge.evaluation.abstention import decide, expected_cost, read_decision
from adjudge.types import Prediction

SPEC = label_task("ham", "spam")
COSTS = "gold,ham,spam\nham,0,10\nspam,1,0\n"


def answered(*spam, values=None):
    """One prediction per probability of spam, answered with the likelier label unless `values` has another."""
    values = values or ["spam" if p > 0.5 else "ham" for p in spam]
    return [
        Prediction(str(row), {}, None, str(value), value, {"ham": 1 - p, "spam": p})
        for row, (p, value) in enumerate(zip(spam, values, strict=True))
    ]


def given(predictions):
    return [(p.value, p.abstained) for p in predictions]


def costs_in(folder, text=COSTS):
    path = folder / "costs.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("minimum", [0.8, ["0.8"], "0.8", {"ham": 0.8, "spam": 0.8}])
def test_doubtful_answers_are_held_back(minimum):
    decision = read_decision(SPEC, minimum)
    assert given(decide(answered(0.8, 0.79, 0.1, 0.45), decision)) == [
        ("spam", False),
        (None, True),
        ("ham", False),
        (None, True),
    ]


def test_the_text_of_a_held_back_answer_stays():
    (one,) = decide(answered(0.6), read_decision(SPEC, 0.9))
    assert (one.value, one.text, one.abstained, one.probabilities["spam"]) == (None, "spam", True, 0.6)


def test_labels_have_thresholds_of_their_own():
    assert given(decide(answered(0.8, 0.2), read_decision(SPEC, ["spam=0.9"]))) == [(None, True), ("ham", False)]
    assert given(decide(answered(0.8, 0.2), read_decision(SPEC, ["0.7", "spam=0.9"]))) == [(None, True), ("ham", False)]
    assert given(decide(answered(0.8, 0.4), read_decision(SPEC, ["spam=0.5", "0.7"]))) == [
        ("spam", False),
        (None, True),
    ]


def test_an_unreadable_answer_is_not_held_back():
    assert given(decide(answered(0.9, values=[None]), read_decision(SPEC, 0.99))) == [(None, False)]


def test_the_least_sure_share_is_held_back():
    rows = answered(0.9, 0.55, 0.3, 0.99, 0.6)
    held = [p.id for p in decide(rows, read_decision(SPEC, abstain_share=0.4)) if p.abstained]
    assert held == ["1", "4"]
    assert not any(p.abstained for p in decide(rows, read_decision(SPEC, abstain_share=0.19)))
    assert all(p.abstained for p in decide(rows, read_decision(SPEC, abstain_share=1)))


def test_unreadable_answers_are_the_least_sure_of_the_share():
    rows = answered(0.9, 0.55, 0.95, 0.3, values=["spam", "spam", None, "ham"])
    assert given(decide(rows, read_decision(SPEC, abstain_share=0.5))) == [
        ("spam", False),
        (None, True),
        (None, False),
        ("ham", False),
    ]


def test_the_answer_of_least_expected_cost(tmp_path):
    decision = read_decision(SPEC, costs=costs_in(tmp_path))
    # spam costs 10 · p(ham), ham costs 1 · p(spam): spam is cheaper from p = 10/11
    rows = decide(answered(0.9, 0.92, 0.2, values=[None, "spam", "ham"]), decision)
    assert [p.value for p in rows] == ["ham", "spam", "ham"]
    assert [round(expected_cost(p, decision.costs), 6) for p in rows] == [0.9, 0.8, 0.2]


def test_costs_may_hold_an_answer_back(tmp_path):
    path = costs_in(tmp_path, "gold,spam,abstain,ham\nspam,0,0.5,1\nham,10,0.5,0\n")
    rows = decide(answered(0.9, 0.96, 0.2), read_decision(SPEC, costs=path))
    assert given(rows) == [(None, True), ("spam", False), ("ham", False)]


def test_costs_need_probabilities_of_unreadable_answers_too():
    matrix = {"ham": {"ham": 0, "spam": 10}, "spam": {"ham": 1, "spam": 0}}
    with pytest.raises(ConfigError, match="gives no probabilities"):
        decide([Prediction("0", {}, None, "?", None, {})], read_decision(SPEC, costs=matrix))


def test_costs_of_python_are_those_of_the_file(tmp_path):
    path = costs_in(tmp_path)
    matrix = {"ham": {"ham": 0, "spam": 10}, "spam": {"ham": 1, "spam": 0}}
    assert read_decision(SPEC, costs=matrix) == read_decision(SPEC, costs=path)


def test_a_label_may_be_called_abstain(tmp_path):
    spec = label_task("vote", "abstain")
    decision = read_decision(spec, costs=costs_in(tmp_path, "gold,vote,abstain\nvote,0,1\nabstain,5,0\n"))
    assert decision.costs.abstain is None and decision.costs.of["abstain"] == {"vote": 5.0, "abstain": 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gold,ham,spma\nham,0,1\nspam,1,0\n", "its header has 'spma', which is no label .* Did you mean 'spam'?"),
        ("gold,ham\nham,0\nspam,1\n", "its header lacks 'spam'"),
        ("gold,ham,spam\nham,0,1\n", "its first column lacks 'spam'"),
        ("gold,ham,spam\nham,0,1\nham,0,1\nspam,1,0\n", "its first column has 'ham' twice"),
        ("gold,ham,spam\nham,0,-1\nspam,1,0\n", "costs.csv:2, column 'spam': '-1' is no cost"),
        ("gold,ham,spam\nham,0,1\nspam,much,0\n", "costs.csv:3, column 'ham': 'much' is no cost"),
        ("gold,ham,spam\nham,0,nan\nspam,1,0\n", "'nan' is no cost"),
        ("gold,ham,spam\nham,0,\nspam,1,0\n", "'' is no cost"),
    ],
)
def test_a_wrong_cost_matrix_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_decision(SPEC, costs=costs_in(tmp_path, text))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        ({"ham": {"ham": 0, "spam": 1}}, "gold labels lacks 'spam'"),
        (
            {"ham": {"ham": 0, "spam": None}, "spam": {"ham": 1, "spam": 0}},
            r"costs\['ham'\]\['spam'\]: 'None' is no cost",
        ),
        (
            {"ham": {"ham": 0, "spam": 1, "abstain": 1}, "spam": {"ham": 1, "spam": 0}},
            "for every gold label, or for none",
        ),
    ],
)
def test_a_wrong_mapping_of_costs_is_refused(matrix, message):
    with pytest.raises(DataError, match=message):
        read_decision(SPEC, costs=matrix)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_confidence": ["spma=0.9"]}, "no label 'spma'.* Did you mean 'spam'?"),
        ({"min_confidence": ["0.9", "0.8"]}, "given twice for all labels"),
        ({"min_confidence": ["spam=0.9", "spam=0.8"]}, "given twice for spam"),
        ({"min_confidence": 90}, "'90' is no probability"),
        ({"min_confidence": ["spam"]}, "'spam' is no probability"),
        ({"min_confidence": float("nan")}, "no probability"),
        ({"abstain_share": 1.5}, "1.5 is no share"),
        ({"abstain_share": float("nan")}, "no share"),
        ({"min_confidence": 0.9, "abstain_share": 0.1}, "min_confidence and abstain_share .* give one of them"),
    ],
)
def test_a_wrong_rule_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        read_decision(SPEC, **arguments)


def test_numbers_have_no_doubt():
    with pytest.raises(ConfigError, match="answered with numbers"):
        read_decision(number_task(0, 5), 0.9)
    assert not read_decision(number_task(0, 5))


def test_labels_with_an_equals_sign():
    spec = label_task("a=b", "c")
    assert read_decision(spec, ["a=b=0.7"]).minimum == {"a=b": 0.7, "c": 0.0}
    assert json.dumps(read_decision(spec, 0.5).minimum) == '{"a=b": 0.5, "c": 0.5}'
