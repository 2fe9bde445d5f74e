"""The program `tvix-store`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the program on `sys.argv`, and exit with a code of `cli.exit_codes`."""
    try:
        # Inside the `try`, since Ctrl-C may come while modules are being read.
        from tvix_store.cli.program import run_program

        code = run_program(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
