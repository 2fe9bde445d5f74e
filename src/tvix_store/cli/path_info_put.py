"""`tvix-store path-info put`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import IO, TYPE_CHECKING

import click

from tvix_store.cli.input import InputFile
from tvix_store.cli.invocation import Invocation, command, json_option

if TYPE_CHECKING:
    from tvix_store.model.path_info import PathInfo
    from tvix_store.services.store import Store


@command
@click.argument("file", type=InputFile("rb"), default="-")
@json_option
async def put(invocation: Invocation, file: IO[bytes], as_json: bool) -> None:
    """Store the path infos in FILE (by default the standard input), a JSON object or an array of them; print their store paths.

    Their content must be in the store, and their NAR hash and size be true of it; both may be left out.
    Signatures are added to those that are there. With --json, an array of the stored path infos is printed.

    \b
        tvix-store path-info put hello.json
    """
    from tvix_store.cli.input import read_json
    from tvix_store.cli.json_forms import nar_from_json, path_info_from_json, root_from_json
    from tvix_store.cli.output import print_path_infos
    from tvix_store.config import verified
    from tvix_store.errors import IncompleteError, NotFoundError

    document = await read_json(file)

    async def stored(store: Store) -> AsyncIterator[PathInfo]:
        for value in document if isinstance(document, list) else [document]:
            try:
                nar = nar_from_json(value) or await store.nar.calculate(root_from_json(value))
            except NotFoundError as error:
                raise IncompleteError(f"path info of {value.get('path')}: {error}; put it first") from error
            yield await store.path_infos.put(path_info_from_json(value, store.store_dir, nar))

    async with verified(await invocation.open_or_make_store()) as store:
        await print_path_infos(stored(store), store.store_dir, as_json=as_json)
