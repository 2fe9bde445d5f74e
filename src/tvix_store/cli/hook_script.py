"""The script that Nix calls as its post-build-hook. Nix gives it no arguments, so the options of `tvix-store hook` stand in it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tvix_store.cli.masking import masked
from tvix_store.durable_file import replace_file
from tvix_store.errors import ConflictError

_OURS = "written by: tvix-store hook --install"
_SCRIPT = f"""\
#!/bin/sh
# Nix's post-build-hook, {_OURS}
# Nix ends a build whose hook fails, so this does not. A hook that was killed runs again: its paths are queued once, or twice.
%s
hook() {{ %s; }}
hook || hook || hook || echo "tvix-store hook was killed; not queued for the cache: $OUT_PATHS" >&2
exit 0
"""


def install_script(file: Path, options: Sequence[str]) -> None:
    """Write the script into `file`, and print the line for nix.conf. The script keeps $NETRC, since Nix's daemon may not have it.

    Raises:
        ConflictError: the file is something else.
    """
    if file.exists() and _OURS not in file.read_text(errors="replace"):
        raise ConflictError(
            f"{file} is there already, and not written by tvix-store hook --install; remove it, or name another file"
        )
    netrc = os.environ.get("NETRC")
    settings = f"export NETRC={shlex.quote(os.path.abspath(netrc))}" if netrc else ""
    secret = any(masked(option) != option for option in options)
    script = _SCRIPT % (settings, shlex.join([*_program(), "hook", *options]))
    # Its mode may be another one now. It is never away, since a build fails whose hook is not there.
    replace_file(file, script.encode(), 0o700 if secret else 0o755, takes_after=False)
    print(f"post-build-hook = {file.absolute()}")


def _program() -> list[str]:
    """How to call this program."""
    called = Path(sys.argv[0])
    if called.name == "tvix-store" and os.access(called, os.X_OK):
        return [str(called.absolute())]
    return [sys.executable, "-P", "-m", "tvix_store.cli"]
