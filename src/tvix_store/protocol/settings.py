"""The messages of SettingsService: the settings of a store that clients of its server must follow."""

from __future__ import annotations

from dataclasses import dataclass

from tvix_store.errors import InvalidError
from tvix_store.model import wire
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import check_store_dir

BULK_VERSION = 4
"""That of this release: BulkService has all calls of bulk.proto."""
PATH_INFOS_VERSION = 3
"""The path infos of a call of PutPathInfos may not refer to each other."""
PARTS_VERSION = 2
"""BulkService has all but PutPathInfos."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The settings of a store.

    size_rule: How directories are counted that are made for it.
    store_dir: The directory that its store paths are in.
    bulk_version: The calls of its server's BulkService, if there is one: BULK_VERSION for all, 0 for the first three.
    """

    size_rule: SizeRule
    store_dir: str
    bulk_version: int = 0


def encode_settings(settings: StoreSettings) -> bytes:
    """The message Settings."""
    return (
        wire.uint_field(1, settings.size_rule.value)
        + wire.bytes_field(2, settings.store_dir.encode())
        + wire.uint_field(3, settings.bulk_version)
    )


def decode_settings(message: bytes) -> StoreSettings:
    """The settings in a message Settings.

    Raises:
        InvalidError: the message is malformed, or tells of a size rule that is unknown, or of no store directory.
    """
    rule, store_dir, bulk_version = 0, "", 0
    for field, value in wire.fields(message):
        match field:
            case 1:
                rule = wire.as_uint(field, value)
            case 2:
                store_dir = wire.as_text(field, value)
            case 3:
                bulk_version = wire.as_uint(field, value)
            case _:
                pass
    try:
        size_rule = SizeRule(rule)
    except ValueError:
        raise InvalidError(f"settings: size rule {rule} is unknown") from None
    check_store_dir(store_dir)
    return StoreSettings(size_rule, store_dir, bulk_version)
