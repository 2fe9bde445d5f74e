"""Where a Nix store has its files, and which paths of it a person means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tvix_store.errors import InvalidError
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.operations.paths.nix_store import NixStore, named_path

NAME = "0" * 32 + "-a"


@pytest.mark.parametrize(
    "url",
    [
        "ROOT",
        "ROOT/",
        "ROOT?read-only=true",
        "local?root=ROOT",
        "local://ROOT",
        "unix:///run/socket?root=ROOT",
        "daemon?root=ROOT",
        "local?store=/nix/store&real=ROOT/nix/store&state=/elsewhere",
    ],
)
def test_files_are_found_below_the_root_of_a_store(tmp_path: Path, url: str) -> None:
    (tmp_path / "nix/store").mkdir(parents=True)
    store = NixStore.at(url.replace("ROOT", str(tmp_path)))
    assert store.file(StorePath.parse(NAME)) == tmp_path / "nix/store" / NAME


@pytest.mark.parametrize("url", [None, "", "auto", "daemon", "local", "unix:///run/socket"])
def test_files_of_a_store_without_a_root_are_where_their_names_say(tmp_path: Path, url: str | None) -> None:
    assert NixStore.at(url, str(tmp_path)).file(StorePath.parse(NAME)) == tmp_path / NAME


@pytest.mark.parametrize("url", ["https://cache.example.org", "file:///cache", "ssh-ng://host", "s3://bucket?root=/", "neither"])
def test_a_store_elsewhere_is_refused(url: str) -> None:
    with pytest.raises(InvalidError, match="is not a Nix store on this machine"):
        NixStore.at(url)


def test_a_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="no Nix store is in"):
        NixStore.at(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_circle_of_links_is_no_path(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InvalidError, match="is not in /nix/store"):
        named_path(f"{tmp_path}/a")


@pytest.mark.parametrize("text", ["nixpkgs#hello", ".#", "./flake#hello"])
def test_a_package_for_nix_gets_the_way_to_its_store_path(text: str) -> None:
    with pytest.raises(InvalidError, match="names a package for Nix; nix build makes it, and nix path-info prints its store path"):
        named_path(text)


def test_a_link_out_of_the_store_is_the_path_that_it_is_in() -> None:
    assert named_path(f"{STORE_DIR}/{NAME}/bin/../share") == StorePath.parse(NAME)
    assert named_path(os.path.relpath(f"{STORE_DIR}/{NAME}")) == StorePath.parse(NAME)
