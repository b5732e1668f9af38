"""A finished run, or a judge that left its run, from Python: predict, calibrate, evaluate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjudge.config import Config, change
from adjudge.evaluation.abstention import decide, read_decision
from adjudge.experiments.calibrate import ROWS, calibrate_run
from adjudge.experiments.evaluate import evaluate_tasks, load_judges
from adjudge.experiments.judging_settings import judging_settings
from adjudge.experiments.own_rows import as_names, as_task, file_to_judge
from adjudge.runs.calibration import read_calibration, temperature_of
from adjudge.runs.folder import Run
from adjudge.runs.portable import is_portable, read_judge
from adjudge.runs.tasks import pick_among, read_tasks
from adjudge.tasks import given_examples
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

if TYPE_CHECKING:
    from adjudge.evaluation.predict import Judge


class FinishedRun:
    """A run folder with a result, or a judge that left its run.

    Its model is loaded when it is first asked to judge. `model` names the base model where it has moved.
    `settings` are those of `adjudge.api.open_run`.
    """

    def __init__(self, folder: str | Path, *, model: str | None = None, **settings: Any) -> None:
        self.folder = Path(folder)
        self._model = model
        self._settings = judging_settings(dotted(settings), self.folder)
        self._portable = read_judge(self.folder, model) if is_portable(self.folder) else None
        config = self._portable[0].config if self._portable else Run.open(folder).config
        self.config: Config = change(config, self._settings)
        self._judges: dict[str, Judge] = {}

    def __repr__(self) -> str:
        return f"FinishedRun({str(self.folder)!r})"

    @property
    def scores(self) -> dict[str, Any]:
        """Return what scores.json holds. For a run over several tasks, ``tasks`` has the scores of each.

        Raises RunError when the run was not evaluated.
        """
        return Run.open(self.folder).scores()

    @property
    def tasks(self) -> list[TaskSpec]:
        """Return the tasks it was trained for, one or several."""
        return self._portable[1] if self._portable else read_tasks(self.folder)

    @property
    def task(self) -> TaskSpec:
        """Return the task it was trained for. Raises RunError when there are several."""
        return self._spec_of(None)

    @property
    def judge(self) -> Judge:
        """Return the judge of its one task, an `adjudge.evaluation.predict.Judge`.

        Raises RunError as `judge_of` does.
        """
        return self.judge_of(None)

    def judge_of(self, task: str | None) -> Judge:
        """Return the judge of one of the run's tasks. A run over one task needs no name.

        Raises RunError when the run's training is not complete, or when it was not trained on such a task.
        """
        spec = self._spec_of(task)
        if not self._judges:
            self._judges = load_judges(self.folder, model=self._model, settings=self._settings)
        return self._judges[spec.name]

    def _spec_of(self, task: str | None) -> TaskSpec:
        return pick_among(self.folder, self.tasks, task)

    def predict(
        self,
        rows: Iterable[str | Mapping[str, str]] | Any,
        *,
        task: str | None = None,
        probabilities: bool = True,
        min_confidence: float | Mapping[str, float] | None = None,
        abstain_share: float | None = None,
        costs: str | Path | Mapping[str, Mapping[str, float]] | None = None,
    ) -> list[Prediction]:
        """Judge rows: texts (for a task with one field), mappings of field or column to text, or a data frame.

        Frames and columns may be of pandas, polars, Arrow, `datasets`, or any library that exports Arrow. `task`
        selects the task of a run over several. Returns one `Prediction` per row, in order: `value` (None when
        unreadable) and `probabilities` per label, calibrated where the run is. One of the last three decides which
        answers are given (`adjudge.evaluation.abstention.read_decision`): an answer that is held back has the value
        None and is `abstained`. Raises DataError for a row with a missing or empty field or a value that is not text,
        ConfigError for a rule that does not fit, and RunError as `judge_of` does.
        """
        from adjudge.evaluation.calibration import calibrated

        spec = self._spec_of(task)
        decision = read_decision(spec, min_confidence, abstain_share, costs)
        examples, shares = given_examples(spec, rows), (probabilities or bool(decision)) and not spec.is_number
        predictions = self.judge_of(task).judge(examples, probabilities=shares)
        return decide(calibrated(predictions, temperature_of(self.folder, spec.name)), decision)

    @property
    def calibration(self) -> dict[str, Any]:
        """Return what was fitted for each task (see `adjudge.runs.calibration`); empty where nothing was."""
        return read_calibration(self.folder)

    def calibrate(
        self,
        *,
        task: str | None = None,
        data: Any = None,
        text: str | Sequence[str] = (),
        label: str | None = None,
        rows: int = ROWS,
        data_dir: str | None = None,
    ) -> dict[str, Any]:
        """Fit the probabilities' temperature, store it with the judge, and return what was fitted, by task.

        The rows are up to `rows` training rows that the run did not learn from, or those of `data` (a file, or rows as
        `train` takes them), whose columns `text` and `label` name. Raises what
        `adjudge.experiments.calibrate.calibrate_run` raises.
        """
        names = as_names(text)
        with ExitStack() as given:
            if data is not None:
                data = given.enter_context(file_to_judge(data, names, label, self._spec_of(task)))
            return calibrate_run(
                self.folder,
                spec=None if task is None else self._spec_of(task),
                data=data,
                text=names,
                label=label,
                rows=rows,
                data_dir=data_dir,
                model=self._model,
                settings=self._settings,
            )

    def evaluate(
        self,
        task: str | Path | TaskSpec | None = None,
        *,
        data: Any = None,
        text: str | Sequence[str] = (),
        label: str | None = None,
        separator: str | None = None,
        encoding: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Judge labelled rows and return the scores.

        With `data` (a file, or rows as `train` takes them), every row is judged with the run's own task, its prompt and
        its answer words; `text` and `label` name the columns where they are not the task's, `separator` and `encoding`
        say how a file is written, and `task` picks a task of a run over several. Without, `task` is any task; the
        default are the run's own, and when these are several, ``tasks`` holds the scores of each.

        The other options are those of `adjudge.experiments.evaluate.evaluate_run`, and settings of the machine such as
        ``runtime__threads=1``.
        """
        settings = self._settings | dotted({key: options.pop(key) for key in list(options) if "__" in key})
        if data is None:
            spec = None if task is None else as_task(task)
        else:
            spec = task if isinstance(task, TaskSpec) else self._spec_of(None if task is None else str(task))
            options |= {"text": as_names(text), "label": label, "separator": separator, "encoding": encoding}
        with ExitStack() as rows:
            if data is not None and spec is not None:
                options["data"] = rows.enter_context(file_to_judge(data, options["text"], label, spec))
            results = evaluate_tasks(self.folder, spec=spec, settings=settings, **options)
        return results[0][1] if len(results) == 1 else {"tasks": {scores["task"]: scores for _, scores in results}}


def dotted(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by their keys: ``runtime__threads`` is ``runtime.threads``."""
    return {key.replace("__", "."): value for key, value in settings.items()}
