"""Split the rows of one table into training and dev rows, the same on every machine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from adjudge.tasks.reading.same_text import hash_share, text_key
from adjudge.types import Example


def split_table(examples: Sequence[Example], dev_share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split rows into (train, dev), balanced over labels; numbers count as one label.

    Of each label, the texts with the smallest hashes become dev rows, until its part of `dev_share` is reached. A label
    with two texts or more has rows on both sides; one with a single text has it in train. Rows with equal texts, and
    rows of one group, share a split, as rows of the label that most of them have. Both splits keep the file order, and
    the row order does not decide. Dev is empty when no label has two texts.
    """
    keys = _split_keys(examples)
    sizes = Counter(keys)
    strata = _strata(examples, keys)
    chosen: set[str] = set()
    for label, quota in _quotas(strata, sizes, dev_share, len(examples)).items():
        ordered = sorted(strata[label], key=lambda text: (hash_share(text, seed), text))
        rows = 0
        for key in ordered[:-1]:
            if rows >= quota:
                break
            chosen.add(key)
            rows += sizes[key]
    train, dev = (
        [row for row, key in zip(examples, keys, strict=True) if (key in chosen) == wanted] for wanted in (False, True)
    )
    return train, dev


def _strata(examples: Sequence[Example], keys: Sequence[str]) -> dict[str, list[str]]:
    """Return the split keys per label, each key under the label that most of its rows have."""
    golds: dict[str, Counter[str]] = {}
    for example, key in zip(examples, keys, strict=True):
        golds.setdefault(key, Counter())[example.gold if isinstance(example.gold, str) else ""] += 1
    strata: dict[str, list[str]] = {}
    for key, counts in golds.items():
        strata.setdefault(min(counts, key=lambda label: (-counts[label], label)), []).append(key)
    return {label: strata[label] for label in sorted(strata)}


def _quotas(
    strata: Mapping[str, Sequence[str]], sizes: Mapping[str, int], dev_share: float, rows: int
) -> dict[str, int]:
    """Return the number of dev rows per label: its share, rounded so that the sum is that of all rows.

    Labels with two texts or more get at least one.
    """
    exact = {label: dev_share * sum(sizes[key] for key in keys) for label, keys in strata.items()}
    quotas = {label: max(math.floor(share), 1) if len(strata[label]) > 1 else 0 for label, share in exact.items()}
    left = max(1, round(dev_share * rows)) - sum(quotas.values())
    waiting = [label for label in exact if len(strata[label]) > 1 and exact[label] > quotas[label]]
    for label in sorted(waiting, key=lambda label: (quotas[label] - exact[label], label))[: max(0, left)]:
        quotas[label] += 1
    return quotas


def _split_keys(examples: Sequence[Example]) -> list[str]:
    """Return one key per row, equal for rows that must share a split.

    Those are rows with equal texts or of one group, and rows connected through such rows (union-find over the texts).
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    first_of_group: dict[str, str] = {}
    texts = [text_key(example.fields) for example in examples]
    for example, text in zip(examples, texts, strict=True):
        if example.group:
            low, high = sorted((root(text), root(first_of_group.setdefault(example.group, text))))
            parent[high] = low
    return [root(text) for text in texts]
