"""What a path info claims beside its NAR is checked, whoever puts it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tvix_store.backends.memory import open_store
from tvix_store.config import verified
from tvix_store.errors import DeniedError, InvalidError
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import SecretKey, Signature
from tvix_store.model.store_path import StorePath, fixed_output_path
from tvix_store.services.store import Store
from tvix_store.testing.content import put_file

KEY = SecretKey.from_seed("trusted-1", b"k" * 32)
OTHER = SecretKey.from_seed("other-1", b"o" * 32)


@pytest.fixture
async def inner() -> Store:
    return await open_store()


@pytest.fixture
async def info(inner: Store) -> PathInfo:
    """Of an input-addressed path: nothing but a signature vouches for it."""
    node = await put_file(inner.blobs, b"content")
    return PathInfo(StorePath(b"o" * 20, "path"), node, await inner.nar.calculate(node))


def signed(info: PathInfo, key: SecretKey) -> PathInfo:
    return info.with_signatures([key.sign(info.fingerprint())])


def content_addressed(info: PathInfo) -> PathInfo:
    ca = ContentAddress(Method.NAR, NixHash("sha256", info.nar.sha256))
    return replace(info, store_path=fixed_output_path("path", info.nar.sha256), ca=ca)


async def is_there(store: Store, info: PathInfo) -> bool:
    return await store.path_infos.get(info.store_path.output_hash) is not None


async def test_a_signature_is_not_needed_unless_it_is_required(inner: Store, info: PathInfo) -> None:
    assert await verified(inner, [KEY.public]).path_infos.put(info) == info


async def test_where_signatures_are_required_a_path_without_one_is_refused(inner: Store, info: PathInfo) -> None:
    strict = verified(inner, [KEY.public], require_signatures=True)
    for refused in (info, signed(info, OTHER)):
        with pytest.raises(DeniedError, match="no signature by a trusted key"):
            await strict.path_infos.put(refused)
    assert not await is_there(inner, info)
    await strict.path_infos.put(signed(signed(info, OTHER), KEY))
    assert await is_there(inner, info)


async def test_a_content_addressed_path_vouches_for_itself(inner: Store, info: PathInfo) -> None:
    strict = verified(inner, [KEY.public], require_signatures=True)
    assert await strict.path_infos.put(content_addressed(info)) == content_addressed(info)


async def test_a_bad_signature_by_a_trusted_key_is_refused(inner: Store, info: PathInfo) -> None:
    for bad in (Signature("trusted-1", b"s" * 64), KEY.sign(info.fingerprint("/elsewhere"))):
        with pytest.raises(InvalidError, match="bad signature by trusted-1"):
            await verified(inner, [KEY.public]).path_infos.put(info.with_signatures([bad]))
    assert not await is_there(inner, info)


async def test_trusted_signatures_have_a_place_among_many(inner: Store, info: PathInfo) -> None:
    junk = [Signature(f"junk-{number}", bytes(64)) for number in range(63)]
    store = verified(inner, [KEY.public])
    with pytest.raises(InvalidError, match="16 signatures by keys that are not trusted here, not 63"):
        await store.path_infos.put(info.with_signatures(junk))
    stored = await store.path_infos.put(signed(info.with_signatures(junk), KEY))
    assert stored.signatures == (KEY.sign(info.fingerprint()), *junk[:16])
    await inner.path_infos.put(replace(info, store_path=StorePath(b"p" * 20, "path"), signatures=tuple(junk)))
    crowded = replace(info, store_path=StorePath(b"p" * 20, "path"))
    assert (await store.path_infos.put(signed(crowded, KEY))).signatures == (KEY.sign(crowded.fingerprint()), *junk)


async def test_an_unsigned_deriver_is_not_added_to_a_signed_path(inner: Store, info: PathInfo) -> None:
    store = verified(inner, [KEY.public])
    forged, true = (replace(info, deriver=StorePath(b"d" * 20, name)) for name in ("forged", "true"))
    await store.path_infos.put(signed(info, KEY))
    assert (await store.path_infos.put(forged)).deriver is None
    assert (await store.path_infos.put(signed(true, KEY))).deriver == true.deriver
    assert (await store.path_infos.put(forged)).deriver == true.deriver


async def test_a_content_address_that_lies_is_refused(inner: Store, info: PathInfo) -> None:
    true = content_addressed(info)
    for lie in (replace(true, store_path=info.store_path), replace(info, ca=true.ca)):
        with pytest.raises(InvalidError, match="by its content address"):
            await verified(inner).path_infos.put(lie)
    assert [each async for each in inner.path_infos.list()] == []
