"""ReCoRD's metrics: compare the most probable candidate with the gold answers of its query.

Source: ReCoRD (arXiv 1810.12885); token F1 and exact match are those of SQuAD 1.1 (arXiv 1606.05250).
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from adjudge.errors import DataError
from adjudge.types import Prediction

CANDIDATE, ANSWERS = "candidate", "answers"
"""Tags of a row: its candidate's text, and the JSON list of the query's gold answers."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def best_candidate_f1(where: str, rows: Sequence[Prediction], positive: str) -> float:
    """Return the token F1 of the most probable candidate, the highest over the gold answers.

    Raises DataError as `best_candidate`, and for a missing tag.
    """
    return _best_match(token_f1, where, rows, positive)


def best_candidate_em(where: str, rows: Sequence[Prediction], positive: str) -> float:
    """Return 1 when the most probable candidate is one of the gold answers, else 0.

    Raises DataError as `best_candidate`, and for a missing tag.
    """
    return _best_match(exact_match, where, rows, positive)


def best_candidate(where: str, rows: Sequence[Prediction], positive: str) -> Prediction:
    """Return the row with the highest probability of `positive`; of equal ones, the first.

    The decoded answers are ignored, since they cannot rank candidates. Raises DataError for a row without probability.
    """
    for row in rows:
        if positive not in row.probabilities:
            raise DataError(
                f"{where}: row {row.id} has no probability of '{positive}', which selects the best candidate. "
                "Judge it again."
            )
    return max(rows, key=lambda row: row.probabilities[positive])


def token_f1(answer: str, gold: str) -> float:
    """Return the F1 of the normalised texts as bags of words; 0 when they share no word."""
    answer_words, gold_words = Counter(normal_answer(answer).split()), Counter(normal_answer(gold).split())
    shared = (answer_words & gold_words).total()
    return 2.0 * shared / (answer_words.total() + gold_words.total()) if shared else 0.0


def exact_match(answer: str, gold: str) -> float:
    """Return 1 when the normalised texts are equal, else 0."""
    return float(normal_answer(answer) == normal_answer(gold))


def normal_answer(text: str) -> str:
    """Return the text in lower case, without ASCII punctuation, English articles and extra white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _best_match(match: Callable[[str, str], float], where: str, rows: Sequence[Prediction], positive: str) -> float:
    best = best_candidate(where, rows, positive)
    return max(match(_tag(where, best, CANDIDATE), gold) for gold in _gold_answers(where, best))


def _gold_answers(where: str, row: Prediction) -> list[str]:
    raw = _tag(where, row, ANSWERS)
    try:
        golds = json.loads(raw)
    except json.JSONDecodeError:
        golds = None
    if not isinstance(golds, list) or not golds or not all(isinstance(gold, str) for gold in golds):
        raise DataError(
            f"{where}: row {row.id}: the tag '{ANSWERS}' must be a JSON list of at least one text, not {raw!r}."
        )
    return golds


def _tag(where: str, row: Prediction, tag: str) -> str:
    if not row.tags.get(tag):
        raise DataError(
            f"{where}: row {row.id} has no tag '{tag}', which ReCoRD's metrics need. Judge a labelled split."
        )
    return row.tags[tag]
