"""Pairwise ranking prompting (arXiv 2306.17563): the untrained model's comparisons become answers.

1. Two candidates are shown as A and B, in both orders. One wins where both answers agree; else it is a tie.
2. The candidates of a group of rows, or the choices of one row, are ranked: all pairs, heapsort, or sliding passes.
   The best one is the answer, or all above a threshold that is set on training rows.
3. A row without a group is compared with anchors, which are training rows: its score is the share of its wins.
   A threshold (two labels) or isotonic regression (numbers) on other training rows turns scores into answers.

Differs from the paper:

1. Anchors are ours: a row's answer must not depend on the other rows of a file.
2. The paper ranks a search engine's list; the initial order here is that of the rows, which says nothing.
3. ``prp.wins=probability`` and ``prp.orders=random`` are ours, or after later work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adjudge.config import Config, PromptConfig, PrpConfig
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.evaluation.asking import Asker, asking_mode, questions_out
from adjudge.evaluation.pairwise import Comparer, group_texts, pair_task, row_text
from adjudge.evaluation.predict import Judge
from adjudge.evaluation.ranked_judge import Fitted, Kind, RankedJudge, anchor_scores, rank, report_conflicts
from adjudge.evaluation.ranking import most_pairs, threshold
from adjudge.methods.base import Method, Trained
from adjudge.models.chat_api import Outgoing
from adjudge.prompts.demonstrations import choose_demonstrations
from adjudge.runs.folder import Run, read_json
from adjudge.runs.tasks import read_tasks
from adjudge.system.files import write_json
from adjudge.tasks import take_rows
from adjudge.tasks.reading.groups import by_unit, is_grouped
from adjudge.tasks.reading.same_text import text_key
from adjudge.tasks.scoring.metrics import positive_index
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

FITTED = "comparisons.json"


def fit_judge(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Set on training rows what comparisons mean, and return the judge.

    Raises ConfigError for a task with nothing to compare, and DataError for too few training rows.
    """
    ((spec, rows),) = [(part.spec, [row for row in part.rows if row.gold is not None]) for part in parts]
    settings = run.config.prp
    kind = kind_of(spec, rows)
    if kind != "choices" and len(rows) < 2:
        raise DataError(
            f"{spec.name}: prp sets its answers on training rows, and there are {len(rows)} with an answer. "
            "Raise --train-rows."
        )
    comparer = _comparer(run, spec, Asker(run))
    anchors: list[Example] = []
    fit_rows: list[Example] = []
    if kind == "anchors":
        anchors, fit_rows = divide(rows, spec, settings, run.config.seed)
        against = [row_text(anchor, spec) for anchor in anchors]
        scores = anchor_scores(comparer, fit_rows, against, spec, "comparing training rows")
        fitted = Fitted(kind, against, cut=_cut(scores, fit_rows, spec), curve=_curve(scores, fit_rows, spec))
    elif kind == "groups" and not is_top(settings, rows, spec):
        fit_rows = take_rows(rows, settings.fit_rows, run.config.seed)
        units = [[fit_rows[index] for index in unit] for unit in by_unit(fit_rows).values()]
        rankings = rank(comparer, [group_texts(unit) for unit in units], settings, "comparing training rows")
        scores = [score for ranking in rankings for score in ranking.score]
        fitted = Fitted(kind, cut=_cut(scores, [row for unit in units for row in unit], spec))
    else:
        fitted = Fitted(kind, top=True)
    golds_seen = len(anchors) + len(fit_rows)
    if kind == "groups" and settings.answer == "auto":
        golds_seen = len(rows)  # to see whether a group has two right answers
    report_conflicts(f"{spec.name}, training rows", comparer.counts())
    budget = {**comparer.asker.spent.record(run.config), "gold_labels": golds_seen}
    write_json(
        run.folder / FITTED, {"task": spec.name, **_record(fitted, anchors), **comparer.counts(), "budget": budget}
    )
    judge = RankedJudge(comparer, spec, settings, fitted)
    return Trained([judge], rows=len(anchors) + len(fit_rows), figures=[{"budget": budget}])


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[Judge]:
    """Return a finished run's judges. Raises RunError without its file, or for a task of other answers."""
    path = run.folder / FITTED
    if not path.is_file():
        raise RunError(f"{path} is missing: what the run set on training rows. Repeat it with another --out.")
    fitted = _restored(read_json(path))
    task = read_tasks(run.folder)[0]
    for spec in specs:
        if (spec.words, spec.number, spec.choices) != (task.words, task.number, task.choices):
            raise RunError(f"{run.folder} compares for the answers of {task.name}, which are not those of {spec.name}.")
    asker = Asker(run)
    return [RankedJudge(_comparer(run, spec, asker), spec, run.config.prp, fitted) for spec in specs]


def kind_of(spec: TaskSpec, rows: Sequence[Example]) -> Kind:
    """Return what is compared. Raises ConfigError for a task with nothing to compare."""
    if spec.choices:
        return "choices"
    if spec.is_number:
        return "anchors"
    if len(spec.words) != 2:
        raise ConfigError(
            f"{spec.name} has {len(spec.words)} labels, and prp answers with a number, with one of two labels, or with "
            "one of the texts in a row that the task names as `choices`. Use another method."
        )
    return "groups" if is_grouped(rows) else "anchors"


