"""Whether the hub can be reached: a connection to its endpoint, and its name; and what its client's errors mean."""

import socket
import urllib.request

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import hf_raise_for_status

from adjudge.system.hub import LONGEST, connection_problem, hub_reason, hub_resolves, one_line


def test_reachability_is_about_the_endpoint(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert connection_problem(endpoint) is None
    assert connection_problem(endpoint)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert connection_problem(endpoint) is None, "behind a proxy only the proxy can tell"
    assert connection_problem(endpoint, ask_proxy=True).startswith("through the proxy: ")


def test_only_the_proxy_of_the_endpoints_scheme_counts(monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"ftp": "http://127.0.0.1:1"})
    assert connection_problem("http://127.0.0.1:1", ask_proxy=True)
    assert connection_problem("http://127.0.0.1:1")


def test_a_proxy_for_all_schemes_can_be_asked_only_by_the_hubs_client(monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"all": "socks5://127.0.0.1:1"})
    assert connection_problem("https://127.0.0.1:1") is None
    assert connection_problem("https://127.0.0.1:1", ask_proxy=True) is None
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"all": "socks5://127.0.0.1:1", "no": "localhost"})
    assert hub_resolves()


def test_the_hubs_name_resolves_or_a_proxy_does_it(monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    assert hub_resolves()

    def fail(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert not hub_resolves()
    for scheme in ("https", "all"):
        monkeypatch.setattr(urllib.request, "getproxies", lambda scheme=scheme: {scheme: "http://proxy:1"})
        assert hub_resolves()


def refused(status, code="", message=""):
    """Return the client's error for an answer of the hub."""
    headers = {"X-Request-Id": "Root=1-2", "X-Error-Code": code, "X-Error-Message": message}
    request = httpx2.Request("HEAD", "https://hub.example/owner/name/resolve/main/config.json")
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(httpx2.Response(status, headers={k: v for k, v in headers.items() if v}, request=request))
    return caught.value


def wrapped(error, by):
    """Return the error `by` as a library raises it for `error`."""
    by.__cause__ = error
    return by


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (refused(401, "GatedRepo", "Access is restricted."), "the model is gated: ask for access on the hub's page"),
        (refused(401, message="Invalid username or password."), "the hub has no such model, or it is private: check"),
        (refused(404, "RepoNotFound"), "the hub has no such model, or it is private: check the name, or log in"),
        (refused(404, "RevisionNotFound"), "the model has no such branch, tag or commit on the hub."),
        (refused(500, message="Out\nof order"), "Server error '500 Internal Server Error' for url"),
        (httpx2.ReadTimeout(""), "the connection to the hub failed (ReadTimeout). Try again."),
        (httpx2.ProxyError("503 refused"), "the connection to the hub failed (503 refused). Try again."),
        (OSError("one\n\n two"), "one two Look."),
    ],
)
def test_the_reason_is_what_the_error_means_however_it_is_wrapped(error, reason):
    assert hub_reason(error, advice="Look.").startswith(reason)
    if type(error) is not OSError:
        again = wrapped(wrapped(error, LocalEntryNotFoundError("not in the cache")), OSError("cannot be loaded"))
        assert hub_reason(again) == hub_reason(error)
    assert "Request ID" not in hub_reason(error) and "\n" not in hub_reason(error)


def test_the_reason_names_what_was_asked_for_and_advice_is_only_for_the_unknown():
    assert hub_reason(refused(404, "RepoNotFound"), "data set", advice="Look.") == (
        "the hub has no such data set, or it is private: check the name, or log in with `hf auth login`, or set "
        "HF_TOKEN."
    )
    assert hub_reason(refused(403, message="Nothing to see"), advice="Look.").endswith("permissions. Look.")


def test_a_long_message_is_cut_and_an_empty_one_is_the_name_of_its_kind():
    assert one_line(ValueError("x" * 1000)) == "x" * LONGEST + "…"
    assert one_line(ValueError("")) == "ValueError"
