"""The locked requirements fit pyproject.toml, and pyproject.toml fits the code."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE = ROOT / "src/tvix_store"
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def locked(name: str) -> dict[str, str]:
    """The distributions that a lock pins, with their versions."""
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ]+)", text, re.MULTILINE))


def wanted(name: str) -> list[Requirement]:
    """What a lock is made for, by pyproject.toml."""
    groups = PROJECT["dependency-groups"]
    extras = PROJECT["project"]["optional-dependencies"]
    entries = {
        "run": PROJECT["project"]["dependencies"],
        "container": [*PROJECT["project"]["dependencies"], *extras["objectstore"], *extras["postgresql"]],
        "build": groups["build"] + PROJECT["build-system"]["requires"],
        "dev": [*groups["dev"], *extras["testing"], *extras["objectstore"], *extras["postgresql"]],
        "go": groups["go"],
        "release": groups["release"],
    }
    return [Requirement(entry) for entry in entries[name] if isinstance(entry, str)]


@pytest.mark.parametrize("name", ["run", "container", "build", "dev", "go", "release"])
def test_a_lock_pins_what_pyproject_wants(name: str) -> None:
    pins = locked(name)
    missing = [str(r) for r in wanted(name) if not r.specifier.contains(pins.get(canonicalize_name(r.name), ""))]
    assert not missing, "run: python3 dev.py lock"


@pytest.mark.parametrize("name", ["run", "container", "build", "dev"])
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


def test_the_program_imports_exactly_its_dependencies() -> None:
    program = [path for path in PACKAGE.rglob("*.py") if PACKAGE / "testing" not in path.parents]
    extras = PROJECT["project"]["optional-dependencies"]
    extra = names(each for name in extras if name != "testing" for each in extras[name])
    assert imported_by(program) - extra == names(PROJECT["project"]["dependencies"])


def test_the_testing_package_imports_exactly_its_dependencies_besides() -> None:
    besides = imported_by((PACKAGE / "testing").rglob("*.py")) - names(PROJECT["project"]["dependencies"])
    assert besides == names(PROJECT["project"]["optional-dependencies"]["testing"])


def test_the_page_on_dependencies_says_what_each_package_is_for() -> None:
    page = (ROOT / "docs/design/dependencies.md").read_text().partition("## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| [0-9.]+ \| .+? \| (.*?) ?\|$", page, re.MULTILINE)
    assert {canonicalize_name(name) for name, _ in rows} == names(PROJECT["project"]["dependencies"])
    along = {canonicalize_name(name) for _, cell in rows for name in re.findall("`([^`]+)`", cell)}
    assert {canonicalize_name(name) for name, _ in rows} | along == locked("run").keys()


def names(requirements: Iterable[str]) -> set[str]:
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def imported_by(paths: Iterable[Path]) -> set[str]:
    """The names of the distributions that source files import."""
    modules = {name.partition(".")[0] for path in paths for name in imports(ast.parse(path.read_text()))}
    distributions = metadata.packages_distributions()
    # `compression` is in the standard library from Python 3.14 on.
    others = modules - sys.stdlib_module_names - {"tvix_store", "compression"}
    return {canonicalize_name(distributions[module][0]) for module in others}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
