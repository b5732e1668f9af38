"""Labels in an order: read from a table, checked in a task file, rewarded by their distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from specs import label_task, number_task

from adjudge.config import RewardConfig
from adjudge.errors import ConfigError, TaskError
from adjudge.rewards.checks import check_rewards
from adjudge.rewards.rewarder import build_rewarder
from adjudge.rewards.score import reward
from adjudge.tasks import TaskSpec, infer_task, spec_to_yaml
from adjudge.tasks.validate import parse_task
from adjudge.types import Example, Judgement

GRADES = label_task("Poor", "Fair", "Good", "Superb", ordered=True, metrics=("quadratic_kappa", "accuracy"))


def infer(folder: Path, cells: list[str], *labels: str, **more: Any) -> TaskSpec:
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"text {i},{cell}\n" for i, cell in enumerate(cells)))
    return infer_task(folder / "rows.csv", ["text"], "label", labels or None, **more)


def test_a_table_has_the_order_of_its_listed_labels_or_numbers(tmp_path: Path) -> None:
    spec = infer(tmp_path, ["Good", "Poor", "Fair"] * 4, "Poor", "Fair", "Good", kind="ordered")
    assert spec.ordered and spec.words == ("Poor", "Fair", "Good") and spec.primary == "quadratic_kappa"
    stars = infer(tmp_path, ["10", "9", "2"] * 4, kind="ordered")
    assert stars.ordered and stars.words == ("2", "9", "10")
    assert not infer(tmp_path, ["Good", "Poor"] * 4).ordered
    assert "ordered: true" in spec_to_yaml(spec) and "ordered" not in spec_to_yaml(infer(tmp_path, ["a", "b"]))


def test_words_without_a_listed_order_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs the order of the labels in column 'label'.*--labels Good,Poor"):
        infer(tmp_path, ["Good", "Poor"] * 4, kind="ordered")


def test_a_task_file_says_so_for_the_metric_and_not_for_numbers() -> None:
    tree = GRADES.model_dump(mode="json", exclude_defaults=True) | {"source": {"table": {"train": "a.csv"}}}
    assert parse_task(tree, "x").ordered
    with pytest.raises(TaskError, match="'quadratic_kappa', which is for labels in an order: write 'ordered: true'"):
        parse_task({**tree, "ordered": False}, "x")
    number = number_task(0, 4).model_dump(mode="json", exclude_defaults=True) | {"source": tree["source"]}
    with pytest.raises(TaskError, match="'ordered' is for labels: numbers have their order"):
        parse_task({**number, "ordered": True}, "x")


def pays(config: RewardConfig, spec: TaskSpec = GRADES) -> list[float]:
    """Return what each answer pays where Poor is right, and an unreadable one."""
    return [reward(Judgement("", word), "Poor", spec, config) for word in (*spec.words, None)]


def test_a_wrong_label_pays_by_its_distance() -> None:
    assert pays(RewardConfig()) == pytest.approx([1, 1 / 3, -1 / 3, -1, -3])
    assert pays(RewardConfig(distance="quadratic")) == pytest.approx([1, 7 / 9, 1 / 9, -1, -3])
    assert pays(RewardConfig(distance="none")) == [1, -1, -1, -1, -3]
    assert pays(RewardConfig(right=3, wrong=0)) == pytest.approx([3, 2, 1, 0, -3])
    assert pays(RewardConfig(costs={"Poor": {"Good": -7.0}}))[2] == -7.0
    assert pays(RewardConfig(), GRADES.model_copy(update={"ordered": False})) == [1, -1, -1, -1, -3]
    two = label_task("No", "Yes", ordered=True)
    assert reward(Judgement("", "Yes"), "No", two, RewardConfig()) == -1


def test_what_every_method_learns_from_is_the_distance() -> None:
    rows = [Example(f"t:{word}", {"text": "a"}, word) for word in GRADES.words]
    rewarder = build_rewarder(RewardConfig(), GRADES, rows)
    (first, *_, last) = rewarder.of_each(rows, [[1]] * 4, [Judgement(word, word) for word in GRADES.words])
    assert first == pytest.approx([1, 1 / 3, -1 / 3, -1]) and last == pytest.approx(first[::-1])


@pytest.mark.parametrize("spec", [label_task("a", "b"), number_task(0, 4)])
def test_distance_without_an_order_is_an_error(spec: TaskSpec) -> None:
    check_rewards(RewardConfig(), [spec])
    with pytest.raises(ConfigError, match=r"reward.distance=linear is for labels in an order, which those of mine"):
        check_rewards(RewardConfig(distance="linear"), [spec])
