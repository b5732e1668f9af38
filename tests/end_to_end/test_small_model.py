"""The bundled small model on real sentences: what the whole chain rests on."""

from dataclasses import replace
from pathlib import Path

import pytest

from adjudge.config import load_config
from adjudge.errors import AdjudgeError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.models.policy import load_policy
from adjudge.rollout.prompted import PromptedTask
from adjudge.sklearn import Classifier
from adjudge.tasks import load_split, load_task, take_rows


@pytest.fixture(scope="module")
def judge(smollm2: Path) -> PromptedJudge:
    config = load_config(
        values={"runtime.dtype": "float32"}
    )  # bfloat16, where the machine has it, rounds by more than is compared
    return PromptedJudge(PromptedTask(load_policy(config), load_task("vader/movies"), config))


@pytest.fixture(scope="module")
def rows(judge: PromptedJudge):
    try:
        return take_rows(load_split(judge.task.spec, "dev"), 6, 0)
    except AdjudgeError as error:
        pytest.skip(f"the rated sentences cannot be fetched: {error}")


def test_the_untrained_model_answers_with_label_words(judge, rows):
    predictions = judge.judge(rows, probabilities=True)
    assert sum(prediction.value is None for prediction in predictions) <= 1
    assert all(abs(sum(prediction.probabilities.values()) - 1) < 1e-5 for prediction in predictions)


def test_a_shared_prefix_changes_no_answer_of_the_real_model(judge, rows):
    shared = judge.judge(rows[:4], probabilities=True)
    abilities = judge.task.policy.abilities
    judge.task.policy.use(replace(abilities, shares_prefix=False))
    try:
        plain = judge.judge(rows[:4], probabilities=True)
    finally:
        judge.task.policy.use(abilities)
    for one, other in zip(shared, plain, strict=True):
        assert one.text == other.text
        assert one.probabilities["Positive"] == pytest.approx(other.probabilities["Positive"], abs=1e-3)


def test_an_estimator_of_scikit_learn_fine_tunes_the_real_model(smollm2: Path):
    texts = ["a good film", "a bad film", "so good", "so bad"]
    quick = {"sft.epochs": 16, "sft.min_steps": 0, "runtime.threads": 1}
    judge = Classifier("sft", settings=quick).fit(texts, ["praise", "blame"] * 2)
    chances = judge.predict_proba(["good acting", "bad acting"])
    assert chances.shape == (2, 2) and judge.classes_.tolist() == ["blame", "praise"]
    assert chances[0, 1] > 0.5 > chances[1, 1], "praise is likelier where there is some"
