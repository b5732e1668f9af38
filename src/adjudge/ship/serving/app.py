"""The routes of a server, as a Starlette app that any ASGI server can run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adjudge.evaluation.api_judge import ApiJudge
from adjudge.ship.serving import openai
from adjudge.ship.serving.batching import Batcher
from adjudge.ship.serving.gate import Gate
from adjudge.ship.serving.judges import Answered, ServedJudge, prediction_fields
from adjudge.ship.serving.limits import GONE, Limits, Load, RequestError, problem_fields
from adjudge.ship.serving.metrics import CONTENT_TYPE, Metrics
from adjudge.ship.serving.reading import check_names, open_body, parse_object, pick_judge, read_rows
from adjudge.system.memory import uses_gpu
from adjudge.types import Example

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/csv.js": ("csv.js", "text/javascript; charset=utf-8"),
}
"""The files of the page. They hold no data, so they need no key."""

Answer = Callable[["Server", Mapping[str, Any]], Awaitable[Response]]


class Server:
    """The judges of a server, their queues and its figures."""

    def __init__(self, judges: Sequence[ServedJudge], limits: Limits) -> None:
        self.judges = {served.name: served for served in judges}
        self.limits, self.load, self.metrics = limits, Load(), Metrics()
        self.started = int(time.time())
        self._batchers: dict[str, Batcher] = {}

    def start(self) -> None:
        """Start one thread per run. On a GPU they take turns, except those that wait for an API."""
        turn = threading.Lock() if uses_gpu() else None
        self._batchers = {}
        for served in self.judges.values():
            if served.run not in self._batchers:
                own_turn = None if isinstance(served.judge, ApiJudge) else turn
                self._batchers[served.run] = Batcher(self.limits, self.metrics, own_turn)

    def close(self) -> None:
        """Judge what still waits, and end the threads."""
        for batcher in self._batchers.values():
            batcher.close()

    async def judge(
        self, served: ServedJudge, examples: Sequence[Example], *, count_tokens: bool = False
    ) -> list[Answered]:
        """Return the answers to rows, in order. Raises RequestError."""
        return await self._batchers[served.run].judge(served, examples, count_tokens=count_tokens)

    def waiting(self) -> dict[str, int]:
        """Return the number of rows that wait, by run."""
        return {run: batcher.waiting for run, batcher in self._batchers.items()}


def build_app(judges: Sequence[ServedJudge], *, key: str | None = None, limits: Limits | None = None) -> Starlette:
    """Return the app that serves these judges; `key` is asked of every request that reaches one.

    ``app.state.server`` is its `Server`.
    """
    server = Server(judges, limits or Limits())

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        server.start()
        try:
            yield
        finally:
            server.close()

    posts = {"/v1/classify": classify, "/v1/chat/completions": chat, "/v1/completions": complete}
    routes = [Route(path, _posted(server, answer), methods=["POST"]) for path, answer in posts.items()]
    routes += [Route(path, _page_file(*file)) for path, file in PAGE.items()]
    gets = {"/v1/models": models, "/v1/models/{name:path}": model, "/health": health, "/metrics": metrics}
    routes += [Route(path, _got(server, answer)) for path, answer in gets.items()]
    counted = {*posts, *PAGE, "/v1/models", "/health", "/metrics"}
    gate = Middleware(
        Gate,
        key=key,
        limits=server.limits,
        metrics=server.metrics,
        load=server.load,
        free={*PAGE, "/health"},
        counted=counted,
    )
    handlers: Any = {HTTPException: _http_problem, RequestError: _problem, Exception: _unexpected}
    app = Starlette(routes=routes, middleware=[gate], exception_handlers=handlers, lifespan=lifespan)
    app.state.server = server
    return app


async def classify(server: Server, tree: Mapping[str, Any]) -> Response:
    """Answer ``POST /v1/classify``."""
    began = time.monotonic()
    check_names(tree, ("texts", "rows", "model"))
    served = pick_judge(server.judges, tree.get("model"))
    answers = await server.judge(served, read_rows(served, tree, server.limits))
    predictions = [prediction_fields(served, answered) for answered in answers]
    milliseconds = round(1000 * (time.monotonic() - began), 1)
    return JSONResponse({"predictions": predictions, "model": served.name, "latency_ms": milliseconds})


async def chat(server: Server, tree: Mapping[str, Any]) -> Response:
    """Answer ``POST /v1/chat/completions``."""
    openai.check_fields(tree, ("model", "messages", "logprobs", "top_logprobs", "stream"))
    served = pick_judge(server.judges, tree.get("model"))
    logprobs, stream = openai.wants_logprobs(served, tree), openai.wants_stream(tree)
    top = openai.top_count(served, tree.get("top_logprobs"), "top_logprobs")
    example = openai.chat_row(served, tree.get("messages"))
    (answered,) = await server.judge(served, [example], count_tokens=True)
    return _completed(openai.chat_completion(served, answered, logprobs=logprobs, top=top), tree, stream=stream)


async def complete(server: Server, tree: Mapping[str, Any]) -> Response:
    """Answer ``POST /v1/completions``."""
    openai.check_fields(tree, ("model", "prompt", "logprobs", "stream"))
    served = pick_judge(server.judges, tree.get("model"))
    wanted, stream = tree.get("logprobs"), openai.wants_stream(tree)
    top = None if wanted is None else openai.top_count(served, wanted, "logprobs")
    examples = openai.prompt_rows(served, tree.get("prompt"), server.limits)
    answers = await server.judge(served, examples, count_tokens=True)
    return _completed(openai.completion(served, answers, top), tree, stream=stream)


def models(server: Server, _request: Request) -> Response:
    """Answer ``GET /v1/models``."""
    data = [openai.model_fields(served, server.started) for served in server.judges.values()]
    return JSONResponse({"object": "list", "data": data})


def model(server: Server, request: Request) -> Response:
    """Answer ``GET /v1/models/NAME``."""
    return JSONResponse(openai.model_fields(pick_judge(server.judges, request.path_params["name"]), server.started))


def health(server: Server, _request: Request) -> Response:
    """Answer ``GET /health``: 503 once the server was told to stop, so that no new work is sent to it."""
    if server.load.stopping:
        return JSONResponse({"status": "stopping"}, 503)
    return JSONResponse({"status": "ok", "waiting_rows": sum(server.waiting().values())})


def metrics(server: Server, _request: Request) -> Response:
    """Answer ``GET /metrics``."""
    text = server.metrics.text(server.waiting(), server.load.open_requests)
    return Response(text, headers={"Content-Type": CONTENT_TYPE})


def _completed(answer: dict[str, Any], tree: Mapping[str, Any], *, stream: bool) -> Response:
    if not stream:
        return JSONResponse(answer)
    usage = (tree.get("stream_options") or {}).get("include_usage") is True
    return Response(b"".join(openai.events(answer, usage=usage)), media_type="text/event-stream")


def _posted(server: Server, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        async with open_body(request, server.limits, server.load) as body:
            return await _unless_gone(request, answer(server, parse_object(request, body)))

    return endpoint


async def _unless_gone(request: Request, answer: Awaitable[Response]) -> Response:
    """Return the answer; when the client leaves before, its rows are not judged. Raises RequestError."""
    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise RequestError(GONE, "The client left before its answer.")
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _got(server: Server, answer: Callable[[Server, Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return answer(server, request)

    return endpoint


def _page_file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("adjudge.ship.serving").joinpath("page", name).read_bytes()

    async def endpoint(_request: Request) -> Response:
        return Response(content, headers={"Content-Type": kind})

    return endpoint


async def _problem(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, RequestError)
    return JSONResponse(problem_fields(problem), problem.status, dict(problem.headers))


async def _http_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    advice = {
        404: "There is nothing at this address. POST rows to /v1/classify, or see GET /v1/models.",
        405: f"This address takes {(error.headers or {}).get('Allow', 'another method')}.",
    }
    message = advice.get(error.status_code, str(error.detail))
    return JSONResponse(problem_fields(RequestError(error.status_code, message)), error.status_code, error.headers)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return JSONResponse(
        problem_fields(RequestError(500, "The server failed; its output says why. This is our bug.")), 500
    )
