"""`tvix-store copy`."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import IO, TYPE_CHECKING

import click

from tvix_store.cli.invocation import Invocation, command, json_option
from tvix_store.cli.progress import Bar, behind_bar

if TYPE_CHECKING:
    from tvix_store.errors import StoreError
    from tvix_store.operations.paths.copy import Copied
    from tvix_store.operations.paths.nix_json import Json, StatedPath
    from tvix_store.operations.paths.nix_store import NixStore
    from tvix_store.services.store import Store


@command
@click.argument("paths", metavar="[PATH...]", nargs=-1)
@click.option("--from-nix", is_flag=True, help="Ask Nix for the paths and for all they refer to.")
@click.option(
    "--from-json",
    "document",
    metavar="FILE",
    type=click.File("rb"),
    help="Copy all paths in this JSON: of nix path-info --json, or of exportReferencesGraph.",
)
@click.option(
    "--nix-store",
    metavar="URL",
    envvar="NIX_REMOTE",
    help="The store of Nix, as in its option --store. [NIX_REMOTE] Default: its own.",
)
@click.option("-j", "--jobs", type=click.IntRange(1, 64), help="Paths that are read at a time. Default: 4.")
@click.option(
    "--directory-size-rule",
    type=click.Choice(("documented", "snix")),
    help="How sizes of directories are counted. Default: the store's rule.",
)
@json_option
async def copy(
    invocation: Invocation,
    paths: tuple[str, ...],
    from_nix: bool,
    document: IO[bytes] | None,
    nix_store: str | None,
    jobs: int | None,
    directory_size_rule: str | None,
    as_json: bool,
) -> None:
    """Copy the store paths PATH, with all they refer to, from a store of Nix on this machine. Print the new ones.

    PATH may also be a symlink to a store path, such as ./result. Contents are checked against the NAR hashes that Nix has recorded.
    References, signatures, derivers and content addresses come along. If a path cannot be copied, the paths that refer to it are
    left out too, and all others are copied. A copy that was interrupted goes on when it is repeated.

    \b
        tvix-store copy --from-nix ./result
        tvix-store copy --from-nix --nix-store /mnt /nix/store/...-hello
        tvix-store copy --from-json ./closure.json
    """
    if from_nix == (document is not None):
        raise click.UsageError("say either --from-nix or --from-json FILE")
    if from_nix != bool(paths):
        raise click.UsageError("name some PATHs" if from_nix else "the PATHs are in the FILE of --from-json")
    from tvix_store.cli.output import print_json_array
    from tvix_store.model.directory import SizeRule
    from tvix_store.operations.paths.copy import JOBS, Status, copy_paths
    from tvix_store.operations.paths.nix_store import NixStore, named_path

    rule = SizeRule[directory_size_rule.upper()] if directory_size_rule else None
    failures = _Failures()

    async def copied(store: Store) -> AsyncGenerator[Copied, None]:
        nix = NixStore.at(nix_store, store.store_dir)
        wanted = [named_path(path, store.store_dir) for path in paths]
        stated = _stated(await nix.closure(wanted) if document is None else await _read(document), nix, failures)
        size = sum(each.nar.size for each in stated)

        def copying(bar: Bar) -> AsyncGenerator[Copied, None]:
            return copy_paths(store, stated, nix.file, jobs=jobs or JOBS, size_rule=rule, progress=bar.add)

        async with aclosing(behind_bar(invocation, "copy", copying, size, counted=f"of {len(stated)} paths")) as copies:
            async for each in copies:
                yield each

    async with await invocation.open_store() as store, aclosing(copied(store)) as copies:
        if as_json:
            await print_json_array(_to_json(each, store.store_dir) async for each in failures.noted(copies))
        else:
            async for each in failures.noted(copies):
                if each.status is Status.COPIED:
                    print(each.store_path.absolute(store.store_dir), flush=True)
    failures.end()


class _Failures:
    """The paths that could not be copied. Each is told as it comes; the first decides about the exit code."""

    def __init__(self) -> None:
        self._left_out = 0
        self._code = 0

    async def noted(self, copies: AsyncIterator[Copied]) -> AsyncIterator[Copied]:
        """Pass `copies` on, and tell of those that failed."""
        from tvix_store.operations.paths.copy import Status

        async for each in copies:
            if each.status is Status.LEFT_OUT:
                self._left_out += 1
            elif each.error is not None:
                self.add(each.error)
            yield each

    def add(self, error: StoreError) -> None:
        from tvix_store.cli.program import report

        code = report(error)
        self._code = self._code or code

    def end(self) -> None:
        if self._left_out:
            print(f"tvix-store: {self._left_out} more paths refer to such paths, and are left out", file=sys.stderr)
        if self._code:
            raise click.exceptions.Exit(self._code)


async def _read(document: IO[bytes]) -> dict[str, Json | None]:
    from tvix_store.cli.input import read_json
    from tvix_store.errors import InvalidError
    from tvix_store.operations.paths.nix_json import objects_by_path

    value = await read_json(document)
    try:
        return objects_by_path(value)
    except InvalidError as error:
        raise InvalidError(f"{document.name}: {error}") from None


def _stated(objects: dict[str, Json | None], nix: NixStore, failures: _Failures) -> list[StatedPath]:
    from tvix_store.errors import InvalidError
    from tvix_store.operations.paths.nix_json import stated_path

    stated = []
    for path, value in objects.items():
        if value is None:
            failures.add(InvalidError(f"{path} is not a valid path in the store of Nix"))
            continue
        try:
            stated.append(stated_path(path, value, nix.store_dir))
        except InvalidError as error:
            failures.add(error)
    return stated


def _to_json(copied: Copied, store_dir: str) -> dict[str, object]:
    return {
        "path": copied.store_path.absolute(store_dir),
        "status": copied.status.value,
        **({"error": str(copied.error)} if copied.error else {}),
    }
