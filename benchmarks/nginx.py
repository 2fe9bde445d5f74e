"""nginx as a plain file server that takes PUT: what a binary cache is for those who want nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peer_server import running
from tests.ports import free_port

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
    client_max_body_size {most};
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


@contextmanager
def running_nginx(directory: Path, most: str = "0") -> Iterator[str]:
    """Serve what is put, from `directory`: bodies of `most` bytes, in words of nginx. The server's URL."""
    (directory / "files").mkdir(parents=True)
    port = free_port()
    configuration = directory / "configuration"
    configuration.write_text(_CONFIGURATION.format(directory=directory, port=port, most=most))
    with running(["nginx", "-e", directory / "log", "-c", configuration], port):
        yield f"http://127.0.0.1:{port}"
