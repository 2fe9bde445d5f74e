"""Where the tokens of a store are kept, by its address."""

from __future__ import annotations

from pathlib import Path

from tvix_store.config.composition.composition import DEFAULT_ADDRESS
from tvix_store.config.user_directories import data_directory
from tvix_store.model.address import Address

_NAME = "tokens.json"


def token_file(path_infos: str | None) -> Path | None:
    """The file for a store whose path infos are at this address: in a local store's directory, else in the user's data directory.

    None for a store in memory.

    Raises:
        InvalidError: the address is malformed.
    """
    address = Address.parse(path_infos or DEFAULT_ADDRESS)
    if address.scheme == "memory":
        return None
    if address.scheme == "local":
        from tvix_store.config.local_directory import directory_of

        return directory_of(address) / _NAME
    return data_directory() / _NAME
