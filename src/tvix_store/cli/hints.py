"""What to say of mistakes in the command line: of what people know from other programs (snix, attic, Nix), and of numbers."""

from __future__ import annotations

import re

import click

_PLAINLY = (
    (re.compile(r"is not a valid integer( range)?$"), "is not a whole number"),
    (re.compile(r"is not a valid float( range)?$"), "is not a number"),
    (re.compile(r"is not in the range (\S+?)<=?x<=?(\S+)$"), r"is not from \1 to \2"),
    (re.compile(r"is not in the range x>=(\S+)$"), r"is too little; the least is \1"),
    (re.compile(r"is not in the range x>(\S+)$"), r"is too little; it is more than \1"),
)
"""What click says of numbers, and how a person would say it."""
_EXPORT = "tvix-store export writes a tree"
_IMPORT = "tvix-store import stores files and directories"
_COMMANDS = {
    "add": _IMPORT,
    "add-file": _IMPORT,
    "add-path": _IMPORT,
    "put": _IMPORT,
    "get": _EXPORT,
    "dump": "tvix-store export --format nar writes a NAR",
    "dump-path": "tvix-store export --format nar writes a NAR",
    "restore": "tvix-store import --nar takes a NAR",
    "fsck": "tvix-store check looks whether all is whole",
    "verify": "tvix-store check looks whether all is whole",
    "repair": "tvix-store check --repair brings again what is damaged",
    "du": "tvix-store stats shows how much the store holds",
    "cache": "tvix-store daemon --cache NAME serves a named cache",
    "login": "tvix-store token create makes a token, for a netrc file or an address",
    "serve": "tvix-store daemon serves the store",
    "server": "tvix-store daemon serves the store",
    "nar-bridge": "tvix-store daemon is also a binary cache over HTTP",
    "mount": f"a store cannot be mounted; {_EXPORT}, and a daemon shows files below /serve/",
    "virtiofs": f"a store cannot be mounted; {_EXPORT}, and a daemon shows files below /serve/",
    "optimise": "equal content is stored once in any case",
    "remove": "tvix-store delete deletes store paths",
    "rm": "tvix-store delete deletes store paths",
    "sign": "tvix-store path-info sign signs store paths",
    "upload": "tvix-store copy --to ADDRESS copies store paths",
    "download": "tvix-store copy --from ADDRESS copies store paths",
}
_LISTENING = "--listen-address says where to listen, as in --listen-address localhost:8080"
_OPTIONS = {
    "daemon": dict.fromkeys(("--address", "--bind", "--host", "--listen", "--port", "-b", "-p"), _LISTENING),
    "delete": dict.fromkeys(("--force", "-f"), "--ignore-references deletes what others refer to"),
    "copy": dict.fromkeys(("--recursive", "-r"), "--closure copies all that the paths refer to"),
    "export": dict.fromkeys(("--output", "-o"), "the destination stands behind the PATH"),
}
_OF_ALL = {
    "--db": "--store names the store",
    "--from": "tvix-store copy --from ADDRESS copies from another store; --store names the store of this command",
    "--to": "tvix-store copy --to ADDRESS copies to another store; --store names the store of this command",
    "--verbose": "--debug shows where an error comes from",
    "-s": "--store names the store",
    "-v": "--debug shows where an error comes from",
}


def hint(error: click.UsageError) -> str | None:
    """What is meant by a command or an option that we do not have, where other programs have it."""
    match error:
        case click.exceptions.NoSuchCommand(command_name=str(name)):
            return _COMMANDS.get(name) if error.ctx is not None and error.ctx.parent is None else None
        case click.NoSuchOption(option_name=str(name)):
            command = error.ctx.info_name if error.ctx is not None else ""
            return _OPTIONS.get(command or "", {}).get(name) or _OF_ALL.get(name)
    return None


def plainly(message: str) -> str:
    """A message of click as a person would say it, without a full stop."""
    message = message.rstrip(".")
    for pattern, words in _PLAINLY:
        message = pattern.sub(words, message)
    return message
