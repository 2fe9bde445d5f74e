"""`tvix-store path-info sign`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.input import SecretInput
from tvix_store.cli.invocation import Invocation, command, json_option

if TYPE_CHECKING:
    from tvix_store.model.path_info import PathInfo
    from tvix_store.services.store import Store


@command
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, shell_complete=store_paths)
@click.option(
    "--key-file",
    required=True,
    type=SecretInput(),
    metavar="FILE",
    help="Secret key, as made by nix-store --generate-binary-cache-key.",
)
@json_option
async def sign(invocation: Invocation, paths: tuple[str, ...], key_file: IO[str], as_json: bool) -> None:
    """Sign the store paths PATH, after checking their content; print them.

    \b
        tvix-store path-info sign --key-file ./secret-key /nix/store/...-hello
    """
    from tvix_store.cli.input import name_of, read_input
    from tvix_store.cli.key_files import exposure
    from tvix_store.cli.output import print_path_infos
    from tvix_store.config.secret_key import secret_key_in
    from tvix_store.errors import CorruptError
    from tvix_store.model.trust import Trust
    from tvix_store.operations.nars.calculate import calculate_nar
    from tvix_store.operations.nars.put_calculated import put_calculated
    from tvix_store.operations.trees.resolve import store_path_info

    if (exposed := exposure(Path(key_file.name))) is not None:
        click.echo(f"tvix-store: warning: {exposed}", err=True)
    key = secret_key_in(await read_input(key_file), name_of(key_file))

    async def signed(store: Store) -> AsyncIterator[PathInfo]:
        for path in paths:
            path_info = await store_path_info(store, path)
            # Read again, and not asked of the store: nothing is signed that was not verified here.
            if await calculate_nar(store.blobs, store.directories.tree(path_info.node)) != path_info.nar:
                raise CorruptError(f"{path_info.store_path} is not signed: its NAR is not what its path info says")
            signature = key.sign(path_info.fingerprint(store.store_dir))
            yield await put_calculated(store, path_info.with_signatures([signature]), Trust((key.public,), store.store_dir))

    async with await invocation.open_store() as store:
        await print_path_infos(signed(store), store.store_dir, as_json=as_json)
