"""`tvix-store path-info verify`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command, json_option
from tvix_store.cli.progress import Bar, behind_bar

if TYPE_CHECKING:
    from tvix_store.model.path_info import PathInfo
    from tvix_store.model.signature import PublicKey
    from tvix_store.services import BlobService, DirectoryService
    from tvix_store.services.store import Store


@command
@click.argument("paths", metavar="[PATH...]", nargs=-1, shell_complete=store_paths)
@click.option("--all", "every", is_flag=True, help="Verify all store paths.")
@click.option(
    "--trusted-public-keys",
    "keys",
    multiple=True,
    metavar="KEYS",
    help="Want a signature by one of these keys (name:base64, separated by spaces); repeatable.",
)
@json_option
async def verify(invocation: Invocation, paths: tuple[str, ...], every: bool, keys: tuple[str, ...], as_json: bool) -> None:
    """Check that the content of the store paths PATH is undamaged and has the NAR that their path infos state.

    With trusted keys, also that one of them has signed each path. Goes on behind a path that fails.

    \b
        tvix-store path-info verify --all
        tvix-store path-info verify --trusted-public-keys cache.example.org-1:<base64> <hash>
    """
    if bool(paths) == every:
        raise click.UsageError("name some PATHs, or say --all")
    from tvix_store.cli.counted_blobs import CountedBlobs
    from tvix_store.cli.key_files import read_public_keys
    from tvix_store.cli.output import print_json_array
    from tvix_store.errors import CorruptError, DeniedError
    from tvix_store.operations.trees.resolve import path_infos_of

    trusted = read_public_keys(keys)
    count, damaged, untrusted = 0, 0, 0

    async def verdicts(store: Store, bar: Bar) -> AsyncGenerator[dict[str, object], None]:
        nonlocal count, damaged, untrusted
        if bar.visible:
            bar.expect(sum([path_info.nar.size async for path_info in path_infos_of(store, paths)]))
        blobs = CountedBlobs(store.blobs, bar)
        async for path_info in path_infos_of(store, paths):
            problem = await _damage(blobs, store.directories, path_info)
            signers = _signers(path_info, trusted, store.store_dir)
            count += 1
            damaged += problem is not None
            if problem is None and trusted and not signers:
                untrusted += 1
                problem = "no trusted key has signed it"
            yield {"path": path_info.store_path.absolute(store.store_dir), "problem": problem, "signedBy": signers}

    async with (
        await invocation.open_store() as store,
        aclosing(behind_bar(invocation, "verify", partial(verdicts, store))) as each_verdict,
    ):
        if as_json:
            await print_json_array(each_verdict)
        else:
            async for verdict in each_verdict:
                print(f"{verdict['path']}: {verdict['problem'] or 'good'}", flush=True)
    if not count and not as_json:
        invocation.note_no_paths(store)
    if damaged:
        raise CorruptError("1 store path is damaged" if damaged == 1 else f"{damaged} store paths are damaged")
    if untrusted:
        one = untrusted == 1
        raise DeniedError(f"{untrusted} store {'path is' if one else 'paths are'} not signed by a trusted key")


async def _damage(blobs: BlobService, directories: DirectoryService, path_info: PathInfo) -> str | None:
    """The fault in the content of a store path, or None. All content is read."""
    from tvix_store.errors import CorruptError, InvalidError, NotFoundError
    from tvix_store.operations.nars.calculate import calculate_nar

    try:
        facts = await calculate_nar(blobs, directories.tree(path_info.node))
    except (CorruptError, InvalidError, NotFoundError) as error:
        return str(error)
    return None if facts == path_info.nar else "its NAR is not what its path info says"


def _signers(path_info: PathInfo, trusted: Sequence[PublicKey], store_dir: str) -> list[str]:
    """The names of those trusted keys that have signed a store path."""
    message = path_info.fingerprint(store_dir)
    return [key.name for key in trusted if any(key.verifies(signature, message) for signature in path_info.signatures)]
