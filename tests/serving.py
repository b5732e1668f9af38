"""Servers for tests: judges that answer by rule, behind the real app, in this process or in one of their own."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fake_method import FakeJudge
from processes import wait_for
from specs import label_task, number_task

from adjudge.ship.serving.app import build_app
from adjudge.ship.serving.judges import ServedJudge
from adjudge.ship.serving.limits import Limits
from adjudge.ship.serving.run import GracefulServer, address, bind, serve
from adjudge.types import Example

FILMS = label_task("bad", "good", title="Films")
STARS = number_task(0, 5, name="stars", title="Stars")
PAIRS = label_task(
    "No", "Yes", name="pairs", title="Pairs", fields={"first": "sentence1", "second": "sentence2"}, optional=("second",)
)


def first_word(example: Example) -> str | None:
    """ "good …" is good, "bad …" is bad, anything else is unreadable."""
    words = next(iter(example.fields.values())).split()
    return words[0] if words and words[0] in ("good", "bad") else None


def same(example: Example) -> str:
    """Yes for two equal texts."""
    return "Yes" if example.fields["first"] == example.fields["second"] else "No"


def length(example: Example) -> float | None:
    """The number of characters, as far as it is a number of stars."""
    return float(len(example.fields["text"])) if len(example.fields["text"]) <= 5 else None


def films(answer: Callable[[Example], str | float | None] = first_word, **options: object) -> ServedJudge:
    """A judge of films under the name "films"."""
    return ServedJudge("films", FILMS, FakeJudge(FILMS, answer), "sft", run="films", **options)  # type: ignore[arg-type]


def all_judges() -> list[ServedJudge]:
    """Return a judge of labels, one of numbers and one of two fields."""
    return [
        films(),
        ServedJudge("stars", STARS, FakeJudge(STARS, length), "sft", run="stars"),
        ServedJudge("pairs", PAIRS, FakeJudge(PAIRS, same), "sft", run="pairs"),
    ]


@contextmanager
def running(judges: Sequence[ServedJudge], *, key: str | None = None, limits: Limits | None = None) -> Iterator[str]:
    """Serve in a thread, and yield the address."""
    bound = bind("127.0.0.1", 0)
    server = GracefulServer(build_app(judges, key=key, limits=limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield address(bound)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def in_its_own_process(limits: Limits | None = None) -> Iterator[tuple[int, int]]:
    """Serve `all_judges` in a process of its own, and yield its port and its process id."""
    context = multiprocessing.get_context("fork")
    bound = bind("127.0.0.1", 0)
    process = context.Process(target=_serve, args=(bound, limits))
    process.start()
    port = bound.getsockname()[1]
    bound.close()
    try:
        assert process.pid is not None
        wait_for(lambda: _listens(port), 30)
        yield port, process.pid
        assert process.is_alive(), "the server crashed"
        process.terminate()
        process.join(30)
        assert process.exitcode == 0, process.exitcode
    finally:
        process.kill()
        process.join()


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def _serve(bound: object, limits: Limits | None) -> None:
    serve(build_app(all_judges(), limits=limits), bound)  # type: ignore[arg-type]
