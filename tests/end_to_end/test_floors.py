"""The floors: logistic regression on words, and on a frozen encoder's vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import load_one, train_one
from specs import label_task, number_task

from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.methods.floors.regression import choose_c, fit_floor, fit_labels, fit_number
from adjudge.methods.settings import own_settings
from adjudge.models.encoder import load_encoder
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

LABELS = label_task("Bad", "Good", "Mixed")
NUMBERS = number_task(0, 4)
WORDS = {"Bad": "bad", "Good": "good", "Mixed": "very"}
FLOORS = ("tfidf", "linear")
STATES = ("policy", "encoder", "both")


def rows(count: int = 30, *words: str) -> list[Example]:
    words = words or tuple(WORDS)
    return [
        Example(
            f"t:{row}",
            {"text": f"{WORDS[words[row % len(words)]]} film {'the ' * (row % 4)}!"},
            words[row % len(words)],
        )
        for row in range(count)
    ]


def new_run(folder: Path, method: str, bert: Path, **more: Any) -> Run:
    values = {"method": method, "linear.model": str(bert), "runtime.device": "cpu", "evaluation.batch_size": 4, **more}
    return Run.create(folder, load_config(values={key.replace("__", "."): value for key, value in values.items()}))


@pytest.mark.parametrize("method", FLOORS)
def test_it_learns_is_saved_and_judges_the_same_afterwards(method: str, tiny_bert: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", method, tiny_bert)
    judged = train_one(method, run, LABELS, rows()).judge(rows(), probabilities=True)
    assert sum(row.value == row.gold for row in judged) >= (30 if method == "tfidf" else 15)
    assert all(sum(row.probabilities.values()) == pytest.approx(1) for row in judged)
    again = load_one(method, Run.open(run.folder), LABELS).judge(rows(), probabilities=True)
    assert again == judged
    (record,) = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert record["rows"] == 30 and 0 <= record["held_out"] <= 1 and record["c"] > 0


def test_a_fit_that_was_killed_after_its_log_is_logged_once(tiny_bert: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", "tfidf", tiny_bert)
    for _ in range(2):
        train_one("tfidf", run, LABELS, rows())
    assert len((run.folder / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("method", FLOORS)
def test_numbers_are_fitted_by_ridge_regression(method: str, tiny_bert: Path, tmp_path: Path) -> None:
    graded = [Example(f"t:{row}", {"text": f"{'good ' * (row % 5)}film"}, float(row % 5)) for row in range(30)]
    run = new_run(tmp_path / "run", method, tiny_bert)
    judged = train_one(method, run, NUMBERS, graded).judge(graded)
    golds, values = (
        [float(value or 0) for value in column] for column in zip(*((r.gold, r.value) for r in judged), strict=True)
    )
    assert all(0 <= value <= 4 for value in values)
    assert np.corrcoef(golds, values)[0, 1] > 0.5


@pytest.mark.parametrize("method", FLOORS)
@pytest.mark.parametrize("texts", [["", "!!!", "🙂"], ["a " * 3000, "b", "[SEP] [PAD]"]])
def test_odd_texts_are_judged(method: str, texts: Sequence[str], tiny_bert: Path, tmp_path: Path) -> None:
    judge = train_one(method, new_run(tmp_path / "run", method, tiny_bert), LABELS, rows())
    odd = [Example(f"t:{row}", {"text": text}) for row, text in enumerate(texts)]
    assert all(row.value in LABELS.words for row in judge.judge(odd))
    assert judge.judge([]) == []


@pytest.mark.parametrize("method", FLOORS)
def test_few_rows_one_label_and_rare_labels(method: str, tiny_bert: Path, tmp_path: Path) -> None:
    one = train_one(method, new_run(tmp_path / "one", method, tiny_bert), LABELS, rows(3, "Good"))
    assert {row.value for row in one.judge(rows(6))} == {"Good"}
    rare = [*rows(20, "Bad"), *rows(1, "Mixed")]
    judged = train_one(method, new_run(tmp_path / "rare", method, tiny_bert), LABELS, rare).judge(rare)
    assert {row.value for row in judged} <= {"Bad", "Mixed"}


def test_a_pair_of_texts_has_both_vectors_their_difference_and_product(tiny_bert: Path, tmp_path: Path) -> None:
    pair: TaskSpec = LABELS.model_copy(update={"fields": {"a": "a", "b": "b"}, "template": "{{ a }} {{ b }}"})
    given = [Example(f"t:{row}", {"a": f"film {row}", "b": "a book"}, LABELS.words[row % 3]) for row in range(12)]
    judge = train_one("linear", new_run(tmp_path / "run", "linear", tiny_bert), pair, given)
    features = judge.features(given, lambda count: None)
    width = features.shape[1] // 4
    first, second, gap, product = (features[:, part * width : (part + 1) * width] for part in range(4))
    np.testing.assert_allclose(gap, np.abs(first - second))
    np.testing.assert_allclose(product, first * second)
    np.testing.assert_allclose((first**2).sum(1), 1, atol=1e-5)


def test_a_probe_reads_the_policys_states_and_judges_the_same_after_loading(able: Path, tmp_path: Path) -> None:
    values = {"linear.states": "policy", "model": str(able), "runtime.dtype": "float32"}
    run = new_run(tmp_path / "run", "linear", able, **values)
    judge = train_one("linear", run, LABELS, rows())
    judged = judge.judge(rows(), probabilities=True)
    assert sum(row.value == row.gold for row in judged) >= 20
    again = load_one("linear", Run.open(run.folder), LABELS)
    alone = [again.judge([row], probabilities=True)[0] for row in rows()]
    for row, one in zip(judged, alone, strict=True):
        assert one.value == row.value and one.probabilities == pytest.approx(row.probabilities, abs=1e-4)
    other = LABELS.model_copy(update={"instruction": "Say what it is."})  # its prompts, so its states
    assert load_one("linear", run, other).judge(rows(3), probabilities=True) != judged[:3]


def test_a_probe_of_a_layer_and_of_the_last_one_by_its_number(able: Path, tmp_path: Path) -> None:
    values = {"linear.states": "policy", "model": str(able), "runtime.dtype": "float32"}
    answers = {}
    for name, layer in {"unset": None, "last": 2, "first": 1, "middle": "middle"}.items():
        run = new_run(tmp_path / name, "linear", able, **values, linear__layer=layer)
        judge = train_one("linear", run, LABELS, rows())
        answers[name] = [row.probabilities for row in judge.judge(rows(), probabilities=True)]
        again = load_one("linear", Run.open(run.folder), LABELS).judge(rows(), probabilities=True)
        assert [row.probabilities for row in again] == answers[name]
    assert answers["last"] == answers["unset"] != answers["first"]
    assert answers["middle"] == answers["first"]  # three fifths of two layers
    with pytest.raises(ConfigError, match=r"linear\.layer=3: .* has 2 layers\. Name one of 1 to 2"):
        train_one("linear", new_run(tmp_path / "none", "linear", able, **values, linear__layer=3), LABELS, rows())
    for wrong in (0, "last", 1.5):
        with pytest.raises(ConfigError, match=r"linear\.layer"):
            load_config(values={"linear.layer": wrong})


def test_both_is_the_mean_of_a_probe_and_of_the_encoders_vectors(able: Path, tiny_bert: Path, tmp_path: Path) -> None:
    values = {"model": str(able), "runtime.dtype": "float32", "linear.layer": 1}
    judges = {}
    for states in ("policy", "encoder", "both"):
        run = new_run(tmp_path / states, "linear", tiny_bert, **values, linear__states=states)
        judges[states] = train_one("linear", run, LABELS, rows())

    def logits(judge: Any) -> Any:
        return judge.features(rows(), lambda count: None) @ judge.fitted.coef_LF.T + judge.fitted.intercept_L

    mean = (logits(judges["policy"]) + logits(judges["encoder"])) / 2
    np.testing.assert_allclose(logits(judges["both"]), mean, atol=1e-8)
    judged = judges["both"].judge(rows(), probabilities=True)
    again = load_one("linear", Run.open(tmp_path / "both"), LABELS).judge(rows(), probabilities=True)
    assert again == judged
    (record,) = [json.loads(line) for line in (tmp_path / "both/metrics.jsonl").read_text().splitlines()]
    assert len(record["c"]) == len(record["held_out"]) == 2 and record["features"] == 64 + 32
    numbers = [Example(f"n:{row}", {"text": f"film {row}"}, float(row % 4)) for row in range(12)]
    run = new_run(tmp_path / "numbers", "linear", tiny_bert, **values, linear__states="both")
    assert all(0 <= row.value <= 4 for row in train_one("linear", run, NUMBERS, numbers).judge(numbers))


def test_standardised_features_are_fitted_as_scikit_learn_fits_them(tiny_bert: Path, tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    states = np.random.default_rng(0).normal(size=(30, 4)) * [1.0, 100.0, 0.01, 0.0] + [0.0, 50.0, 0.0, 3.0]

    def features(given: Sequence[Example], done: Any) -> Any:
        return states[[int(row.id.split(":")[1]) for row in given]]

    run = new_run(tmp_path / "run", "linear", tiny_bert)
    judge = fit_floor(run, TaskRows(LABELS, rows()), features, 2.0, {}, {}, standardise=True).judges[0]
    judged = judge.judge(rows(), probabilities=True)
    golds = [LABELS.words.index(row.gold) for row in rows()]
    scaled = StandardScaler().fit_transform(states) / 2.0  # the root of 4 features
    expected = LogisticRegression(C=2.0, max_iter=1000).fit(scaled, golds).predict_proba(scaled)
    np.testing.assert_allclose([list(row.probabilities.values()) for row in judged], expected, atol=1e-3)


def test_a_probe_has_the_policys_settings_and_an_encoder_has_not() -> None:
    changed = {"method": "linear", "model": "smollm2-135m", "prompt.style": "paper", "linear.model": "minilm-l6"}
    kept = [own_settings(load_config(values={**changed, "linear.states": states})) for states in STATES]
    assert [config.prompt.style for config in kept] == ["paper", "chat", "paper"]
    assert [config.model for config in kept] == ["smollm2-135m", "minilm-l6", "smollm2-135m"]


def test_a_vector_does_not_depend_on_its_batch(tiny_bert: Path) -> None:
    encoder = load_encoder(str(tiny_bert), load_config(values={"runtime.device": "cpu"}).runtime, 64, ())
    texts = ["a film", "a very long and dull film about nothing", "b"]
    together, alone = encoder.vectors(texts, 3), encoder.vectors(texts, 1)
    assert float((together - alone).abs().max()) < 1e-5


def test_the_regressions_are_scikit_learns_with_the_chosen_c() -> None:
    from sklearn.linear_model import LogisticRegression, Ridge

    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 4))
    targets = (features[:, 0] + 0.1 * generator.normal(size=60) > 0).astype(float)
    for labels in (targets, targets + (features[:, 1] > 0.5)):
        fitted = fit_labels(features, labels, 3, 2.0)
        logits = features @ fitted.coef_LF.T + fitted.intercept_L
        model = LogisticRegression(C=2.0, max_iter=1000).fit(features, labels)
        np.testing.assert_array_equal(logits.argmax(1), model.predict(features))
    number = fit_number(features, targets, 0, 2.0)
    expected = Ridge(alpha=0.5).fit(features, targets)
    np.testing.assert_allclose(features @ number.coef_LF[0] + number.intercept_L[0], expected.predict(features))
    c, held_out = choose_c(fit_labels, features, targets, 2, seed=0)
    assert c >= 1 and held_out is not None and held_out > 0.85
    assert choose_c(fit_labels, features[:9], targets[:9], 2, seed=0) == (1.0, None)


def test_mistakes_are_named(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training row holds a word"):
        train_one("tfidf", new_run(tmp_path / "a", "tfidf", tiny_bert), LABELS, [Example("t:0", {"text": " "}, "Bad")])
    with pytest.raises(DataError, match="the gold answer None is none of"):
        train_one("linear", new_run(tmp_path / "b", "linear", tiny_bert), LABELS, [Example("t:0", {"text": "a"})])
    run = new_run(tmp_path / "c", "tfidf", tiny_bert)
    train_one("tfidf", run, LABELS, rows())
    with pytest.raises(RunError, match="it answers Bad, Good, Mixed, but the task mine wants No, Yes"):
        load_one("tfidf", run, label_task("No", "Yes"))
    shutil.rmtree(run.folder / "regression")
    with pytest.raises(RunError, match="holds no trained tfidf"):
        load_one("tfidf", run, LABELS)
