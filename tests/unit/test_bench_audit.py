"""Test the benchmark of audits: vectors are computed once per row, and the table has the shares of its audits."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks is no part of the installed package

from adjudge.config import load_config
from adjudge.types import Example
from benchmarks import audit


def test_the_vectors_of_a_row_are_computed_once_per_layer():
    computed = []

    def make(run):
        def of_task(spec):
            def features(rows, done):
                computed.append([row.id for row in rows])
                return np.array([[float(row.id), float(run.config.linear.layer or 0)] for row in rows])

            return features

        return of_task

    rows = [Example(str(number), {"text": f"film {number}"}, "good") for number in range(4)]
    of_run = audit.kept_vectors(make)
    spec = SimpleNamespace(name="mine")

    def vectors(layer, rows):
        run = SimpleNamespace(config=load_config(values={"linear.layer": layer}))
        return of_run(run)(spec)(rows, lambda count: None).tolist()

    assert vectors(3, rows[:3]) == [[0, 3], [1, 3], [2, 3]]
    assert vectors(3, rows[:0:-1]) == [[3, 3], [2, 3], [1, 3]]
    assert vectors(None, rows[:1]) == [[0, 0]]
    assert computed == [["0", "1", "2"], ["3"], ["0"]]


def test_the_table_has_shares_and_their_mean():
    found = [{"planted": {"rows": 4, "among_first": n, "suspicious": 2}, "right": 0.8} for n in (2, 3)]
    head, _, row = audit.table_lines({("glue/sst2", "encoder"): found}, [10, 11])
    assert head == "| task | judge | seed 10 | seed 11 | mean | suspicious | judged as labelled |"
    assert row == "| glue/sst2 | encoder | 50% | 75% | 62% | 50% | 80% |"
    assert {key for settings in audit.JUDGES.values() for key in settings} == {"linear.states", "linear.layer"}
