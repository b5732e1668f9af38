"""The judges that a server holds, and the answers they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.config import PromptConfig
from adjudge.errors import RunError
from adjudge.evaluation.abstention import ALWAYS, Decision, decide
from adjudge.evaluation.calibration import calibrated
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.evaluation.ranked_judge import RankedJudge
from adjudge.prompts.answers import CLOSING_ANALYSIS, CLOSING_TAG, OPENING_ANALYSIS, answer_text
from adjudge.runs.names import names_apart
from adjudge.system.console import without_bars
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction


@dataclass(frozen=True, slots=True)
class Answered:
    """A judged row, with the numbers of tokens read and written (0 unless they were asked for)."""

    prediction: Prediction
    prompt_tokens: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ServedJudge:
    """One judge under the name that requests select it by."""

    name: str
    spec: TaskSpec
    judge: Judge
    method: str = ""
    batch_size: int = 32
    run: str = ""
    """The run's name; judges of one run share a model, and never judge at the same time."""
    temperature: float | None = None
    """What its probabilities are divided by; None where they are not calibrated."""
    decision: Decision = ALWAYS
    """Which answers it holds back."""

    @property
    def analysis(self) -> bool | str:
        """Return where the judge writes an analysis: False, True (after the answer) or ``"before"``."""
        return self.prompt.analysis

    @property
    def prompt(self) -> PromptConfig:
        """Return how the judge's prompt is written; the default way for one without a prompt."""
        return self.judge.task.config.prompt if isinstance(self.judge, PromptedJudge) else PromptConfig()

    def answer(self, examples: Sequence[Example], *, count_tokens: bool = False) -> list[Answered]:
        """Judge rows and return one answer per row, in order. Raises what the judge raises."""
        with without_bars():
            raw_predictions = self.judge.judge(examples, probabilities=not self.spec.is_number)
            predictions = decide(calibrated(raw_predictions, self.temperature), self.decision)
            if not count_tokens or not isinstance(self.judge, PromptedJudge):
                return [Answered(prediction) for prediction in predictions]
            task = self.judge.task
            prompt_tokens = self.judge.prompt_tokens(examples)
            texts = [prediction.text for prediction in predictions]
            written = [len(task.policy.tokenizer(text, add_special_tokens=False).input_ids) for text in texts]
        return [
            Answered(prediction, read, tokens)
            for prediction, read, tokens in zip(predictions, prompt_tokens, written, strict=True)
        ]

    def warm_up(self) -> None:
        """Judge a row, so that the first request waits for nothing that is computed once."""
        self.answer([Example("warm-up", dict.fromkeys(self.spec.fields, "."))])

    def described(self) -> dict[str, Any]:
        """Return what clients may know: the task, its fields and answers, and whether there is an analysis."""
        spec = self.spec
        number = None if spec.number is None else spec.number.model_dump()
        return {
            "task": spec.name,
            "title": spec.title,
            "method": self.method,
            "fields": dict(spec.fields),
            "optional_fields": list(spec.optional),
            "labels": list(spec.words),
            "probability_labels": list(spec.names),
            "number": number,
            "analysis": bool(self.analysis),
            "calibrated": self.temperature is not None,
            "abstains": bool(self.decision),
        }


def prediction_fields(served: ServedJudge, answered: Answered) -> dict[str, Any]:
    """Return one prediction of the answer to ``/v1/classify``."""
    prediction, spec = answered.prediction, served.spec
    fields: dict[str, Any] = {
        "label": None if spec.is_number else prediction.value,
        "probabilities": dict(prediction.probabilities),
        "abstained": prediction.abstained,
        "unreadable": is_unreadable(prediction),
    }
    if spec.is_number:
        fields["number"] = prediction.value
    if served.analysis:
        fields["analysis"] = analysis_of(served, prediction)
    return fields


def is_unreadable(prediction: Prediction) -> bool:
    """Return whether no answer could be read; one that is held back could."""
    return prediction.value is None and not prediction.abstained


def answer_of(served: ServedJudge, prediction: Prediction) -> str:
    """Return the answer as text: label word, or number with the task's decimals; empty without one."""
    return "" if prediction.value is None else answer_text(prediction.value, served.spec)


def analysis_of(served: ServedJudge, prediction: Prediction) -> str:
    """Return the analysis in a prediction's text, without the tags of the form.

    A part ends at its first closing tag, so the tags are found from the beginning.
    """
    if served.analysis == "before":
        return prediction.text.partition(CLOSING_ANALYSIS)[0].strip()
    after = prediction.text.partition(CLOSING_TAG)[2].partition(OPENING_ANALYSIS)[2]
    return after.partition(CLOSING_ANALYSIS)[0].strip()


def names_for(folders: Sequence[Path]) -> list[str]:
    """Return one name per run folder (`names_apart`). Raises RunError when a folder is given twice."""
    parts = [folder.resolve().parts for folder in folders]
    for index, each in enumerate(parts):
        if each in parts[:index]:
            raise RunError(f"--run {folders[index]} is given twice: name each run once.")
    return names_apart(folders)


def judges_of_run(
    name: str, specs: Sequence[TaskSpec], judges: Mapping[str, Judge], *, method: str = "", batch_size: int = 32
) -> list[ServedJudge]:
    """Return the judges of one run: under the run's name, or ``RUN/TASK`` for a run over several tasks.

    Raises RunError for a judge that compares the rows of a group, which a request does not tell.
    """
    for spec in specs:
        judge = judges[spec.name]
        if isinstance(judge, RankedJudge) and judge.fitted.kind == "groups":
            raise RunError(
                f"{name} compares the rows of a group with each other, and rows of a request have no groups. "
                "Judge a file with the column of the groups: adjudge predict."
            )
    return [
        ServedJudge(
            f"{name}/{spec.name.replace('/', '-')}" if len(specs) > 1 else name,
            spec,
            judges[spec.name],
            method,
            batch_size,
            name,
        )
        for spec in specs
    ]
