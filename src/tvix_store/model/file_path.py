"""StrPath: a path of this machine, as users write it."""

from __future__ import annotations

import os
from typing import TypeAlias

StrPath: TypeAlias = str | os.PathLike[str]
"""A path of the file system: a text, or a `pathlib.Path`."""
