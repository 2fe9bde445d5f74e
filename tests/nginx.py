"""A real nginx before a server."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import programs
from tests.ports import free_port

_STARTS_WITHIN = 20.0
_CONFIG = """
{user}
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{}}
http {{
    log_format lines '$request_method $uri $status $upstream_cache_status';
    access_log {directory}/access.log lines;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    proxy_cache_path {directory}/cache keys_zone=content:1m;
    {server}
}}
"""
_BELOW_STORE = """
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size {max_body};
        location /store/ {{
            proxy_pass http://{upstream}/;
            proxy_http_version 1.1;
            proxy_cache content;
        }}
    }}
"""


@dataclass(frozen=True)
class Nginx:
    """`address` is its host and port."""

    address: str
    directory: Path

    @property
    def log(self) -> list[str]:
        """A line for each request: method, path, status, and what the cache did."""
        return (self.directory / "access.log").read_text().splitlines()


@contextmanager
def nginx_before(upstream: str, directory: Path, max_body: str = "1m") -> Iterator[Nginx]:
    """Start nginx before the server at the host and port `upstream`, which it has below `/store`."""
    port = free_port()
    with nginx(_BELOW_STORE.format(port=port, upstream=upstream, max_body=max_body), port, directory) as running:
        yield running


@contextmanager
def nginx(server: str, port: int, directory: Path) -> Iterator[Nginx]:
    """Start nginx with the block `server`, which listens on `port` of this machine."""
    program = programs.require("nginx")
    directory.mkdir()
    config = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else another user is taken, who cannot write here
    config.write_text(_CONFIG.format(user=user, directory=directory, server=server))
    process = subprocess.Popen([program, "-p", directory, "-e", directory / "error.log", "-c", config], stdin=subprocess.DEVNULL)
    try:
        stops = time.monotonic() + _STARTS_WITHIN
        while True:
            assert process.poll() is None, (directory / "error.log").read_text()
            assert time.monotonic() < stops, "nginx does not become ready"
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.02)
        yield Nginx(f"127.0.0.1:{port}", directory)
    finally:
        process.terminate()
        process.wait(20)
