"""A writer: free text from a local model or from one behind an API.

Every call is logged, counted and replayable. The log is ``writer.jsonl`` of the run: one JSON object per call, with
what was asked and what was answered. A call that is in the log is not made again, so a resumed run goes on where it
was, and a repeated run gets the same texts.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from adjudge.config import ApiConfig, PromptConfig
from adjudge.errors import ModelError, RunError
from adjudge.models.chat_api import ChatApi, End, Outgoing, Reply, announce, check_consent, cost, is_api, limit_field
from adjudge.models.plain_text import PlainText
from adjudge.models.policy import Policy
from adjudge.prompts.chat import chat_template, fill_chat, turn_end
from adjudge.rollout.answer_end import TurnEnd
from adjudge.rollout.sampler import Sampling, respond
from adjudge.system.console import progress
from adjudge.system.files import SURROGATES


@dataclass(frozen=True, slots=True)
class Ask:
    """One call: the turns so far, and how to go on. A temperature of None leaves it to the model."""

    messages: Sequence[Mapping[str, str]]
    max_tokens: int
    temperature: float | None = 0.0
    seed: int = 0
    """Tells draws of the same text apart; used where the temperature is above 0."""
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """An answer, with the tokens read and written (None where an API does not count them)."""

    text: str
    end: End
    prompt_tokens: int | None
    generated_tokens: int | None
    answered_by: str = ""
    fingerprint: str = ""
    retries: int = 0


@dataclass(slots=True)
class Spent:
    """What calls took. Replayed calls count like those that were made."""

    calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    uncounted: int = 0
    """Calls whose tokens the API did not count."""
    retries: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    models: set[str] = field(default_factory=set)
    fingerprints: set[str] = field(default_factory=set)

    def add(self, written: Written) -> None:
        """Count one call."""
        self.calls += 1
        self.uncounted += written.prompt_tokens is None or written.generated_tokens is None
        self.prompt_tokens += written.prompt_tokens or 0
        self.generated_tokens += written.generated_tokens or 0
        self.retries += written.retries
        self.ends[written.end] += 1
        self.models |= {written.answered_by} - {""}
        self.fingerprints |= {written.fingerprint} - {""}

    def record(self, api: ApiConfig | None = None) -> dict[str, Any]:
        """Return the counts for a run's files.

        Of an API they include how answers ended, and the price where it is known.
        """
        counts: dict[str, Any] = {
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "generated_tokens": self.generated_tokens,
        }
        if api is None:
            return counts
        price = None if self.uncounted == self.calls > 0 else cost(self.prompt_tokens, self.generated_tokens, api)
        if price is not None:
            counts["price"] = price
        return counts | {
            **({"uncounted": self.uncounted} if self.uncounted else {}),
            "retries": self.retries,
            **{end: self.ends[end] for end in ("length", "filter", "empty")},
            "models": sorted(self.models),
            "fingerprints": sorted(self.fingerprints),
        }


class Source(Protocol):
    """A model that can be asked for text."""

    name: str

    def begin(self, asks: Sequence[Ask], what: str) -> None:
        """Say what is about to be asked. Raises what keeps it from being asked."""

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Written]]:
        """Yield each answer with the index of its call, in any order."""


def limits_of(source: Source, api: ApiConfig, max_tokens: int, temperature: float) -> tuple[int, float | None]:
    """Return the longest answer and the temperature with which a source is asked.

    Some models behind an API think in tokens that count, and refuse a temperature.
    """
    if not is_api(source.name):
        return max_tokens, temperature
    return max(max_tokens, api.max_tokens or 0), None if api.temperature is None else temperature


class LocalSource:
    """The policy itself, asked in its chat template.

    It is asked one call at a time, so that no answer depends on another call.
    """

    def __init__(self, policy: Policy, config: PromptConfig) -> None:
        self.name, self._policy, self._config = policy.name, policy, config

    def begin(self, asks: Sequence[Ask], what: str) -> None:
        """Nothing leaves this machine."""

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Written]]:
        """Yield the answers in order; a stop text ends an answer and is not in it."""
        self._policy.eval()
        ends = tuple(dict.fromkeys([*turn_end(self._policy.tokenizer, self._config), *self._policy.end_ids]))
        for index, ask in enumerate(asks):
            prompt = self._ids(ask.messages)
            self._check_length(prompt, ask)
            self._policy.forget_prefix()  # a kept one would change the last bits
            generator = torch.Generator().manual_seed(ask.seed) if ask.temperature else None
            sampling = Sampling(generator, temperature=ask.temperature or 1.0)
            end = TurnEnd(self._policy.tokenizer, ends, ask.max_tokens)
            responses = respond(self._policy, self._policy.prefill([prompt]), end, sampling)
            (ids,), (text,) = responses.ids, responses.texts
            stopped = [text.index(stop) for stop in ask.stop if stop in text]
            text = text[: min(stopped)] if stopped else text
            how: End = "length" if not stopped and ids[-1] not in ends else "stop" if text.strip() else "empty"
            yield index, Written(text, how, len(prompt), len(ids))

    def _ids(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the turns as token ids; what they say is never a control token."""
        tokenizer = self._policy.tokenizer
        slots = [f"adjudge-turn-{index}-" for index in range(len(messages))]
        template = chat_template(tokenizer)
        if template is None:
            text = "".join(f"{message['role']}: {slot}\n" for message, slot in zip(messages, slots, strict=True))
            text += "assistant:"
        else:
            turns = [{"role": each["role"], "content": slot} for each, slot in zip(messages, slots, strict=True)]
            text = fill_chat(tokenizer, turns, self._config, "what is asked of it")
        parts = [text]
        for slot, message in zip(slots, messages, strict=True):
            before, _, after = parts.pop().partition(slot)
            parts += [before, str(message["content"]), after]
        return PlainText(tokenizer, template or "").ids(parts)

    def _check_length(self, prompt: Sequence[int], ask: Ask) -> None:
        most = self._policy.positions
        if most is not None and most.fixed and len(prompt) + ask.max_tokens > most.count:
            raise ModelError(
                f"What is asked has {len(prompt):,} tokens and an answer up to {ask.max_tokens}, but "
                f"{self.name} has only {most.count:,} positions{most.why}. Use shorter rows, or a model with more."
            )


