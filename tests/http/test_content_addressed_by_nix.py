"""Content-addressed paths that Nix makes prove themselves to a daemon that requires signatures, and come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.http.daemon import Daemon
from tests.http.nix import Nix
from tvix_store.testing import trees


def with_new_features(nix: Nix) -> Nix:
    """The Nix, which is not older than these, with BLAKE3 and Git."""
    nix.needs(2, 27)
    with (nix.directory / "etc/nix.conf").open("a") as configuration:
        configuration.write("extra-experimental-features = blake3-hashes git-hashing\n")
    return nix


@pytest.fixture
def strict(start_daemon: Callable[..., Daemon], nix: Nix) -> Daemon:
    key = nix("nix", "key", "generate-secret", "--key-name", "nobody-1")
    public = start_daemon(name="keys").program("key", "public", data=key.encode())
    return start_daemon("--require-signatures", "--trusted-public-keys", public)


@pytest.fixture
def source(nix: Nix) -> Path:
    source = nix.directory / ".p10k.zsh"
    source.write_text("text")
    return source


def comes_back(daemon: Daemon, nix: Nix, other: Nix, path: str) -> bool:
    nix.copy_to(daemon.url, path)
    other("nix-store", "-r", path, "--option", "substituters", daemon.url)
    return trees.read(nix.real(path)) == trees.read(other.real(path))


def test_paths_that_refer_to_themselves(strict: Daemon, nix: Nix, other_nix: Callable[..., Nix]) -> None:
    """Nix 2.17 to 2.34 address them otherwise than the versions before and after."""
    [built] = nix.build(
        'sh "self" "mkdir $out; echo $out/file > $out/file; ln -s $out/file $out/link; head -c 99 /dev/zero > $out/zeros"'
    )
    path = json.loads(nix("nix", "store", "make-content-addressed", "--json", built))["rewrites"][built]
    [info] = nix.path_info(path)
    assert (info["ca"][:8], info["references"]) == ("fixed:r:", [path])
    assert comes_back(strict, nix, other_nix(""), path)


def test_names_that_begin_with_a_dot(strict: Daemon, nix: Nix, other_nix: Callable[..., Nix], source: Path) -> None:
    assert comes_back(strict, nix, other_nix(""), nix.add(source))


@pytest.mark.parametrize("mode", ["nar", "flat"])
def test_content_addresses_by_blake3(strict: Daemon, nix: Nix, other_nix: Callable[..., Nix], source: Path, mode: str) -> None:
    with_new_features(nix)
    path = nix("nix", "store", "add", "--hash-algo", "blake3", "--mode", mode, source)
    assert comes_back(strict, nix, with_new_features(other_nix("")), path)


def test_content_addresses_of_git_are_refused_by_name(strict: Daemon, nix: Nix, source: Path) -> None:
    with_new_features(nix)
    path = nix("nix", "store", "add", "--hash-algo", "sha1", "--mode", "git", source)
    refused = nix.run("nix", "copy", "--to", strict.url, path)
    assert refused.returncode
    assert "the method 'git' with 'sha1' cannot be checked here" in refused.stderr
