"""Nix gets back what it put, by the names of files that it remembers."""

from __future__ import annotations

import pytest

from tests.http.daemon import Daemon
from tests.http.nix import Nix, skip_lzma


@pytest.mark.parametrize("compression", ["xz", "none", "zstd", "bzip2", "gzip", "br", "lz4", "lzip", "lzma"])
def test_who_has_pushed_a_path_can_substitute_it(daemon: Daemon, nix: Nix, compression: str) -> None:
    skip_lzma(nix, compression)
    [path] = nix.build('sh "again" "head -c 3000000 /dev/zero > $out"')
    nix.copy_to(f"{daemon.url}?compression={compression}", path)
    nix("nix-store", "--delete", "--ignore-liveness", path)
    # Its cache has the narinfo that it put, not ours.
    nix("nix-store", "-r", path, "--option", "substituters", daemon.url, "--option", "require-sigs", "false")
    assert nix.real(path).read_bytes() == bytes(3_000_000)
    assert daemon.is_well()
