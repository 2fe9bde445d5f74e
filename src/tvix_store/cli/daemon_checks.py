"""Checks of the options of the daemon, before it serves: some it refuses, and of some it warns."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tvix_store.cli.invocation import Invocation

if TYPE_CHECKING:
    from tvix_store.model.signature import PublicKey

_log = logging.getLogger(__name__)


def check_tls(certificate: Path | None, key: Path | None, client_ca: Path | None, client_auth: str | None) -> None:
    """See that the options of TLS are complete, and that their files can be read.

    Raises:
        click.UsageError: an option lacks another one.
        OSError: a file cannot be read.
    """
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-certificate and --tls-key need each other")
    if client_ca is not None and certificate is None:
        raise click.UsageError("--tls-client-ca needs --tls-certificate and --tls-key")
    if client_auth is not None and client_ca is None:
        raise click.UsageError("--tls-client-auth needs --tls-client-ca, with the authorities of the clients' certificates")
    for file in filter(None, (certificate, key, client_ca)):
        with file.open("rb"):
            pass


def check_workers(workers: int | None, *, in_memory: bool) -> None:
    """Raise click.UsageError where several processes are to share a store in memory."""
    if in_memory and workers not in (None, 1):
        raise click.UsageError("a store in memory has a single process; leave --workers out")


def check_keys(keys: Sequence[PublicKey], *, require_signatures: bool) -> None:
    """Raise click.UsageError where signatures are required, and there is no key to check them with."""
    if require_signatures and not keys:
        raise click.UsageError("--require-signatures needs --trusted-public-keys to check them with")


def warn_of_keys(files: Sequence[Path]) -> None:
    """Log a line for each file of a secret key that others may read or write."""
    from tvix_store.cli.key_files import exposure

    for file in files:
        if (exposed := exposure(file)) is not None:
            _log.warning("%s", exposed)


def checked_substituters(invocation: Invocation, given: tuple[str, ...], *, require_signatures: bool) -> list[str]:
    """The URLs of substituters. Those of the store itself are held against the same rules."""
    urls = [url for text in given for url in text.split()]
    elsewhere = invocation.composition().upstreams()
    if not urls and not elsewhere:
        return []
    from tvix_store.config.substituters import checked_urls

    checked_urls(elsewhere, require_signatures=require_signatures)
    return checked_urls(urls, require_signatures=require_signatures)


def warn_of_passwords(addresses: Sequence[str]) -> None:
    """Log a line where an address among the arguments has a password or a token."""
    from tvix_store.model.address import without_secrets

    shown = [address for address in addresses if any(address in argument for argument in sys.argv)]
    if any(without_secrets(address) != address.partition("?")[0] for address in shown):
        _log.warning(
            "ps shows every user of this machine the password in an option; give the address in TVIX_STORE_SUBSTITUTERS, "
            "TVIX_STORE or PATH_INFO_SERVICE_ADDR, or in a configuration file, or the password in ~/.netrc"
        )


def warn_of_signing() -> None:
    """Log that the daemon signs what anybody pushes."""
    _log.warning(
        "--signing-key-file without --require-signatures: whatever is pushed, or fetched unsigned, is signed. "
        "With --trusted-public-keys and --require-signatures, only what a trusted key has signed is taken"
    )


def warn_of_no_tokens(file: Path) -> None:
    """Log that the file of tokens, which was named, does not exist."""
    _log.warning(
        "there is no file of tokens %s yet: nobody may write before tvix-store token create --token-file FILE makes it", file
    )
