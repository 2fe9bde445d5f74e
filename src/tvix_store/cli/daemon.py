"""`tvix-store daemon`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tvix_store.cli.invocation import Invocation, shared_options


@click.command()
@click.option(
    "-l",
    "--listen-address",
    "listen",
    multiple=True,
    metavar="ADDRESS",
    help="host:port, the path of a Unix socket, or sd-listen for what systemd passes; repeatable. Default: localhost:8000.",
)
@click.option("--allow-remote", is_flag=True, help="Let other machines reach the daemon; they may then read and write the store.")
@click.option("--workers", type=click.IntRange(1), help="Processes that serve. Default: one a core.")
@click.option("--max-message-size", type=click.IntRange(1), metavar="BYTES", help="Largest gRPC message that is taken.")
@click.option(
    "--shutdown-timeout", type=click.FloatRange(0), metavar="SECONDS", help="What running calls get to finish. Default: 30."
)
@click.option("--tls-certificate", type=click.Path(path_type=Path), help="Serve TLS with this certificate chain (PEM) ...")
@click.option("--tls-key", type=click.Path(path_type=Path), help="... and this private key (PEM).")
@click.pass_obj
def daemon(
    invocation: Invocation,
    listen: tuple[str, ...],
    allow_remote: bool,
    workers: int | None,
    max_message_size: int | None,
    shutdown_timeout: float | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
) -> None:
    """Serve the store over gRPC, to this machine only unless told otherwise.

    SIGTERM or Ctrl-C ends it when running calls are done; a second one at once.

    \b
        tvix-store daemon
        tvix-store daemon -l localhost:9000 -l /run/tvix-store.sock --store /srv/store
    """
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key need each other")
    import logging

    from tvix_store.config import verified
    from tvix_store.server import ServerConfig, serve
    from tvix_store.server.settings import TlsFiles
    from tvix_store.services.store import Store

    in_memory = any((address or "").startswith("memory:") for address in invocation.addresses().values())
    if in_memory and workers not in (None, 1):
        raise click.UsageError("a store in memory has a single process; leave --workers out")

    async def open_store() -> Store:
        return verified(await invocation.open_store())

    given: dict[str, Any] = {
        "listen": listen or None,
        "workers": 1 if in_memory else workers,
        "grace": shutdown_timeout,
        "max_message": max_message_size,
        "tls": TlsFiles(tls_certificate, tls_key) if tls_certificate and tls_key else None,
    }
    logging.basicConfig(format="tvix-store: %(levelname)s: %(message)s", level=logging.INFO)
    config = ServerConfig(allow_remote=allow_remote, **{name: value for name, value in given.items() if value is not None})
    serve(config, open_store)


daemon.params += shared_options()
