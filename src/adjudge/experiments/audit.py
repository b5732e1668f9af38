"""Look for wrong labels: judge every row by a judge that did not learn from it, and rank by doubt.

OUT/rows-….parquet              the rows that are audited
OUT/TASK/METHOD/seed-N-fold-F/  the run of each fold, as in a comparison
OUT/suspicious.csv              rows whose label is probably wrong, the most doubtful first
OUT/audit.json                  what was audited and found
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adjudge.config import Config, change
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.evaluation.label_errors import Doubt, import_cleanlab, rank_doubtful
from adjudge.experiments.compare import Runner, compare
from adjudge.runs.folder import Run
from adjudge.system.files import write_json, write_text
from adjudge.tasks import rows_to_fold, take_rows
from adjudge.tasks.reading.kept_rows import TextTable, write_rows
from adjudge.tasks.spec import Source, TableSource, TaskSpec
from adjudge.types import Example

SCHEMA = 1
FILE, TABLE = "audit.json", "suspicious.csv"
FOLDS = 5
FIRST = 0.1
"""Share of the ranking in which planted errors are counted."""
_LABEL, _GROUP, _ROW = "label", "group", "row"


def audit(
    config: Config,
    spec: TaskSpec,
    method: str,
    out: str | Path,
    *,
    rows: int | None = None,
    plant: float = 0.0,
    every_row: bool = False,
    force: bool = False,
    command: str = "",
    runner: Runner | None = None,
) -> dict[str, Any]:
    """Audit the labels of a task's rows, write suspicious.csv, and return what audit.json holds.

    The rows are dealt into ``data.folds`` folds (5 unless set), and those of each fold are judged by a run of `method`
    that learns from the others. Of all rows, `rows` are drawn. `plant` changes the labels of this share of them first,
    and the result says how many of these errors came first: how far the ranking can be trusted on such rows. With
    `every_row` the CSV holds the whole ranking. Stopped folds continue, finished ones are reused (`compare`).

    Raises ConfigError for a number task, a share that is none, and without cleanlab; DataError for rows of one label;
    RunError when a fold fails; and what reading the rows and `compare` raise.
    """
    out = Path(out)
    if spec.is_number:
        raise ConfigError(f"{spec.name} is answered with a number: an audit is of labels.")
    if spec.several:
        raise ConfigError(f"{spec.name} is answered with sets of labels: an audit is of one label per row.")
    if not 0 <= plant < 0.5:
        raise ConfigError(f"--plant {plant}: give a share from 0 to 0.5, as in 0.05.")
    import_cleanlab()
    examples = take_rows(rows_to_fold(spec, config.data.data_dir, config.data.bad_rows), rows, config.seed)
    if len({row.gold for row in examples}) < 2:
        drawn = f"The {len(examples)} rows drawn have" if rows is not None else "All rows have"
        raise DataError(f"{spec.name}: {drawn} one label: no other one could be right. Take more rows.")
    examples, planted = _planted(examples, spec, plant, config.seed)
    kept = _as_table(spec, examples, out)
    config = change(config, {"data.folds": config.data.folds or FOLDS, "evaluation.decode": "labels"})
    table = compare(config, [kept], [method], [config.seed], out, force=force, command=command, runner=runner)
    if table["failed"]:
        raise RunError(f"{out}: a fold failed: {table['failed'][0]['reason']}")
    (result,) = table["rows"]
    doubts = rank_doubtful(kept.words, Run(out / result["run"], config).predictions(config.data.split))
    names = {row.id: row.tags[_ROW] for row in rows_to_fold(kept)}
    write_text(out / TABLE, _csv(spec, doubts, names, planted, every_row=every_row))
    record = {
        "schema": SCHEMA,
        "command": command,
        "task": spec.name,
        "method": method,
        "rows": len(doubts),
        "folds": config.data.folds,
        "seed": config.seed,
        "right": sum(doubt.prediction.value == doubt.prediction.gold for doubt in doubts) / len(doubts),
        "suspicious": sum(doubt.suspicious for doubt in doubts),
        **({"planted": _recovered(doubts, names, planted)} if planted else {}),
    }
    write_json(out / FILE, record)
    return record


def _planted(
    examples: Sequence[Example], spec: TaskSpec, share: float, seed: int
) -> tuple[list[Example], dict[str, str]]:
    """Return the rows with the labels of a share of them changed, and the right labels of these by id."""
    words = [word for word in spec.words if any(row.gold == word for row in examples)]
    count = round(share * len(examples))
    if not count:
        return list(examples), {}
    rng = random.Random(seed)
    changed = set(rng.sample(range(len(examples)), count))
    right = {examples[index].id: str(examples[index].gold) for index in sorted(changed)}
    return [
        replace(row, gold=rng.choice([word for word in words if word != row.gold])) if index in changed else row
        for index, row in enumerate(examples)
    ], right


def _as_table(spec: TaskSpec, examples: Sequence[Example], out: Path) -> TaskSpec:
    """Write the rows into `out`, and return the task that reads them there; a column holds their names."""
    columns = {f"field {name}": [row.fields[name] for row in examples] for name in spec.fields}
    columns |= {_LABEL: [str(row.gold) for row in examples], _ROW: [row.id for row in examples]}
    groups = {_GROUP: [row.group for row in examples]} if any(row.group for row in examples) else {}
    out.mkdir(parents=True, exist_ok=True)
    file = write_rows(TextTable({**columns, **groups}), out)
    return spec.model_copy(
        update={
            "fields": {name: f"field {name}" for name in spec.fields},
            "label": _LABEL,
            "labels": {word: word for word in spec.words},
            "group": _GROUP if groups else None,
            "tags": {_ROW: _ROW},
            "metrics": ("accuracy",),  # others may need tags of the rows
            "slices": (),
            "source": Source(table=TableSource(train=str(file.resolve()))),
        }
    )


def _csv(
    spec: TaskSpec, doubts: Sequence[Doubt], names: Mapping[str, str], planted: Mapping[str, str], *, every_row: bool
) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    more = [*(["suspicious"] if every_row else []), *(["planted"] if planted else [])]
    writer.writerow(["row", "given", "likelier", "score", *more, *spec.fields])
    for doubt in doubts:
        if not (doubt.suspicious or every_row):
            continue
        row, name = doubt.prediction, names[doubt.prediction.id]
        extra = [_yes(doubt.suspicious)] if every_row else []
        extra += [_yes(name in planted)] if planted else []
        fields = [row.fields[field] for field in spec.fields]
        writer.writerow([name, row.gold, doubt.likelier, round(doubt.score, 6), *extra, *fields])
    return buffer.getvalue()


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _recovered(doubts: Sequence[Doubt], names: Mapping[str, str], planted: Mapping[str, str]) -> dict[str, Any]:
    """Return where the planted errors are in the ranking."""
    ranked = [names[doubt.prediction.id] in planted for doubt in doubts]
    first = max(1, round(FIRST * len(ranked)))
    hits = [doubt for doubt in doubts if names[doubt.prediction.id] in planted]
    return {
        "rows": len(planted),
        "first_rows": first,
        "among_first": sum(ranked[:first]),
        "suspicious": sum(doubt.suspicious for doubt in hits),
        "likelier_is_right": sum(doubt.likelier == planted[names[doubt.prediction.id]] for doubt in hits),
    }


def audit_lines(found: Mapping[str, Any]) -> list[str]:
    """Return the result of an audit in sentences."""
    lines = [
        f"{found['task']}: {found['suspicious']:,} of {found['rows']:,} labels are suspicious. {found['method']} in "
        f"{found['folds']} folds judged {found['right']:.1%} of the rows as they are labelled."
    ]
    if planted := found.get("planted"):
        share = planted["among_first"] / planted["rows"]
        lines.append(
            f"Of {planted['rows']:,} planted errors {planted['among_first']:,} ({share:.0%}) are among the first "
            f"{planted['first_rows']:,} rows of the ranking, and {planted['suspicious']:,} are suspicious."
        )
    return lines
