"""`tvix-store copy --from-nix` and `--from-json`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import IO

from tvix_store.cli.copy_outcomes import Outcomes, to_json
from tvix_store.cli.input import name_of, read_json
from tvix_store.cli.invocation import Invocation
from tvix_store.cli.output import print_json_array
from tvix_store.cli.progress import Bar, behind_bar
from tvix_store.errors import InvalidError
from tvix_store.model.directory import SizeRule
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.operations.paths.copy_files import JOBS, copy_files
from tvix_store.operations.paths.nix_json import Json, StatedPath, objects_by_path, stated_path
from tvix_store.operations.paths.nix_store import NixStore, named_path
from tvix_store.operations.paths.path_copies import Copied
from tvix_store.services.store import Store


async def copy_from_nix(
    invocation: Invocation,
    outcomes: Outcomes,
    paths: tuple[str, ...],
    document: IO[bytes] | None,
    nix_store: str | None,
    jobs: int | None,
    directory_size_rule: str | None,
    *,
    as_json: bool,
) -> None:
    """Copy `paths` with their closure, or those in `document`."""
    rule = SizeRule[directory_size_rule.upper()] if directory_size_rule else None
    read = None if document is None else await _read(document)

    def asked(store_dir: str) -> tuple[NixStore, list[StorePath]]:
        """The store of Nix, and the paths that are wanted of it."""
        return NixStore.at(nix_store, store_dir), [named_path(path, store_dir) for path in paths]

    async def copied(store: Store) -> AsyncGenerator[Copied, None]:
        nix, wanted = asked(store.store_dir)
        stated = _stated(await nix.closure(wanted) if read is None else read, nix, outcomes)
        size = sum(each.nar.size for each in stated)

        def copying(bar: Bar) -> AsyncGenerator[Copied, None]:
            return copy_files(store, stated, nix.file, jobs=jobs or JOBS, size_rule=rule, progress=bar.add)

        async with aclosing(behind_bar(invocation, "copy", copying, size, counted="path", things=len(stated))) as copies:
            async for each in copies:
                yield each

    if invocation.missing_stores():
        asked(invocation.value("store_dir") or STORE_DIR)  # no store is made for a mistake
    async with await invocation.open_or_make_store() as store, aclosing(copied(store)) as copies:
        if as_json:
            await print_json_array(to_json(each, store.store_dir) async for each in outcomes.noted(copies))
        else:
            await outcomes.printed(copies, store.store_dir)
    outcomes.end()


async def _read(document: IO[bytes]) -> dict[str, Json | None]:
    value = await read_json(document)
    try:
        return objects_by_path(value)
    except InvalidError as error:
        raise InvalidError(f"{name_of(document)}: {error}") from None


def _stated(objects: dict[str, Json | None], nix: NixStore, outcomes: Outcomes) -> list[StatedPath]:
    stated = []
    for path, value in objects.items():
        if value is None:
            outcomes.add(InvalidError(f"{path} is not a valid path in the store of Nix"))
            continue
        try:
            stated.append(stated_path(path, value, nix.store_dir))
        except InvalidError as error:
            outcomes.add(error)
    return stated
