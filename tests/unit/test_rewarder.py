"""Rewards beyond right and wrong: weights, costs, the user's functions, a metric."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from specs import label_task, number_task

from adjudge.config import RewardConfig, load_config
from adjudge.errors import ConfigError, NotFiniteError, RewardError
from adjudge.prompts.answers import every_answer
from adjudge.rewards.checks import check_rewards
from adjudge.rewards.function import FROM_PYTHON, check_columns, given_function, load_function
from adjudge.rewards.rewarder import build_rewarder
from adjudge.rewards.weights import balanced_weights
from adjudge.types import Example, Judgement

LABELS = label_task("No", "Yes", metrics=("accuracy", "f1"))
STSB = number_task(0, 5)
FILE = """
def length(completions, **columns):
    return [float(len(text)) for text in completions]

def picky(prompts, completions, text, gold, value, id):
    assert len(prompts) == len(completions) == len(text) == len(gold) == len(value) == len(id)
    return [None if answer is None else float(answer == right) for answer, right in zip(value, gold)]

def wants(completions, sentiment): return [0.0] * len(completions)
def optional(gold, sentiment=None): return [1] * len(gold)
def few(completions): return [1.0]
def bad(completions): return [float("nan")] * len(completions)
def raises(completions):
    raise KeyError("oops")
