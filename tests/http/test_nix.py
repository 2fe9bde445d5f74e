"""Stock Nix pushes to the daemon and substitutes from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tvix_store.testing import trees

COMPRESSIONS = ("xz", "none", "zstd", "bzip2", "gzip", "br", "lz4", "lzip", "lzma")


def closure(nix: Nix) -> str:
    """A path that refers to another, and to itself."""
    [path] = nix.build("""
      let library = sh "library" "mkdir $out; echo text > $out/file; echo $out > $out/self";
      in sh "program" "mkdir -p $out/bin; echo ${library}/file > $out/bin/run; chmod +x $out/bin/run; ln -s ${library} $out/link"
    """)
    return path


def test_a_closure_that_was_pushed_is_substituted_into_an_empty_store(
    daemon: Daemon, nix: Nix, other_nix: Callable[..., Nix]
) -> None:
    path = closure(nix)
    nix.copy_to(daemon.url, path)
    other = other_nix()
    assert other("nix-store", "-r", path, "--option", "substituters", daemon.url) == path
    assert trees.read(other.real(path)) == trees.read(nix.real(path))
    other("nix-store", "--verify", "--check-contents")
    assert other("nix-store", "-qR", path) == nix("nix-store", "-qR", path)
    assert daemon.is_well()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_each_compression_is_taken(daemon: Daemon, nix: Nix, other_nix: Callable[..., Nix], compression: str) -> None:
    path = closure(nix)
    nix.copy_to(f"{daemon.url}?compression={compression}", path)
    other = other_nix()
    other("nix", "copy", "--no-check-sigs", "--from", daemon.url, path)
    assert trees.read(other.real(path)) == trees.read(nix.real(path))
