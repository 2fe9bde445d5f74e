"""Backups of the store at an address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tvix_store.backends.local.backup import BackupAccount, backup
from tvix_store.config.composition.composition import Composition
from tvix_store.config.local import PARAMETERS
from tvix_store.config.local_directory import directory_of
from tvix_store.config.places import shown
from tvix_store.errors import InvalidError, UnsupportedError
from tvix_store.model.address import Address

__all__ = ["BackupAccount", "backup_directory", "backup_to"]


def backup_directory(target: str) -> Path | None:
    """The directory of a backup, as a path or as `local:///path`; None for the address of a store of another kind.

    Raises:
        InvalidError: the address is malformed, or has parameters.
    """
    address = Address.parse(target if "/" in target or ":" in target else f"./{target}")
    if address.scheme != "local":
        return None
    if address.parameters or not address.path:
        raise InvalidError(f"{target}: a backup is a directory, which takes its settings from the store; give its path alone")
    return directory_of(address)


def backup_to(directory: Path, composition: Composition, account: BackupAccount) -> Iterator[int]:
    """Make `directory` a copy of the store that is a composition. As `local.backup`.

    Raises:
        UnsupportedError: the store is not one directory.
    """
    only, *others = composition.leaves()
    address = Address.parse(only)
    if others or address.scheme != "local":
        raise UnsupportedError(
            f"only a store in one directory is backed up into one, not {shown(composition)}; make the backup on its machine, "
            f"or copy its paths with tvix-store copy --all --to {directory}"
        )
    settings = address.read_parameters(PARAMETERS)
    if settings.get("cache"):
        raise InvalidError(f"{only}: a backup is one of the whole store, with all its caches; leave out cache=")
    return backup(directory_of(address), directory, account, read_only=bool(settings.get("read-only")))
