"""A collapse onto one label is seen at once."""

from __future__ import annotations

import json
import math

import pytest
from specs import label_task, number_task

from adjudge.config import GuardConfig
from adjudge.errors import GuardError
from adjudge.training.watch import WINDOW, AnswerWatch, entropy, recall
from adjudge.types import Judgement

LABELS = label_task("No", "Yes", "Maybe")
NUMBERS = number_task(0, 5)


def judged(*values) -> list[Judgement]:
    return [Judgement(str(value), value) for value in values]


def test_the_figures_of_a_batch() -> None:
    found = AnswerWatch(LABELS).see(["Yes", "Yes", "No", "No"], judged("Yes", None, "Yes", "No"))
    assert found == {
        "unreadable": 0.25,
        "right": 0.5,
        "recall": {"No": 0.5, "Yes": 0.5, "Maybe": None},
        "label_entropy": pytest.approx(-(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))),
    }
    json.dumps(found, allow_nan=False)


def test_an_unreadable_answer_is_right_for_no_row() -> None:
    found = AnswerWatch(LABELS).see(["Yes"], judged(None))
    assert (found["right"], found["unreadable"], found["label_entropy"]) == (0.0, 1.0, 0.0)


def test_the_figures_of_numbers() -> None:
    found = AnswerWatch(NUMBERS).see([1.0, 2.0, 3.0, 4.0], judged(1.4, 2.5, None, 4.0))
    assert found == {"unreadable": 0.25, "right": 0.5, "mean_error": pytest.approx(0.3)}
    assert AnswerWatch(NUMBERS).see([1.0], judged(None)) == {"unreadable": 1.0, "right": 0.0, "mean_error": None}


def test_recall() -> None:
    assert recall(["a", "a", "b"], ["a", None, "a"], ("a", "b", "c")) == {"a": 0.5, "b": 0.0, "c": None}


def test_entropy() -> None:
    assert entropy(["a", "b", "a", "b", None]) == pytest.approx(math.log(2))
    assert entropy(["a", "a", None]) == 0.0
    assert entropy([None]) == entropy([]) == 0.0
    assert math.copysign(1, entropy(["a"])) == 1, "no -0.0 in the records"


def feed(watch: AnswerWatch, value, *, batches: int = WINDOW // 16, golds=("Yes", "No")) -> None:
    for _ in range(batches):
        watch.see([golds[place % len(golds)] for place in range(16)], judged(*[value] * 16))
        watch.check(kl=0.0)


def varied(watch: AnswerWatch, batches: int = WINDOW // 16) -> None:
    for _ in range(batches):
        watch.see(["Yes", "No"] * 8, judged(*["Yes", "No"] * 8))
        watch.check(kl=0.0)


def warnings(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning:")]


def test_a_collapse_is_warned_about_once_a_spell(capsys) -> None:
    watch = AnswerWatch(LABELS)
    feed(watch, "Yes", batches=WINDOW // 16 - 1)
    assert warnings(capsys) == []  # too few answers to say
    feed(watch, "Yes", batches=20)
    assert warnings(capsys) == [
        "warning: 128 of the last 128 sampled answers are 'Yes': the policy is collapsing onto one label"
    ]
    varied(watch)
    assert warnings(capsys) == []
    feed(watch, "No", batches=20)
    (second,) = warnings(capsys)
    assert "'No': the policy is collapsing" in second


def test_one_label_is_no_collapse_where_nearly_all_rows_have_it(capsys) -> None:
    feed(AnswerWatch(LABELS), "Yes", batches=20, golds=("Yes",))
    assert warnings(capsys) == []


def test_varied_answers_are_no_collapse(capsys) -> None:
    varied(AnswerWatch(LABELS), batches=20)
    assert warnings(capsys) == []


def test_unreadable_answers_are_warned_about_once_a_spell(capsys) -> None:
    watch = AnswerWatch(LABELS)
    feed(watch, None, batches=20)
    assert warnings(capsys) == ["warning: 128 of the last 128 sampled answers are unreadable"]
    varied(watch)
    feed(watch, None, batches=20)
    assert len(warnings(capsys)) == 1


def test_one_number_for_everything_is_no_label(capsys) -> None:
    watch = AnswerWatch(NUMBERS)
    feed(watch, 2.5, batches=20, golds=(1.0, 4.0))
    assert warnings(capsys) == []
    feed(watch, None, batches=20, golds=(1.0, 4.0))
    assert len(warnings(capsys)) == 1


def test_as_many_answers_as_rows() -> None:
    with pytest.raises(ValueError):
        AnswerWatch(LABELS).see(["Yes", "No"], judged("Yes"))


def test_the_watch_of_a_mixture_names_its_task(capsys) -> None:
    feed(AnswerWatch(LABELS, named=True), "Yes", batches=20)
    feed(AnswerWatch(NUMBERS.model_copy(update={"name": "glue/stsb"}), named=True), None, batches=20, golds=(1.0,))
    assert [line.split(": ")[1] for line in warnings(capsys)] == ["mine", "glue/stsb"]


def watched(windows: list[tuple[float, int]], **limits: object) -> AnswerWatch:
    """Return a watch that saw full windows of a learned reward and of so many right answers in 128."""
    watch = AnswerWatch(LABELS, GuardConfig.model_validate({"stop_on": ["score"], "one_label_share": 0.999, **limits}))
    for score, right in windows:
        golds = ["Yes", "No"] * (WINDOW // 2)
        wrong = {"Yes": "Maybe", "No": "Yes"}
        watch.see(golds, judged(*(gold if at < right else wrong[gold] for at, gold in enumerate(golds))), score)
        watch.check(0.0)
    return watch


def test_a_learned_reward_that_rises_while_right_answers_fall_stops_the_run() -> None:
    with pytest.raises(GuardError, match=r"rose from 0.50 to 0.90, while the share of right answers fell from 0.94"):
        watched([(0.2, 100), (0.5, 120), (0.9, 90)])


@pytest.mark.parametrize(
    "windows", [[(0.5, 120), (0.4, 60)], [(0.5, 120), (0.9, 115)], [(0.5, 60), (0.9, 120)], [(0.9, 120)]]
)
def test_either_alone_does_not(windows: list[tuple[float, int]]) -> None:
    state = watched(windows).state_dict()
    AnswerWatch(LABELS).load_state_dict(json.loads(json.dumps(state)))


def test_the_fall_is_a_setting() -> None:
    watched([(0.5, 120), (0.9, 90)], right_fall=0.5)
