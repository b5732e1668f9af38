"""The estimator of scikit-learn: its contract, and that scikit-learn's tools take it."""

from __future__ import annotations

import pickle

import joblib
import numpy
import pandas
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

import adjudge
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.sklearn import Classifier

TEXTS = [f"{'good' if number % 2 else 'bad'} film, the {number}th of them" for number in range(24)]
LABELS = ["up_side" if number % 2 else "down" for number in range(24)]
NEW = ["a good film", "a bad film", "good"]


def judge(**options):
    return Classifier("tfidf", **options)


@pytest.fixture(scope="module")
def fitted():
    return judge().fit(TEXTS, LABELS)


def test_texts_are_judged(fitted):
    assert fitted.classes_.tolist() == ["down", "up_side"]
    assert fitted.predict(NEW).tolist() == ["up_side", "down", "up_side"]
    chances = fitted.predict_proba(NEW)
    assert chances.shape == (3, 2) and numpy.allclose(chances.sum(axis=1), 1)
    assert (fitted.classes_[chances.argmax(axis=1)] == fitted.predict(NEW)).all()
    assert fitted.score(TEXTS, LABELS) == 1.0
    assert fitted.predict([]).shape == (0,) and fitted.predict_proba([]).shape == (0, 2)
    assert not hasattr(fitted, "n_features_in_")


def test_every_row_is_learned_from_and_none_is_judged(fitted):
    run = adjudge.open_run(fitted.folder_)
    assert len(adjudge.load_split(run.task, "train")) == 24
    with pytest.raises(RunError, match="no such file"):
        run.scores  # noqa: B018
    assert run.predict(["good"])[0].value == "up side"


@pytest.mark.parametrize(
    "labels",
    [
        numpy.array([3, 10])[[number % 2 for number in range(24)]],
        [bool(number % 2) for number in range(24)],
        pandas.Series(LABELS, index=range(5, 29), dtype="category"),
        numpy.array(LABELS),
        [["c", "a", "b"][number % 3] for number in range(24)],
    ],
    ids=["numbers", "booleans", "categories", "array", "three"],
)
def test_labels_of_every_kind_come_back_as_they_were(labels):
    texts = [f"{label} it is, {number}" for number, label in enumerate(labels)]
    again = judge().fit(pandas.Series(texts), labels).predict(numpy.array(texts))
    assert again.tolist() == list(labels)
    assert type(again[0]) is type(numpy.unique(numpy.asarray(list(labels)))[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda first, second: list(zip(first, second, strict=True)),
        lambda first, second: numpy.array([first, second]).T,
        lambda first, second: pandas.DataFrame({"one": first, "label": second}),
        lambda first, second: [{"one": one, "label": two} for one, two in zip(first, second, strict=True)],
    ],
)
def test_rows_of_several_texts(make):
    rows = make(TEXTS, ["same"] * 24)
    estimator = judge().fit(rows, LABELS)
    assert estimator.n_features_in_ == 2
    assert estimator.score(rows, LABELS) == 1.0


def test_parameters_clone_and_repr():
    estimator = judge(settings={"prompt.style": "paper"}, seed=3)
    assert estimator.get_params() == {
        "method": "tfidf",
        "model": None,
        "instruction": None,
        "settings": {"prompt.style": "paper"},
        "out": None,
        "seed": 3,
    }
    other = clone(estimator).set_params(seed=4)
    assert (other.seed, other.settings, estimator.seed) == (4, {"prompt.style": "paper"}, 3)
    assert "seed=3" in repr(estimator)
    with pytest.raises(NotFittedError):
        estimator.predict(NEW)


def test_the_tools_of_scikit_learn():
    scores = cross_val_score(judge(), TEXTS, LABELS, cv=2)
    assert scores.tolist() == [1.0, 1.0]
    steps = [("lower", FunctionTransformer(lambda texts: [text.lower() for text in texts])), ("judge", judge())]
    assert Pipeline(steps).fit(TEXTS, LABELS).predict(["GOOD"]).tolist() == ["up_side"]
    search = GridSearchCV(judge(), {"seed": [3]}, cv=2, scoring="neg_log_loss").fit(TEXTS, LABELS)
    assert search.predict(NEW[:1]).tolist() == ["up_side"]


