"""TokenFile: the records of a store's tokens in a file, which commands change and daemons read."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tvix_store.access.tokens import TokenTable
from tvix_store.errors import DeniedError, ExhaustedError, InvalidError, UnavailableError

_log = logging.getLogger(__name__)
_LARGEST = 16 << 20
"""Bytes of the largest file that is read: some 50,000 tokens."""
_LOOK = 0.25
"""Seconds between two looks at whether the file has changed."""


class TokenFile:
    """The tokens in a file. A file that is not there holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> TokenTable:
        """All tokens.

        Raises:
            InvalidError: the file is damaged, or of another version.
            DeniedError, UnavailableError: it cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                text = file.read(_LARGEST + 1)
        except FileNotFoundError:
            return TokenTable()
        except PermissionError as error:
            raise DeniedError(f"cannot read {self.path}: {error.strerror}") from None
        except OSError as error:
            raise UnavailableError(f"cannot read {self.path}: {error.strerror}") from None
        if len(text) > _LARGEST:
            raise InvalidError(f"{self.path} has more than {_LARGEST} bytes")
        try:
            return TokenTable.decode(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise InvalidError(f"{self.path} is no file of tokens: {error}") from None
        except InvalidError as error:
            raise InvalidError(f"{self.path}: {error}") from None

    def change(self, change: Callable[[TokenTable], TokenTable]) -> TokenTable:
        """Replace the file by one with changed tokens. Whoever reads it sees the old or the new ones, also after a power cut.

        Raises:
            ExhaustedError: the disk is full.
            StoreError: as `read`; what `change` raises.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                table = change(self.read())
                self._write(json.dumps(table.encode(), indent=1).encode())
        except PermissionError as error:
            raise DeniedError(f"cannot write {self.path}: {error.strerror}") from None
        except OSError as error:
            raise ExhaustedError(f"cannot write {self.path}: {error.strerror}") from None
        return table

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process change the file meanwhile. The lock is on its directory, since the file is replaced."""
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
            os.fsync(directory)
        finally:
            os.close(directory)

    def _write(self, text: bytes) -> None:
        new = self.path.with_name(f"{self.path.name}.{os.urandom(6).hex()}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                with suppress(OSError):  # root makes tokens of a store whose daemon is somebody else
                    owner = self.path.parent.stat()
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            new.replace(self.path)
        except BaseException:
            new.unlink(missing_ok=True)
            raise


class WatchedTokens:
    """The tokens of a file as they are now: a change is in force within a quarter of a second."""

    def __init__(self, file: TokenFile) -> None:
        """Read the file.

        Raises:
            StoreError: as `TokenFile.read`.
        """
        self._file = file
        self._look_at = 0.0
        self._seen = self._state()
        self._table = file.read()

    def table(self) -> TokenTable:
        """The tokens. Where the file cannot be read any more, or is gone, those that were last read stay in force."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK
            state = self._state()
            if state != self._seen:
                self._seen = state
                self._read()
        return self._table

    def _read(self) -> None:
        if self._seen is None:
            # An open door is no answer to a lost file: it would let strangers push.
            _log.error("%s is gone; the tokens that it held stay in force until the daemon ends", self._file.path)
            return
        try:
            self._table = self._file.read()
        except Exception as error:  # noqa: BLE001 - whatever it is, requests go on, with the tokens of before
            _log.error("tokens are not read anew: %s", error)

    def _state(self) -> tuple[int, int, int] | None:
        """What changes when the file is replaced; None where it is not there."""
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
