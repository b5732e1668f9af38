"""The hub: whether it can be reached, and what its client's errors mean.

Reachability is found out quickly: the hub's own client retries for up to a minute.
"""

from __future__ import annotations

import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlsplit

CONNECT_TIMEOUT_S = 5.0
LONGEST = 300
"""Characters of an error of the hub's client that a message shows."""

_REQUEST_ID = re.compile(r"\(Request ID:[^)]*\)")
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def connection_problem(endpoint: str, *, ask_proxy: bool = False) -> str | None:
    """Return why no connection to `endpoint` can be opened, or None when one can.

    Behind a proxy only the proxy can tell: None, or with `ask_proxy` the outcome of a HEAD request through it. A proxy
    for all schemes (ALL_PROXY, often a SOCKS one) is one that only the hub's client can ask.
    """
    url, proxies = urlsplit(endpoint), urllib.request.getproxies()
    if url.scheme in proxies:
        return _problem_through_proxy(endpoint) if ask_proxy else None
    if "all" in proxies:
        return None
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
    """Return whether the hub's host name resolves; True behind a proxy, which would resolve it.

    Without a network this answers at once, and no connection is opened.
    """
    from huggingface_hub.constants import ENDPOINT

    proxies = urllib.request.getproxies()
    if proxies.get("https") or proxies.get("all"):
        return True
    try:
        socket.getaddrinfo(urlsplit(ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def hub_reason(error: BaseException, kind: str = "model", *, advice: str = "") -> str:
    """Return why the hub's client failed, and what to do, in one line.

    `kind` is what was asked of the hub. `advice` follows an error whose meaning is not known here.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    answer = hub_answer(error)
    if isinstance(answer, GatedRepoError):  # a RepositoryNotFoundError, too
        return f"the {kind} is gated: ask for access on the hub's page of the {kind}, then {_LOG_IN}."
    if isinstance(answer, RepositoryNotFoundError):
        return f"the hub has no such {kind}, or it is private: check the name, or {_LOG_IN}."
    if isinstance(answer, RevisionNotFoundError):
        return f"the {kind} has no such branch, tag or commit on the hub."
    if answer is None and (failure := next(filter(is_connection_error, _causes(error)), None)):
        return f"the connection to the hub failed ({one_line(failure)}). Try again."
    return f"{one_line(answer or error)} {advice}".rstrip()


def hub_answer(error: BaseException) -> BaseException | None:
    """Return the refusal of the hub that is or caused an error; None where the hub did not answer."""
    from huggingface_hub.errors import HfHubHTTPError

    return next((each for each in _causes(error) if isinstance(each, HfHubHTTPError)), None)


def is_connection_error(error: BaseException) -> bool:
    """Return whether the connection of the hub's client failed: the hub gave no answer."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    return isinstance(error, HTTPError) and not isinstance(error, HfHubHTTPError)


def one_line(error: BaseException) -> str:
    """Return the message of an error of the hub's client in one line, cut, without the id of the request."""
    text = " ".join(_REQUEST_ID.sub("", str(error)).split()) or type(error).__name__
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, and those that caused it: libraries wrap what the hub's client raises."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
