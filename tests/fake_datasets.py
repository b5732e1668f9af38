"""A local fake of the hub's HTTP API for one data set: its commit, its files, and their contents."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class FakeDataset:
    """The data set ``owner/name`` at one commit, with the files of a folder."""

    def __init__(self, folder: Path, commit: str) -> None:
        self.folder, self.commit = folder, commit
        self.url = ""
        self.asked: list[str] = []

    def _names(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def _entry(self, name: str) -> dict[str, object]:
        body = (self.folder / name).read_bytes()
        return {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(f"{method} {path}")
        api, files = "/api/datasets/owner/name", "/datasets/owner/name/resolve/"
        if path.startswith(files):
            name = path.removeprefix(files).partition("/")[2]
            file = self.folder / name
            if not file.is_file():
                return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.commit}, b""
            oid = str(self._entry(name)["oid"])
            return 200, {"ETag": f'"{oid}"', "X-Repo-Commit": self.commit}, file.read_bytes()
        if path == api or path.startswith(f"{api}/revision/"):
            siblings = [{"rfilename": name} for name in self._names()]
            return 200, {}, self._json({"id": "owner/name", "sha": self.commit, "siblings": siblings, "private": False})
        if path.startswith(f"{api}/tree/"):
            below = path.removeprefix(f"{api}/tree/").partition("/")[2]
            entries: dict[str, dict[str, object]] = {}
            for name in self._names():
                if name.startswith(f"{below}/" if below else ""):
                    for parent in Path(name).parents:
                        if str(parent) not in (".", below):
                            entries[str(parent)] = {
                                "type": "directory",
                                "path": str(parent),
                                "size": 0,
                                "oid": "0" * 40,
                            }
                    entries[name] = self._entry(name)
            return (
                (200, {}, self._json(list(entries.values())))
                if entries
                else (404, {"X-Error-Code": "EntryNotFound"}, b"")
            )
        if path.startswith(f"{api}/paths-info/"):
            asked = json.loads(body)["paths"] if body.startswith(b"{") else []
            return 200, {}, self._json([self._entry(name) for name in asked if name in self._names()])
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def _json(self, value: object) -> bytes:
        return json.dumps(value).encode()


@contextmanager
def fake_dataset(folder: Path, commit: str) -> Iterator[FakeDataset]:
    """Serve the files of a folder as the data set ``owner/name`` on a free local port."""
    hub = FakeDataset(folder, commit)

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answer = hub.answer(self.command, unquote(self.path.partition("?")[0]), body)
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_POST = do_HEAD = _serve

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
