"""The locked requirements fit pyproject.toml, and pyproject.toml fits the code."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def locked(name: str) -> dict[str, str]:
    """The distributions that a lock pins, with their versions."""
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ]+)", text, re.MULTILINE))


def wanted(name: str) -> list[Requirement]:
    """What a lock is made for, by pyproject.toml."""
    groups = PROJECT["dependency-groups"]
    entries = {
        "run": PROJECT["project"]["dependencies"],
        "build": groups["build"] + PROJECT["build-system"]["requires"],
        "dev": [*groups["dev"], *groups["build"], *PROJECT["project"]["dependencies"]],
        "go": groups["go"],
    }
    return [Requirement(entry) for entry in entries[name] if isinstance(entry, str)]


@pytest.mark.parametrize("name", ["run", "build", "dev", "go"])
def test_a_lock_pins_what_pyproject_wants(name: str) -> None:
    pins = locked(name)
    missing = [str(r) for r in wanted(name) if not r.specifier.contains(pins.get(canonicalize_name(r.name), ""))]
    assert not missing, "run: python3 dev.py lock"


@pytest.mark.parametrize("name", ["run", "build", "dev"])
def test_a_lock_pins_what_its_distributions_require(name: str) -> None:
    pins = locked(name)
    for pinned, version in pins.items():
        try:
            distribution = metadata.distribution(pinned)
        except metadata.PackageNotFoundError:
            continue  # one for another system
        assert distribution.version == version
        for requirement in map(Requirement, distribution.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("name", ["run", "build"])
def test_the_development_lock_includes_the_others(name: str) -> None:
    assert locked(name).items() <= locked("dev").items()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_pin_has_hashes_and_no_registry_is_named(lock: Path) -> None:
    text = lock.read_text()
    pins = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)
    assert "://" not in text


def test_the_code_imports_exactly_the_declared_dependencies() -> None:
    modules = {
        name.partition(".")[0]
        for path in (ROOT / "src/tvix_store").rglob("*.py")
        if "testing" not in path.parts
        for name in _imports(ast.parse(path.read_text()))
    }
    distributions = metadata.packages_distributions()
    third_party = modules - sys.stdlib_module_names - {"tvix_store"}
    imported = {canonicalize_name(distributions[module][0]) for module in third_party}
    assert imported == {canonicalize_name(requirement.name) for requirement in wanted("run")}


def _imports(tree: ast.AST) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names
