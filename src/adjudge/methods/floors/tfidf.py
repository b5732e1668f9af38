"""Logistic regression on tf-idf weights of words: a floor that costs seconds.

A text is a bag of words, punctuation marks and short runs of them, each weighted by (1 + log count) × its rarity. A
number task takes ridge regression. No language model is involved.

Source: scikit-learn's ``TfidfVectorizer`` and ``LogisticRegression``; the weighting is Salton and Buckley (1988).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adjudge.errors import DataError
from adjudge.methods.base import Method, Trained
from adjudge.methods.floors.regression import Features, fit_floor, load_floor
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

WORD = r"(?u)\w+|[^\w\s]"
"""A word, or one punctuation mark or emoji."""


def train_tfidf(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Count words, fit, and save.

    Raises DataError for rows without gold answers, or without a single word.
    """
    (part,) = parts
    vectorizer = _vectorizer(run.config.tfidf.ngrams)
    try:
        vectorizer.fit(_texts(part.rows))
    except ValueError as error:
        raise DataError(f"{part.spec.name}: no training row holds a word ({error}).") from None
    stored = {"terms": vectorizer.get_feature_names_out().tolist(), "ngrams": run.config.tfidf.ngrams}
    features = _features(vectorizer)
    return fit_floor(run, part, features, run.config.tfidf.c, stored, {"idf": vectorizer.idf_})


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> Sequence[Any]:
    """Return the judges of a finished run. Raises RunError."""

    def features_of(stored: dict[str, Any], arrays: dict[str, Any], _task: TaskSpec) -> Features:
        vectorizer = _vectorizer(stored["ngrams"], stored["terms"])
        vectorizer.idf_ = arrays["idf"]
        return _features(vectorizer)

    return load_floor(run, specs, features_of)


def _vectorizer(ngrams: int, terms: Sequence[str] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vocabulary = None if terms is None else {term: index for index, term in enumerate(terms)}
    return TfidfVectorizer(
        token_pattern=WORD, ngram_range=(1, ngrams), sublinear_tf=True, vocabulary=vocabulary, dtype=np.float64
    )


def _features(vectorizer: Any) -> Features:
    def features(rows: Sequence[Example], done: Callable[[int], None]) -> Any:
        done(len(rows))
        return vectorizer.transform(_texts(rows))

    return features


def _texts(rows: Sequence[Example]) -> list[str]:
    return ["\n".join(row.fields.values()) for row in rows]


METHOD = Method(train_tfidf, load_judges)
