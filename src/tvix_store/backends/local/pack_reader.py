"""PackReader: reads payloads from packs, whoever writes them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tvix_store.backends.local.disk import translated
from tvix_store.backends.local.durability import Durability
from tvix_store.backends.local.packs import Place, pack_path, read_key
from tvix_store.backends.local.records import HEADER_SIZE, checked_payload
from tvix_store.errors import CorruptError

_GAP, _SPAN = 16 << 10, 4 << 20
"""Bytes between two payloads that are read together, and of all that are: reading 16 KiB in vain costs less than another call."""
_OPEN_PACKS = 256
"""Packs that a reader keeps open; the soft limit of open files is 1024 on many systems. Others are opened for each read."""


class _OpenPack:
    """The descriptor of a pack. It is closed with the last reference to this, and so never under a reader."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)


class PackReader:
    """Reads payloads from packs. Safe to use from many threads."""

    def __init__(self, directory: Path, durability: Durability) -> None:
        self._directory = directory
        self._durability = durability
        self._packs: dict[int, _OpenPack] = {}
        self._keys: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def read(self, place: Place) -> bytes:
        """The payload at `place`, as stored.

        Raises:
            CorruptError: the pack is missing, or too short.
            UnavailableError: the disk does not give it.
        """
        data = self._pread(self._opened(place.pack), place.pack, place.stored, place.offset)
        if len(data) != place.stored:
            raise CorruptError(f"{pack_path(self._directory, place.pack)} is cut short: no {place.stored} bytes at {place.offset}")
        return data

    def read_many(self, places: Sequence[Place]) -> list[memoryview]:
        """The payloads at `places`, in their order; neighbours in a pack are read together.

        Raises:
            CorruptError: as `read`.
        """
        order = sorted(range(len(places)), key=lambda n: (places[n].pack, places[n].offset))
        payloads: list[memoryview] = [memoryview(b"")] * len(places)
        first = 0
        while first < len(order):
            start = places[order[first]]
            end, last = start.offset + start.stored, first + 1
            while last < len(order) and _is_near(place := places[order[last]], start, end):
                end, last = max(end, place.offset + place.stored), last + 1
            span = memoryview(self.read(Place(start.pack, start.offset, end - start.offset, 0)))
            for n in order[first:last]:
                at = places[n].offset - start.offset
                payloads[n] = span[at : at + places[n].stored]
            first = last
        return payloads

    def read_checked(self, place: Place) -> bytes:
        """As `read`, for a record whose key is not the digest of its payload: its check is looked at.

        Raises:
            CorruptError: also where the record is damaged.
        """
        pack = self._opened(place.pack)
        if place.pack not in self._keys:
            self._keys[place.pack] = read_key(pack.fd, pack_path(self._directory, place.pack))
        payload = checked_payload(
            self._keys[place.pack], self._pread(pack, place.pack, HEADER_SIZE + place.stored, place.offset - HEADER_SIZE)
        )
        if payload is None or len(payload) != place.stored:
            raise CorruptError(f"a record of {pack_path(self._directory, place.pack)} is damaged (offset {place.offset})")
        return payload

    def read_if_cached(self, place: Place) -> bytes | None:
        """As `read`, but None where that would wait for the disk."""
        pack = self._packs.get(place.pack)
        if pack is None:
            return None
        data = bytearray(place.stored)
        try:
            count = os.preadv(pack.fd, [data], place.offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not in memory; EOPNOTSUPP: this file system cannot tell
            return None
        return bytes(data) if count == place.stored else None

    def sync(self, number: int) -> None:
        """Bring a pack, whoever writes it, to the disk itself."""
        pack = self._opened(number)
        self._durability.sync_data(pack.fd)

    def close_removed(self) -> None:
        """Let go of packs that were removed, since all that counted of them is elsewhere: the disk has their space back then."""
        with self._lock:
            for number, pack in tuple(self._packs.items()):
                if os.fstat(pack.fd).st_nlink == 0:
                    del self._packs[number]

    def close(self) -> None:
        """Close the packs that nobody reads from; the others when that is done."""
        with self._lock:
            self._packs.clear()

    def _pread(self, pack: _OpenPack, number: int, size: int, offset: int) -> bytes:
        try:
            return os.pread(pack.fd, size, offset)
        except OSError as error:  # a disk that fails
            raise translated(error, pack_path(self._directory, number)) from error

    def _opened(self, number: int) -> _OpenPack:
        pack = self._packs.get(number)
        if pack is not None:
            return pack
        path = pack_path(self._directory, number)
        try:
            pack = _OpenPack(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            raise CorruptError(f"{path} is missing, but the index names it") from None
        except OSError as error:
            raise translated(error, path) from error
        with self._lock:
            return self._packs.setdefault(number, pack) if len(self._packs) < _OPEN_PACKS else pack


def _is_near(place: Place, start: Place, end: int) -> bool:
    """Whether to read `place` together with what lies from `start` to the offset `end`."""
    return place.pack == start.pack and place.offset - end <= _GAP and place.offset + place.stored - start.offset <= _SPAN