class ApiSource:
    """A model behind an API, asked several times at once."""

    def __init__(self, name: str, config: ApiConfig) -> None:
        self.name, self._config, self._api = name, config, ChatApi(name, config)
        self._announced = False

    def begin(self, asks: Sequence[Ask], what: str) -> None:
        """Say what leaves this machine, the first time.

        Raises ConfigError without consent, key, client or network.
        """
        letters = sum(len(message["content"]) for ask in asks for message in ask.messages)
        going = Outgoing(len(asks), letters, sum(ask.max_tokens for ask in asks))
        say = check_consent if self._announced else announce
        say(going, self.name, self._config, what)
        self._announced = True

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[int, Written]]:
        """Yield the answers as they come.

        After an error no further call is begun; those under way are still yielded. Raises ConfigError and ModelError.
        """
        pool = ThreadPoolExecutor(max_workers=self._config.concurrency)
        pending: dict[Future[Reply], int] = {}
        problem: BaseException | None = None
        waiting = iter(enumerate(asks))
        try:
            while True:
                while problem is None and len(pending) < self._config.concurrency:
                    if (following := next(waiting, None)) is None:
                        break
                    pending[pool.submit(self._api.ask, self._body(following[1]))] = following[0]
                if not pending:
                    break
                for done in wait(pending, return_when=FIRST_COMPLETED).done:
                    index = pending.pop(done)
                    if (error := done.exception()) is not None:
                        problem = problem or error
                        continue
                    reply = done.result()
                    counted = (reply.prompt_tokens, reply.generated_tokens)
                    yield index, Written(reply.text, reply.end, *counted, reply.model, reply.fingerprint, reply.retries)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if problem is not None:
            raise problem

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "messages": [dict(message) for message in ask.messages],
            limit_field(self._config): ask.max_tokens,
        }
        if ask.temperature is not None:
            body["temperature"] = ask.temperature
        if ask.temperature:
            body["seed"] = ask.seed
        if ask.stop:
            body["stop"] = list(ask.stop)
        return body


class Writer:
    """Asks a source, logs every call, and answers from the log what was asked before."""

    def __init__(self, source: Source, log: Path | None) -> None:
        """Log to the file `log`, whose calls are replayed; with None, nowhere."""
        self.source, self.log = source, log
        self.spent = Spent()
        self._known = {} if log is None else read_log(log)
        self._lock = threading.Lock()

    def write(self, asks: Sequence[Ask], *, what: str = "prompts", title: str = "writing") -> list[Written]:
        """Return an answer to each call, in their order. Equal calls are made once.

        Raises what the source raises; calls that were answered before are in the log.
        """
        keys = [self._key(ask) for ask in asks]
        todo = {key: ask for key, ask in zip(keys, asks, strict=True) if key not in self._known}
        if todo:
            self.source.begin(list(todo.values()), what)
            names = list(todo)
            with progress(title, len(asks)) as bar:
                bar.advance(len(asks) - len(todo))
                for index, written in self.source.answers(list(todo.values())):
                    self._keep(names[index], todo[names[index]], written)
                    bar.advance()
        answers = [self._known[key] for key in keys]
        for _, written in dict(zip(keys, answers, strict=True)).items():
            self.spent.add(written)
        return answers

    def known(self, ask: Ask) -> bool:
        """Return whether the log has the answer to a call."""
        return self._key(ask) in self._known

    def _key(self, ask: Ask) -> str:
        is_drawn = ask.temperature or (ask.temperature is None and ask.seed)
        drawn = {"seed": ask.seed} if is_drawn else {}
        request = {
            "model": self.source.name,
            "messages": [dict(message) for message in ask.messages],
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "stop": list(ask.stop),
            **drawn,
        }
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode("ascii")).hexdigest()

    def _keep(self, key: str, ask: Ask, written: Written) -> None:
        with self._lock:
            self._known[key] = written
            if self.log is None:
                return
            dated = (
                {"at": datetime.now(UTC).isoformat(timespec="seconds")} if isinstance(self.source, ApiSource) else {}
            )
            record = {"key": key, "model": self.source.name, **asdict(ask), **asdict(written), **dated}
            line = json.dumps(record, ensure_ascii=False) + "\n"
            with self.log.open("a", encoding="utf-8", errors=SURROGATES, newline="") as file:
                file.write(line)


def read_log(path: Path) -> dict[str, Written]:
    """Return the answers of a log by the keys of their calls.

    A last line that was not finished is cut off. Raises RunError for a damaged line.
    """
    if not path.is_file():
        return {}
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):  # the process was killed while it wrote
        os.truncate(path, whole)
    answers = {}
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            record = json.loads(line)
            answers[record["key"]] = Written(**{name: record[name] for name in Written.__dataclass_fields__})
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}:{number}: is no call of a writer: {error}. Remove the line to ask again.") from None
    return answers
