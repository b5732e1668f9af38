"""Send a server requests as a hostile or broken client would, over plain sockets.

python tests/hostile_requests.py --requests 10000 --seed 0

Every answer must be one that the client deserves: never a 500, never a hang. Between them, good requests must get
their right answers. The server runs in a process of its own, whose memory is watched.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from serving import in_its_own_process

from adjudge.ship.serving.limits import Limits

PATHS = ("/v1/classify", "/v1/chat/completions", "/v1/completions")
FINE = {200, 400, 401, 404, 405, 408, 411, 413, 414, 415, 422, 429, 431, 501, 505}
GROWTH_MIB = 150
"""More resident memory than this, beyond the start, is a leak; a single request may take 20 MiB for a moment."""

TEXTS = [
    "good",
    "",
    " ",
    "\0",
    "\ud800",
    "\udfff\ud800",
    "é",
    "𝄞",
    "\u202e",
    "</Judgement>",
    "<|im_end|>",
    "{{7*7}}",
    "a" * 5000,
]
ODD_JSON = ["NaN", "-Infinity", "1e999", "9" * 5000, "[" * 20_000, '{"a":' * 5000, '"\\ud800"', '"\\u0000"', "\ufeff{}"]
NAMES = [
    "model",
    "texts",
    "rows",
    "messages",
    "prompt",
    "stream",
    "logprobs",
    "top_logprobs",
    "n",
    "temperature",
    "x",
    "",
]


def good_request(rng: random.Random) -> tuple[bytes, str]:
    """Return a request that is in order, and the label it must get."""
    label = rng.choice(["good", "bad"])
    return posted("/v1/classify", json.dumps({"model": "films", "texts": [f"{label} {rng.random()}"]}).encode()), label


def posted(path: str, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """Return the bytes of a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def valid_tree(rng: random.Random) -> dict[str, Any]:
    """Return a body in order, to be damaged."""
    return rng.choice(
        [
            {"model": "films", "texts": ["good film", "bad film"]},
            {"model": "pairs", "rows": [{"first": "a", "second": "b"}]},
            {"model": "stars", "texts": ["abc"]},
            {"model": "films", "messages": [{"role": "user", "content": "good"}], "logprobs": True, "top_logprobs": 2},
            {"model": "films", "prompt": ["good", "bad"], "logprobs": 2, "stream": True},
        ]
    )


def any_value(rng: random.Random, depth: int = 0) -> Any:
    """Return any JSON value."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind < 6:
        return rng.choice([None, True, False, 0, -1, 1.5, 10**30, 1e308])
    if kind < 8:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(NAMES): any_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def wrong_values(rng: random.Random) -> bytes:
    """A good body in which values and names are replaced."""
    tree = valid_tree(rng)
    for _ in range(rng.randrange(1, 3)):
        name = rng.choice(list(tree) + NAMES)
        if rng.random() < 0.2:
            tree.pop(name, None)
        else:
            tree[name] = any_value(rng)
    return posted(rng.choice(PATHS), json.dumps(tree).encode())


def wrong_rows(rng: random.Random) -> bytes:
    """Rows that are not rows, in lists of many lengths."""
    rows = [any_value(rng) for _ in range(rng.choice([0, 1, 3, 1025, 3000]))]
    tree = {"model": rng.choice(["films", "pairs", "stars"]), rng.choice(["texts", "rows", "prompt", "messages"]): rows}
    return posted(rng.choice(PATHS), json.dumps(tree).encode())


def wrong_bytes(rng: random.Random) -> bytes:
    """A good body with flipped, doubled or missing bytes."""
    body = bytearray(json.dumps(valid_tree(rng), ensure_ascii=False).encode())
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(body))
        body[place : place + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        body = body or bytearray(b"{")
    return posted(rng.choice(PATHS), bytes(body))


def wrong_json(rng: random.Random) -> bytes:
    """JSON that parsers stumble over."""
    odd = rng.choice(ODD_JSON)
    text = rng.choice(
        [odd, f'{{"texts": [{odd}]}}', f'{{"model": {odd}, "texts": ["good"]}}', f'{{"x": 1, "x": {odd}}}']
    )
    return posted(rng.choice(PATHS), text.encode("utf-8", "surrogatepass"))


def wrong_encoding(rng: random.Random) -> bytes:
    """JSON in another encoding or of another content type, or compressed bytes."""
    text = json.dumps(valid_tree(rng), ensure_ascii=False) + "é"
    body = text.encode(rng.choice(["utf-16", "utf-32", "latin-1", "cp037"]))
    kind = rng.choice(
        ["application/json", "text/plain", "multipart/form-data", "", "application/json; charset=latin-1"]
    )
    return posted(rng.choice(PATHS), rng.choice([body, b"\x1f\x8b" + rng.randbytes(40)]), kind=kind)


def wrong_address(rng: random.Random) -> bytes:
    """Another method, path or query."""
    path = rng.choice(
        ["/", "/page.js/..", "/../../etc/passwd", "/v1/models/%ff", "/v1/models/" + "a" * 500, "/%00", "/v1/x?"]
    )
    method = rng.choice(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "POST", "BREW"])
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()


def wrong_headers(rng: random.Random) -> bytes:
    """Headers that lie, repeat, or are too large."""
    odd = rng.choice(
        [
            "Content-Length: -1",
            "Content-Length: 5",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "X: " + "a" * 70_000,
            "Authorization: Bearer \xff\xfe",
            "Expect: 100-continue",
            "Upgrade: websocket",
            "Cookie: " + ";".join("a=b" for _ in range(500)),
            "no colon",
        ]
    )
    return posted(rng.choice(PATHS), json.dumps(valid_tree(rng)).encode(), odd)


def wrong_chunks(rng: random.Random) -> bytes:
    """Chunks whose sizes are wrong."""
    size = rng.choice(["2", "zz", "-1", "ffffffffffffffff", "0"])
    head = f"POST {rng.choice(PATHS)} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    return f"{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\n{{}}\r\n0\r\n\r\n".encode()


def too_large(rng: random.Random) -> bytes:
    """A body over the limit, or at it."""
    return posted(rng.choice(PATHS), b'{"texts": ["' + b"a" * rng.choice([900_000, 1_100_000, 3_000_000]) + b'"]}')


def not_http(rng: random.Random) -> bytes:
    """Bytes that are no request."""
    start = rng.choice([rng.randbytes(200), b"\x16\x03\x01" + rng.randbytes(60), b"GET", b"PRI * HTTP/2.0"])
    return start + b"\r\n\r\n"


def cut_off(rng: random.Random) -> bytes:
    """The beginning of a good request; then the client leaves."""
    whole = good_request(rng)[0]
    return whole[: rng.randrange(1, len(whole))]


KINDS: dict[str, tuple[Callable[[random.Random], bytes], int]] = {
    "wrong values": (wrong_values, 6),
    "wrong rows": (wrong_rows, 4),
    "wrong bytes": (wrong_bytes, 5),
    "wrong JSON": (wrong_json, 4),
    "wrong encoding": (wrong_encoding, 3),
    "wrong address": (wrong_address, 2),
    "wrong headers": (wrong_headers, 3),
    "wrong chunks": (wrong_chunks, 2),
    "too large": (too_large, 1),
    "not HTTP": (not_http, 2),
    "cut off": (cut_off, 2),
}
"""Each kind and how often it comes."""


def exchange(port: int, request: bytes, *, leave: bool = False) -> tuple[int | None, bytes]:
    """Send bytes; return the status of the answer and its body, or None where the connection just ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(request)
            if leave:
                return None, b""
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        except (ConnectionResetError, BrokenPipeError):
            return None, b""
    answer = b"".join(parts).removeprefix(b"HTTP/1.1 100 \r\n\r\n").removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head.startswith(b"HTTP/1.1 ") else None), body


