"""What every request passes on its way in and out: key, number of open requests, headers, counts."""

from __future__ import annotations

import hmac
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adjudge.ship.serving.limits import Limits, Load, RequestError, problem_fields
from adjudge.ship.serving.metrics import Metrics

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer: nothing is fetched from elsewhere, and no other site may read or frame it."""


class Gate:
    """An ASGI layer around the app.

    Paths in `free` need no key; metrics name those in `counted`, and "other".
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        key: str | None,
        limits: Limits,
        metrics: Metrics,
        load: Load,
        free: Collection[str],
        counted: Collection[str],
    ) -> None:
        self.app, self.limits, self.metrics, self.load = app, limits, metrics, load
        self._key = None if key is None else key.encode()
        self._free, self._counted = free, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500
        route = scope["path"] if scope["path"] in self._counted else "other"

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
                if self.load.stopping:  # the next request finds another server, or none
                    headers["Connection"] = "close"
            await send(message)

        self.load.open_requests += 1
        try:
            if problem := self._refusal(scope):
                response = JSONResponse(problem_fields(problem), problem.status, dict(problem.headers))
                await response(scope, receive, send_with_headers)
            else:
                await self.app(scope, receive, send_with_headers)
        finally:
            self.load.open_requests -= 1
            self.metrics.requested(route, status, time.monotonic() - began)

    def _refusal(self, scope: Scope) -> RequestError | None:
        if self._key is not None and scope["path"] not in self._free and not self._has_key(Headers(scope=scope)):
            return RequestError(
                401,
                "A key is needed: send the header Authorization: Bearer KEY, with the server's ADJUDGE_API_KEY.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if self.load.open_requests > self.limits.open_requests and scope["path"] not in self._free:
            return RequestError(
                429,
                f"{self.limits.open_requests} requests wait for their answers already. Try again.",
                code="too_many_requests",
                headers={"Retry-After": "1", "Connection": "close"},
            )
        return None

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        assert self._key is not None
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self._key)
