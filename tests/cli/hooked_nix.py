"""Nix whose builds call `tvix-store hook`, and the processes that belong to a queue."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.cli.program import TVIX_STORE, Program
from tests.http.nix import Nix


class HookedNix:
    """The real Nix with a post-build-hook that `tvix-store hook --install` has written."""

    def __init__(self, directory: Path, address: str, program: Path = TVIX_STORE) -> None:
        self.queue = directory / "queue"
        self.script = directory / "post-build-hook"
        self.program = Program(directory)
        installed = self.program("hook", "--to", address, "--queue", self.queue, "--install", self.script)
        self.script.write_text(self.script.read_text().replace(str(TVIX_STORE), str(program)))
        self.nix = Nix(directory / "nix", directory / "nix/store", f"{installed}\n")

    def hook(self, *options: str) -> str:
        """What a call of `tvix-store hook` for the queue prints."""
        ended = self.program.run("hook", "--queue", self.queue, *options, environment=self.nix.environment)
        assert ended.code == 0, ended.error
        return ended.output.decode()

    def pushers(self) -> list[int]:
        """The processes in the background that push from the queue."""
        return [pid for pid, words in _processes() if str(self.queue) in words and "--lock" in words]

    def stop(self) -> None:
        """End what runs in the background."""
        for pid in self.pushers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _processes() -> list[tuple[int, list[str]]]:
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            found.append((int(pid), Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")))
    return found
