"""Compositions: what is read, what is refused and where, and the stores that are made of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.upstream.server import KEY, cached
from tests.upstream.test_directory import publish
from tvix_store.config import (
    is_in_memory,
    local_directories,
    missing_stores,
    of_addresses,
    open_store,
    prepare_for_pool,
    private_places,
    read_composition,
)
from tvix_store.config.composition.reading import CompositionError
from tvix_store.errors import DeniedError, IncompleteError, InvalidError
from tvix_store.model.digest import Digest
from tvix_store.model.nodes import FileNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import SecretKey, Signature
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store

KINDS = ("blobservices", "directoryservices", "pathinfoservices")
_LOCAL = """
[blobservices.root]
type = "local"
path = "{path}"
[directoryservices.root]
type = "local"
path = "{path}"
[pathinfoservices.kept]
type = "local"
path = "{path}"
"""


def everywhere(root: object, **others: object) -> dict[str, Any]:
    """A composition whose services are all the same."""
    return {kind: {"root": root, **others} for kind in KINDS}


def problems(source: Path | Mapping[str, Any]) -> list[str]:
    with pytest.raises(CompositionError) as caught:
        read_composition(source)
    return list(caught.value.problems)


async def put_file(store: Store, content: bytes = b"x") -> PathInfo:
    (digest,) = await store.blobs.put_many([content])
    node = FileNode(digest, len(content))
    return await store.path_infos.put(PathInfo(StorePath(bytes(20), "x"), node, await store.nar.calculate(node)))


async def test_three_tables_of_one_directory_are_one_store_with_its_powers(tmp_path: Path) -> None:
    table = {"type": "local", "path": str(tmp_path / "a store")}
    async with await open_store(composition=everywhere(table)) as store:
        await put_file(store)
        assert store.staging is not None
        assert store.removal is not None
    async with await open_store(str(tmp_path / "a store"), create=False) as store:
        assert await store.path_infos.get(bytes(20))


async def test_an_address_is_short_for_a_table(tmp_path: Path) -> None:
    path = tmp_path / "store"
    file = tmp_path / "stores.toml"
    file.write_text(f'[blobservices]\nroot = "{path}"\n[directoryservices]\nroot = "{path}"\n[pathinfoservices]\nroot = "{path}"\n')
    async with await open_store(composition=file) as store:
        await put_file(store)
    assert read_composition(file).leaves() == [str(path)]
    assert read_composition(file).only_leaf() == of_addresses(str(path)).only_leaf()


async def test_memory_is_one_store_a_name() -> None:
    table = everywhere("&a", a={"type": "memory"}) | {"blobservices": {"root": {"type": "memory"}, "b": {"type": "memory"}}}
    table["directoryservices"] = {"root": {"type": "memory"}}
    table["pathinfoservices"] = {"root": {"type": "memory"}}
    composition = read_composition(table)
    assert len(composition.uses()) == 1
    assert len({node for _, node in composition.entries}) == 2


async def test_addresses_and_a_composition_exclude_each_other() -> None:
    with pytest.raises(InvalidError, match="takes the place of addresses"):
        await open_store("memory://", composition=everywhere("memory://"))


FORMS = {
    "tables": """
[blobservices.root]
type = "local"

[blobservices.near]
type = "local"
path = "/x"
quota = "5 apples"
""",
    "dotted keys": """
blobservices.root.type = "local"
blobservices.near.type = "local"

blobservices.near.path = "/x"
blobservices.near.quota = "5 apples"
""",
    "an inline table": """

[blobservices]
root = {type = "local"}

near = {type = "local", path = "/x", quota = "5 apples"}
""",
    "quoted keys": """
