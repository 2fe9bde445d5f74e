"""nginx as a plain file server that takes PUT: what a binary cache is for those who want nothing more."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONFIGURATION = """
daemon off;
user root;
worker_processes auto;
error_log {directory}/log;
pid {directory}/pid;
events {{ }}
http {{
    access_log off;
    sendfile on;
    client_max_body_size 0;
    client_body_temp_path {directory}/bodies;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/files;
        dav_methods PUT;
        create_full_put_path on;
    }}
}}
"""
_STARTS_WITHIN = 20
"""Seconds."""


@contextmanager
def running_nginx(directory: Path) -> Iterator[str]:
    """Serve what is put, from `directory`; the server's URL."""
    (directory / "files").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    configuration = directory / "configuration"
    configuration.write_text(_CONFIGURATION.format(directory=directory, port=port))
    process = subprocess.Popen(["nginx", "-e", directory / "log", "-c", configuration])
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit("nginx did not start")
            time.sleep(0.05)
        else:
            return
