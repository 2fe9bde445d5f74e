"""copy_to_cache: what is written into a cache in a directory, what is added to it, and what lies and failures leave."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from tvix_store.backends.local import open_store as open_local
from tvix_store.backends.memory import open_store as open_memory
from tvix_store.backends.nix_file import DirectoryAddress, DirectoryCache, DirectoryWriter
from tvix_store.backends.nix_file import open_cache as open_directory
from tvix_store.compression import decompressor
from tvix_store.config import verified
from tvix_store.errors import ConflictError, CorruptError, DeniedError, InvalidError, UnavailableError
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import Node, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import MAX_SIGNATURES, SecretKey, Signature
from tvix_store.model.store_path import STORE_DIR, StorePath
from tvix_store.operations.granular.account import Account
from tvix_store.operations.nars.kept_plans import KeptPlans
from tvix_store.operations.nars.plan import Plan
from tvix_store.operations.paths.copy_from_cache import Cache, all_narinfos, copy_from_cache
from tvix_store.operations.paths.copy_to_cache import Form, copy_to_cache
from tvix_store.operations.paths.path_copies import Copied, Status
from tvix_store.services.store import Store
from tvix_store.testing import strategies
from tvix_store.testing.content import noise, put_tree
from tvix_store.testing.trees import Tree, TreeFile, nar

TREE: Tree = {
    b"big": TreeFile(noise(2_000_000, "big")),
    b"same": TreeFile(b"same " * 100_000),
    b"link": SymlinkNode(b"target"),
    b"lib": {b"tool": TreeFile(b"#!", executable=True), b"empty": TreeFile(b"")},
}
ONE, OTHER = SecretKey.from_seed("one-1", noise(32, "one")), SecretKey.from_seed("other-1", noise(32, "other"))


@pytest.fixture(params=["memory", "local"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with await (open_local(tmp_path / "store") if request.param == "local" else open_memory()) as store:
        yield replace(store, name="source")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the cache will be."""
    return tmp_path / "below" / "cache"


def path(name: str) -> StorePath:
    return StorePath(noise(20, name), name)


async def stored(store: Store, name: str, tree: Tree, *references: StorePath) -> PathInfo:
    node = await put_tree(store, tree)
    return await store.path_infos.put(PathInfo(path(name), node, await store.nar.calculate(node), references))


async def written(place: Path, store: Store, *infos: PathInfo, form: Form | None = None) -> dict[str, Copied]:
    writer = DirectoryWriter(place, store_dir=STORE_DIR)
    return {each.store_path.name: each async for each in copy_to_cache(store, writer, infos, form or Form())}


def statuses(done: dict[str, Copied]) -> dict[str, Status]:
    return {name: each.status for name, each in done.items()}


def reader(place: Path) -> DirectoryCache:
    return open_directory(DirectoryAddress(place))


async def narinfo(place: Path, name: str) -> NarInfo:
    found = await reader(place).narinfo(path(name).output_hash)
    assert found is not None
    return found


def nar_in(place: Path, said: NarInfo) -> bytes:
    """The NAR in a cache, whose file is as it is said to be."""
    file = (place / said.url).read_bytes()
    assert said.file_hash == NixHash("sha256", hashlib.sha256(file).digest())
    assert said.file_size == len(file)
    decompress = decompressor(said.compression)
    data = b"".join(decompress.feed(file))
    decompress.finish()
    return data


def narinfos(place: Path) -> list[Path]:
    return list(place.glob("*.narinfo"))


def make(directory: Path) -> None:
    directory.mkdir(parents=True)


def names(place: Path) -> list[str]:
    return sorted(str(each.relative_to(place)) for each in place.rglob("*"))


