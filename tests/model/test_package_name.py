"""PackageName: names of store paths taken apart, as Nix does."""

from __future__ import annotations

import pytest

from tvix_store.model.package_name import PackageName


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hello-2.12.1", ("hello", "2.12.1", "")),
        ("hello", ("hello", "", "")),
        ("go-1.22.1-doc", ("go", "1.22.1", "doc")),
        ("python3.11-numpy-1.26.4", ("python3.11-numpy", "1.26.4", "")),
        ("nix-2.8.0pre20220512_a5b7c8d", ("nix", "2.8.0pre20220512_a5b7c8d", "")),
        ("source", ("source", "", "")),
        ("a--1", ("a-", "1", "")),
        ("x-", ("x-", "", "")),
        ("glibc-2.38-44-bin", ("glibc", "2.38-44", "bin")),
        ("openssl-3.0.13-dev", ("openssl", "3.0.13", "dev")),
        ("linux-6.6.32-modules-shrunk", ("linux", "6.6.32-modules", "shrunk")),
        ("-1", ("", "1", "")),
    ],
)
def test_a_name_is_taken_apart(name: str, parts: tuple[str, str, str]) -> None:
    found = PackageName.of(name)
    assert (found.package, found.version, found.output) == parts


def test_versions_are_ordered() -> None:
    ordered = ["go", "go-0.9", "go-1.2rc1", "go-1.2", "go-1.2.1", "go-1.10", "go-2"]
    keys = [PackageName.of(name).version_key for name in ordered]
    # A word comes before a number, and the shorter version before the longer: "1.2rc1" is behind "1.2".
    assert sorted(keys) == [keys[0], keys[1], keys[3], keys[2], keys[4], keys[5], keys[6]]