["blobservices"."root"]
"type" = "local"
["blobservices".'near']
"type" = "local"
'path' = "/x"
# more
"quota" = "5 apples"
""",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_fault_is_told_with_file_line_and_key_in_every_form_of_toml(tmp_path: Path, form: str) -> None:
    file = tmp_path / "stores.toml"
    file.write_text(FORMS[form])
    line = FORMS[form][: FORMS[form].index("apples")].count("\n") + 1
    assert f'{file}:{line}: [blobservices.near] quota: not a size: "5 apples"' in problems(file)


WRONG = [
    ({"type": "loca", "path": "/x"}, r"type: unknown type 'loca' \(known: address, memory, .*\); did you mean local\?"),
    ({"type": 5}, "type: not the name of a type: 5"),
    ({"path": "/x"}, 'there is no type, as in type = "local"'),
    (5, "expected a table with a type, or an address; got 5"),
    ({"type": "local"}, "path is missing: a path"),
    ({"type": "local", "path": "/x", "qouta": "5G"}, r"qouta: unknown key \(known: path, .*\); did you mean quota\?"),
    ({"type": "local", "path": "/x", "size_rule": "odd"}, 'size_rule: not documented or snix: "odd"'),
    ({"type": "local", "path": "/x", "read_only": "yes"}, 'read_only: not true or false: "yes"'),
    ({"type": "local", "path": "/x", "threads": -1}, "threads: not a number: -1"),
    ({"type": "lru", "capacity": 5}, r"type: lru is for \[pathinfoservices\] alone"),
    ({"type": "redb", "path": "/x"}, r'type: unknown type .redb.; redb is a file of snix; .* type = "local"'),
    ({"type": "sled", "path": "/x"}, "sled is a database of tvix"),
    ({"type": "bigtable"}, "Bigtable is a backend of snix"),
    ({"type": "priority", "stores": []}, "several upstreams are several caches of type"),
    ({"type": "race"}, "several upstreams are"),
    ({"type": "s3"}, 'object storage is type = "objectstore"'),
    ({"type": "grpc", "url": "http://localhost:8000"}, r"url: a server is grpc\+http://localhost:8000"),
    ({"type": "objectstore", "object_store_url": "memroy://x"}, r"object_store_url: objectstore\+memroy://x: unknown scheme"),
    ({"type": "grpc", "url": "memroy://"}, r"url: a server is grpc\+http://host:port"),
    ({"type": "grpc", "url": "nonsense"}, "url: not the address of a store: 'nonsense'"),
    ({"type": "read_only", "inner": "&nera"}, r"inner: there is no \[blobservices.nera\]; did you mean &near\?"),
    ({"type": "read_only", "inner": "other"}, r"inner: there is no \[blobservices.other\] \(known: near, root\)"),
    ({"type": "read_only", "inner": "&root"}, "inner: a cycle: blobservices.root → blobservices.root"),
    ({"type": "read_only", "inner": "memroy://"}, "inner: memroy://: unknown scheme 'memroy' .*did you mean memory://"),
    ({"type": "read_only", "inner": 5}, "inner: not a name, as &NAME, or an address: 5"),
    ({"type": "cache", "far": "&near", "near": "grpc+http://h:1"}, "near: what is near is a bounded part of what is far"),
    ({"type": "cache", "far": "&near", "near": "memory://", "directory": "/x"}, "directory: near says where it is kept"),
    ({"type": "cache", "far": "&near", "directory": "/x", "size": "1M"}, "size: a cache in a directory has at least 16M"),
    ({"type": "cache", "far": "&near", "size": "5 apples"}, 'size: not a size: "5 apples"'),
    ({"type": "retrying", "inner": "&near", "tries": 0}, "tries: not a number of at least 1: 0"),
    ({"type": "observed", "inner": "&near"}, "name is missing: a text"),
    ("nix+https://cache.example.org", "url: nix.https://cache.example.org has no blobs: give the address"),
    ("s3://bucket", "url: s3://bucket: unknown scheme 's3'"),
]


@pytest.mark.parametrize(("table", "reason"), WRONG)
def test_a_wrong_table_is_refused(table: object, reason: str) -> None:
    whole = everywhere("memory://") | {"blobservices": {"root": table, "near": "memory://"}}
    (problem,) = problems(whole)
    assert re.match(rf"\[blobservices.root\]:? (type: unknown type '\w+'; )?{reason}", problem), problem


def test_a_database_has_no_blobs_and_an_address_of_its_own() -> None:
    table = {"type": "postgresql", "url": "mysql://host/database"}
    whole = everywhere("memory://") | {"blobservices": {"root": table}, "pathinfoservices": {"root": table}}
    assert problems(whole) == [
        "[blobservices.root] type: postgresql is for [directoryservices] and [pathinfoservices] alone",
        "[pathinfoservices.root] url: a database is postgresql://user@host/database",
    ]
    table["url"] = "postgresql://me:hidden@host/database"
    whole = everywhere("memory://") | {"directoryservices": {"root": table}, "pathinfoservices": {"root": table}}
    assert read_composition(whole).addresses["path_infos"] == table["url"]
    roots = read_composition(whole).roots
    assert roots["directories"] is roots["path_infos"]


def test_all_faults_are_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "stores.toml"
    file.write_text('[blobservices.root]\ntype = "loca"\n[pathinfoservices.root]\ntype = "lru"\ncapacity = 0\n[other]\n')
    assert problems(file) == [f"{file}:6: other: unknown table (known: {', '.join(KINDS)})"]
    file.write_text('[blobservices.root]\ntype = "loca"\n[pathinfoservices.root]\ntype = "lru"\ncapacity = 0\n')
    told = problems(file)
    assert told[0] == f"{file}: composition: there is no [directoryservices.root]: the entry of each service is root"
    assert [each.partition(": ")[0] for each in told[1:]] == [f"{file}:2", f"{file}:5"]


def test_a_chain_that_is_too_long_is_refused() -> None:
    chain: dict[str, object] = {f"n{number}": {"type": "read_only", "inner": f"&n{number + 1}"} for number in range(60)}
    chain |= {"n60": "memory://", "root": {"type": "read_only", "inner": "&n0"}}
    assert problems(everywhere("memory://") | {"blobservices": chain})[0].endswith("more than 50 instances one below the other")


def test_no_secret_is_told() -> None:
    options = {"aws_secret_access_key": "hidden", "n": [1]}
    table = {"type": "objectstore", "object_store_url": "s3://bucket", "object_store_options": options}
    for told in (*problems(everywhere(table)), *problems(everywhere("grpc+http://me:hidden@host:eight"))):
        assert "hidden" not in told


# In the form in which the files of snix are: names with and without &, URLs in place of names, keys that snix has had.
_OF_SNIX = {
    "path infos of a server are kept in memory": """
