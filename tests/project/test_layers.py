from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path


def test_imports_keep_to_the_layers() -> None:
    lint = Path(sysconfig.get_path("scripts"), "lint-imports")
    done = subprocess.run([lint, "--no-logo", "--no-cache"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
