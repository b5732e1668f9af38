"""What a model is asked for each row, as text, and which texts are scored as its answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.config import Config
from adjudge.errors import ConfigError, DataError
from adjudge.evaluation.predict import PromptedJudge
from adjudge.experiments.evaluate import load_judges
from adjudge.models.chat_api import is_api
from adjudge.models.plain_text import encodable
from adjudge.models.sources.loading import load_tokenizer, locate
from adjudge.models.sources.random_models import is_random
from adjudge.prompts.render import Renderer
from adjudge.rollout.answer_end import AnswerEnd, answer_end
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example


@dataclass(frozen=True, slots=True)
class Asked:
    """One row: its prompt as text and as token ids, and the number of the right answer word."""

    id: str
    prompt: str
    ids: tuple[int, ...]
    target: int


@dataclass(frozen=True, slots=True)
class Asking:
    """How a model is asked the rows of one task."""

    spec: TaskSpec
    tokenizer: Any
    renderer: Renderer
    end: AnswerEnd

    def answers(self) -> list[tuple[str, list[int]]]:
        """Return for each answer word what ``--decode labels`` scores: the text and its ids, with any end."""
        return [(self._decoded(ids), ids) for ids in self.end.label_ids(self.spec)]

    def rows(self, examples: Sequence[Example]) -> Iterator[Asked]:
        """Yield each row as it is asked. Raises DataError for one without a gold answer."""
        for example in examples:
            prompt = self.renderer.prompt(example)
            text = self._decoded(prompt.ids) if prompt.shortened else encodable(self.renderer.text(example))
            yield Asked(example.id, text, prompt.ids, right_answer(self.spec, example))

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def right_answer(spec: TaskSpec, example: Example) -> int:
    """Return the number of a row's gold answer among the answer words.

    Raises DataError for a row without one.
    """
    if example.gold is None:
        raise DataError(
            f"{spec.name}: {example.id} has no gold answer, so another program could not score it. "
            "Name a split with answers with --split."
        )
    return spec.words.index(str(example.gold))


def check_task(spec: TaskSpec) -> None:
    """Raise ConfigError for a task whose answer is not one of its label words."""
    if spec.is_number or spec.several:
        kind = "a number" if spec.is_number else "a set of labels"
        raise ConfigError(f"{spec.name} is answered with {kind}; only tasks answered with one label can be exported.")


def ask_model(config: Config, spec: TaskSpec) -> Asking:
    """Return how the untrained model of the settings is asked; only its tokenizer is loaded.

    Raises ConfigError for a model behind an API, or with ``prompt.analysis=before``, and ModelError.
    """
    if is_api(config.model):
        raise ConfigError(f"{config.model} is asked in messages, whose tokens are not known here. Name a local model.")
    if config.prompt.analysis == "before":
        raise ConfigError("prompt.analysis=before: the answer follows what the model writes. Leave it unset.")
    source, options = ("", {}) if is_random(config.model) else locate(config.model, config.runtime)
    tokenizer = load_tokenizer(config.model, source, options)
    renderer = Renderer(tokenizer, spec, config.prompt)
    eos = tokenizer.eos_token_id
    end = answer_end(tokenizer, renderer.end_ids([] if eos is None else [eos]), spec, config.answer)
    return Asking(spec, tokenizer, renderer, end)


def ask_run(folder: str | Path, model: str | None = None) -> list[Asking]:
    """Return how the judge of a finished run is asked, per task.

    Raises ConfigError for a judge that is more than a model with a prompt and an adapter that plain peft loads.
    """
    askings = []
    for name, judge in load_judges(folder, model=model).items():
        task = judge.task if type(judge) is PromptedJudge else None
        if task is None or task.prior or task.analysis_before or task.policy.embeddings:
            raise ConfigError(
                f"{folder}: its judge of {name} does more than score the answers after one prompt, so another program "
                "would not answer as it does. Export a run of zero-shot, few-shot or an adapter such as sft or ppo."
            )
        askings.append(Asking(task.spec, task.policy.tokenizer, task.renderer, task.end))
    return askings


def file_name(spec: TaskSpec) -> str:
    """Return the task's name in files and in other programs: ``glue_sst2``."""
    name = re.sub(r"\W+", "_", spec.name, flags=re.ASCII).strip("_")
    return name if name[:1].isalpha() else f"task_{name}"
