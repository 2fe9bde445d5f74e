"""The program: its commands, and how it ends."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO, cast

import click

from tvix_store import __version__
from tvix_store.cli import exit_codes
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.lazy_group import Entry, LazyGroup
from tvix_store.cli.sections import GENERAL, in_section

NAME = "tvix-store"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_MOST_TOLD = 4
"""Options of which a message about options tells where they are set."""
COMPLETION = "_TVIX_STORE_COMPLETE"
"""The variable by which a shell asks for completions."""
SECTIONS = {
    "Every day": {
        "import": Entry("tvix_store.cli.import_paths:import_paths", "Put directories, files and symlinks into the store."),
        "list": Entry("tvix_store.cli.list_paths:list_paths", "List the store paths."),
        "info": Entry("tvix_store.cli.info:info", "Show what is known of a store path."),
        "ls": Entry("tvix_store.cli.ls:ls", "List a directory."),
        "cat": Entry("tvix_store.cli.cat:cat", "Print files."),
        "export": Entry("tvix_store.cli.export:export", "Write a tree to a directory, a NAR or a tar."),
        "copy": Entry("tvix_store.cli.copy:copy", "Copy store paths between stores, or from a store of Nix."),
    },
    "From Nix to a cache": {
        "push": Entry("tvix_store.cli.push:push", "Send store paths of Nix, with all they refer to, to a cache."),
        "hook": Entry("tvix_store.cli.hook:hook", "Push what Nix builds, as its post-build-hook, from a queue on the disk."),
        "watch-store": Entry("tvix_store.cli.watch_store:watch_store", "Push each path that becomes valid in Nix's store."),
        "use": Entry("tvix_store.cli.use:use", "Make Nix use a binary cache: lines for nix.conf and netrc."),
    },
    "Serving": {
        "daemon": Entry("tvix_store.cli.daemon:daemon", "Serve a store over gRPC, and as a binary cache."),
        "token": Entry("tvix_store.cli.token:token", "Make the tokens that let others use the store."),
        "key": Entry("tvix_store.cli.key:key", "Make the keys with which store paths are signed."),
    },
    "Keeping a store small and whole": {
        "stats": Entry("tvix_store.cli.stats:stats", "Show how much the store holds."),
        "gc": Entry("tvix_store.cli.gc:gc", "Delete what is not needed, and give its space back."),
        "pin": Entry("tvix_store.cli.pin:pin", "Name store paths that stay."),
        "delete": Entry("tvix_store.cli.delete:delete", "Delete store paths."),
        "check": Entry("tvix_store.cli.check:check", "Check that store paths are whole, and repair them."),
        "backup": Entry("tvix_store.cli.backup:backup", "Copy the whole store, while it is in use, into a directory."),
    },
    "Looking closer": {
        "path-info": Entry("tvix_store.cli.path_info:path_info", "Get, put, sign and verify path infos."),
        "nar-hash": Entry("tvix_store.cli.nar_hash:nar_hash", "Print the hash and size of a NAR."),
        "stat": Entry("tvix_store.cli.stat:stat", "Show the size and the chunks of a blob."),
    },
    "The program itself": {
        "help": Entry("tvix_store.cli.help:help_", "Explain the program, or a command."),
        "config": Entry("tvix_store.cli.config:config", "Show and check the configuration."),
        "completion": Entry("tvix_store.cli.completion:completion", "Print a shell's completion script."),
    },
}
"""The commands, below the headings of `--help`."""
HELP = """A granular content-addressed store for Nix.

\b
    tvix-store import ./tree
    tvix-store ls -l /nix/store/...-tree
    tvix-store daemon --listen-address localhost:8000

Where a command takes a PATH, that is a store path (/nix/store/<hash>-<name>, <hash>-<name> or <hash>) or the
digest of a directory or blob (b3:<64 hex digits>), with /path/inside behind it to go on to what it holds.

The store is the one in --store or $TVIX_STORE: local:///path (or just a path), memory://, grpc+http://host:port,
grpc+https://host:port, grpc+unix:///socket, or, over plain HTTP, connect+http://host:port/path or connect+https://host/path.
By default it is in the user's data directory.