def test_what_scikit_learn_checks():
    failed = [
        result["check_name"]
        for result in check_estimator(judge(), on_fail=None, on_skip=None)
        if result["status"] == "failed"
    ]
    assert failed == []


def test_a_pickle_refers_to_the_folder(tmp_path):
    estimator = judge(out=tmp_path / "run").fit(TEXTS, LABELS)
    expected = estimator.predict_proba(NEW)
    packed = pickle.dumps(estimator)
    assert len(packed) < 5000, "it holds no weights"
    assert (pickle.loads(packed).predict_proba(NEW) == expected).all()
    joblib.dump(estimator, tmp_path / "judge.joblib")
    assert (joblib.load(tmp_path / "judge.joblib").predict_proba(NEW) == expected).all()
    assert estimator.fit(TEXTS[:20], LABELS[:20]).predict(NEW).tolist() == ["up_side", "down", "up_side"]


def test_a_temporary_folder_lives_as_long_as_its_estimator():
    from pathlib import Path

    estimator = judge().fit(TEXTS, LABELS)
    folder = Path(estimator.folder_)
    packed = pickle.dumps(estimator)
    assert folder.is_dir()
    del estimator
    assert not folder.exists()
    with pytest.raises(RunError, match="no run folder"):
        pickle.loads(packed).predict(NEW)


@pytest.mark.parametrize(
    ("texts", "labels", "error", "message"),
    [
        (TEXTS, LABELS[:-1], DataError, "X has 24 rows and y has 23"),
        (TEXTS, [None, *LABELS[1:]], DataError, "y:1: the label is missing"),
        ([None, *TEXTS[1:]], LABELS, DataError, r"rows:1: field 'text' is empty"),
        (TEXTS, numpy.linspace(0, 1, 24), ValueError, "continuous"),
        (TEXTS, ["one"] * 24, DataError, "one"),
        ("text", LABELS, DataError, "X: give"),
        ([[1, 2], 3], ["a", "b"], DataError, "X:2: the row has no list of texts"),
    ],
)
def test_rows_that_cannot_be_learned_from(texts, labels, error, message):
    with pytest.raises(error, match=message):
        judge().fit(texts, labels)


def test_settings_in_both_forms(tiny_llama):
    quick = {"sft.epochs": 1, "sft.min_steps": 0, "runtime.threads": 1}
    one = Classifier("sft", model=str(tiny_llama), settings=quick).fit(TEXTS[:8], LABELS[:8])
    other = Classifier("sft", model=str(tiny_llama), settings=[f"{key}={value}" for key, value in quick.items()])
    assert (one.predict_proba(NEW) == other.fit(TEXTS[:8], LABELS[:8]).predict_proba(NEW)).all()
    assert adjudge.open_run(one.folder_).config.sft.epochs == 1
    with pytest.raises(ConfigError, match=r"'sft\.epoch' is no setting"):
        Classifier("sft", settings={"sft.epoch": 1}).fit(TEXTS, LABELS)
    with pytest.raises(ConfigError, match="is not trained"):
        Classifier("zero-shot").fit(TEXTS, LABELS)


def test_accuracy_of_an_instruction(tiny_llama):
    asked = 'Is it "up side" or "down"?'
    estimator = Classifier(
        "sft", model=str(tiny_llama), instruction=asked, settings={"sft.epochs": 1, "sft.min_steps": 0}
    ).fit(TEXTS[:8], LABELS[:8])
    assert adjudge.open_run(estimator.folder_).task.instruction == asked
    assert 0 <= accuracy_score(LABELS[:8], estimator.predict(TEXTS[:8])) <= 1
