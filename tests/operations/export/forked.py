"""Tests that fork: each in a process of its own, which has no threads, as a command has none when it begins."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, NoReturn, ParamSpec

P = ParamSpec("P")


def forked(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine test in a forked process; its failure is ours."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside pytest's threads; in the new process there are none.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _run(test(*args, **kwargs))
        _, status = os.waitpid(pid, 0)
        assert status == 0, "the test failed in its process; what it printed tells why"

    return run


def _run(test: Coroutine[Any, Any, None]) -> NoReturn:
    code = 1
    try:
        asyncio.run(test)
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, a person reads it
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
