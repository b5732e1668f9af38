"""Find out quickly whether the hub can be reached: its own client retries for up to a minute."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from urllib.parse import urlsplit

CONNECT_TIMEOUT_S = 5.0


def connection_problem(endpoint: str, *, ask_proxy: bool = False) -> str | None:
    """Return why no connection to `endpoint` can be opened, or None when one can.

    Behind a proxy only the proxy can tell: None, or with `ask_proxy` the outcome of a HEAD request through it.
    """
    url = urlsplit(endpoint)
    if url.scheme in urllib.request.getproxies():
        return _problem_through_proxy(endpoint) if ask_proxy else None
    if not url.hostname:
        return None
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        with socket.create_connection((url.hostname, port), timeout=CONNECT_TIMEOUT_S):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _problem_through_proxy(endpoint: str) -> str | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=CONNECT_TIMEOUT_S):
            return None
    except urllib.error.HTTPError as error:
        return f"through the proxy: {error.code} {error.reason}"
    except OSError as error:
        return f"through the proxy: {error}"


def hub_resolves() -> bool:
    """Return whether the hub's host name resolves; True behind an https proxy, which would resolve it.

    Without a network this answers at once, and no connection is opened.
    """
    from huggingface_hub.constants import ENDPOINT

    if urllib.request.getproxies().get("https"):
        return True
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True