def words(completions): return ["good"] * len(completions)
def text(completions): return "no"
async def later(completions): return [0.0]
def by_position(completions, /): return [0.0]
number = 3
"""


@dataclass
class Batch:
    golds: list
    judgements: list
    prompts: list = field(default_factory=list)
    examples: list = field(default_factory=list)


def batch(golds, values):
    return Batch(
        golds,
        [Judgement(str(value), value) for value in values],
        [(row,) for row in range(len(golds))],
        [Example(f"r:{row}", {"text": f"text {row}"}, gold) for row, gold in enumerate(golds)],
    )


def decode(ids):
    return f"prompt {ids[0]}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my.py"
    path.write_text(FILE)
    return path


def rewarder(spec=LABELS, golds=(), functions=(), **config):
    names = [function.name for function in functions]
    rows = [Example(f"t:{row}", {"text": ""}, gold) for row, gold in enumerate(golds)]
    return build_rewarder(RewardConfig(functions=tuple(names), **config), spec, rows, functions, decode)


def test_without_more_it_is_right_and_wrong():
    plain = rewarder()
    assert plain.score(batch(["Yes", "Yes", "No"], ["Yes", "No", None])) == [1.0, -1.0, -3.0]
    assert plain.figures() == {}
    assert not plain.has_state
    assert rewarder(STSB).score(batch([4.0], [3.0]), common_scale=True) == [1.5 / 2.5]


def test_weights_multiply_the_reward_of_their_rows():
    weighted = rewarder(weights={"Yes": 5})
    answers = batch(["Yes", "Yes", "No", "No"], ["Yes", None, "No", "Yes"])
    assert weighted.score(answers) == [5.0, -15.0, 1.0, -1.0]
    assert weighted.of_each(answers.examples[1:3], answers.prompts[1:3], every_answer(LABELS)) == [
        [-5.0, 5.0],
        [1.0, -1.0],
    ]
    assert weighted.of_unreadable(answers.examples[1:3]) == [-15.0, -3.0]


def test_balanced_rows_pay_nothing_for_one_label():
    golds = ["Yes"] * 3 + ["No"]
    assert balanced_weights(golds) == {"Yes": 4 / 6, "No": 2.0}
    balanced = rewarder(golds=golds, balance=True)
    for word in LABELS.words:
        assert sum(balanced.score(batch(golds, [word] * 4))) == pytest.approx(0.0)
    assert rewarder(golds=golds).score(batch(golds, ["No"] * 4)) == balanced.score(batch(golds, ["No"] * 4))
    both = rewarder(golds=golds, balance=True, weights={"No": 3})
    assert both.score(batch(["No", "Yes"], ["No", "Yes"])) == pytest.approx([6.0, 4 / 6])
    with pytest.raises(ValueError, match="balance"):
        rewarder(balance=True)


@pytest.mark.parametrize(
    "config",
    [
        {"balance": False},
        {"weights": {"Yes": 1}},
        {"costs": {"Yes": {"No": -1}}},
        {"metric": "accuracy", "metric_weight": 0},
    ],
)
def test_unasked_rows_are_balanced_only_where_right_and_wrong_alone_decide(config):
    golds = ["Yes"] * 3 + ["No"]
    assert rewarder(golds=golds, **config).score(batch(golds, ["No"] * 4)) == [-1.0, -1.0, -1.0, 1.0]


def test_one_balanced_number_for_all_rows_earns_nothing():
    golds = [0.0, 1.0, 1.0, 5.0]
    balanced = rewarder(STSB, golds=golds)
    assert rewarder(STSB, golds=golds, balance=False).score(batch([1.0], [2.0])) == [1.5]
    assert rewarder(STSB, golds=golds, metric="pearson", metric_weight=0).score(batch([1.0], [2.0])) == [1.5]
    for number in (0.0, 1.0, 2.4, 5.0):
        assert sum(balanced.score(batch(golds, [number] * 4))) == pytest.approx(0.0)
    # 1 is 1.25 off on average, 5 is 3.25 off.
    assert balanced.score(batch([1.0, 5.0, 1.0, 1.0], [1.0, 5.0, 5.0, None])) == pytest.approx(
        [1.25, 3.25, -0.75, -2.5]
    )
    assert balanced.score(batch([5.0], [5.0]), common_scale=True) == pytest.approx([1.3])
    answers = batch([5.0], [5.0])
    assert balanced.of_each(answers.examples, answers.prompts, every_answer(STSB))[0][-1] == pytest.approx(3.25)


@pytest.mark.parametrize("golds", [[2.0], [0.0, 0.0, 5.0], [0.4, 1.0, 1.2, 3.8, 4.0, 5.0]])
def test_the_right_number_stays_the_best_when_balanced(golds):
    rewards, answers = rewarder(STSB, golds=golds, balance=True), every_answer(STSB)
    asked = batch([answer.value for answer in answers], [0.0] * len(answers))
    for right, each in enumerate(rewards.of_each(asked.examples, asked.prompts, answers)):
        assert each[right] == pytest.approx(max(each))


def test_a_pair_of_labels_can_have_its_own_reward():
    costly = rewarder(costs={"Yes": {"No": -4}})
    answers = batch(["Yes", "Yes", "No"], ["No", "Yes", "Yes"])
    assert costly.score(answers) == [-4.0, 1.0, -1.0]
    assert costly.score(answers, common_scale=True) == [-1.0, 0.25, -0.25]


def test_each_listed_number_is_paid_by_its_distance():
    narrow = number_task(1, 2)
    every = every_answer(narrow)
    assert [answer.text for answer in every] == [f"1.{step}" for step in range(10)] + ["2.0"]
    rows = [Example("t:0", {"text": ""}, 1.2)]
    (paid,) = rewarder(narrow).of_each(rows, [()], every)
    assert rewarder(narrow).of_unreadable(rows) == [-0.5]
    assert paid == pytest.approx([0.5 - abs(1.2 - answer.value) for answer in every])


def test_functions_take_the_place_of_right_and_wrong_and_are_summed(file):
    functions = [load_function(f"{file}:{name}") for name in ("length", "picky")]
    answers = batch(["Yes", "No", "No"], ["Yes", "Yes", None])
    both = rewarder(functions=functions)
    assert both.score(answers) == [3.0 + 1.0, 3.0, 4.0]  # "None" has four letters, and `picky` has no opinion of it
    assert both.figures() == {"rewards": {functions[0].name: pytest.approx(10 / 3), functions[1].name: 1 / 3}}
    weighted = rewarder(functions=functions, function_weights=(0.0, 2.0), match_weight=10)
    assert weighted.score(answers) == [12.0, -10.0, -30.0]
    assert weighted.of_each(answers.examples[:1], answers.prompts[:1], every_answer(LABELS)) == [[-10.0, 12.0]]
    assert weighted.of_unreadable(answers.examples[:1]) == [-30.0]
    assert both.of_unreadable(answers.examples[:1]) == [-3.0]


def test_functions_see_prompts_columns_and_answers(file):
    seen = {}

    def look(prompts, completions, **columns):
        seen.update(prompts=prompts, completions=completions, **columns)
        return [0.0] * len(prompts)

    rewarder(functions=[given_function(look)]).score(batch(["Yes", "No"], ["No", None]))
    assert seen == {
        "prompts": ["prompt 0", "prompt 1"],
        "completions": ["No", "None"],
        "text": ["text 0", "text 1"],
        "gold": ["Yes", "No"],
        "value": ["No", None],
        "id": ["r:0", "r:1"],
    }


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("few", RewardError, r"my\.py:few returned 1 rewards for 2 completions, of the rows r:0, r:1"),
        ("bad", NotFiniteError, r"my\.py:bad returned nan for row r:0 \(gold 'Yes', answer 'Yes'\)"),
        ("raises", RewardError, r"my\.py:raises failed at .*my\.py:14: KeyError: 'oops'\. Its rows were r:0, r:1"),
        ("words", RewardError, r"my\.py:words returned 'good' for row r:0: return a number or None"),
        ("text", RewardError, r"my\.py:text returned a str for the rows r:0, r:1"),
    ],
)
def test_a_function_that_fails_names_itself_and_its_rows(file, name, kind, message):
    failing = rewarder(functions=[load_function(f"{file}:{name}")])
    with pytest.raises(kind, match=message):
        failing.score(batch(["Yes", "No"], ["Yes", "No"]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{}/your.py:length", r"there is no such file.*Write FILE\.py:NAME"),
        ("{}/my.py:lenght", "has no 'lenght'. Did you mean 'length'"),
        ("{}/my.py:number", "is a int, not a function"),
        ("{}/my.py:later", "async"),
        ("{}/my.py:by_position", "by position only"),
        ("{}/broken.py:f", r"running .*broken\.py failed at line 2: SyntaxError"),
        ("{}/failing.py:f", r"failed at .*failing\.py:2: ZeroDivisionError"),
        ("{}/leaving.py:f", "SystemExit: 3"),
        (f"{FROM_PYTHON}:f", "was given from Python"),
    ],
)
def test_a_function_that_cannot_be_used_is_refused(file, tmp_path, name, message):
    (tmp_path / "broken.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "failing.py").write_text("def f(completions): ...\n1 / 0\n")
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(ConfigError, match=message):
        load_function(name.format(tmp_path))


def test_columns_that_are_not_there_are_refused(file):
    with pytest.raises(ConfigError, match=r"wants 'sentiment', which mine does not have.*There is: prompts.*text"):
        check_columns(load_function(f"{file}:wants"), LABELS)
    for name in ("optional", "length", "picky"):
        check_columns(load_function(f"{file}:{name}"), LABELS)
    assert load_function(f"{file}:optional").rewards([], [Example("r", {"text": ""})], [Judgement("", None)]) == [1.0]


def test_a_function_from_python_is_known_by_its_file_or_its_code():
    mine = given_function(decode)
    assert mine.name == f"{__file__}:decode"
    names = {}
    exec("def f(completions): return [0.0]\ndef g(completions): return [1.0]", names)
    one, other = given_function(names["f"]), given_function(names["g"])
    assert one.name == f"{FROM_PYTHON}:f"
    assert one.sha256 != other.sha256
    assert one.sha256 == given_function(names["f"]).sha256
    with pytest.raises(ConfigError, match="is a int"):
        given_function(3)


def test_the_function_of_the_guide(tmp_path):
    guide = Path(__file__).parents[2] / "docs" / "guides" / "rewards.md"
    (tmp_path / "my.py").write_text(re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)[0])
    graded = label_task("Poor", "Fair", "Good")
    function = load_function(f"{tmp_path / 'my.py'}:near_miss")
    check_columns(function, graded)
    answers = batch(["Poor"] * 4, ["Poor", "Fair", "Good", None])
    assert rewarder(graded, functions=[function]).score(answers) == [1.0, 0.5, 0.0, -1.0]


def test_the_file_is_read_anew_each_time(file):
    first = load_function(f"{file}:few")
    file.write_text(FILE.replace("[1.0]", "[2.0]"))
    second = load_function(f"{file}:few")
    assert first.sha256 != second.sha256
    assert second.call([""]) == [2.0]


def test_a_metric_is_added_with_its_weight():
    scored = rewarder(metric="accuracy", metric_weight=0.5, metric_window=4)
    assert scored.score(batch(["Yes", "No"], ["Yes", "Yes"])) == pytest.approx([1.5, -1.5])
    assert scored.figures() == {"rewards": {"accuracy": 0.5}}
    assert scored.has_state
    again = rewarder(metric="accuracy", metric_weight=0.5, metric_window=4)
    again.load_state_dict(scored.state_dict())
    rows = batch(["Yes"], ["Yes"])
    assert again.of_each(rows.examples, rows.prompts, every_answer(LABELS)) == [pytest.approx([-1.5, 1.5])]
    assert again.of_each(rows.examples, rows.prompts, every_answer(LABELS), metric=False) == [[-1.0, 1.0]]
    assert again.of_unreadable(rows.examples) == pytest.approx([-3.5])
    alone = rewarder(metric="accuracy", metric_weight=0.5, metric_window=4, match_weight=0)
    assert alone.of_unreadable(rows.examples, metric=False) == [0.0]
    assert again.score(rows) == scored.score(rows)


def test_answers_beside_those_to_learn_from_leave_no_trace(file):
    """They are paid as others are, without a metric's credit, and the metric and the log know nothing of them."""
    functions = [load_function(f"{file}:length")]
    scored, other = (rewarder(functions=functions, metric="accuracy", metric_window=4) for _ in range(2))
    first, aside = batch(["Yes", "No"], ["Yes", "Yes"]), batch(["No", "Yes"], ["No", None])
    assert scored.score(first) == other.score(first)
    assert scored.of_others(aside) == [2.0, 4.0]
    assert scored.figures() == other.figures() and scored.state_dict() == other.state_dict()
    assert scored.score(aside) == other.score(aside)