[blobservices.root]
type = "grpc"
url = "grpc+http://[::1]:8000"
[directoryservices.root]
type = "grpc"
url = "grpc+http://[::1]:8000"
[pathinfoservices.root]
type = "lru"
capacity = 1000
""",
    "blobs are fetched once": """
[blobservices.root]
type = "combined"
near = "near"
far = "far"
[blobservices.near]
type = "objectstore"
object_store_url = "file:///tmp/blobs"
object_store_options = {}
[blobservices.far]
type = "grpc"
url = "grpc+http://[::1]:8000"
[directoryservices.root]
type = "cache"
near = "&mem"
far = "grpc+http://[::1]:8000"
[directoryservices.mem]
type = "memory"
[pathinfoservices.root]
type = "cache"
near = "near"
far = "far"
[pathinfoservices.near]
type = "lru"
capacity = 1000
[pathinfoservices.far]
type = "grpc"
url = "grpc+http://localhost:8000"
""",
    "what is pushed is signed": """
[blobservices.root]
type = "grpc"
url = "grpc+https://cache.example.org"
[directoryservices.root]
type = "grpc"
url = "grpc+https://cache.example.org"
[pathinfoservices.grpc]
type = "grpc"
url = "grpc+https://cache.example.org"
[pathinfoservices.root]
inner = "&grpc"
keyfile = "/run/secrets/signing.key"
type = "keyfile-signing"
""",
    "paths of a cache are kept": """
