"""The settings of a bucket: the object `tvix-store.json`, written once."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal, TypeAlias, get_args

from blake3 import blake3

from tvix_store.backends.objectstore.bucket import SETTINGS, Bucket
from tvix_store.backends.objectstore.race import makes_conditional_writes
from tvix_store.chunking import DEFAULT_SIZES, ChunkSizes
from tvix_store.errors import CorruptError, InvalidError, NoStoreError
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import STORE_DIR, check_store_dir

Layout: TypeAlias = Literal["snix", "packed"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
DEFAULT_LAYOUT: Layout = "packed"
"""That of new buckets."""
_FORMAT = 1
_SNIX_AVERAGE = 256 << 10
_MOST = 64 << 10
_OF_SNIX = frozenset(("blobs", "chunks", "chunk", "dirs"))
"""The folders of a bucket that snix has made."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What all who use a bucket must agree on.

    chunk_average: The size of chunks, on average; 0 for the default of the layout.
    conditional_writes: Whether the server was seen to let one of many writers win.
    nonce: Tells this bucket from one that was made anew in its place.
    """

    layout: str = DEFAULT_LAYOUT
    store_dir: str = STORE_DIR
    size_rule: str = "documented"
    chunk_average: int = 0
    conditional_writes: bool = True
    nonce: str = ""

    def identity(self, name: str) -> bytes:
        """Names the bucket at the address `name`: 16 bytes."""
        return blake3(f"{name} {self.nonce}".encode()).digest(length=16)

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise InvalidError(f"the layout is {' or '.join(LAYOUTS)}, not {self.layout!r}")
        check_store_dir(self.store_dir)
        if not self.chunk_average:
            object.__setattr__(self, "chunk_average", _SNIX_AVERAGE if self.layout == "snix" else DEFAULT_SIZES.average)
        _ = self.sizes, self.rule

    @property
    def sizes(self) -> ChunkSizes:
        """In the layout of snix as snix has them: so each finds the other's chunks."""
        if self.layout == "snix":
            return ChunkSizes(self.chunk_average // 2, self.chunk_average, self.chunk_average * 2)
        return ChunkSizes.of_average(self.chunk_average)

    @property
    def rule(self) -> SizeRule:
        try:
            return SizeRule[self.size_rule.upper()]
        except KeyError:
            raise InvalidError(f"the size rule is documented or snix, not {self.size_rule!r}") from None


async def load_or_create(bucket: Bucket, prober: Bucket, wanted: Mapping[str, object], *, create: bool) -> Settings:
    """The settings of a bucket; without any, it gets some, with those that are `wanted`. A bucket of snix is one of that layout.

    `prober` is the same bucket, with few tries: for the first question, and for those that the server may not know.

    Raises:
        NoStoreError: the bucket is empty, and not to be used for a new store; or it has something else.
        InvalidError: it has other settings than are wanted, or a format that this version does not know.
        CorruptError: the settings are damaged.
    """
    found = await prober.get(SETTINGS, _MOST)
    if found is None:
        folders = await bucket.folders()
        is_of_snix = bool(folders & _OF_SNIX)
        if folders and not is_of_snix:
            raise NoStoreError(f"{bucket.name} is neither empty nor a store: it has no {SETTINGS}; name another prefix for a store")
        if not create and not is_of_snix:
            raise NoStoreError(f"there is no store in {bucket.name}: it is empty")
        settings = Settings(**{"layout": "snix" if is_of_snix else DEFAULT_LAYOUT, **wanted})  # type: ignore[arg-type]  # checked
        if is_of_snix and settings.layout != "snix":
            raise InvalidError(f"{bucket.name} is a bucket of snix: its layout is snix, not {settings.layout}")
        if not create:
            return settings
        bucket.is_conditional = await makes_conditional_writes(prober)
        made = {"format": _FORMAT, **asdict(settings), "conditional_writes": bucket.is_conditional, "nonce": os.urandom(16).hex()}
        await bucket.create(SETTINGS, json.dumps(made, indent=1).encode())
        found = await bucket.get(SETTINGS, _MOST)  # of several that make it at once, the first one's stand
        if found is None:
            raise NoStoreError(f"{bucket.name}: {SETTINGS} was written, and is not there")
    settings = _parse(bucket.name, found.data)
    bucket.has_settings = True
    bucket.is_conditional = settings.conditional_writes
    if not settings.conditional_writes:
        _log.warning("%s makes no conditional writes: only one process may write to it", bucket.name)
    for name, value in wanted.items():
        if getattr(settings, name) != value:
            raise InvalidError(f"{bucket.name} was made with {name}={getattr(settings, name)}, not {value}")
    return settings


def _parse(name: str, data: bytes) -> Settings:
    try:
        said = json.loads(data)
        number = int(said["format"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CorruptError(f"{name}: {SETTINGS} is damaged") from None
    if number > _FORMAT:
        raise InvalidError(f"{name} has format {number}, of a newer tvix-store; this one knows {_FORMAT}")
    try:
        return Settings(**{each.name: said[each.name] for each in fields(Settings)})
    except (KeyError, TypeError, AttributeError):
        raise CorruptError(f"{name}: {SETTINGS} is damaged") from None
