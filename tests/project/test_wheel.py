"""The wheel holds the whole program and runs on its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import tvix_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built the way that a release is: first the sdist, and the wheel from that.

    A build writes `_version.py` where it builds. So that is a copy, and what other tests run stays as it is.
    """
    tree = tmp_path_factory.mktemp("wheel") / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".tools", ".*_cache", ".hypothesis", "__pycache__"))
    environment = {**os.environ, "SETUPTOOLS_SCM_PRETEND_VERSION": tvix_store.__version__}
    build = [sys.executable, "-m", "build", "--no-isolation"]
    subprocess.run(build, cwd=tree, env=environment, check=True, capture_output=True)
    (wheel,) = tree.glob("dist/*.whl")
    return wheel


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    source = ROOT / "src"
    package = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == package
    assert held >= {"tvix_store/py.typed", "tvix_store/protocol/descriptors.binpb"}


def test_the_program_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = "import sys, tvix_store.cli as cli; assert 'site' in cli.__file__; sys.argv = ['tvix-store', '--version']; cli.main()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert tvix_store.__version__ in done.stdout
