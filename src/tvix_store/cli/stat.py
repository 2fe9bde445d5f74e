"""`tvix-store stat`."""

from __future__ import annotations

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command, json_option


@command
@click.argument("blob", shell_complete=store_paths)
@json_option
async def stat(invocation: Invocation, blob: str, as_json: bool) -> None:
    """Show the size of BLOB and the chunks that it was cut into. BLOB is a digest, or a PATH that leads to a file.

    \b
        tvix-store stat b3:<digest>
        tvix-store stat /nix/store/...-hello/bin/hello
    """
    from tvix_store.cli.output import print_json
    from tvix_store.errors import InvalidError, NotFoundError
    from tvix_store.model.nodes import FileNode
    from tvix_store.operations.trees.resolve import blob_size, parse_digest, resolve
    from tvix_store.services.blobs import Chunk

    async with await invocation.open_store() as store:
        digest = parse_digest(blob)
        if digest is None:
            node = (await resolve(store, blob, follow=True)).node
            if not isinstance(node, FileNode):
                raise InvalidError(f"{blob} is not a file")
            digest = node.digest
        size = await blob_size(store.blobs, digest, store.name)
        found = await store.blobs.stat(digest, chunks=True)
        if found is None:
            raise NotFoundError("blob", digest)
        chunks = found.chunks or (Chunk(digest, size),)
        if as_json:
            listed = [{"digest": str(chunk.digest), "size": chunk.size} for chunk in chunks]
            print_json({"digest": str(digest), "size": size, "chunks": listed})
            return
        print(f"{digest}  {size} bytes, {len(chunks)} chunk{'s' if len(chunks) > 1 else ''}")
        if found.chunks:
            for chunk in found.chunks:
                print(f"  {chunk.digest}  {chunk.size}")
