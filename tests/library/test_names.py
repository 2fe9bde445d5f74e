"""What `import tvix_store` offers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tvix_store

STUB = Path(tvix_store.__file__).with_suffix(".pyi")


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    statements = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ImportFrom)]
    stated = {f"{node.module}.{alias.name}" for node in statements for alias in node.names}
    offered = {f"{module}.{name}" for name, module in tvix_store._MODULES.items()}  # type: ignore[attr-defined]
    assert stated == offered | {f"tvix_store.{name}" for name in tvix_store._SUBMODULES}  # type: ignore[attr-defined]


def test_all_names_are_in_all() -> None:
    (listed,) = [node.value for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.Assign)]
    assert sorted(ast.literal_eval(listed)) == sorted(tvix_store.__all__)


def test_every_name_is_there() -> None:
    for name in dir(tvix_store):
        assert getattr(tvix_store, name) is not None


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tvix_store.nonsense  # type: ignore[attr-defined]


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import tvix_store; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("tvix_store.")}
    assert ours <= {"tvix_store._version"}
    assert "asyncio" not in loaded