@pytest.mark.parametrize(("compression", "suffix"), [("zstd", ".nar.zst"), ("none", ".nar")])
async def test_a_path_is_written_with_all_it_says(store: Store, place: Path, compression: str, suffix: str) -> None:
    low = await stored(store, "low", TreeFile(b"alone"))
    high = await stored(store, "high", TREE, low.store_path, path("high"))
    signed = replace(high, signatures=(ONE.sign(high.fingerprint()),), deriver=StorePath(noise(20, "drv"), "high.drv"))
    done = await written(place, store, signed, low, form=Form(compression))
    assert statuses(done) == {"low": Status.COPIED, "high": Status.COPIED}
    assert list(done) == ["low", "high"]
    said = await narinfo(place, "high")
    assert said == NarInfo.of(signed, said.url, compression, said.file_hash, said.file_size)
    assert said.url.endswith(suffix)
    assert nar_in(place, said) == nar(TREE)
    assert nar_in(place, await narinfo(place, "low")) == nar(TreeFile(b"alone"))
    assert len(names(place)) == 6, "nothing is left beside: nix-cache-info, nar, and two files for each path"
    assert (place / "nix-cache-info").read_text().startswith("StoreDir: /nix/store\n")


async def test_a_store_that_keeps_frames_passes_them_through_and_compresses_nothing(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await open_local(tmp_path / "local") as store:
        info = await stored(store, "framed", TREE)
        monkeypatch.setattr("tvix_store.operations.paths.copy_to_cache.render_nar", None)
        assert statuses(await written(place, store, info)) == {"framed": Status.COPIED}
        assert nar_in(place, await narinfo(place, "framed")) == nar(TREE)


async def test_a_copy_ends_when_its_plans_are_kept(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store may be closed then."""
    kept: list[Node] = []

    async def put(_: KeptPlans, node: Node, plan: Plan) -> None:
        await asyncio.sleep(0.2)
        kept.append(node)

    monkeypatch.setattr(KeptPlans, "put", put)
    async with await open_local(tmp_path / "local") as store:
        info = await stored(store, "framed", TREE)
        await written(place, store, info)
        assert kept == [info.node]


@given(strategies.trees())
@settings(max_examples=30)
def test_a_round_trip_gives_the_same_path_info(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    async def check() -> None:
        place = tmp_path_factory.mktemp("round") / "cache"
        async with await open_memory() as source, await open_memory() as target:
            info = await stored(source, "any", tree, path("any"))
            signed = replace(info, signatures=(ONE.sign(info.fingerprint()), OTHER.sign(info.fingerprint())))
            assert statuses(await written(place, source, signed)) == {"any": Status.COPIED}
            cache = Cache(reader(place), (ONE.public,), output_hashes=reader(place).output_hashes)
            told = await all_narinfos(cache, lambda error: pytest.fail(str(error)), store_dir=STORE_DIR)
            async for each in copy_from_cache(cache, verified(target), told):
                assert each.status is Status.COPIED
            assert await target.path_infos.get(info.store_path.output_hash) == signed

    asyncio.run(check())


async def test_a_second_copy_reads_nothing_and_adds_signatures(store: Store, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = await stored(store, "known", TREE)
    await written(place, store, info)
    before = names(place)
    monkeypatch.setattr(DirectoryWriter, "put_nar", None)
    account = Account()
    writer = DirectoryWriter(place, store_dir=STORE_DIR)
    signed = info.with_signatures([ONE.sign(info.fingerprint())])
    async for each in copy_to_cache(store, writer, [signed], Form(signing_keys=(OTHER,)), account=account):
        assert each.status is Status.KNOWN
    assert (account.logical, account.sent) == (info.nar.size, 0)
    assert [each.name for each in (await narinfo(place, "known")).signatures] == ["one-1", "other-1"]
    assert all(
        key.public.verifies(each, info.fingerprint())
        for key, each in zip((ONE, OTHER), (await narinfo(place, "known")).signatures, strict=True)
    )
    assert names(place) == before


async def test_a_cache_that_nix_compressed_otherwise_keeps_its_files(store: Store, place: Path) -> None:
    info = await stored(store, "known", TREE)
    await written(place, store, info, form=Form("none"))
    await written(place, store, info, form=Form("zstd", signing_keys=(ONE,)))
    assert (await narinfo(place, "known")).compression == "none"
    assert len(list((place / "nar").iterdir())) == 1


@pytest.mark.parametrize("loss", ["unlinked", "cut", "symlink"])
async def test_a_lost_nar_is_written_again(store: Store, place: Path, loss: str) -> None:
    info = await stored(store, "lost", TREE)
    await written(place, store, info.with_signatures([ONE.sign(info.fingerprint())]))
    file = place / (await narinfo(place, "lost")).url
    if loss == "cut":
        os.truncate(file, 1000)
    else:
        file.unlink()
        if loss == "symlink":
            file.symlink_to("/etc/passwd")
    assert statuses(await written(place, store, info)) == {"lost": Status.COPIED}
    said = await narinfo(place, "lost")
    assert nar_in(place, said) == nar(TREE)
    assert [each.name for each in said.signatures] == ["one-1"]


async def test_another_nar_of_a_known_name_is_refused(store: Store, place: Path) -> None:
    await written(place, store, await stored(store, "name", TREE))
    before = (await narinfo(place, "name")).nar
    async with await open_memory() as other:
        done = await written(place, other, await stored(other, "name", TreeFile(b"other")))
        assert isinstance(done["name"].error, ConflictError)
        same = await stored(other, "name2", TREE)
        done = await written(place, other, replace(same, store_path=path("name"), references=(path("name"),)))
        assert "with other references; it is not overwritten" in str(done["name"].error)
    assert (await narinfo(place, "name")).nar == before


async def test_a_narinfo_that_cannot_be_read_is_left_alone(store: Store, place: Path) -> None:
    info = await stored(store, "odd", TREE)
    await written(place, store, info)
    file = narinfos(place)[0]
    file.write_bytes(b"half a narin")
    done = await written(place, store, info)
    assert "cannot be read, and is not overwritten: narinfo: its last line is cut short; remove it" in str(done["odd"].error)
    assert file.read_bytes() == b"half a narin"


async def test_a_path_without_its_references_is_not_recorded(store: Store, place: Path) -> None:
    low = await stored(store, "low", TreeFile(b"low"))
    high = await stored(store, "high", TREE, low.store_path)
    done = await written(place, store, high)
    assert "neither in the store nor among the paths to copy" in str(done["high"].error)
    assert narinfos(place) == []
    await written(place, store, low)
    assert statuses(await written(place, store, high)) == {"high": Status.COPIED}


async def test_a_store_that_lies_about_a_nar_gets_nothing_written(store: Store, place: Path) -> None:
    info = await stored(store, "lies", TREE)
    lie = replace(info, nar=NarFacts(info.nar.size, noise(32)))
    for compression in ("zstd", "none"):
        done = await written(place, store, lie, form=Form(compression, signing_keys=(ONE,)))
        assert isinstance(done["lies"].error, CorruptError)
        assert names(place) == ["nar", "nix-cache-info"]


async def test_our_signature_is_put_to_no_lie(store: Store, place: Path) -> None:
    """The cache has believed somebody else, and the store says the same."""
    info = await stored(store, "lies", TREE)
    await written(place, store, info)
    file = narinfos(place)[0]
    lie = replace(info, nar=NarFacts(info.nar.size, noise(32)))
    file.write_bytes(replace(await narinfo(place, "lies"), nar=lie.nar).format())
    done = await written(place, store, lie, form=Form(signing_keys=(ONE,)))
    assert isinstance(done["lies"].error, CorruptError)
    assert (await narinfo(place, "lies")).signatures == ()


async def test_a_false_content_address_is_refused(store: Store, place: Path) -> None:
    info = await stored(store, "false", TREE)
    done = await written(place, store, replace(info, ca=ContentAddress(Method.NAR, NixHash("sha256", info.nar.sha256))))
    assert isinstance(done["false"].error, InvalidError)
    assert narinfos(place) == []


async def test_signatures_are_required_and_checked_where_that_is_wanted(store: Store, place: Path) -> None:
    info = await stored(store, "path", TREE)
    form = Form(trusted_keys=(ONE.public,), require_signatures=True)
    assert isinstance((await written(place, store, info, form=form))["path"].error, DeniedError)
    forged = info.with_signatures([Signature("one-1", noise(64))])
    assert "bad signature by one-1" in str((await written(place, store, forged, form=form))["path"].error)
    signed = info.with_signatures([ONE.sign(info.fingerprint())])
    assert statuses(await written(place, store, signed, form=form)) == {"path": Status.COPIED}
    assert "bad signature by one-1" in str((await written(place, store, forged, form=form))["path"].error)


async def test_there_is_a_bound_of_signatures(store: Store, place: Path) -> None:
    info = await stored(store, "path", TreeFile(b"x"))
    await written(place, store, info.with_signatures(Signature(f"k-{n}", noise(64, str(n))) for n in range(MAX_SIGNATURES)))
    done = await written(place, store, info.with_signatures([Signature("more", noise(64))]))
    assert "64 signatures, not 65" in str(done["path"].error)
    assert len((await narinfo(place, "path")).signatures) == MAX_SIGNATURES


async def test_what_is_in_the_way_is_said(store: Store, place: Path, tmp_path: Path) -> None:
    info = await stored(store, "path", TREE)
    make(place)
    (place / "nix-cache-info").write_text("StoreDir: /gnu/store\n")
    with pytest.raises(InvalidError, match=r"is a cache for '/gnu/store', not for /nix/store"):
        await written(place, store, info)
    assert narinfos(place) == []
    (place / "nix-cache-info").unlink()
    (place / "nar").rmdir()
    (place / "nar").symlink_to(tmp_path)
    with pytest.raises(InvalidError, match=r"nar is a symlink, and none is followed in a cache"):
        await written(place, store, info)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidError, match=r"cannot write to .*/file/nar: Not a directory"):
        await written(tmp_path / "file", store, info)
    with pytest.raises(UnavailableError, match=r"cannot write to /proc/cache"):
        await written(Path("/proc/cache"), store, info)


async def test_what_a_killed_writer_has_left_is_removed_and_what_a_live_one_writes_is_not(store: Store, place: Path) -> None:
    info = await stored(store, "path", TREE)
    make(place / ".tvix-store")
    (place / ".tvix-store/left").write_bytes(b"half a NAR")
    other = DirectoryWriter(place, store_dir=STORE_DIR)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def file() -> AsyncGenerator[bytes, None]:
        yield b"half"
        begun.set()
        await go_on.wait()
        yield b"rest"

    writing = asyncio.create_task(other.put_nar(file(), ""))
    await begun.wait()
    await written(place, store, info)
    assert len(list((place / ".tvix-store").iterdir())) == 1
    go_on.set()
    told = await writing
    assert (place / told.url).read_bytes() == b"halfrest"
    await other.close()
    assert not (place / ".tvix-store").exists()


async def test_a_copy_that_is_left_leaves_nothing_half(store: Store, place: Path) -> None:
    infos = [await stored(store, f"path-{n}", {b"file": TreeFile(noise(300_000, str(n)))}) for n in range(20)]
    writer = DirectoryWriter(place, store_dir=STORE_DIR)
    async with aclosing(copy_to_cache(store, writer, infos, Form())) as copies:
        await anext(copies)
    assert not (place / ".tvix-store").exists()
    for file in narinfos(place):
        nar_in(place, NarInfo.parse(file.read_bytes()))
    done = await written(place, store, *infos)
    assert len(narinfos(place)) == 20
    assert Status.KNOWN in statuses(done).values()


async def test_signers_at_the_same_time_lose_no_signature(store: Store, place: Path) -> None:
    infos = [await stored(store, f"path-{n}", TreeFile(b"%d" % n)) for n in range(10)]
    keys = [SecretKey.from_seed(f"key-{n}", noise(32, str(n))) for n in range(8)]
    await asyncio.gather(*(written(place, store, *infos, form=Form(signing_keys=(key,))) for key in keys))
    for info in infos:
        assert len((await narinfo(place, info.store_path.name)).signatures) == 8
    assert not (place / ".tvix-store").exists()
