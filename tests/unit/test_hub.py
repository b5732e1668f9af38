"""Whether the hub can be reached: a connection to its endpoint, and its name."""

import socket
import urllib.request

from adjudge.system.hub import connection_problem, hub_resolves


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


def test_the_hubs_name_resolves_or_a_proxy_does_it(monkeypatch):
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    assert hub_resolves()

    def fail(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    assert not hub_resolves()
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy:1"})
    assert hub_resolves()
