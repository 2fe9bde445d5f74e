"""What all tests share.

- A program from outside Python, such as `nix-store`, is found with `programs.require("nix-store")` of `tests.programs`;
  without it the test is skipped with instructions, and in CI it fails. A new program gets its line in `tests/programs.py`,
  and its name in the task of `dev.py` that installs it.
- Every test ends within `timeout` seconds (pyproject.toml); a longer one says so: `@pytest.mark.timeout(300)`.
- Tests run in several processes at once: ports are 0, paths are under `tmp_path`.
- Warnings are errors.
- Examples (`>>>`) in docstrings, README.md and docs/ run as tests, so importing a script of tests/ must have no effect.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests import newer_nix
from tests.programs import ROOT

settings.register_profile("default", deadline=None)  # a busy machine is no failure
settings.register_profile("fast", deadline=None, max_examples=10)  # dev.py test --fast
settings.load_profile("default")

_NIX = {"nix", "other_nix", "nix_store"}
"""Fixtures that are the real Nix. The rooms of their tests are listed in `newer_nix.ROOMS`."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector the tests that are collected: there are thousands, and all of them stay."""
    gc.disable()
    outcome = yield
    gc.freeze()
    gc.enable()
    return outcome


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """See that a test leaves the environment as it was: one left NETRC behind, and a later one was no longer let in."""
    before = _variables()
    yield
    after = _variables()
    if after != before:
        for name in after.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
    assert after == before


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in which Nix takes part, which `dev.py newer-nix` runs."""
    for item in items:
        if isinstance(item, pytest.Function) and not _NIX.isdisjoint(item.fixturenames):
            item.add_marker("nix")
            room = item.path.relative_to(ROOT).parts[:2]
            if "/".join(room) not in newer_nix.ROOMS:
                raise pytest.UsageError(f"{item.nodeid} takes Nix: add its room to ROOMS in tests/newer_nix.py")
