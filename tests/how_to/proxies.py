"""Proxies as docs/how-to/ sets them up, with a test's certificate, addresses and ports."""

from __future__ import annotations

import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests import programs
from tests.nginx import nginx
from tests.ports import free_port
from tests.server.certificates import Authority

PAGES = programs.ROOT / "docs/how-to"
NAME = "cache.example.org"
"""By which the pages know the cache."""


def block(page: str, language: str) -> str:
    """The only block of a page in this language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


@dataclass(frozen=True)
class Proxy:
    """A proxy with TLS on `localhost`; `ca` is the authority of its certificate."""

    port: int
    ca: Path

    def connect(self) -> HTTPSConnection:
        return HTTPSConnection("localhost", self.port, context=ssl.create_default_context(cafile=str(self.ca)), timeout=30)


@contextmanager
def nginx_of_the_page(daemon: int, directory: Path) -> Iterator[Proxy]:
    """nginx before the daemon at the port `daemon`."""
    port = free_port()
    ca, certificate, key = _certificate(directory)
    server = block("nginx.md", "nginx")
    server = re.sub(r"^ *listen \[::\].*\n", "", server, flags=re.MULTILINE)
    server = _replaced(server, "listen 443 ", f"listen 127.0.0.1:{port} ")
    server = re.sub(r"(ssl_certificate) .*;", rf"\1 {certificate};", server)
    server = re.sub(r"(ssl_certificate_key) .*;", rf"\1 {key};", server)
    server = _replaced(server, "127.0.0.1:8000", f"127.0.0.1:{daemon}")
    with nginx(server, port, directory / "run"):
        yield Proxy(port, ca)


@contextmanager
def caddy_of_the_page(daemon: int, directory: Path) -> Iterator[Proxy]:
    """Caddy before the daemon at the port `daemon`, where it is installed."""
    program = programs.find("caddy")
    if program is None:
        pytest.skip("caddy is not installed")
    port = free_port()
    ca, certificate, key = _certificate(directory)
    site = _replaced(block("caddy.md", "caddy"), "127.0.0.1:8000", f"127.0.0.1:{daemon}")
    site = _replaced(site, f"{NAME} {{", f"https://localhost:{port}, https://{NAME}:{port} {{\n\ttls {certificate} {key}")
    config = directory / "Caddyfile"
    config.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    log = directory / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [program, "run", "--adapter", "caddyfile", "--config", config],
            env={"HOME": str(directory), "XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)},
            stdin=subprocess.DEVNULL,
            stderr=said,
        )
    proxy = Proxy(port, ca)
    try:
        deadline = time.monotonic() + 20
        while not _answers(proxy):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "caddy does not become ready"
            time.sleep(0.02)
        yield proxy
    finally:
        process.kill()
        process.wait()


def _answers(proxy: Proxy) -> bool:
    connection = proxy.connect()
    try:
        connection.connect()
    except ConnectionRefusedError:
        return False
    connection.close()
    return True


def _certificate(directory: Path) -> tuple[Path, Path, Path]:
    authority = Authority()
    directory.mkdir()
    ca = directory / "ca.pem"
    ca.write_bytes(authority.certificate)
    return ca, *authority.sign().write(directory, "server")


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)
