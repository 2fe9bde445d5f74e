"""PrivateNix: the real Nix on a store of its own below a directory."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import programs
from tests.http.nix import listed
from tvix_store.testing import trees
from tvix_store.testing.trees import Tree


@dataclass(frozen=True)
class Registered:
    """A path that is registered as if a derivation had built it: a build would need the sandbox's namespaces."""

    path: str
    tree: Tree
    references: Sequence[str] = ()
    deriver: str = ""


def built(number: int, name: str) -> str:
    """A store path that no content has by itself."""
    return f"/nix/store/{number:032d}-{name}"


class PrivateNix:
    """The real Nix on a store in `root`, where the files are below nix/store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        programs.require("nix")

    def file(self, path: str) -> Path:
        """Where the content of a store path is."""
        return self.root / path.removeprefix("/")

    def nix(self, *arguments: str | Path) -> str:
        command, *rest = arguments
        return self._run("nix", "--extra-experimental-features", "nix-command", command, "--store", self.root, *rest)

    def nix_store(self, *arguments: str | Path, data: str = "") -> str:
        return self._run("nix-store", "--store", self.root, *arguments, data=data)

    def evaluated(self, expression: str, *options: str) -> str:
        """What an expression makes of the store: the path that it is, or the derivation."""
        return self._run("nix-instantiate", "--store", self.root, "--read-write-mode", *options, "--expr", expression)

    def register(self, paths: Iterable[Registered]) -> None:
        lines: list[str] = []
        for each in paths:
            self.file(each.path).parent.mkdir(parents=True, exist_ok=True)
            trees.write(each.tree, self.file(each.path))
            nar = trees.nar(each.tree)
            facts = [each.path, hashlib.sha256(nar).hexdigest(), str(len(nar)), each.deriver]
            lines += [*facts, str(len(each.references)), *each.references]
        self.nix_store("--load-db", data="".join(f"{line}\n" for line in lines))

    def path_infos(self, *paths: str) -> list[dict[str, Any]]:
        """What Nix says of these paths."""
        return listed(self.nix("path-info", "--json", *paths))

    def _run(self, *command: str | Path, data: str = "") -> str:
        environment = {name: value for name, value in os.environ.items() if name != "NIX_REMOTE"}
        done = subprocess.run(command, input=data, text=True, capture_output=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
