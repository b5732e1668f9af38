"""The library `gepa`, called as the methods call it, on a search that was worked out by hand."""

from __future__ import annotations

import gepa
from gepa.core.adapter import EvaluationBatch

TRIED = "0.1.4"
"""The newest version that was tried."""


class Longer:
    """Row x is right when the text has more than x letters; a new text has one letter more."""

    propose_new_texts = None

    def __init__(self, step: str = "a"):
        self.step, self.evaluated = step, []

    def evaluate(self, batch, candidate, capture_traces=False):
        text = candidate["instruction"]
        self.evaluated.append((text, len(batch)))
        scores = [float(row < len(text)) for row in batch]
        return EvaluationBatch(
            outputs=list(scores), scores=scores, trajectories=list(batch) if capture_traces else None
        )

    def make_reflective_dataset(self, candidate, evaluated, components):
        return {name: [{"row": row} for row in evaluated.trajectories] for name in components}

    def new_texts(self, candidate, dataset, components):
        return {"instruction": candidate["instruction"] + self.step}


class Quiet:
    def log(self, message):
        pass


def search(adapter, rows=(0, 1, 2, 3), calls=24):
    return gepa.optimize(
        seed_candidate={"instruction": "a"},
        trainset=list(rows),
        valset=list(rows),
        adapter=adapter,
        custom_candidate_proposer=adapter.new_texts,
        reflection_minibatch_size=2,
        max_metric_calls=calls,
        stop_callbacks=[lambda state: False],
        seed=0,
        logger=Quiet(),
        run_dir=None,
    )


def test_candidates_scores_and_calls():
    result = search(Longer())
    assert [each["instruction"] for each in result.candidates] == ["a", "aa", "aaa"]
    assert result.val_aggregate_scores == [0.25, 0.5, 0.75]
    assert result.total_metric_calls == 28  # the budget ends within one step after it
    assert result.candidates[result.best_idx]["instruction"] == "aaa"


def test_a_budget_of_the_held_out_rows_judges_the_seed_alone():
    adapter = Longer()
    assert [each["instruction"] for each in search(adapter, calls=4).candidates] == ["a"]
    assert adapter.evaluated == [("a", 4)]


def test_a_child_that_is_no_better_is_never_kept():
    assert [each["instruction"] for each in search(Longer(step="")).candidates] == ["a"]
