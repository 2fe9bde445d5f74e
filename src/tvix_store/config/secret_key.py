"""Secret keys in files."""

from __future__ import annotations

from pathlib import Path

from tvix_store.errors import InvalidError, of_disk
from tvix_store.model.signature import SecretKey


def read_secret_key(path: Path) -> SecretKey:
    """The secret key in a file.

    Raises:
        InvalidError: the file holds no secret key; its content is not shown.
        NotFoundError, DeniedError: it cannot be read.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise of_disk(error, f"cannot read the key in {path}: {error.strerror}", InvalidError) from None
    try:
        return secret_key_in(text, path)
    except InvalidError:  # its own text may hold some of a secret, and logs are read by others
        raise InvalidError(f"{path} holds no secret key (expected name:base64, as tvix-store key generate writes it)") from None


def secret_key_in(text: str, place: object) -> SecretKey:
    """The secret key that is the text at a place.

    Raises:
        InvalidError: it is none.
    """
    try:
        return SecretKey.parse(text)
    except InvalidError as error:
        raise InvalidError(f"{place}: {error}") from None
