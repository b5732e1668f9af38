"""GEPA's search over instructions (arXiv 2507.19457), run by the library `gepa`.

The method says how a new instruction is written. The library keeps candidates, draws a parent from the Pareto front
over the held-out rows, tries the child on a minibatch, and scores it on all held-out rows when it is better there. Its
own way to resume is a pickle, which is not used: the search is a function of the seed, and what it judged and wrote is
read from ``trials.jsonl`` and the log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adjudge.config import GepaConfig
from adjudge.errors import AdjudgeError, ConfigError
from adjudge.evaluation.trials import Trial, problem_with
from adjudge.methods.base import Trained
from adjudge.methods.prompting.searching import Search, begin
from adjudge.runs.folder import Run
from adjudge.system.console import note
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

COMPONENT = "instruction"

Judged = tuple[Example, Trial]
Propose = Callable[[Search, str, Sequence[Judged]], str | None]
"""An instruction and rows judged with it → a new instruction, or None."""


def evolve(run: Run, parts: Sequence[TaskRows], config: GepaConfig, propose: Propose) -> Trained:
    """Search an instruction and return the judge with the best one.

    Raises ConfigError without the library, DataError for too few rows, and what judging and writing raise.
    """
    try:
        import gepa
    except ModuleNotFoundError as error:
        if error.name != "gepa":
            raise
        raise ConfigError("This method needs the library gepa: pip install 'adjudge[gepa]'.") from None
    search = begin(run, parts, config)
    adapter = _Adapter(search, propose)
    result: Any = gepa.optimize(
        seed_candidate={COMPONENT: search.spec.instruction},
        trainset=list(search.shown),
        valset=list(search.held_out),
        adapter=adapter,  # type: ignore[arg-type]
        custom_candidate_proposer=adapter.new_texts,  # type: ignore[arg-type]
        reflection_minibatch_size=min(config.minibatch, len(search.shown)),
        max_metric_calls=config.calls,
        stop_callbacks=[lambda _: adapter.problem is not None],
        seed=run.config.seed,
        logger=_Quiet(),
        run_dir=None,
        cache_evaluation=False,
        raise_on_exception=True,
    )
    if adapter.problem is not None:  # the library goes on after an error of a proposer
        raise adapter.problem
    record = {
        "candidates": [
            {"instruction": candidate[COMPONENT], "parents": parents, "score": score}
            for candidate, parents, score in zip(
                result.candidates, result.parents, result.val_aggregate_scores, strict=True
            )
        ],
        "proposed": adapter.proposed,
        "rejected": adapter.rejected,
        "metric_calls": result.total_metric_calls,
    }
    note(
        f"{search.spec.name}: {adapter.proposed} instructions proposed, {len(result.candidates) - 1} kept; the best "
        f"scores {max(result.val_aggregate_scores):.3f} on the held-out rows, the task's own "
        f"{result.val_aggregate_scores[0]:.3f}"
    )
    return search.finish(result.candidates[result.best_idx][COMPONENT], record)


class _Adapter:
    """What the library asks: to judge rows with a candidate, and for a new candidate."""

    propose_new_texts = None  # the library looks for it

    def __init__(self, search: Search, propose: Propose) -> None:
        self._search, self._propose = search, propose
        self.problem: AdjudgeError | None = None
        self.proposed = 0
        self.rejected: list[dict[str, Any]] = []

    def evaluate(self, batch: Sequence[Example], candidate: Mapping[str, str], capture_traces: bool = False) -> Any:
        """Judge a batch of rows with a candidate."""
        from gepa.core.adapter import EvaluationBatch

        trials = self._search.trials.judged(candidate[COMPONENT], batch, "an instruction on trial")
        scores = [trial.score for trial in trials]
        traces = list(zip(batch, trials, strict=True)) if capture_traces else None
        return EvaluationBatch(outputs=[trial.text for trial in trials], scores=scores, trajectories=traces)

    def make_reflective_dataset(self, _candidate: Any, evaluated: Any, components: Sequence[str]) -> dict[str, Any]:
        """Return the judged rows of the minibatch for each component."""
        records = [{"judged": pair} for pair in evaluated.trajectories]
        return dict.fromkeys(components, records)

    def new_texts(self, candidate: Mapping[str, str], dataset: Mapping[str, Any], _: Sequence[str]) -> dict[str, str]:
        """Return a new instruction; none when there is none that can be used, which is then counted."""
        if self.problem is not None:
            raise self.problem
        judged_rows = [record["judged"] for record in dataset[COMPONENT]]
        try:
            text = self._propose(self._search, candidate[COMPONENT], judged_rows)
        except AdjudgeError as error:
            self.problem = error
            raise
        self.proposed += 1
        reason = _problem(text, candidate[COMPONENT], self._search.spec)
        if reason is not None or text is None:
            self.rejected.append({"text": text, "reason": reason})
            return {}
        return {COMPONENT: text}


def _problem(text: str | None, parent: str, spec: TaskSpec) -> str | None:
    if text is None:
        return "no instruction"
    return "unchanged" if text.strip() == parent.strip() else problem_with(text, spec)


class _Quiet:
    """The library's log goes nowhere; what matters of it is in ``search.json``."""

    def log(self, message: str) -> None:
        """Say nothing."""
