"""NixStore: a store of Nix on this machine. Its database, or the program `nix`, describes its paths; their files can be read."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from tvix_store.concurrency.signal_process import signal_process
from tvix_store.errors import InvalidError, UnavailableError
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.operations.paths.nix_database import NixDatabase
from tvix_store.operations.paths.nix_json import Json, objects_by_path
from tvix_store.operations.trees.path_name import OF_NIX, is_installable

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_NIX = ("nix", "--extra-experimental-features", "nix-command")


@dataclass(frozen=True, slots=True)
class NixStore:
    """The store at `url`, in Nix's words (None: the default one), whose files are in `directory`."""

    url: str | None
    directory: Path
    store_dir: str = STORE_DIR

    @classmethod
    def at(cls, url: str | None, store_dir: str = STORE_DIR) -> NixStore:
        """Find the files of the store at `url`: `auto`, `daemon`, `local`, `unix://…` or a path, maybe with `?root=…` or `?real=…`.

        Raises:
            InvalidError: the store is not on this machine, or not there.
        """
        directory = _directory(url or "auto", store_dir)
        if not directory.is_dir():  # asked about a store that is not there, Nix would make one
            raise InvalidError(f"no Nix store is in {directory}; --nix-store says where one is")
        return cls(url, directory, store_dir)

    def file(self, path: StorePath) -> Path:
        """Where the content of `path` is."""
        return self.directory / str(path)

    @property
    def database(self) -> Path:
        """The file in which Nix notes its valid paths."""
        root, settings = _root_and_settings(self.url or "auto")
        # Source: nix, src/libstore/local-fs-store.hh, stateDir.
        state = settings.get("state") or (f"{root}/nix/var/nix" if root else os.environ.get("NIX_STATE_DIR") or "/nix/var/nix")
        return Path(state, "db/db.sqlite")

    async def closure(self, paths: Sequence[StorePath]) -> dict[str, Json | None]:
        """Nix's descriptions of the closure of `paths`; None for a path that is not valid. See `nix_json`.

        They come from Nix's database. Where it cannot be read, or says that something is missing, the program has the word.

        Raises:
            InvalidError: Nix refuses to answer.
            UnavailableError: Nix is not installed.
        """
        named = [path.absolute(self.store_dir) for path in paths]
        try:
            return dict(await asyncio.to_thread(NixDatabase(self.database).closure, named))
        except (InvalidError, UnavailableError):
            pass
        try:
            return await self._ask(paths, "--recursive")
        except InvalidError:
            # It refuses all together where one is not valid; alone it says which.
            stated = await self._ask(paths)
            valid = [path for path in paths if stated.get(path.absolute(self.store_dir), stated.get(str(path)))]
            if len(valid) == len(paths):
                raise
            return {**stated, **await self._ask(valid, "--recursive")}

    async def _ask(self, paths: Sequence[StorePath], *options: str) -> dict[str, Json | None]:
        # Nix 2.8 takes a derivation for its outputs, unless --derivation is said, which takes an output for its derivation.
        derivations = [path for path in paths if path.name.endswith(".drv")]
        others = [path for path in paths if not path.name.endswith(".drv")]
        return await self._path_info(others, *options) | await self._path_info(derivations, "--derivation", *options)

    async def _path_info(self, paths: Sequence[StorePath], *options: str) -> dict[str, Json | None]:
        if not paths:
            return {}
        store = ("--store", self.url) if self.url else ()
        command = (*_NIX, "path-info", "--offline", *store, *options, "--json")
        named = [path.absolute(self.store_dir) for path in paths]
        try:
            printed = await _output_of(*command, *named)
        except InvalidError as error:
            if "--json-format" not in str(error):  # which Nix wants to be said from some version on, and old ones do not know
                raise
            printed = await _output_of(*command, "--json-format", "1", *named)
        try:
            return objects_by_path(json.loads(printed))
        except (ValueError, RecursionError) as error:
            raise InvalidError(f"nix path-info --json did not print JSON: {error}") from None


def named_path(text: str, store_dir: str = STORE_DIR) -> StorePath:
    """The store path that a person means by a path in the store, a base name, or a symlink to a path in the store.

    Raises:
        InvalidError: `text` is none of these.
    """
    if is_installable(text):
        raise InvalidError(f"not a store path: {text[:250]!r} {OF_NIX}")
    inside = store_dir + "/"
    if "/" not in text and not os.path.islink(text):
        return StorePath.from_base_name(text)
    path = os.path.abspath(text)
    for _ in range(40):  # as many as the kernel follows
        if path.startswith(inside) or not os.path.islink(path):
            break
        path = os.path.abspath(os.path.join(os.path.dirname(path), os.readlink(path)))
    if not path.startswith(inside):
        hint = f"; nix-store --add {text[:250]} puts it there" if os.path.exists(text) and store_dir == STORE_DIR else ""
        raise InvalidError(f"not a store path: {text[:250]!r} is not in {store_dir}{hint}")
    return StorePath.from_base_name(path.removeprefix(inside).partition("/")[0])


def _directory(url: str, store_dir: str) -> Path:
    root, settings = _root_and_settings(url)
    if "real" in settings:
        return Path(settings["real"])
    # Source: nix, src/libstore/local-fs-store.hh, realStoreDir: below a root the files are here, whatever paths are called.
    return Path(root + "/nix/store") if root else Path(store_dir)


def _root_and_settings(url: str) -> tuple[str, dict[str, str]]:
    """The directory below which a store has everything (empty for none), and the settings in its URL."""
    address, _, query = url.partition("?")
    settings = {key: values[-1] for key, values in parse_qs(query).items()}
    scheme, separator, rest = address.partition("://")
    if not separator and "/" in address:
        return os.path.abspath(address), settings
    if scheme not in ("auto", "daemon", "local", "unix") and "real" not in settings:
        raise InvalidError(f"{url[:250]!r} is not a Nix store on this machine; nix copy --from reads others")
    return settings.get("root") or (rest if scheme == "local" else ""), settings


async def _output_of(*command: str) -> bytes:
    """The output of a command.

    Raises:
        InvalidError: it fails. The error has its message.
        UnavailableError: it is not installed.
    """
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(*command, stdin=nothing, stdout=pipe, stderr=pipe)
    except FileNotFoundError:
        raise UnavailableError(
            f"{command[0]} is not on the PATH; install Nix (on Debian and Ubuntu: apt-get install nix-bin); "
            "tvix-store copy --from-json needs none"
        ) from None
    try:
        output, said = await process.communicate()
    finally:
        if process.returncode is None:
            signal_process(process, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise InvalidError(f"{command[0]} path-info failed: {_error_in(said.decode(errors='replace'))}")
    return output


def _error_in(said: str) -> str:
    lines = [line.strip() for line in _ESCAPES.sub("", said).splitlines() if line.strip()]
    errors = [line.removeprefix("error:").strip() for line in lines if line.startswith("error:")]
    return " ".join(errors or lines[-1:]) or "it does not say why"