def is_top(settings: PrpConfig, rows: Sequence[Example], spec: TaskSpec) -> bool:
    """Return whether only the best of a group is positive: as set, or where no training group has two."""
    if settings.answer != "auto":
        return settings.answer == "top"
    positive = spec.words[positive_index(spec)]
    return all(sum(rows[index].gold == positive for index in unit) <= 1 for unit in by_unit(rows).values())


def divide(
    rows: Sequence[Example], spec: TaskSpec, settings: PrpConfig, seed: int
) -> tuple[list[Example], list[Example]]:
    """Return the anchors, and other rows to fit on.

    The anchors' golds are spread over labels or numbers. The rows to fit on have other texts. Raises DataError where no
    other row remains.
    """
    count = min(settings.anchors, len(rows) // 2)
    balanced = PromptConfig(demonstrations=count, demonstration_choice="balanced")
    anchors = choose_demonstrations(rows, spec, balanced, seed)
    texts = {text_key(anchor.fields) for anchor in anchors}
    others = [row for row in rows if text_key(row.fields) not in texts]
    if not others:
        raise DataError(f"{spec.name}: its training rows have the texts of the {count} anchors. Raise --train-rows.")
    if spec.is_number:
        return anchors, take_rows(others, min(settings.fit_rows, len(others)), seed)
    by_label = [[row for row in others if row.gold == word] for word in spec.words]
    drawn = [take_rows(part, min(len(part), max(1, settings.fit_rows // 2)), seed) for part in by_label]
    return anchors, [row for part in drawn for row in part]


def _cut(scores: Sequence[float], rows: Sequence[Example], spec: TaskSpec) -> float:
    if spec.is_number:
        return 0.0
    positive = spec.words[positive_index(spec)]
    return threshold(scores, [row.gold == positive for row in rows])


def _curve(scores: Sequence[float], rows: Sequence[Example], spec: TaskSpec) -> list[tuple[float, float]]:
    """Return the points of the isotonic regression of golds on scores; none for a label task."""
    if spec.number is None:
        return []
    try:
        from sklearn.isotonic import IsotonicRegression
    except ModuleNotFoundError as error:
        if error.name != "sklearn":
            raise
        raise ConfigError("Numbers by comparison need scikit-learn: pip install 'adjudge[sklearn]'.") from None
    golds = [float(row.gold) for row in rows if row.gold is not None]
    model = IsotonicRegression(y_min=spec.number.low, y_max=spec.number.high, out_of_bounds="clip").fit(scores, golds)
    return list(zip(model.X_thresholds_.tolist(), model.y_thresholds_.tolist(), strict=True))


def _comparer(run: Run, spec: TaskSpec, asker: Asker) -> Comparer:
    settings = run.config.prp
    mode = asking_mode(settings.mode, run.config, "prp.mode")
    if mode == "generation" and settings.wins == "probability":
        raise ConfigError("prp.wins=probability needs the probabilities of A and B: leave prp.mode=generation out.")
    return Comparer(
        asker,
        pair_task(spec, settings.question),
        mode,
        orders=settings.orders,
        wins=settings.wins,
        seed=run.config.seed,
    )


def _record(fitted: Fitted, anchors: Sequence[Example]) -> dict[str, Any]:
    shown = [{"id": row.id, "gold": row.gold, "text": text} for row, text in zip(anchors, fitted.anchors, strict=True)]
    curve = [list(point) for point in fitted.curve]
    return {"kind": fitted.kind, "top": fitted.top, "cut": fitted.cut, "curve": curve, "anchors": shown}


def _restored(record: dict[str, Any]) -> Fitted:
    anchors = [row["text"] for row in record["anchors"]]
    curve = [(score, value) for score, value in record["curve"]]
    return Fitted(record["kind"], anchors, record["top"], record["cut"], curve)


def outgoing(config: Config, spec: TaskSpec, train: Sequence[Example], judged: Sequence[Example]) -> Outgoing:
    """Return what a run would send to an API, at most.

    Raises ConfigError for a task with nothing to compare.
    """
    settings, rows = config.prp, [row for row in train if row.gold is not None]
    kind, orders = kind_of(spec, rows), 2 if settings.orders == "both" else 1
    fit_rows = rows[: settings.fit_rows] if kind == "anchors" else take_rows(rows, settings.fit_rows, config.seed)
    if kind == "choices" or (kind == "groups" and is_top(settings, rows, spec)):
        fit_rows = []
    if kind == "anchors":
        per_row = [min(settings.anchors, max(1, len(rows) // 2))] * (len(judged) + len(fit_rows))
        units = [[row] for row in (*fit_rows, *judged)]
    else:
        parts = (judged, fit_rows) if kind == "groups" else ()
        units = [[row] for row in judged] if kind == "choices" else []
        units += [[part[index] for index in unit] for part in parts for unit in by_unit(part).values()]
        counts = [len(spec.choices) if kind == "choices" else len(unit) for unit in units]
        per_row = [most_pairs(count, settings.ranking, settings.passes) for count in counts]
    questions = [orders * pairs for pairs in per_row]
    longest = [max(sum(map(len, row.fields.values())) for row in unit) for unit in units]
    characters = sum(2 * count * length for count, length in zip(questions, longest, strict=True))
    return questions_out(pair_task(spec, settings.question), config, sum(questions), characters)


METHOD = Method(fit_judge, load_judges, outgoing)
