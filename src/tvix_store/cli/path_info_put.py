"""`tvix-store path-info put`."""

from __future__ import annotations

import io
import json

import click

from tvix_store.cli.invocation import Invocation, command


@command
@click.argument("file", type=click.File("rb"), default="-")
async def put(invocation: Invocation, file: io.BufferedReader) -> None:
    """Store the path infos in FILE (by default the standard input), a JSON object or an array of them; print their store paths.

    Their content must be in the store, and their NAR hash and size be true of it; both may be left out.
    Signatures are added to those that are there.

    \b
        tvix-store path-info put hello.json
    """
    from tvix_store.cli.json_forms import nar_from_json, path_info_from_json, root_from_json
    from tvix_store.config import verified
    from tvix_store.errors import InvalidError

    try:
        document = json.load(file)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{file.name}: not JSON: {error}") from None
    async with verified(await invocation.open_store()) as store:
        for value in document if isinstance(document, list) else [document]:
            nar = nar_from_json(value) or await store.nar.calculate(root_from_json(value))
            stored = await store.path_infos.put(path_info_from_json(value, store.store_dir, nar))
            print(stored.store_path.absolute(store.store_dir))
