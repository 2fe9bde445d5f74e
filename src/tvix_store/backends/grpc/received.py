"""Checks of answers. A server is not trusted: a malformed answer is the server's fault, not the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvix_store.errors import CorruptError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.protocol.blobs import decode_digest


@contextmanager
def decoding(server: str) -> Iterator[None]:
    """Around the decoding and checking of an answer.

    Raises:
        CorruptError: it breaks a rule.
    """
    try:
        yield
    except InvalidError as error:
        raise CorruptError(f"{server}: the server sent an answer that breaks a rule: {error}") from error


def check_stored(answer: bytes, digest: Digest, server: str) -> None:
    """See that the answer to a put names the content that was sent.

    Raises:
        CorruptError: it names something else.
    """
    with decoding(server):
        stored = decode_digest(answer)
    if stored != digest:
        raise CorruptError(f"{server}: the server was sent {digest}, but says that it stored {stored}")
