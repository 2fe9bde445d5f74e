"""What a server sent is not trusted: a malformed answer is the server's fault, not the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tvix_store.errors import CorruptError, InvalidError


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
