"""Exit codes: one for each kind of error, and the same ones in every version.

| code | meaning |
|---|---|
| 0 | done |
| 1 | a bug in the program |
| 2 | the command line is wrong, or the configuration |
| 3 | the input is invalid |
| 4 | what was asked for is not there: a file, or something in a store |
| 5 | the input refers to what is not there, or something else is there under its name |
| 6 | stored content is damaged |
| 7 | a store does not answer now |
| 8 | not allowed, or not trusted |
| 9 | a limit is reached, or the disk is full |
| 10 | the store does not offer this |
| 11 | a server failed; the message is its own |
| 12 | there is no store at the address |
| 128 + n | ended by signal n: 130 by Ctrl-C, 143 by SIGTERM, 141 since nobody reads the output any more |
"""

from __future__ import annotations

import errno
import signal

from tvix_store.errors import (
    ConflictError,
    CorruptError,
    DeniedError,
    ExhaustedError,
    IncompleteError,
    InvalidError,
    NoStoreError,
    NotFoundError,
    RemoteError,
    UnavailableError,
    UnsupportedError,
)

BUG = 1
USAGE = 2


def exit_code(error: Exception) -> int:
    """The code with which the program ends because of `error`."""
    match error:
        case InvalidError() | IsADirectoryError() | NotADirectoryError() | OSError(errno=errno.ENAMETOOLONG | errno.ELOOP):
            return 3
        case NotFoundError() | FileNotFoundError():
            return 4
        case IncompleteError() | ConflictError() | FileExistsError():
            return 5
        case CorruptError():
            return 6
        case DeniedError() | PermissionError():
            return 8
        case ExhaustedError():
            return 9
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG):
            return 9
        case BrokenPipeError():
            return after_signal(signal.SIGPIPE)
        case UnavailableError() | OSError():
            return 7
        case UnsupportedError():
            return 10
        case RemoteError():
            return 11
        case NoStoreError():
            return 12
        case _:
            return BUG


def after_signal(number: int) -> int:
    """The code of a program that signal `number` has ended, as shells report it."""
    return 128 + number
