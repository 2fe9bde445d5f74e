"""`tvix-store nar-hash`."""

from __future__ import annotations

import click

from tvix_store.cli.completing import store_paths
from tvix_store.cli.invocation import Invocation, command, json_option


@command
@click.argument("path", shell_complete=store_paths)
@json_option
async def nar_hash(invocation: Invocation, path: str, as_json: bool) -> None:
    """Print the SHA-256 and the size (bytes) of the NAR of the node at PATH, as the store computes them from its content.

    \b
        tvix-store nar-hash /nix/store/...-hello
        tvix-store nar-hash b3:<digest of a directory>
    """
    from tvix_store.cli.output import print_json
    from tvix_store.model.nix_hash import NixHash
    from tvix_store.operations.trees.resolve import resolve

    async with await invocation.open_store() as store:
        found = await resolve(store, path)
        facts = await store.nar.calculate(found.node)
        sha256 = NixHash("sha256", facts.sha256)
        if as_json:
            print_json({"narHash": sha256.sri, "narSize": facts.size})
        else:
            print(sha256, facts.size)
