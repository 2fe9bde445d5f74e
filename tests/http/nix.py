"""A Nix of its own: store, state, configuration and caches under one directory, builds without a sandbox."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from copy import copy
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests import programs

_CONFIGURATION = """
experimental-features = nix-command ca-derivations
sandbox = false
build-users-group =
substituters =
"""


class Nix:
    """Runs `nix`, `nix-store` and `nix-build`; `store_dir` is in the names of its paths, wherever they are."""

    def __init__(self, directory: Path, store_dir: Path, configuration: str = "") -> None:
        programs.require("nix")
        self.directory = directory
        self.store_dir = store_dir
        for name in ("etc", "home", "cache", "state", "log"):
            (directory / name).mkdir(parents=True)
        (directory / "etc/nix.conf").write_text(_CONFIGURATION + configuration)
        # The real place is beside the state, so that several stores can have paths of the same names.
        self.real_dir = directory / "store"
        store = f"local?store={store_dir}&real={self.real_dir}&state={directory / 'state'}&log={directory / 'log'}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "home"),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "NIX_CONF_DIR": str(directory / "etc"),
            "NIX_STORE_DIR": str(store_dir),
            "NIX_STATE_DIR": str(directory / "state"),
            "NIX_LOG_DIR": str(directory / "log"),
            "NIX_REMOTE": store if store_dir != self.real_dir else "local",
            "TMPDIR": str(directory / "home"),
            **{name: os.environ[name] for name in ("NIX_SSL_CERT_FILE",) if name in os.environ},
        }

    def with_own_cache(self) -> Nix:
        """The same Nix, as a user who has heard nothing of any binary cache. Those who share a cache stand in each other's way."""
        other = copy(self)
        other.environment = {**self.environment, "XDG_CACHE_HOME": mkdtemp(dir=self.directory)}
        return other

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a command in the background."""
        return subprocess.Popen(
            arguments,
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path, timeout: float = 100) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is."""
        return subprocess.run(
            arguments,
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def __call__(self, *arguments: str | Path) -> str:
        """What a command prints, without the end of the last line, when all goes well."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{' '.join(map(str, arguments))}: {done.stderr}"
        return done.stdout.removesuffix("\n")

    def build(self, expression: str) -> list[str]:
        """Build what `expression` evaluates to; a derivation is made with `sh` of name and script, see `PRELUDE`."""
        return self("nix-build", "--no-out-link", "--expr", PRELUDE + expression).splitlines()

    def add(self, tree: Path) -> str:
        """Add a tree to the store."""
        return self("nix-store", "--add", tree)

    def copy_to(self, url: str, *paths: str) -> None:
        self("nix", "copy", "--to", url, *paths)

    @property
    def version(self) -> tuple[int, int]:
        """Which Nix it is, such as (2, 34)."""
        major, minor = self("nix", "--version").split()[-1].split(".")[:2]
        return int(major), int(minor)

    def needs(self, *version: int) -> None:
        """Skip the running test if this Nix is older."""
        if self.version < version:
            pytest.skip(f"Nix {'.'.join(map(str, version))} or newer is needed; see dev.py newer-nix")

    def real(self, path: str) -> Path:
        """Where the contents of a store path are."""
        return self.real_dir / Path(path).name

    def path_info(self, *paths: str, store: str | None = None) -> list[dict[str, Any]]:
        """What `nix path-info --json` tells, in the order of the paths."""
        return listed(self("nix", "path-info", "--json", *(("--store", store) if store else ()), *paths))

    def forget(self) -> None:
        """Forget what binary caches have said."""
        shutil.rmtree(self.directory / "cache")
        (self.directory / "cache").mkdir()


def listed(path_infos: str) -> list[dict[str, Any]]:
    """What `nix path-info --json` prints: Nix until 2.18 a list, newer ones an object by path."""
    told = json.loads(path_infos)
    return told if isinstance(told, list) else [{"path": path, **info} for path, info in told.items()]


def skip_lzma(nix: Nix, compression: str) -> None:
    """Skip what newer versions cannot do: to read a file of theirs back, whose name has no suffix, from another compression."""
    if compression == "lzma" and nix.version > (2, 8):
        pytest.skip("this Nix wants lzma back, and the name of the file, `.nar`, does not say so; older ones look at the content")


PRELUDE = """
let
  sh = name: script: sh' name script { };
  sh' = name: script: more: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    PATH = "/bin:/usr/bin";
    args = [ "-euc" script ];
  } // more);
in
"""
