"""What a server accepts at most, and the error that a request gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep memory and waiting time finite, whatever is sent."""

    body_bytes: int = 1 << 20
    """Largest body of one request."""
    open_bytes: int = 64 << 20
    """Largest sum of the bodies of requests that are not answered yet."""
    open_requests: int = 512
    """Most requests that are not answered yet."""
    rows: int = 1024
    """Most rows of one request."""
    waiting_rows: int = 4096
    """Most rows that wait for one run."""
    body_s: float = 15.0
    """Longest time for a body to arrive."""
    answer_s: float = 120.0
    """Longest time from a request's body to its answer."""


@dataclass(slots=True)
class Load:
    """What a server has in hand; changed only on the thread of its event loop."""

    open_requests: int = 0
    open_bytes: int = 0
    stopping: bool = False
    """True once it was told to stop; requests are still answered, and each ends its connection."""


@dataclass(eq=False)
class RequestError(Exception):
    """A request that gets an error instead of an answer: status, message, and the field it is about."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


GONE = 499
"""The status of a request whose client left: nobody reads it, but metrics count it. nginx has it too."""

KINDS = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}


def problem_fields(problem: RequestError) -> dict[str, object]:
    """Return the JSON of an error, in the form that OpenAI's clients read."""
    kind = KINDS.get(problem.status, "invalid_request_error")
    return {"error": {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}}
