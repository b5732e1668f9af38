"""An API in OpenAI's form for tests: it listens on this machine and answers by rule."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any], int], Any]
"""The request's body and its number from 0 → what `reply` or `problem` returns, or a text."""


class FakeApi:
    """The requests that came, and the address."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.lock = threading.Lock()


def reply(text: str | None, *, finish: str = "stop", usage: tuple[int, int] | None = (7, 3), **others: Any) -> Any:
    """Return a completion with one choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    counted = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)} if usage else None
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "fake-1", "choices": [choice]}
    return 200, {}, {**body, "usage": counted, "system_fingerprint": "fp", **others}


def problem(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Any:
    """Return an error; "Retry-After" as ``retry_after_ms``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, {"error": {"message": message, "type": "error", "code": code}}


@contextmanager
def fake_api(answer: Answer) -> Iterator[FakeApi]:
    """Serve until the end of the block."""
    api = FakeApi(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with api.lock:
                number = len(api.bodies)
                api.bodies.append({"path": self.path, **body})
                api.headers.append({name.lower(): value for name, value in self.headers.items()})
            answered = api.answer(body, number)
            status, headers, tree = reply(answered) if isinstance(answered, str) else answered
            content = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
            self.send_response(status)
            kind = "text/html" if isinstance(tree, bytes) else "application/json"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # the client waited no longer
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Be quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()


def last_turn(body: dict[str, Any]) -> str:
    """Return the row's turn of a request."""
    return str(body["messages"][-1]["content"])