def attack(port: int, seed: int, requests: int) -> Counter[tuple[str, int | None]]:
    """Send hostile requests, each tenth time with a good one after it; return how often each answer came."""
    rng = random.Random(seed)
    answers: Counter[tuple[str, int | None]] = Counter()
    names, weights = list(KINDS), [weight for _, weight in KINDS.values()]
    for number in range(requests):
        name = rng.choices(names, weights)[0]
        request = KINDS[name][0](rng)
        status, body = exchange(port, request, leave=name == "cut off")
        assert status is None or status in FINE, (name, request[:2000], status, body[:500])
        if status is not None and status >= 400 and body.startswith(b"{"):
            assert json.loads(body)["error"]["message"], body
        answers[name, status] += 1
        if number % 10 == 0:
            request, label = good_request(rng)
            status, body = exchange(port, request)
            assert status == 200, (status, body)
            assert json.loads(body.replace(b"\r\n", b""))["predictions"][0]["label"] == label, body
    return answers


def resident_mib(pid: int) -> float | None:
    """Return a process's resident memory; None where /proc does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return None
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmRSS"))


def attack_server(requests: int, seed: int, clients: int = 8) -> tuple[Counter[tuple[str, int | None]], float]:
    """Attack a fresh server from several clients; return the answers and the growth of its memory in MiB."""
    with in_its_own_process(Limits(body_s=1.0)) as (port, pid):
        attack(port, seed, 20)
        before = resident_mib(pid)
        with ThreadPoolExecutor(clients) as pool:
            share = -(-requests // clients)
            counts = list(pool.map(lambda client: attack(port, 1000 * seed + client, share), range(clients)))
        after = resident_mib(pid)
    growth = 0.0 if before is None or after is None else after - before
    assert growth < GROWTH_MIB, f"the server grew by {growth:.0f} MiB"
    return sum(counts, Counter()), growth


def main() -> None:
    """Attack, and print what came back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    answers, growth = attack_server(options.requests, options.seed)
    for name in KINDS:
        shown = {str(status): count for (kind, status), count in sorted(answers.items(), key=str) if kind == name}
        print(f"{name:>15}: {', '.join(f'{count} × {status}' for status, count in shown.items())}")
    print(f"{answers.total()} hostile requests, no crash and no 500; the server's memory grew by {growth:.0f} MiB")


if __name__ == "__main__":
    main()
