"""The contract of PathInfoService.

Every path info here is true of content that was put before. So services that verify path infos pass too.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

import pytest

from tvix_store.errors import ConflictError
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.directory import SizeRule
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import Signature
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store
from tvix_store.testing.content import file_nar, noise, put_file, put_tree
from tvix_store.testing.trees import Tree, TreeFile, nar


def path(name: str) -> StorePath:
    return StorePath(noise(20, name), name)


def signature(name: str) -> Signature:
    return Signature(name, noise(64, name))


async def stored_file(store: Store, name: str, data: bytes | None = None) -> PathInfo:
    """A path info, not put yet, of a file whose contents are in the store."""
    contents = name.encode() if data is None else data
    return PathInfo(path(name), await put_file(store.blobs, contents), file_nar(contents))


@pytest.mark.asyncio
class PathInfoServiceContract:
    """Subclasses give a fixture `store` without any path info."""

    async def test_a_path_that_was_not_put_is_absent(self, store: Store) -> None:
        assert await store.path_infos.get(noise(20, "absent")) is None

    async def test_a_path_info_comes_back_as_it_was_put(self, store: Store) -> None:
        info = await stored_file(store, "plain")
        assert await store.path_infos.put(info) == info
        got = await store.path_infos.get(info.store_path.output_hash)
        assert got is not None
        assert got == info
        assert got.encoded == info.encoded

    async def test_everything_that_a_path_info_says_comes_back(self, store: Store) -> None:
        plain = await stored_file(store, "full")
        ca = ContentAddress(Method.NAR, NixHash("sha256", plain.nar.sha256))
        store_path = ca.store_path("full", (path("a"), path("b")))
        info = replace(
            plain,
            store_path=store_path,
            references=(path("b"), path("a")),
            signatures=(signature("key-2"), signature("key-1")),
            deriver=path("full"),
            ca=ca,
        )
        assert await store.path_infos.put(info) == info
        got = await store.path_infos.get(info.store_path.output_hash)
        assert got == info
        assert got.encoded == info.encoded

    async def test_it_tells_of_many_output_hashes_which_paths_there_are(self, store: Store) -> None:
        infos = [await stored_file(store, f"existing-{n}") for n in range(150)]
        for info in infos[::2]:
            await store.path_infos.put(info)
        there = {info.store_path.output_hash: info.store_path for info in infos[::2]}
        every = [info.store_path.output_hash for info in infos]
        assert await store.path_infos.existing([*every, *every[:10]]) == there
        assert await store.path_infos.existing(every[:2]) == {every[0]: infos[0].store_path}
        assert await store.path_infos.existing([]) == {}

    async def test_putting_a_path_info_again_changes_nothing(self, store: Store) -> None:
        info = replace(await stored_file(store, "again"), signatures=(signature("key"),))
        await store.path_infos.put(info)
        assert await store.path_infos.put(info) == info
        assert [each async for each in store.path_infos.list()] == [info]

    async def test_signatures_of_a_second_put_are_added_behind(self, store: Store) -> None:
        plain = await stored_file(store, "signed")
        first = replace(plain, signatures=(signature("b"), signature("c")))
        second = replace(plain, signatures=(signature("a"), signature("c")))
        both = replace(plain, signatures=(signature("b"), signature("c"), signature("a")))
        await store.path_infos.put(first)
        assert await store.path_infos.put(second) == both
        assert await store.path_infos.get(plain.store_path.output_hash) == both

    async def test_a_put_without_signatures_loses_none(self, store: Store) -> None:
        plain = await stored_file(store, "kept")
        signed = replace(plain, signatures=(signature("key"),))
        await store.path_infos.put(signed)
        assert await store.path_infos.put(plain) == signed

    async def test_another_nar_under_the_same_path_is_refused(self, store: Store) -> None:
        info = await stored_file(store, "conflict", b"one")
        await store.path_infos.put(info)
        with pytest.raises(ConflictError) as caught:
            await store.path_infos.put(await stored_file(store, "conflict", b"other"))
        assert str(info.store_path) in str(caught.value)
        assert await store.path_infos.get(info.store_path.output_hash) == info

    async def test_another_root_of_the_same_nar_takes_the_place_of_the_first(self, store: Store) -> None:
        tree: Tree = {b"inner": {b"file": TreeFile(b"in it"), b"deep": {b"link": SymlinkNode(b"file")}}}
        contents = nar(tree)
        facts = NarFacts(len(contents), hashlib.sha256(contents).digest())
        infos = [
            PathInfo(path("rewritten"), await put_tree(replace(store, size_rule=rule), tree), facts, signatures=(signature("key"),))
            for rule in SizeRule
        ]
        assert infos[0].node != infos[1].node
        await store.path_infos.put(infos[0])
        for info in reversed(infos):
            assert await store.path_infos.put(replace(info, signatures=())) == info
            assert await store.path_infos.get(info.store_path.output_hash) == info

    async def test_what_signatures_would_be_false_of_is_refused(self, store: Store) -> None:
        info = replace(await stored_file(store, "signed-so"), references=(path("one"), path("two")))
        await store.path_infos.put(info)
        turned = replace(info, references=info.references[::-1], signatures=(signature("key"),))
        stored = await store.path_infos.put(turned)
        assert stored == replace(info, signatures=(signature("key"),))
        by_another_key = replace(info, signatures=(signature("other"),))
        for other in (
            replace(by_another_key, references=(path("one"),)),
            replace(by_another_key, references=(*info.references, path("three"))),
            replace(by_another_key, store_path=StorePath(info.store_path.output_hash, "another-name")),
        ):
            with pytest.raises(ConflictError):
                await store.path_infos.put(other)
        assert await store.path_infos.get(info.store_path.output_hash) == stored

    async def test_a_deriver_and_a_content_address_may_come_later(self, store: Store) -> None:
        plain = await stored_file(store, "known-later")
        ca = ContentAddress(Method.NAR, NixHash("sha256", plain.nar.sha256))
        full = replace(plain, store_path=ca.store_path("known-later", ()), deriver=path("deriver"), ca=ca)
        plain = replace(plain, store_path=full.store_path)
        await store.path_infos.put(plain)
        assert await store.path_infos.put(full) == full
        assert await store.path_infos.put(plain) == full
        assert await store.path_infos.get(full.store_path.output_hash) == full

    async def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        assert [each async for each in store.path_infos.list()] == []

    async def test_many_path_infos_are_got_at_once(self, store: Store) -> None:
        infos = [await stored_file(store, f"one of many {n}".replace(" ", "-")) for n in range(100)]
        for info in infos[::2]:
            await store.path_infos.put(info)
        there = {info.store_path.output_hash: info for info in infos[::2]}
        hashes = [info.store_path.output_hash for info in infos]
        assert await store.path_infos.get_many([*hashes, hashes[0]]) == there
        assert await store.path_infos.existing(hashes) == {each: info.store_path for each, info in there.items()}
        assert await store.path_infos.get_many([]) == {}

    async def test_all_path_infos_are_listed_by_output_hash(self, store: Store) -> None:
        infos = [await stored_file(store, f"listed-{n}") for n in range(60)]
        for info in infos:
            await store.path_infos.put(info)
        infos.sort(key=lambda each: each.store_path.output_hash)
        assert [each async for each in store.path_infos.list()] == infos
        assert [each async for each in store.path_infos.list(infos[29].store_path.output_hash)] == infos[30:]
        before = (int.from_bytes(infos[29].store_path.output_hash) - 1).to_bytes(20)
        assert [each async for each in store.path_infos.list(before)] == infos[29:]

    async def test_path_infos_may_be_put_while_others_are_listed(self, store: Store) -> None:
        infos = [await stored_file(store, f"while-{n}") for n in range(20)]
        for info in infos[:10]:
            await store.path_infos.put(info)
        listed = set()
        async for info in store.path_infos.list():
            listed.add(info.store_path)
            if infos:
                await store.path_infos.put(infos.pop())
        assert listed >= {path(f"while-{n}") for n in range(10)}

    async def test_signatures_put_at_once_all_arrive(self, store: Store) -> None:
        plain = await stored_file(store, "at-once")
        signatures = {signature(f"key-{n}") for n in range(12)}
        await asyncio.gather(*(store.path_infos.put(replace(plain, signatures=(each,))) for each in signatures))
        got = await store.path_infos.get(plain.store_path.output_hash)
        assert got is not None
        assert set(got.signatures) == signatures
