"""Where the store is said to be: options before or after the command, and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.program import Program


@pytest.fixture
def path(tvix_store: Program, tree: Path) -> str:
    return tvix_store("import", tree)


def listed(tvix_store: Program, *arguments: str | Path, **environment: str) -> list[str]:
    ended = tvix_store.run(*arguments, environment={**tvix_store.environment, **environment})
    assert ended.code == 0, ended.error
    return ended.lines


def test_the_store_may_be_named_before_and_after_the_command(tvix_store: Program, path: str) -> None:
    for arguments in (("--store", tvix_store.store, "list"), ("list", "--store", tvix_store.store)):
        assert listed(tvix_store, *arguments, TVIX_STORE="memory://") == [path]


def test_an_option_behind_a_group_counts_as_well(tvix_store: Program, path: str) -> None:
    assert tvix_store("path-info", "--store", "memory://", "verify", "--all") == ""
    assert tvix_store("path-info", "verify", "--all") == f"{path}: good"


def test_the_environment_names_the_store(tvix_store: Program, path: str) -> None:
    assert listed(tvix_store, "list", TVIX_STORE=str(tvix_store.store)) == [path]
    assert listed(tvix_store, "list", TVIX_STORE="memory://") == []


def test_a_relative_path_is_an_address(tvix_store: Program, path: str) -> None:
    assert listed(tvix_store, "list", TVIX_STORE="./store") == [path]


def test_a_service_may_stand_elsewhere(tvix_store: Program, path: str) -> None:
    assert listed(tvix_store, "list", PATH_INFO_SERVICE_ADDR="memory://") == []
    assert listed(tvix_store, "list", "--path-info-service-addr", "memory://") == []
    assert listed(tvix_store, "list", TVIX_STORE="memory://", PATH_INFO_SERVICE_ADDR=str(tvix_store.store)) == [path]


def test_an_option_wins_over_the_environment(tvix_store: Program, path: str) -> None:
    assert listed(tvix_store, "list", "--store", tvix_store.store, PATH_INFO_SERVICE_ADDR="memory://") == [path]


def test_content_and_path_infos_may_be_in_different_stores(tvix_store: Program, tree: Path) -> None:
    split = ("--store", "./content", "--path-info-service-addr", "./records")
    path = tvix_store("import", tree, *split)
    assert tvix_store("cat", f"{path}/text", *split) == "some text"
    assert tvix_store("list", "--store", "./records") == path
    assert tvix_store("list", "--store", "./content") == ""
