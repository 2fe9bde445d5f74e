from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.program import Program


@pytest.fixture
def tvix_store(tmp_path: Path) -> Program:
    """The program, in a directory of its own."""
    return Program(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with one of everything."""
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "bin/hello").write_bytes(b"#!/bin/sh\necho hello\n")
    (root / "bin/hello").chmod(0o755)
    (root / "bin/sh").symlink_to("hello")
    (root / "empty").write_bytes(b"")
    (root / "void").mkdir()
    (root / "big").write_bytes(os.urandom(1_500_000))
    (root / "text").write_bytes(b"some text\n")
    (root / "dangling").symlink_to("/nowhere")
    Path(os.fsdecode(os.fsencode(root) + b"/not-utf8-\xff\xfe")).write_bytes(b"?")
    return root
