"""`tvix-store completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from tvix_store.cli.sections import SectionedCommand

SHELLS = ("bash", "zsh", "fish")


@click.command(cls=SectionedCommand)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, files and what the store has.

    \b
        source <(tvix-store completion bash)          # in ~/.bashrc
        source <(tvix-store completion zsh)           # in ~/.zshrc, behind compinit
        tvix-store completion fish | source           # in ~/.config/fish/config.fish
    """
    from tvix_store.cli.program import COMPLETION, NAME, program

    complete = get_completion_class(shell)
    assert complete is not None, "click knows these three"
    click.echo(complete(program(), {}, NAME, COMPLETION).source())
