"""FILE_PATH: options and arguments that are paths of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class _FilePath(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty; write . for the current directory", param, ctx)
        return super().convert(value, param, ctx)


FILE_PATH = _FilePath(path_type=Path)
"""A `Path`, of an existing file or not. An empty text is refused: `Path("")` would be the current directory."""
