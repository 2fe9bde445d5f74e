"""The completion scripts, in the shells that they are for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.program import TVIX_STORE, Program


def completed(tvix_store: Program, *words: str) -> set[str]:
    """What bash offers for the last of the words."""
    script = """
        source <(tvix-store completion bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _tvix_store_completion tvix-store
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = {**tvix_store.environment, "PATH": f"{TVIX_STORE.parent}:{tvix_store.environment['PATH']}"}
    command = ["bash", "-c", script, "bash", "tvix-store", *words]
    done = subprocess.run(command, cwd=tvix_store.directory, env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_bash_completes_commands(tvix_store: Program) -> None:
    assert completed(tvix_store, "s") == {"stat", "stats"}
    assert completed(tvix_store, "path-info", "") == {"get", "put", "rewrite", "sign", "verify"}


def test_bash_completes_options_and_their_values(tvix_store: Program) -> None:
    assert completed(tvix_store, "export", "--fo") == {"--format"}
    assert completed(tvix_store, "export", "--format", "") == {"dir", "nar", "tar"}
    assert "--store" in completed(tvix_store, "--st")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(tvix_store: Program, shell: str) -> None:
    assert f"{shell}_complete" in tvix_store("completion", shell)


def test_another_shell_is_refused(tvix_store: Program, tmp_path: Path) -> None:
    assert tvix_store.run("completion", "tcsh").code == 2
