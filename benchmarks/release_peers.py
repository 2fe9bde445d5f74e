"""How others bring the next release of a package to where the last one is: the bytes that cross a link."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.bench import timed
from benchmarks.daemon import running_daemon
from benchmarks.go_releases import Release
from benchmarks.link import running_link
from benchmarks.nginx import running_nginx
from benchmarks.rsync import running_rsync
from tests.http.nix import Nix

_STORE_DIR = Path("/nix/store")


def rsync(directory: Path, older: Release, newer: Release) -> dict[str, float]:
    """The bytes to a server, and from one. Files are told apart by their sums: both trees are as new as their download."""
    command = ("rsync", "--recursive", "--links", "--perms", "--checksum", "--compress", "--delete")
    figures = {}
    for direction in ("to", "from"):
        here, there = directory / f"{direction}-here", directory / f"{direction}-there"
        source, target = (here, there) if direction == "to" else (there, here)
        shutil.copytree(newer.tree, source, symlinks=True)
        shutil.copytree(older.tree, target, symlinks=True)
        with running_rsync(there, directory / "rsyncd.conf") as server, running_link(server) as link:
            url = f"rsync://{link.address}/tree/"
            timed(*command, *((f"{here}/", url) if direction == "to" else (url, f"{here}/")))
        figures[f"rsync, {direction}"] = link.total / 1e6
    return figures


def casync(directory: Path, older: Release, newer: Release) -> dict[str, float]:
    """The bytes from a server of files, which is all that it needs. The older tree is the seed."""
    with running_nginx(directory / "nginx") as url, running_link(urlsplit(url).netloc) as link:
        index = directory / "nginx/files/tree.caidx"
        timed(
            "casync",
            "make",
            f"--store={directory}/nginx/files/default.castr",
            "--compression=zstd",
            "--without=all",
            index,
            newer.tree,
        )
        timed(
            "casync",
            "extract",
            f"--seed={older.tree}",
            "--without=all",
            f"http://{link.address}/tree.caidx",
            directory / "extracted",
        )
    return {"casync, from": link.total / 1e6}


def nix_copy(directory: Path, older: Release, newer: Release, store: Path) -> dict[str, float]:
    """The bytes to a daemon of ours with the older release, whose store is `store`, and then from it, as zstd."""
    nix = Nix(directory / "nix", _STORE_DIR)
    old, new = (_added(nix, release) for release in (older, newer))
    puller = Nix(directory / "puller", _STORE_DIR)
    figures = {}
    with running_daemon(store) as daemon:
        with running_link(daemon.address) as link:
            timed("nix", "copy", "--to", f"http://{link.address}?compression=zstd", new, environment=nix.environment)
        figures["nix copy, to"] = link.total / 1e6
        pull = ("nix", "copy", "--no-check-sigs", "--from")
        timed(*pull, daemon.cache_url, old, environment=puller.environment)
        with running_link(daemon.address) as link:
            timed(*pull, f"http://{link.address}", new, environment=puller.environment)
        figures["nix copy, from"] = link.total / 1e6
    return figures


def _added(nix: Nix, release: Release) -> str:
    return nix("nix", "store", "add-path", "--name", release.name, release.tree)
