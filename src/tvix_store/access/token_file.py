"""TokenFile: the records of a store's tokens in a file, which commands change and daemons read."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tvix_store.access.tokens import TokenTable
from tvix_store.durable_file import replace_file
from tvix_store.errors import ExhaustedError, InvalidError, UnavailableError, of_disk
from tvix_store.model.json_fault import json_fault

_log = logging.getLogger(__name__)
_LARGEST = 16 << 20
"""Bytes of the largest file: some 50,000 tokens."""
_LOOK = 0.25
"""Seconds between two looks at whether the file has changed."""
_AT_ONCE = 64 << 10
"""Bytes of a file that is read while requests wait: 350 tokens, in 5 ms. A larger one is read in a thread of its own."""
_LOG_PAUSE = 10.0
"""Seconds between two lines in the log about a file that cannot be read."""


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
            text = self._text()
        except FileNotFoundError:
            return TokenTable()
        except OSError as error:
            raise of_disk(error, f"cannot read {self.path}: {error.strerror}", UnavailableError) from None
        if len(text) > _LARGEST:
            raise InvalidError(f"{self.path} has more than {_LARGEST} bytes")
        try:
            return TokenTable.decode(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise InvalidError(f"{self.path} is no file of tokens: it is {json_fault(error)}") from None
        except InvalidError as error:
            raise InvalidError(f"{self.path}: {error}") from None

    def change(self, change: Callable[[TokenTable], TokenTable]) -> TokenTable:
        """Replace the file by one with changed tokens. Whoever reads it sees the old or the new ones, also after a power cut.

        Raises:
            ExhaustedError: the disk is full, or there are too many tokens.
            InvalidError: the file is a symlink. To replace the link would leave the file that others read as it is.
            StoreError: as `read`; what `change` raises.
        """
        try:
            if self.path.is_symlink():
                raise InvalidError(f"{self.path} is a symlink; name the file that it leads to")
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._locked():
                table = change(self.read())
                text = json.dumps(table.encode(), indent=1).encode()
                if len(text) > _LARGEST:
                    raise ExhaustedError(f"{self.path} would have more than {_LARGEST} bytes, with {len(table)} tokens")
                # With its owner and its mode, so a daemon that could read it still can. A new one has the owner of the directory:
                # root makes tokens of a store whose daemon is somebody else.
                replace_file(self.path, text)
        except OSError as error:
            raise of_disk(error, f"cannot write {self.path}: {error.strerror}", UnavailableError) from None
        return table

    def _text(self) -> bytes:
        with open(self.path, "rb", opener=_open_file) as file:
            return file.read(_LARGEST + 1)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process change the file meanwhile. The lock is on its directory, since the file is replaced."""
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)


class WatchedTokens:
    """The tokens of a file as they are now: a change is in force within a quarter of a second."""

    def __init__(self, file: TokenFile) -> None:
        """Read the file.

        Raises:
            StoreError: as `TokenFile.read`.
        """
        self._file = file
        self._look_at = 0.0
        self._log_at = 0.0
        self._reading: threading.Thread | None = None
        self._seen = self._state()
        self._table = file.read()

    def table(self) -> TokenTable:
        """The tokens. Where the file cannot be read any more, or is gone, those that were last read stay in force."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK
            state = self._state()
            if state != self._seen and (self._reading is None or not self._reading.is_alive()):
                if state is None or state[2] <= _AT_ONCE:
                    self._read(state)
                else:
                    self._reading = threading.Thread(target=self._read, args=(state,), daemon=True)
                    self._reading.start()
        return self._table

    def _read(self, state: tuple[int, int, int] | None) -> None:
        """Read the file anew. Where that is not possible, the next look tries again."""
        # An open door is no answer to a lost file: it would let strangers push, and tokens that were revoked.
        trouble: object = f"{self._file.path} is gone"
        if state is not None:
            try:
                self._table = self._file.read()
            except Exception as error:  # noqa: BLE001 - whatever it is, requests go on
                trouble = error
            else:
                self._seen = state
                return
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + _LOG_PAUSE
            _log.error("the tokens that were read before stay in force: %s", trouble)

    def _state(self) -> tuple[int, int, int] | None:
        """What changes when the file is replaced; None where it is not there."""
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _open_file(path: str, flags: int) -> int:
    """Open a regular file. Nobody waits for the writer of a FIFO."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise InvalidError(f"{path} is no regular file")
