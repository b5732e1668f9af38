"""Ask a model a method's own questions, each answered with one of a few words; count what that takes.

A question is a task of its own, so it is rendered, shortened and read as any task's rows are. A model on this machine
can be asked for the likeliest word, which is never unreadable; a model behind an API answers with text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from adjudge.config import Config
from adjudge.errors import ConfigError
from adjudge.evaluation.api_judge import ApiJudge
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.models.chat_api import Outgoing, cost, is_api
from adjudge.models.policy import Policy, load_policy
from adjudge.prompts.messages import answer_limit
from adjudge.prompts.render import answer_form
from adjudge.rollout.prompted import PromptedTask
from adjudge.rollout.writer import ApiSource, Writer
from adjudge.runs.folder import WRITER_LOG, Run
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction

Mode = Literal["scoring", "generation", "run"]
"""The likeliest word, an answer that is read, or as the run's own settings say."""
COUNTED = ("calls", "prompt_tokens", "generated_tokens")


def asking_mode(wanted: Literal["auto", "scoring", "generation"], config: Config, key: str) -> Mode:
    """Return how the run's model is asked by the setting `key`.

    Raises ConfigError for scores that an API lacks.
    """
    if wanted == "scoring" and is_api(config.model):
        raise ConfigError(
            f"{key}=scoring needs the probabilities of words, which {config.model} does not give. Use generation."
        )
    if wanted == "auto":
        return "generation" if is_api(config.model) else "scoring"
    return wanted


@dataclass(slots=True)
class Spent:
    """What questions took: calls, tokens read and written; of an API also what its judge counts."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    of_api: dict[str, Any] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        """Add the counts of some calls."""
        for name in COUNTED:
            self.counts[name] += int(record[name])
        for name, value in record.items():
            if isinstance(value, list):
                self.of_api[name] = sorted({*self.of_api.get(name, ()), *value})
            elif name not in COUNTED and name != "price":
                self.of_api[name] = self.of_api.get(name, 0) + value

    def record(self, config: Config) -> dict[str, Any]:
        """Return the counts for a run's files, with the price of an API where it is known."""
        record: dict[str, Any] = {**self.counts, **self.of_api}
        if is_api(config.model):
            price = cost(self.counts["prompt_tokens"], self.counts["generated_tokens"], config.api)
            record |= {} if price is None else {"price": price}
        return record


def questions_out(spec: TaskSpec, config: Config, count: int, characters: int) -> Outgoing:
    """Return what `count` questions would send to an API, whose rows have so many characters in all."""
    instruction = sum(len(turn) for turn in (spec.instruction, spec.template, answer_form(spec)))
    return Outgoing(count, count * instruction + characters, count * answer_limit(spec, config))


class Asker:
    """The run's model, asked questions.

    There is one per run: its policy is loaded once, and an API's calls are in one log.
    """

    def __init__(self, run: Run) -> None:
        """Load the run's policy, or open the log of the API. Raises what loading a model raises."""
        self.config = run.config
        api = is_api(run.config.model)
        self.policy: Policy | None = None if api else load_policy(run.config)
        self._writer = Writer(ApiSource(run.config.model, run.config.api), run.folder / WRITER_LOG) if api else None
        self._judges: dict[tuple[str, Mode], Judge] = {}
        self.spent = Spent()
        """What has been asked since it was last replaced."""

    def ask(
        self, spec: TaskSpec, rows: Sequence[Example], mode: Mode, title: str, *, probabilities: bool = False
    ) -> list[Prediction]:
        """Return the answers to questions, in their order.

        With ``scoring`` each has the probability of every word. Raises what judging raises.
        """
        if not rows:
            return []
        judge = self.judge(spec, mode)
        if self.policy is not None:
            self.policy.forget_prefix()  # so that no answer depends, to the last bit, on what was asked before
        predictions = judge.judge(rows, probabilities=probabilities or mode == "scoring", title=title)
        self.spent.add(self._tokens(judge, rows, predictions))
        return predictions

    def judge(self, spec: TaskSpec, mode: Mode) -> Judge:
        """Return the judge of a question."""
        key = (spec.model_dump_json(), mode)
        if key not in self._judges:
            config = self.config
            if mode != "run":
                decode = "labels" if mode == "scoring" else "greedy"
                evaluation = config.evaluation.model_copy(update={"decode": decode})
                config = config.model_copy(update={"evaluation": evaluation})
            self._judges[key] = (
                ApiJudge(self._writer, spec, config, what="questions about rows")
                if self._writer is not None
                else PromptedJudge(PromptedTask(self._local(), spec, config))
            )
        return self._judges[key]

    def _local(self) -> Policy:
        assert self.policy is not None
        return self.policy

    def _tokens(self, judge: Judge, rows: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Any]:
        if isinstance(judge, ApiJudge):
            return judge.spent
        assert isinstance(judge, PromptedJudge)
        texts = [prediction.text for prediction in predictions]
        written = self._local().tokenizer(texts, add_special_tokens=False).input_ids
        return {
            "calls": len(rows),
            "prompt_tokens": sum(judge.prompt_tokens(rows)),
            "generated_tokens": sum(map(len, written)),
        }
