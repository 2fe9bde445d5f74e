"""ContentScrub: reads all content of a store again and again, and lets the store forget what is damaged.

A flipped bit on the disk is found by whoever reads the content. That may be years later, when nobody has the content any more. So
a daemon reads everything once in some days, a little at a time. What it finds is forgotten as by any other reader: it counts as
missing, and the next push or repair brings it again. Of the processes that have a store open, one at a time does so.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from tvix_store.backends.local.damage import opened
from tvix_store.backends.local.disk import disk_errors, open_or_create
from tvix_store.backends.local.disk_reader import DiskReader
from tvix_store.backends.local.engine import Engine
from tvix_store.backends.local.file_lock import alone
from tvix_store.backends.local.packs import Place
from tvix_store.backends.local.records import HEADER_SIZE, KEY_SIZE, Kind, checked_payload
from tvix_store.backends.local.scrub_order import Stretch, next_stretch
from tvix_store.backends.local.scrub_round import FILE, ScrubRound, pace
from tvix_store.errors import CorruptError, StoreError, UnavailableError
from tvix_store.telemetry import meters

_BEGIN, _AGAIN = 10.0, 60.0
"""Seconds from the opening of the store to the first try, and from one try to the next."""
_KEPT_EVERY = 60.0
"""Seconds between two times that the position is kept, and damaged content is forgotten: that reads all chunk lists."""
_NEWS, _LEAST_NEWS = 100, 60.0
"""After each of so many parts of its period, the scrub looks at what content there is. A part has at least so many seconds."""
_BURST = 0.005
"""Seconds of work, at most, before a rest."""
_LEAST_REST = 0.05
"""Seconds of a rest that the pace asks for: to wake up costs as much as to check a small content."""
_BREATH = 0.005
"""Seconds of a rest between two looks at rows of the index."""
_REST = 3
"""How many times as long as it worked the scrub rests, at least."""
_log = logging.getLogger(__name__)


class ContentScrub:
    """Reads everything once in `period` seconds, in a thread, until it is closed.

    clock: The seconds since 1970.
    wait: Waits for some seconds; whether to stop. None stands for waiting until `close`.
    """

    def __init__(
        self,
        engine: Engine,
        period: float,
        clock: Callable[[], float] = time.time,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._engine = engine
        self._period = period
        self._clock = clock
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._disk = DiskReader(engine.directory / "packs")
        self._news = max(period / _NEWS, _LEAST_NEWS)
        self._suspects: list[tuple[bytes, Place]] = []
        self._owed = 0.0
        """Bytes that were read and not yet rested for."""
        self._kept_at = 0.0
        self._thread = threading.Thread(target=self._serve, name="tvix-store-content-scrub", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and keep the position."""
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        wait = min(_BEGIN, self._period)
        while not self._wait(wait):
            wait = min(_AGAIN, self._period)
            try:
                self._scrub_alone()
            except StoreError as error:
                _log.warning("content is not looked at for damage for now: %s", error)
            except Exception:  # noqa: BLE001 - a bug, which must not end it
                _log.exception("content is not looked at for damage for now")
            finally:
                self._disk.close()
                meters.SCRUB_POSITION.of().set(0)
                meters.SCRUB_ENDED.of().set(0)

    def _scrub_alone(self) -> None:
        """Scrub until the end, unless another process does."""
        store = self._engine.directory
        with disk_errors(store):
            os.close(open_or_create(store / FILE))
        with alone(store / FILE) as is_alone:
            if is_alone:
                done = ScrubRound.read(store) or ScrubRound(self._clock())
                while (going_on := self._part(done)) is not None:
                    done = going_on

    def _part(self, done: ScrubRound) -> ScrubRound | None:
        """Read the next part of a round, or wait for what comes next. How far the round has come then; None at the end."""
        done = done.going_on(self._period, self._clock(), self._engine.lost_packs.highest_number())
        begun = time.monotonic()
        stretch = next_stretch(self._engine.index, done.position, done.last_pack, self._rest)
        if stretch is None:
            return None
        meters.SCRUB_ENDED.of().set(done.ended)
        _show(stretch, stretch.left)
        _log.debug("%d of %d bytes are left to be read: %.1f s", stretch.left, stretch.total, time.monotonic() - begun)
        if not stretch.is_empty:
            return self._read(done, stretch)
        seconds = done.seconds_left(self._period, self._clock())
        if seconds:
            return None if self._wait(min(seconds, self._news)) else done
        _log.info("all content was read: %d bytes", stretch.total)
        self._owed = 0.0
        done = done.followed(self._clock())
        done.write(self._engine.directory)
        return done

    def _rest(self) -> bool:
        return self._wait(_BREATH)

    def _read(self, done: ScrubRound, stretch: Stretch) -> ScrubRound | None:
        """Read a stretch, as long as it is new. How far the round has come then; None at the end."""
        until = self._clock() + self._news
        left, worked = stretch.left, 0.0
        self._disk.close()  # what it keeps may be of the last round
        try:
            for content in stretch.contents():
                now = self._clock()
                rate = pace(stretch.total, left + self._owed, done.seconds_left(self._period, now), self._period)
                if self._owed >= rate * _LEAST_REST or worked >= _BURST:
                    _show(stretch, left)
                    self._disk.let_go()
                    seconds = max(min(self._owed / rate, until - now), _REST * worked)
                    if self._wait(seconds):
                        return None
                    self._owed, worked = max(self._owed - rate * seconds, 0.0), 0.0
                    if self._clock() >= until:
                        break
                    if self._clock() >= self._kept_at + _KEPT_EVERY:
                        self._keep(done)
                begun = time.monotonic()
                self._check(content.kind, content.key)
                worked += time.monotonic() - begun
                self._owed += content.size
                left -= content.size
                done = done.at(content.position)
        finally:
            self._keep(done)
        return done

    def _keep(self, done: ScrubRound) -> None:
        """Let what is damaged be forgotten, and keep the position."""
        self._kept_at = self._clock()
        if self._suspects:
            self._engine.forget_all_damaged(self._suspects)
            self._suspects = []
        done.write(self._engine.directory)

    def _check(self, kind: Kind, key: bytes) -> None:
        """Read a content where it lies now. If it is damaged, it will be forgotten."""
        failed: Place | None = None
        while (place := self._engine.index.live_place(kind, key)) is not None:
            try:
                if self._is_whole(kind, key, place):
                    return
            except CorruptError:
                pass
            except UnavailableError as error:  # the disk may give it again
                _log.error("the scrub can't read %s: %s", _named(key, place), error)
                meters.SCRUB_UNREADABLE.of().add_in_any_thread()
                return
            self._disk.close()  # what was read with its neighbours may be old
            if place == failed and not self._has_lost_packs():
                _log.error("the scrub has found that %s is damaged", _named(key, place))
                meters.SCRUB_DAMAGED.of().add_in_any_thread()
                self._suspects.append((key[:KEY_SIZE], place))
                return
            failed = place

    def _has_lost_packs(self) -> bool:
        """Whether packs turn out to be lost. If so, all that they held was forgotten, and somebody was told."""
        self._engine.lost_packs.suspect()
        losing = self._engine.committer.losing()
        if losing is not None:
            losing.result()
        return losing is not None

    def _is_whole(self, kind: Kind, key: bytes, place: Place) -> bool:
        if kind is Kind.CHUNK_LIST:
            pack_key = self._disk.key(place.pack)
            entry = self._disk.read(place.pack, place.offset - HEADER_SIZE, HEADER_SIZE + place.stored)
            is_whole = checked_payload(pack_key, entry) is not None
        else:
            is_whole = opened(key, place, self._disk.read(place.pack, place.offset, place.stored)) is not None
        meters.SCRUB_BYTES.of().add_in_any_thread(place.stored)
        return is_whole


def _named(key: bytes, place: Place) -> str:
    return f"b3:{key[:KEY_SIZE].hex()} (pack {place.pack:08x}, offset {place.offset})"


def _show(stretch: Stretch, left: int) -> None:
    meters.SCRUB_POSITION.of().set(1 - left / stretch.total if stretch.total else 1)
