"""The installed program, as a person runs it."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from tests import preloaded
from tvix_store.cli.program import run_program

TVIX_STORE = preloaded.TVIX_STORE
_NEW_STORE = re.compile(r"tvix-store: made a new .*\n")
_VARIABLES = (
    "TVIX_STORE",
    "BLOB_SERVICE_ADDR",
    "DIRECTORY_SERVICE_ADDR",
    "PATH_INFO_SERVICE_ADDR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
)


@dataclass(frozen=True)
class Ended:
    """How a run of the program ended."""

    code: int
    output: bytes
    error: str

    @property
    def lines(self) -> list[str]:
        return self.output.decode().splitlines()

    @property
    def own_error(self) -> str:
        """What it said on stderr; not what Python says where a signal comes before the program has begun, on a busy machine."""
        early = self.error.endswith("KeyboardInterrupt\n") and "/tvix_store/" not in self.error
        return "" if early else self.error


class _Nothing(io.BytesIO):
    """A standard input that is empty."""

    name = "<stdin>"


def run_in_process(*arguments: str, directory: Path, environment: Mapping[str, str]) -> Ended:
    """Run the program in this process, which takes some milliseconds. What ends by a signal, or serves, needs its own process."""
    output, error = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    before = Path.cwd()
    os.chdir(directory)
    try:
        with (
            patch.dict(os.environ, environment, clear=True),
            patch.object(sys, "stdin", io.TextIOWrapper(_Nothing())),
            redirect_stdout(output),
            redirect_stderr(error),
        ):
            code = run_program(arguments)
    finally:
        os.chdir(before)
    written = [stream.buffer.getvalue() for stream in (output, error)]
    return Ended(code, written[0], written[1].decode(errors="surrogateescape"))


class Program:
    """Runs the program in a directory, on a store of its own there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "store"
        self.environment = {
            name: value for name, value in os.environ.items() if name not in _VARIABLES and not name.startswith("TVIX_STORE_")
        }
        self.environment |= {"TVIX_STORE": f"local://{self.store}", "HOME": str(directory)}

    def run(
        self,
        *arguments: str | bytes | Path,
        data: bytes = b"",
        environment: Mapping[str, str] | None = None,
        under: tuple[str, ...] = (),
    ) -> Ended:
        """Run it, `under` another command where one is given. That the store was made for the test is not in the errors."""
        environment = environment or self.environment
        if under:
            command = [*under, TVIX_STORE, *arguments]
            done = subprocess.run(command, cwd=self.directory, input=data, capture_output=True, env=environment, check=False)
            return Ended(done.returncode, done.stdout, _NEW_STORE.sub("", done.stderr.decode()))
        pipe = subprocess.PIPE
        with preloaded.start(arguments, self.directory, environment, pipe, pipe, pipe) as process:
            output, error = process.communicate(data)
        return Ended(process.returncode, output, _NEW_STORE.sub("", error.decode()))

    def __call__(self, *arguments: str | bytes | Path, data: bytes = b"") -> str:
        """What it prints, when all goes well and it is asked to be quiet: without the end of the last line."""
        ended = self.run(*arguments, data=data, environment={**self.environment, "TVIX_STORE_QUIET": "1"})
        assert ended.code == 0, ended.error
        assert ended.error == "", ended.error
        return ended.output.decode(errors="surrogateescape").removesuffix("\n")

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start it in the background."""
        return preloaded.start(arguments, self.directory, self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
