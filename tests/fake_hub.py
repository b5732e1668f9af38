"""A local fake of the hub's HTTP API: creates repositories and takes commits, as `huggingface_hub` sends them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FakeHub:
    """What the fake was asked, and what it holds."""

    url: str = ""
    status: int = 200
    """Status of the answer to every request that writes, or asks who may."""
    role: str = "write"
    """What the token may do."""
    repos: dict[str, str] = field(default_factory=dict)
    """Repository to ``private`` or ``public``."""
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    branches: list[str] = field(default_factory=list)
    _uploaded: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        if self.status != 200 and (method == "POST" or path == "/api/whoami-v2"):
            return self.status, {"error": "refused by the fake"}
        if path == "/api/whoami-v2":
            token = {"auth": {"type": "access_token", "accessToken": {"role": self.role}}}
            return 200, {"type": "user", "name": "me", "orgs": [{"name": "owner"}], **token}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repos[name] = asked.get("visibility") or ("private" if asked.get("private") else "public")
            return 200, {"url": f"{self.url}/{name}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/branch/" in path:
            return 200, {}
        if "/preupload/" in path:
            names = [entry["path"] for entry in json.loads(body)["files"]]
            return 200, {"files": [self._mode(name) for name in names]}
        if path.endswith("/info/lfs/objects/batch"):
            objects = [self._place(entry) for entry in json.loads(body)["objects"]]
            return 200, {"transfer": "basic", "objects": objects}
        if method == "PUT":
            self._uploaded[path.rsplit("/", 1)[-1]] = body
            return 200, {}
        if "/commit/" in path:
            return 200, self._commit(path, body)
        return 404, {"error": "not found"}

    def _mode(self, name: str) -> dict[str, object]:
        mode = "lfs" if name.endswith(".safetensors") else "regular"
        return {"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _place(self, entry: dict[str, object]) -> dict[str, object]:
        upload = {"href": f"{self.url}/store/{entry['oid']}", "header": {}}
        return {"oid": entry["oid"], "size": entry["size"], "actions": {"upload": upload}}

    def _commit(self, path: str, body: bytes) -> dict[str, object]:
        self.branches.append(path.rsplit("/", 1)[-1])
        for line in body.splitlines():
            record = json.loads(line)
            value = record["value"]
            if record["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            elif record["key"] == "lfsFile":
                self.files[value["path"]] = self._uploaded[value["oid"]]
        repo = path.removeprefix("/api/models/").partition("/commit/")[0]
        return {"commitUrl": f"{self.url}/{repo}/commit/{'4' * 40}", "commitOid": "4" * 40, "success": True}


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Serve a fake hub on a free local port."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self._body()
            if self.path.startswith("/api/models") or self.path.startswith("/api/repos"):
                hub.tokens.add(self.headers.get("Authorization"))
            status, answer = hub.answer(self.command, self.path.partition("?")[0], body)
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST = do_PUT = do_HEAD = _serve

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