[blobservices.root]
type = "objectstore"
object_store_url = "file:///var/lib/blobs"
object_store_options = {}
[directoryservices.root]
type = "objectstore"
object_store_url = "file:///var/lib/directories"
[pathinfoservices.root]
type = "cache"
near = "&kept"
far = "nix+https://cache.nixos.org?trusted-public-keys=cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
[pathinfoservices.kept]
type = "objectstore"
object_store_url = "file:///var/lib/path-infos"
""",
    "a cache is fetched through": """
[blobservices.root]
type = "memory"
[directoryservices.root]
type = "memory"
[pathinfoservices.root]
type = "nix"
base_url = "https://cache.nixos.org"
trusted_public_keys = ["cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="]
blob_service = "root"
directory_service = "&root"
""",
    "an address in place of a name": """
[blobservices.root]
type = "memory"
[directoryservices.root]
type = "memory"
[pathinfoservices.root]
type = "read_only"
inner = "nix+https://cache.nixos.org?trusted-public-keys=cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
""",
}


@pytest.mark.parametrize("name", _OF_SNIX)
def test_a_file_of_snix_is_read(tmp_path: Path, name: str) -> None:
    file = tmp_path / "stores.toml"
    file.write_text(_OF_SNIX[name])
    assert read_composition(file).roots.keys() == {"blobs", "directories", "path_infos"}


async def test_an_upstream_fills_the_store_and_its_paths_are_kept(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "nar").mkdir(parents=True)
    (cache / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    path = publish(cache, cached())
    file = tmp_path / "stores.toml"
    file.write_text(
        _LOCAL.format(path=tmp_path / "store")
        + f'[pathinfoservices.root]\ntype = "nix"\ninner = "&kept"\nbase_url = "file://{cache}"\npublic_keys = ["{KEY.public}"]\n'
    )
    async with await open_store(composition=file) as store:
        assert await store.path_infos.get(path.output_hash)
        assert store.foreign_paths is not None
        assert store.staging is not None
    async with await open_store(str(tmp_path / "store"), create=False) as store:
        assert await store.path_infos.get(path.output_hash)


async def test_what_is_far_is_kept_near_under_all_layers(tmp_path: Path) -> None:
    far = {"type": "local", "path": str(tmp_path / "far")}
    table = everywhere(
        {"type": "observed", "name": "all", "inner": "&cached"},
        cached={"type": "cache", "far": "&retried", "directory": str(tmp_path / "near"), "size": "16M"},
        retried={"type": "retrying", "inner": "&far", "tries": 2},
        far=far,
    )
    async with await open_store(composition=table) as store:
        stored = await put_file(store, b"x" * 1000)
        assert await store.blobs.get_many([stored.node.digest]) == [b"x" * 1000]  # type: ignore[union-attr]
    assert read_composition(table).addresses["path_infos"] == f"local://{tmp_path}/far"
    assert local_directories(read_composition(table)) == (tmp_path / "far",)
    async with await open_store(str(tmp_path / "far"), create=False) as store:
        assert await store.path_infos.get(bytes(20)) == stored


async def test_the_near_side_of_an_upstream_keeps_its_path_infos(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "nar").mkdir(parents=True)
    (cache / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    path = publish(cache, cached())
    upstream = {"type": "nix", "base_url": f"file://{cache}", "public_keys": [str(KEY.public)]}
    local = str(tmp_path / "store")
    table = everywhere(local) | {"pathinfoservices": {"root": {"type": "cache", "near": local, "far": "&up"}, "up": upstream}}
    async with await open_store(composition=table) as store:
        assert await store.path_infos.get(path.output_hash)
        assert store.staging is not None
    async with await open_store(local, create=False) as store:
        assert await store.path_infos.get(path.output_hash)


async def test_without_a_place_for_path_infos_the_last_ones_stay_in_memory(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "nar").mkdir(parents=True)
    (cache / "nix-cache-info").write_text("StoreDir: /nix/store\n")
    path = publish(cache, cached())
    upstream = {"type": "nix", "base_url": f"file://{cache}", "public_keys": [str(KEY.public)]}
    kept = {"type": "nix", "inner": "lru:", **upstream}
    for root in (upstream, kept):
        table = everywhere("memory://") | {"pathinfoservices": {"root": root}}
        async with await open_store(composition=table) as store:
            assert await store.path_infos.get(path.output_hash)


async def test_what_is_put_is_signed_if_it_is_true(tmp_path: Path) -> None:
    key = SecretKey.generate("cache-1")
    (tmp_path / "key").write_text(str(key))
    signing = {"type": "keyfile-signing", "inner": "&kept", "keyfile": str(tmp_path / "key")}
    table = everywhere({"type": "memory"}) | {"pathinfoservices": {"root": signing, "kept": "memory://"}}
    async with await open_store(composition=table) as store:
        stored = await put_file(store)
        assert [each.name for each in stored.signatures] == ["cache-1"]
        assert key.public.verifies(stored.signatures[0], stored.fingerprint())
        false = PathInfo(StorePath(b"a" * 20, "y"), stored.node, NarFacts(stored.nar.size, bytes(32)))
        with pytest.raises(InvalidError, match="nar_sha256 is"):
            await store.path_infos.put(false)
        missing = PathInfo(StorePath(b"b" * 20, "z"), FileNode(Digest(bytes(32)), 1), stored.nar)
        with pytest.raises(IncompleteError):
            await store.path_infos.put(missing)
        assert [each async for each in store.path_infos.list()] == [stored]
        forged = [Signature("cache-1", bytes(64)), *(Signature(f"k{number}", bytes(64)) for number in range(20))]
        other = PathInfo(StorePath(b"c" * 20, "x"), stored.node, stored.nar, signatures=tuple(forged))
        signed = await store.path_infos.put(other)
        assert [key.public.verifies(each, signed.fingerprint()) for each in signed.signatures].count(True) == 1
        assert Signature("cache-1", bytes(64)) not in signed.signatures


async def test_a_key_that_is_not_there_is_told(tmp_path: Path) -> None:
    signing = {"type": "keyfile-signing", "inner": "memory://", "keyfile": str(tmp_path / "key")}
    table = everywhere({"type": "local", "path": str(tmp_path / "store")}) | {"pathinfoservices": {"root": signing}}
    with pytest.raises(InvalidError, match=r"^\[pathinfoservices.root\] keyfile: cannot read the key in"):
        await open_store(composition=table)
    assert not (tmp_path / "store").exists()


async def test_a_part_may_be_read_only() -> None:
    table = everywhere({"type": "memory"}) | {"blobservices": {"root": {"type": "read_only", "inner": "memory://"}}}
    async with await open_store(composition=table) as store:
        with pytest.raises(DeniedError):
            await store.blobs.put_many([b"x"])
        assert not store.read_only


def test_places_on_this_machine_are_known_without_opening(tmp_path: Path) -> None:
    table = everywhere({"type": "read_only", "inner": "&kept"}, kept={"type": "local", "path": str(tmp_path / "store")})
    composition = read_composition(table)
    assert missing_stores(composition) == (f"store in {tmp_path}/store",)
    assert local_directories(composition) == (tmp_path / "store",)
    assert str(tmp_path / "store") in private_places(composition)
    assert not is_in_memory(composition)
    assert prepare_for_pool(composition)
    assert composition.addresses["path_infos"] == f"local://{tmp_path}/store"
    assert is_in_memory(read_composition(everywhere("memory://")))
    assert not prepare_for_pool(read_composition(everywhere("memory://") | {"pathinfoservices": {"root": "grpc+http://h:1"}}))
