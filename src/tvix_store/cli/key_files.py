"""Keys as users give them: in files, and in lists."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvix_store.model.signature import PublicKey, SecretKey


def read_secret_key(path: Path) -> SecretKey:
    """The secret key in a file.

    Raises:
        InvalidError: the file cannot be read, or holds no secret key; its content is not shown.
    """
    from tvix_store.errors import InvalidError
    from tvix_store.model.signature import SecretKey

    try:
        return SecretKey.parse(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"cannot read the key in {path}: {error}") from None


def read_public_keys(texts: Iterable[str]) -> tuple[PublicKey, ...]:
    """The public keys in lists that are separated by spaces, as in nix.conf.

    Raises:
        InvalidError: one is no public key.
    """
    from tvix_store.model.signature import PublicKey

    return tuple(PublicKey.parse(key) for text in texts for key in text.split())