@pytest.mark.parametrize(
    ("spec", "config", "message"),
    [
        (LABELS, {"weights": {"yes": 2}}, "reward.weights: mine has no label 'yes'. Did you mean 'Yes'"),
        (LABELS, {"costs": {"Maybe": {"No": 1}}}, "reward.costs: mine has no label 'Maybe'"),
        (LABELS, {"costs": {"Yes": {"Maybe": 1}}}, "reward.costs: mine has no label 'Maybe'"),
        (STSB, {"weights": {"Yes": 2}}, "answered with a number"),
        (LABELS, {"metric": "F1"}, "mine is not scored by 'F1'. Did you mean 'f1'"),
        (LABELS, {"metric": "matthews"}, "mine is not scored by 'matthews'"),
        (LABELS, {"metric": "accuracy", "metric_credit": "linear"}, "linear is for f1, not for accuracy"),
        (STSB, {"metric": "pearson", "metric_credit": "flip"}, "Use leave-one-out"),
        (label_task("No", "Yes", metrics=("f1a", "accuracy")), {"metric": "f1a"}, "groups of rows.*Use: accuracy"),
        (LABELS, {"functions": ("a.py:f",), "function_weights": (1, 2)}, "2 numbers for 1 reward functions"),
    ],
)
def test_settings_that_do_not_fit_the_task_are_refused(spec, config, message):
    with pytest.raises(ConfigError, match=message):
        check_rewards(RewardConfig(**config), [spec])


def test_a_label_of_one_task_of_a_mixture_is_enough():
    check_rewards(RewardConfig(weights={"Yes": 2, "Good": 3}), [LABELS, label_task("Bad", "Good"), STSB])


def test_settings_from_the_command_line():
    config = load_config(
        overrides=["ppo.reward.weights={Positive: 1, Negative: 5}", "ppo.reward.functions=a.py:f,b.py:g"]
    )
    assert config.ppo.reward.weights == {"Positive": 1.0, "Negative": 5.0}
    assert config.ppo.reward.functions == ("a.py:f", "b.py:g")
    with pytest.raises(ConfigError, match="quote them"):
        load_config(overrides=["ppo.reward.weights={No: 1, Yes: 5}"])
    with pytest.raises(ConfigError, match=r"write FILE\.py:NAME"):
        load_config(overrides=["ppo.reward.functions=[f]"])
