"""Export a judge as a model of its own, and judge again to count the answers that changed.

merged  a folder that plain transformers loads: the base's weights with the adapter added in float32, then cast
gguf    one file for llama.cpp and Ollama, with a Modelfile that carries the prompt
onnx    a fine-tuned encoder for onnxruntime
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.config import change
from adjudge.errors import ConfigError, RunError, nearest
from adjudge.experiments.evaluate import open_folder
from adjudge.experiments.judging_settings import judging_settings
from adjudge.methods.settings import model_key
from adjudge.prompts.answers import answer_text
from adjudge.runs.base import pinned
from adjudge.runs.folder import Run
from adjudge.runs.tasks import result_folders
from adjudge.system.console import note
from adjudge.system.files import whole_folder
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

Judgements = Callable[[TaskSpec, Sequence[Example]], list[Prediction]]
"""(task, rows) → answers of the exported judge."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format: the kinds of weights it has, and the function that writes a folder and returns its judge."""

    dtypes: tuple[str, ...]
    """The first is the default."""
    write: Callable[[Run, Sequence[TaskSpec], Path, str], Judgements]


@dataclass(frozen=True, slots=True)
class Exported:
    """An export and how it compares with the judge inside."""

    folder: Path
    rows: int
    """Rows judged again; 0 where the run has no predictions."""
    changed: int
    """Answers that differ from the run's."""

    @property
    def share(self) -> float:
        """Return the share of answers that differ."""
        return self.changed / self.rows if self.rows else 0.0


def export_judge(
    source: str | Path,
    kind: str,
    out: str | Path,
    *,
    dtype: str | None = None,
    rows: int = 200,
    max_changed: float = 0.01,
    model: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Exported:
    """Export the judge of a run folder, or one that left its run, to the folder `out`.

    The export judges up to `rows` of the rows that the run judged, with `settings` such as ``runtime.device``. Raises
    RunError, and writes nothing, when more than the share `max_changed` of the answers differ, when `out` exists, or
    when the run has no weights of this kind. Raises ConfigError for an unknown format or dtype, and for `settings` that
    are not those of `judging_settings`.
    """
    exporter, dtype = _format(kind, dtype)
    out = Path(out)
    if out.exists():
        raise RunError(f"{out} is there already. Name another --out.")
    run, specs = open_folder(source, model=model)
    config = change(run.config, judging_settings(settings or {}, run.folder))
    run = Run(run.folder, pinned(run.folder, config, model_key(config)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(out) as temporary:
        judge = exporter.write(run, specs, temporary, dtype)
        count, changed = _compare(run, specs, judge, rows)
        exported = Exported(out, count, changed)
        if exported.share > max_changed:
            raise RunError(
                f"{changed} of {count} answers of the export differ from the run's ({100 * exported.share:.1f} %), "
                f"and at most {100 * max_changed:g} % may. Nothing was written. Take another --dtype, or allow it "
                "with --max-changed."
            )
    return exported


def _format(kind: str, dtype: str | None) -> tuple[Format, str]:
    from adjudge.ship import gguf_file, merged, onnx_file

    formats = {
        "merged": Format(merged.DTYPES, merged.write),
        "gguf": Format(gguf_file.DTYPES, gguf_file.write),
        "onnx": Format(onnx_file.DTYPES, onnx_file.write),
    }
    if kind not in formats:
        raise ConfigError(f"There is no format '{kind}'; there are {', '.join(formats)}.{nearest(kind, formats)}")
    chosen = formats[kind]
    if dtype is not None and dtype not in chosen.dtypes:
        known = ", ".join(chosen.dtypes)
        raise ConfigError(f"The format {kind} has no dtype '{dtype}'; it has {known}.{nearest(dtype, chosen.dtypes)}")
    return chosen, dtype or chosen.dtypes[0]


def _compare(run: Run, specs: Sequence[TaskSpec], judge: Judgements, limit: int) -> tuple[int, int]:
    """Return the number of rows judged again, and of answers that changed.

    Rows are those that the run judged.
    """
    count = changed = 0
    for spec, before in zip(specs, _judged_rows(run, specs, limit), strict=True):
        if before:
            rows = [Example(each.id, each.fields, each.gold, each.group, each.tags) for each in before]
            after = judge(spec, rows)
            count += len(rows)
            changed += sum(_differ(spec, one, other) for one, other in zip(before, after, strict=True))
    if not count:
        note("the folder has no judged rows, so nothing was compared.")
    return count, changed


def _judged_rows(run: Run, specs: Sequence[TaskSpec], limit: int) -> list[list[Prediction]]:
    if not (run.folder / "config.yaml").is_file():  # it left its run, and its predictions
        return [[] for _ in specs]
    share = max(1, limit // len(specs))
    return [Run.open(folder).predictions(run.config.data.split)[:share] for folder in result_folders(run.folder)]


def _differ(spec: TaskSpec, one: Prediction, other: Prediction) -> bool:
    """Return whether two answers differ; numbers as they are written, since a mean has more digits."""
    if spec.number is None or one.value is None or other.value is None:
        return one.value != other.value
    return answer_text(one.value, spec) != answer_text(other.value, spec)
