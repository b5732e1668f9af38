"""Judge the rows of concurrent requests together: one thread per run takes what waits, up to a batch.

There is no timer. While a batch is judged, further rows arrive, and they are the next batch: a single request is
answered at once, and many requests share the passes of the model.

Runs whose models are on a GPU take turns: no thread may allocate memory on it while another captures a pass
(`adjudge.models.engine.graphs`), and it computes one batch at a time anyway.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from adjudge.errors import AdjudgeError, ConfigError, DataError
from adjudge.ship.serving.judges import Answered, ServedJudge, is_unreadable
from adjudge.ship.serving.limits import Limits, RequestError
from adjudge.ship.serving.metrics import Metrics
from adjudge.system.console import warn
from adjudge.types import Example

RETRY_AFTER_S = 1


@dataclass(slots=True, eq=False)
class _Asked:
    """The rows of one request, and what is known of their answers."""

    served: ServedJudge
    examples: Sequence[Example]
    count_tokens: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Answered]]
    answers: dict[int, Answered] = field(default_factory=dict)


_Row = tuple[_Asked, int]


class Batcher:
    """The queue and the thread of one run; its judges share a model, so one row of work is done at a time."""

    def __init__(self, limits: Limits, metrics: Metrics, turn: AbstractContextManager[Any] | None = None) -> None:
        """`turn` is held while a batch is judged: the lock of several runs that must not judge at the same time."""
        self._limits, self._metrics, self._turn = limits, metrics, turn or nullcontext()
        self._waiting: deque[_Row] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="adjudge-judging", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Return how many rows wait to be judged."""
        return len(self._waiting)

    async def judge(
        self, served: ServedJudge, examples: Sequence[Example], *, count_tokens: bool = False
    ) -> list[Answered]:
        """Return the answers to the rows of one request, in order.

        Raises RequestError: 429 when too many rows wait, 504 when the time is over, 422 for a row that does not fit.
        """
        loop = asyncio.get_running_loop()
        request = _Asked(served, examples, count_tokens, loop, loop.create_future())
        if not examples:
            return []
        with self._changed:
            if len(self._waiting) + len(examples) > self._limits.waiting_rows:
                raise RequestError(
                    429,
                    f"{len(self._waiting)} rows wait already, and at most {self._limits.waiting_rows} may. Try again.",
                    code="queue_full",
                    headers={"Retry-After": str(RETRY_AFTER_S)},
                )
            self._waiting.extend((request, row) for row in range(len(examples)))
            self._changed.notify()
        try:
            return await asyncio.wait_for(request.future, self._limits.answer_s)
        except TimeoutError:
            raise RequestError(
                504, f"The answer took more than {self._limits.answer_s:g} s. Send fewer rows, or try again later."
            ) from None
        finally:
            if len(request.answers) < len(examples):
                self._drop(request)

    def _drop(self, request: _Asked) -> None:
        """Forget the waiting rows of a request that nobody waits for: it failed, or its time is over."""
        with self._changed:
            self._waiting = deque(each for each in self._waiting if each[0] is not request)

    def close(self) -> None:
        """Judge what still waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    return
                batch = self._take()
            if batch:
                self._judge(batch)

    def _take(self) -> list[_Row]:
        """Take the rows of the longest waiting judge from the queue, up to its batch size."""
        batch: list[_Row] = []
        others: deque[_Row] = deque()
        while self._waiting:
            request, row = self._waiting.popleft()
            if request.future.done():
                continue  # its error is on the way
            first = batch[0][0] if batch else request
            if (request.served, request.count_tokens) == (first.served, first.count_tokens):
                batch.append((request, row))
                if len(batch) == request.served.batch_size:
                    break
            else:
                others.append((request, row))
        self._waiting.extendleft(reversed(others))
        return batch

    def _judge(self, batch: list[_Row]) -> None:
        served, count_tokens = batch[0][0].served, batch[0][0].count_tokens
        try:
            with self._turn:
                began = time.monotonic()
                answers = served.answer([request.examples[row] for request, row in batch], count_tokens=count_tokens)
        except Exception as error:  # whatever a row does to a judge, the other rows are still answered
            if len(batch) > 1:
                for each in batch:
                    self._judge([each])
            else:
                _settle(batch[0][0], _problem(error))
            return
        unreadable = sum(is_unreadable(each.prediction) for each in answers)
        self._metrics.judged(served.name, len(batch), unreadable, time.monotonic() - began)
        for (request, row), answered in zip(batch, answers, strict=True):
            request.answers[row] = answered
            if len(request.answers) == len(request.examples):
                _settle(request, [request.answers[index] for index in range(len(request.examples))])


def _problem(error: Exception) -> RequestError:
    """Return the error of a row: its own fault, or the judge's."""
    if isinstance(error, ConfigError | DataError):
        return RequestError(422, str(error))
    warn(f"a row could not be judged: {type(error).__name__}: {error}")
    reason = str(error) if isinstance(error, AdjudgeError) else "See the server's output."
    return RequestError(503, f"The judge failed. {reason}", code="judge_failed")


def _settle(request: _Asked, result: list[Answered] | RequestError) -> None:
    """Hand the result to the request's own thread."""

    def settle() -> None:
        if request.future.done():
            return  # it failed before, or its time is over
        if isinstance(result, RequestError):
            request.future.set_exception(result)
        else:
            request.future.set_result(result)

    if not request.loop.is_closed():
        request.loop.call_soon_threadsafe(settle)
