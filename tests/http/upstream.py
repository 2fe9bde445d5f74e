"""A binary cache over HTTP in threads, for daemons that are processes of their own."""

from __future__ import annotations

import hashlib
import threading
import time
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import NarFacts
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.testing.content import noise

KEY = SecretKey.generate("upstream-1")


class Upstream(ThreadingHTTPServer):
    """Serves `files`, each answer `latency` seconds late. The second half of a NAR waits for the gate."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, latency: float = 0.0) -> None:
        self.asked: list[str] = []
        self.files: dict[str, bytes] = {"/nix-cache-info": b"StoreDir: /nix/store\n"}
        self.gate = threading.Event()
        self.gate.set()
        upstream = self

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                upstream.asked.append(self.path)
                time.sleep(latency)
                file = upstream.files.get(self.path)
                body = file or b""
                head = f"HTTP/1.1 {'404 No' if file is None else '200 OK'}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                if self.command == "HEAD":
                    body = b""
                half = len(body) // 2 if self.path.startswith("/nar/") else len(body)
                with suppress(OSError):
                    self.wfile.write(head + body[:half])
                    if half < len(body):
                        upstream.gate.wait(60)
                        self.wfile.write(body[half:])

            def log_message(self, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}?trusted-public-keys={KEY.public}"

    @property
    def nars_asked(self) -> int:
        return sum(path.startswith("/nar/") for path in self.asked)

    def publish(self, store_dir: str, name: str, nar: bytes, *references: StorePath) -> StorePath:
        path = StorePath(noise(20, name), name)
        sha256 = hashlib.sha256(nar).digest()
        narinfo = NarInfo(
            path, f"nar/{name}.nar", "none", NarFacts(len(nar), sha256), NixHash("sha256", sha256), len(nar), references
        )
        sig = KEY.sign(narinfo.fingerprint(store_dir))
        self.files["/nix-cache-info"] = f"StoreDir: {store_dir}\n".encode()
        self.files[f"/{nixbase32.encode(path.output_hash)}.narinfo"] = narinfo.format(store_dir) + f"Sig: {sig}\n".encode()
        self.files[f"/nar/{name}.nar"] = nar
        return path
