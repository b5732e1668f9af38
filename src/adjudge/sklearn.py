"""A judge as an estimator of scikit-learn.

`cross_val_score`, `Pipeline` and `GridSearchCV` take it as any other.

from adjudge.sklearn import Classifier

judge = Classifier("sft", settings={"sft.epochs": 2}).fit(texts, labels)
judge.predict(["A warm, funny surprise."])
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from adjudge import api
from adjudge.config import parse_override
from adjudge.errors import DataError
from adjudge.tasks.reading.given_rows import cell_text, is_missing
from adjudge.tasks.reading.given_table import given_texts
from adjudge.tasks.reading.rows import gold_of

__all__ = ["Classifier"]


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Train a method of adjudge on texts and their labels, and judge with it.

    - `method`: one that trains, such as ``"sft"``, ``"encoder"`` or ``"tfidf"``
    - `model`: the base model (a bundled name, a folder, an id on the hub); for ``"encoder"`` the encoder
    - `instruction`: what the model is asked, in your words; it names every label
    - `settings`: settings of the run, as a mapping of key to value or as a list of ``"KEY=VALUE"``
    - `out`: folder of the run; each fit replaces what it holds. Without it, the run lies in a temporary folder for as
      long as the estimator lives.
    - `seed`: seed of the run

    When it is fitted, `classes_` has the labels, sorted, and `folder_` the run folder. A pickled estimator refers to
    that folder and holds no weights. `n_features_in_` is the number of texts in a row, where `X` has columns.
    """

    def __init__(
        self,
        method: str = "sft",
        *,
        model: str | None = None,
        instruction: str | None = None,
        settings: Mapping[str, Any] | Sequence[str] | None = None,
        out: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self.method = method
        self.model = model
        self.instruction = instruction
        self.settings = settings
        self.out = out
        self.seed = seed

    def __sklearn_tags__(self) -> Any:
        """Return the tags: it reads texts, one or several in a row."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.dict = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False  # numbers in columns are no texts
        return tags

    def fit(self, X: Any, y: Any) -> Classifier:
        """Train on texts and their labels: all rows are learned from, and none is judged.

        `X` holds texts, or rows of several texts: tuples, mappings, or a frame. Raises the errors of `adjudge.train`.
        """
        texts = given_texts(X, source="X")
        columns = dict(texts.columns)
        answers = list(getattr(y, "array", y) if hasattr(y, "iloc") else y)
        if len(answers) != len(texts):
            raise DataError(f"X has {len(texts):,} rows and y has {len(answers):,}. Give one label for each row.")
        for number, answer in enumerate(answers, 1):
            if is_missing(answer):
                raise DataError(f"y:{number}: the label is missing. Fill it in, or remove the row.")
        check_classification_targets(answers)
        self.classes_, indices = numpy.unique(numpy.asarray(answers), return_inverse=True)
        self._columns = list(columns)
        names = [cell_text("y", "label", label) for label in self.classes_.tolist()]
        label = next(name for name in ("label", "answer", "judgement", "label_of_y") if name not in columns)
        rows = [
            {**dict(zip(columns, cells, strict=True)), label: names[index]}
            for cells, index in zip(zip(*columns.values(), strict=True), indices, strict=True)
        ]
        one_of_each = [rows[int(numpy.flatnonzero(indices == index)[0])] for index in range(len(names))]
        self._run = self._trained(rows, one_of_each, label)
        self.folder_ = str(self._run.folder.resolve())
        self._words = [str(gold_of(self._run.task, "y", name)) for name in names]
        if getattr(X, "ndim", None) == 2 or hasattr(X, "columns") or len(columns) > 1:
            self.n_features_in_ = len(columns)
        return self

    def _trained(self, rows: list[dict[str, str]], dev: list[dict[str, str]], label: str) -> api.FinishedRun:
        """Train a run on rows and return it. `dev` is what its task may be judged on later."""
        settings = self.settings if self.settings is not None else {}
        pairs = settings.items() if isinstance(settings, Mapping) else map(parse_override, settings)
        folder = self.out
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="adjudge-fit-")
            folder = Path(self._temporary.name) / "run"
        return api.train(
            self.method,
            data=rows,
            dev=dev,
            text=self._columns,
            label=label,
            kind="labels",
            instruction=self.instruction,
            model=self.model,
            seed=self.seed,
            out=folder,
            force=True,
            evaluate=False,
            **{key.replace(".", "__"): value for key, value in pairs},
        )

    def predict(self, X: Any) -> Any:
        """Return the likeliest label of each row, an array of shape (rows,)."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each label for each row, shape (rows, labels), in the order of `classes_`."""
        check_is_fitted(self, "folder_")
        if hasattr(X, "__len__") and len(X) == 0:
            return numpy.empty((0, len(self.classes_)))
        columns = given_texts(X, self._columns, source="X").columns
        rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        if getattr(self, "_run", None) is None:
            self._run = api.open_run(self.folder_)
        predictions = self._run.predict(rows)
        chances = numpy.array([[each.probabilities[word] for word in self._words] for each in predictions])
        return chances / chances.sum(axis=1, keepdims=True)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: no weights, but the folder they lie in."""
        state = dict(super().__getstate__())
        return {name: value for name, value in state.items() if name not in ("_run", "_temporary")}
