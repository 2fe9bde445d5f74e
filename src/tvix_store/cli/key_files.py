"""Keys as users give them: in files, and in lists."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tvix_store.model.signature import PublicKey, SecretKey


def read_signing_keys(paths: Iterable[Path]) -> tuple[SecretKey, ...]:
    """The secret keys in some files. A key that others can read is warned of.

    Raises:
        InvalidError: as `read_secret_key`.
    """
    from tvix_store.cli.output import warn
    from tvix_store.config.secret_key import read_secret_key

    paths = tuple(paths)
    for path in paths:
        if (exposed := exposure(path)) is not None:
            warn(exposed)
    return tuple(map(read_secret_key, paths))


def exposure(path: Path) -> str | None:
    """A sentence that names the others who may read or change the secret key in a file. None if nobody may, or if it is no file.

    A group may read it: services get their keys so.
    """
    import stat

    try:
        status = path.stat()
    except OSError:
        return None
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode) or not mode & 0o026:
        return None
    may = "read" if mode & 0o004 else "change"
    return f"{path} has mode {mode:o}: others than its owner may {may} this secret key; run chmod 600 {path}"


def read_public_keys(texts: Iterable[str]) -> tuple[PublicKey, ...]:
    """The public keys in lists that are separated by spaces, as in nix.conf.

    Raises:
        InvalidError: one is no public key.
    """
    from tvix_store.model.signature import PublicKey

    return tuple(PublicKey.parse(key) for text in texts for key in text.split())
