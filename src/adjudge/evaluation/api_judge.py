"""The judge of a model behind an API, which is asked with messages.

They hold the same instruction, form and demonstrations as a local model's prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adjudge.config import Config
from adjudge.errors import ConfigError
from adjudge.prompts.messages import answer_limit, answer_stops, prompt_messages, read_reply
from adjudge.rollout.writer import ApiSource, Ask, Spent, Writer
from adjudge.runs.folder import WRITER_LOG
from adjudge.system.parallel import world_size
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

Shown = Callable[[Sequence[Example]], Sequence[Sequence[Example]]]
"""The demonstrations of each of some rows."""

READABLE = "stop"
"""An answer that ended in another way is unreadable, whatever it says."""


class ApiJudge:
    """A model behind an API, prompted with a task. It gives no label probabilities."""

    def __init__(
        self, writer: Writer, spec: TaskSpec, config: Config, shown: Shown | None = None, *, what: str = "rows"
    ) -> None:
        self.writer, self.spec, self.config, self._what = writer, spec, config, what
        self._shown = shown or (lambda rows: [()] * len(rows))
        self.spent: dict[str, Any] = {}
        """What the latest judging took, and how its answers ended."""

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row by its answer, read strictly; see `Judge.judge`. There are no `probabilities`.

        An answer that was cut off, filtered or empty is unreadable. Raises ConfigError without consent, key, client or
        network, and ModelError when the API does not answer.
        """
        if world_size() > 1:
            raise ConfigError(f"{self.config.model} is asked by one process: start it without torchrun or accelerate.")
        self.writer.spent = Spent()
        written = self.writer.write(self.asks(examples), what=self._what, title=title)
        self.spent = self.writer.spent.record(self.config.api)
        predictions = []
        for example, each in zip(examples, written, strict=True):
            value = read_reply(each.text, self.spec, self.config).value if each.end == READABLE else None
            predictions.append(Prediction.of(example, each.text, value))
        return predictions

    def asks(self, examples: Sequence[Example]) -> list[Ask]:
        """Return the call for each row."""
        limit, stops = answer_limit(self.spec, self.config), answer_stops(self.config)
        return [
            Ask(
                prompt_messages(example, self.spec, self.config.prompt, shown),
                limit,
                self.config.api.temperature,
                self.config.seed,
                stops,
            )
            for example, shown in zip(examples, self._shown(examples), strict=True)
        ]


def api_judge(config: Config, spec: TaskSpec, folder: Path | None, shown: Shown | None = None) -> ApiJudge:
    """Return the judge of a task by the API that the settings name; calls are logged in the run `folder`."""
    log = None if folder is None else folder / WRITER_LOG
    return ApiJudge(Writer(ApiSource(config.model, config.api), log), spec, config, shown)