An option of a command may also stand in a variable, as TVIX_STORE_DAEMON_LISTEN_ADDRESS, or in a configuration file, as
listen-address below [daemon]: tvix-store config show daemon
"""


def program() -> click.Group:
    """The command `tvix-store`."""
    group = LazyGroup(NAME, SECTIONS, HELP)
    click.version_option(__version__, "-V", "--version", prog_name=NAME, message="%(prog)s %(version)s")(group)
    in_section(GENERAL, group.params)
    return group


def run_program(arguments: Sequence[str]) -> int:
    """Run the program, and return its exit code; an error is a line on stderr."""
    if COMPLETION in os.environ:
        from tvix_store.cli.completing import in_silence

        with in_silence():
            program().main(list(arguments), NAME, COMPLETION)  # exits
    _prepare_standard_files()
    invocation = Invocation()
    try:
        # Not by `main` of click, which takes care of errors in its own way.
        with program().make_context(NAME, list(arguments), obj=invocation) as context:
            context.command.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context_of_error = error.ctx if isinstance(error, click.UsageError) else None
        hint = (
            f" (see {context_of_error.command_path} --help{_elsewhere(context_of_error, error.format_message())})"
            if context_of_error
            else ""
        )
        print(f"{NAME}: error: {_of_usage(error)}{hint}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError as error:
        _let_go_of_output()
        return exit_codes.exit_code(error)
    except Exception as error:  # noqa: BLE001 - whatever it is, a person reads it
        if invocation.debug:
            import traceback

            traceback.print_exception(error)
        code = report(error)
        _let_go_of_output()
        return code
    return 0


def _of_usage(error: click.ClickException) -> str:
    """One line that describes a mistake in the command line."""
    from tvix_store.cli.hints import hint, plainly

    meant = hint(error) if isinstance(error, click.UsageError) else None
    if meant is not None:
        return f"{error.message.partition('. ')[0].rstrip('.')}; {meant}"
    return plainly(" ".join(_CONTROL.sub(" ", error.format_message()).split()))


def _elsewhere(context: click.Context, message: str) -> str:
    """Which options of a command come from a variable or a file, for the end of a message: those that it names, or some."""
    if context.get_parameter_source("config") is None:
        return ""  # the program has not come to the options
    from tvix_store.cli.configured import given_elsewhere

    given = list(given_elsewhere(context))
    named = [each for each in given if re.search(rf"{each[0]}\b(?!-)", message)]
    return "".join(f"; {option} is set by {place}" for option, place in (named or given)[:_MOST_TOLD])


def report(error: Exception) -> int:
    """Print a line about `error` on stderr; the exit code for it."""
    code = exit_codes.exit_code(error)
    print(f"{NAME}: error: {_message(error, code)}", file=sys.stderr)
    return code


def _let_go_of_output() -> None:
    """Write buffered output. Output that can't be written is dropped, or the interpreter would complain about it."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _prepare_standard_files() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files are printed as they are
    # Those that the caller has closed. Their numbers must be taken, or the next file that is opened gets one, and what is meant for
    # the terminal goes there.
    sys.stdin = sys.stdin or _nothing(0, "r")
    sys.stdout = sys.stdout or _nothing(1, "w")
    sys.stderr = sys.stderr or _nothing(2, "w")


def _nothing(number: int, mode: str) -> TextIO:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
    return cast("TextIO", open(number, mode, closefd=False))


def _message(error: Exception, code: int) -> str:
    """One line that describes the error. Text of others in it, such as a server's, does not steer the terminal."""
    text = str(error) or type(error).__name__
    if code == exit_codes.BUG:
        text = f"this is a bug: {type(error).__name__}: {text} (--debug shows where)"
    elif isinstance(error, OSError) and error.strerror:
        text = f"cannot open {os.fsdecode(error.filename)}: {error.strerror}" if error.filename is not None else error.strerror
    return _CONTROL.sub(" ", text)
