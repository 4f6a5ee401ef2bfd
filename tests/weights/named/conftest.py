"""Caches of the test's own, and a server on this machine in place of the authors' and the hub's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch

from ssl_bench.weights.named import catalog, files
from ssl_bench.weights.named.catalog import Published
from tests.weights.networks import RESNET, resnet, tensors

COMMIT = "c0ffee" + "0" * 34


class Server:
    """What it sends, and what was asked of it."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut = 0
        """Bytes that are announced and not sent."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self, body=True)

            def do_HEAD(self) -> None:
                outer.answer(self, body=False)

            def log_message(self, format: str, *arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        path = handler.path.partition("?")[0]
        self.asked.append(path)
        content = self._of_hub(path) if path.startswith("/api/") else self.files.get(path)
        if content is None:
            handler.send_error(404)
            return
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) + self.cut))
        handler.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.end_headers()
        if body:
            handler.wfile.write(content)

    def _of_hub(self, path: str) -> bytes | None:
        """The hub's answers on the one repository owner/name."""
        if not path.startswith("/api/models/owner/name"):
            return None
        listed = {path.rpartition("/")[2]: len(content) for path, content in self.files.items()}
        if "/tree/" in path:
            tree = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in listed.items()]
            return json.dumps(tree).encode()
        siblings = [{"rfilename": name} for name in listed]
        return json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSLBENCH_CACHE", str(tmp_path / "sslbench"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture
def tiny(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """A row of the catalog: a small residual network that the server has, in a file of nothing but tensors."""
    torch.save(tensors(resnet()), tmp_path / "tiny.pth")
    content = (tmp_path / "tiny.pth").read_bytes()
    (tmp_path / "tiny.pth").unlink()
    server.files["/authors/tiny.pth"] = content
    row = Published(
        name="mocov2:tiny", method="mocov2", arch="resnet18", settings={**RESNET, "stem": "imagenet"},
        url=f"{server.address}/authors/tiny.pth", source="a paper", sha256=hashlib.sha256(content).hexdigest()[:8],
    )  # fmt: skip
    monkeypatch.setattr(catalog, "catalog", lambda: {row.name: row})
    monkeypatch.setattr("ssl_bench.weights.named.finding.catalog", lambda: {row.name: row})
    monkeypatch.setattr(files, "SECONDS", 5)
    return row
