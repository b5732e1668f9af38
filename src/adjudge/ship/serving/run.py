"""Run the app with uvicorn until a signal, then answer what was accepted and end."""

from __future__ import annotations

import socket
import time
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from adjudge.errors import ConfigError

LEAVING_S = 1.0
"""Seconds after a signal in which answers still end their connections, so that none is cut with a request in it."""

BACKLOG = 2048


class GracefulServer(uvicorn.Server):
    """A uvicorn server that first sends its clients away, then stops listening."""

    def __init__(self, app: Starlette) -> None:
        state = app.state.server
        super().__init__(
            uvicorn.Config(
                app,
                log_level="error",  # each line that is no HTTP would be a warning
                access_log=False,
                server_header=False,
                ws="none",
                backlog=BACKLOG,
                limit_concurrency=2 * state.limits.open_requests,
                timeout_graceful_shutdown=int(state.limits.body_s + state.limits.answer_s) + 5,
            )
        )
        self._load = state.load
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal stops at once."""
        if self._load.stopping:
            self.should_exit = self.force_exit = True
        self._load.stopping = True
        self._stop_at = time.monotonic() + LEAVING_S

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop listening."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket at this address, which does not listen yet; port 0 is any free one.

    Raises ConfigError for an address that cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, UnicodeError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Cannot serve at {host}, port {port}: {reason}. Give another --port (0: any free one) or --host."
        ) from None
    bound.set_inheritable(True)
    return bound


def address(bound: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: Starlette, bound: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C; every accepted request is answered before it returns."""
    GracefulServer(app).run(sockets=[bound])
