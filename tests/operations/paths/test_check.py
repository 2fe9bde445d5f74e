"""What path infos claim is proven, or refused."""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests import programs, vectors
from tests.http.nix import listed
from tvix_store.backends.memory import open_store
from tvix_store.errors import InvalidError, NotFoundError
from tvix_store.model.content_address import ContentAddress, Method
from tvix_store.model.hash_modulo import HashModulo
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import FileNode, SymlinkNode
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import PublicKey, SecretKey, Signature
from tvix_store.model.store_path import StorePath
from tvix_store.operations.paths.check import check_signatures, missing_references, proves_content_address
from tvix_store.services.store import Store
from tvix_store.testing import trees
from tvix_store.testing.content import file_nar, missing, noise, put_file, put_tree
from tvix_store.testing.trees import Tree, TreeFile

PATHS = vectors.nix()["content_addressed"]
SIGNED = vectors.nix()["signatures"]
KEY = SecretKey.from_seed("cache.example-1", bytes(32))
OTHER = SecretKey.from_seed("other.example-1", bytes(32))


def store_path(name: str, seed: int = 0) -> StorePath:
    return StorePath(bytes([seed]) * 20, name)


async def path_info(store: Store, recorded: dict[str, Any], tree: Tree) -> PathInfo:
    """What Nix said of a path, with the tree in the store."""
    nar = NixHash.parse(recorded["narHash"])
    return PathInfo(
        StorePath.parse(recorded["path"], store.store_dir),
        await put_tree(store, tree),
        NarFacts(recorded["narSize"], nar.digest),
        tuple(StorePath.parse(reference, store.store_dir) for reference in recorded["references"]),
        ca=ContentAddress.parse(recorded["ca"]),
    )


async def refused(store: Store, claimed: PathInfo) -> str:
    with pytest.raises(InvalidError) as caught:
        await proves_content_address(store, claimed)
    message = str(caught.value)
    assert message.startswith(f"path info of {claimed.store_path}: ")
    assert message.isprintable()
    return message


def changed(tree: Tree) -> Tree:
    """The tree with one byte changed somewhere, or one added."""
    match tree:
        case TreeFile(contents, executable):
            return TreeFile(bytes([contents[0] ^ 1]) + contents[1:] if contents else b"x", executable)
        case SymlinkNode(target):
            return SymlinkNode(target[:-1] + b"!")
        case _:
            name = min(tree)
            return {**tree, name: changed(tree[name])}


@pytest.mark.parametrize("recorded", PATHS, ids=lambda recorded: recorded["path"][11:50])
async def test_the_content_addresses_of_nix_are_proven(recorded: dict[str, Any]) -> None:
    store = await open_store()
    assert await proves_content_address(store, await path_info(store, recorded, vectors.tree(recorded["tree"])))


@pytest.mark.parametrize("recorded", PATHS, ids=lambda recorded: recorded["path"][11:50])
async def test_no_other_content_is_proven_by_them(recorded: dict[str, Any]) -> None:
    store = await open_store()
    tree = changed(vectors.tree(recorded["tree"]))
    claimed = replace(await path_info(store, recorded, tree), nar=await store.nar.calculate(await put_tree(store, tree)))
    assert "but the content's is" in await refused(store, claimed)


@pytest.mark.parametrize("recorded", PATHS, ids=lambda recorded: recorded["path"][11:50])
async def test_no_other_path_is_proven_by_them(recorded: dict[str, Any]) -> None:
    store = await open_store()
    info = await path_info(store, recorded, vectors.tree(recorded["tree"]))
    own = info.store_path
    for claimed in (
        replace(info, store_path=StorePath(own.output_hash, "another")),
        replace(info, store_path=StorePath(bytes(20), own.name)),
        replace(info, references=(*info.references, store_path("more"))),
        *(replace(info, references=tuple({*info.references} - {reference})) for reference in info.references),
        replace(info, references=tuple({*info.references} ^ {own})),
    ):
        assert "references, the path is" in (message := await refused(store, claimed)) or " may refer to " in message
    elsewhere = replace(store, store_dir="/elsewhere/store")
    await refused(elsewhere, info)


async def test_a_path_that_claims_no_content_address_proves_nothing() -> None:
    store = await open_store()
    node = await put_file(store.blobs, b"content")
    assert not await proves_content_address(store, PathInfo(store_path("name"), node, file_nar(b"content")))


async def claiming(store: Store, node: FileNode, method: Method, content: bytes) -> PathInfo:
    """A path info that follows from its content address, the plain hash of `content`."""
    ca = ContentAddress(method, NixHash("sha256", hashlib.sha256(content).digest()))
    return PathInfo(ca.store_path("name"), node, await store.nar.calculate(node), ca=ca)


@pytest.mark.parametrize("method", [Method.FLAT, Method.TEXT])
async def test_an_executable_is_not_addressed_by_its_contents_alone(method: Method) -> None:
    store = await open_store()
    node = await put_file(store.blobs, b"content")
    assert await proves_content_address(store, await claiming(store, node, method, b"content"))
    executable = await claiming(store, replace(node, executable=True), method, b"content")
    assert "is a file that is not executable" in await refused(store, executable)


async def test_a_directory_is_not_addressed_by_contents() -> None:
    store = await open_store()
    info = await claiming(store, await put_file(store.blobs, b""), Method.FLAT, b"")
    assert "is a file" in await refused(store, replace(info, node=await put_tree(store, {})))


async def test_missing_content_is_not_found() -> None:
    store = await open_store()
    info = await claiming(store, await put_file(store.blobs, b"content"), Method.FLAT, b"content")
    with pytest.raises(NotFoundError):
        await proves_content_address(store, replace(info, node=FileNode(missing(), 7, False)))


async def test_what_refers_to_itself_in_many_places_of_many_megabytes_is_proven() -> None:
    """Made as `nix store make-content-addressed` does: hash with the old name, then replace it."""
    store = await open_store()
    name = str(store_path("large", 7))[:32].encode()

    def tree(file_name: bytes, link_name: bytes) -> Tree:
        large = b"".join(noise(700_001, str(number)) + file_name for number in range(10))
        return {b"large": TreeFile(large), b"link": SymlinkNode(b"/nix/store/" + link_name + b"-large")}

    old_hash = HashModulo("sha256", name)
    old_hash.update(trees.nar(tree(name, name)))
    for old in old_hash.finish()[1:]:
        ca = ContentAddress(Method.NAR, old)
        path = ca.store_path("large", self_reference=True)
        new_name = str(path)[:32].encode()
        node = await put_tree(store, tree(new_name, new_name))
        info = PathInfo(path, node, await store.nar.calculate(node), (path,), ca=ca)
        assert await proves_content_address(store, info)
        undone = await put_tree(store, tree(new_name, name))
        await refused(store, replace(info, node=undone, nar=await store.nar.calculate(undone)))


async def file_path_info(store: Store, path: StorePath, contents: bytes, ca: str, *references: StorePath) -> PathInfo:
    """A path info of a file, which claims a content address."""
    return PathInfo(path, await put_file(store.blobs, contents), file_nar(contents), references, ca=ContentAddress.parse(ca))


class TestSelfReferencesOfNix217To234:
    """These versions leave out the positions of self-references. The path, and its content address, are as 2.34 made them."""

    NAME = "6gyc4k1ilcw1k97kf3dnzwia3rq6vakd-selfref"
    PATH = StorePath.from_base_name(NAME)
    CA = "fixed:r:sha256:163ryiah9ms80qck6zb6dpy7sz9db61pjx460983wd3yyb41r7gl"
    CONTENTS = f"/nix/store/{NAME}\n".encode()

    async def test_their_content_is_proven(self) -> None:
        store = await open_store()
        assert await proves_content_address(store, await file_path_info(store, self.PATH, self.CONTENTS, self.CA, self.PATH))

    @pytest.mark.parametrize(
        "contents", [CONTENTS[:-1], CONTENTS + b"x", CONTENTS.replace(b"-selfref", b"-another"), CONTENTS.replace(b"6gyc", b"6gyd")]
    )
    async def test_other_content_is_not(self, contents: bytes) -> None:
        store = await open_store()
        await refused(store, await file_path_info(store, self.PATH, contents, self.CA, self.PATH))

    async def test_zeros_are_not_taken_for_all_of_the_names(self) -> None:
        store = await open_store()
        zeros = self.CONTENTS.replace(self.NAME[:32].encode(), bytes(32))
        claimed = await file_path_info(store, self.PATH, zeros, self.CA, self.PATH)
        assert "among its own references, but its content does not name it" in await refused(store, claimed)

    async def test_zeros_in_content_that_does_not_refer_to_itself_are_not_made_a_name(self) -> None:
        store = await open_store()
        zeros = b"text" + bytes(32) + b"text"
        ca = ContentAddress(Method.NAR, NixHash("sha256", file_nar(zeros).sha256))
        path = ca.store_path("zeros")
        assert await proves_content_address(store, await file_path_info(store, path, zeros, str(ca)))
        forged = zeros.replace(bytes(32), str(path)[:32].encode())
        assert "but the content's is" in await refused(store, await file_path_info(store, path, forged, str(ca)))


@pytest.mark.parametrize("method", [Method.NAR, Method.FLAT])
async def test_content_addresses_by_blake3_are_proven(method: Method) -> None:
    store = await open_store()
    contents = b"content"
    hashed = trees.nar(TreeFile(contents)) if method is Method.NAR else contents
    ca = ContentAddress(method, NixHash("blake3", blake3(hashed).digest()))
    path = ca.store_path("name")
    assert await proves_content_address(store, await file_path_info(store, path, contents, str(ca)))
    claimed = await file_path_info(store, path, b"another", str(ca))
    assert f"but the content's is {method.value}blake3:" in await refused(store, claimed)


DERIVATIONS = """
    let
      make = name: mode: script: derivation {
        inherit name;
        system = builtins.currentSystem;
        builder = "/bin/sh";
        args = [ "-c" script ];
        __contentAddressed = true;
        outputHashMode = mode;
        outputHashAlgo = "sha256";
      };
      self = make "self" "recursive" "echo $out, and again: $out > $out";
      other = make "other" "recursive" "echo ${self} > $out";
    in [ self other (make "flat" "flat" "echo flat > $out") (make "plain" "recursive" "echo plain > $out") ]
"""


@pytest.mark.nix
async def test_what_nix_builds_of_content_addressed_derivations_is_proven(tmp_path: Path) -> None:
    nix_build, nix = programs.require("nix-build"), programs.require("nix")
    (tmp_path / "default.nix").write_text(DERIVATIONS)
    environment = {**os.environ, "HOME": str(tmp_path), "NIX_CONF_DIR": str(tmp_path / "conf"), "NIX_REMOTE": ""}
    for place in ("store", "state", "log"):
        environment[f"NIX_{place.upper()}_DIR"] = str(tmp_path / place)
    features = ("--option", "experimental-features", "nix-command ca-derivations", "--option", "substituters", "")

    def run(*command: str | Path) -> bytes:
        return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout

    unsandboxed = ("--option", "sandbox", "false", "--option", "build-users-group", "")
    built = run(nix_build, *features, *unsandboxed, "--no-out-link", tmp_path / "default.nix").decode().split()
    assert len(built) == 4
    store = replace(await open_store(), store_dir=str(tmp_path / "store"))
    infos = listed(run(nix, *features, "path-info", "--json", *built).decode())
    assert [info["references"] for info in infos if info["path"].endswith("-self")] == [[built[0]]]
    for recorded in infos:
        info = await path_info(store, recorded, trees.read(Path(recorded["path"])))
        assert await store.nar.calculate(info.node) == info.nar
        assert await proves_content_address(store, info)


@pytest.mark.parametrize("text", SIGNED["narinfos"], ids=["alone", "text", "built"])
def test_signatures_of_nix_are_good(text: str) -> None:
    narinfo = NarInfo.parse(text.encode())
    info = PathInfo(narinfo.store_path, SymlinkNode(b"x"), narinfo.nar, narinfo.references, narinfo.signatures)
    key = PublicKey.parse(SIGNED["public_key"])
    assert check_signatures(info, [key]) == 1
    assert check_signatures(info, [KEY.public]) == 0
    with pytest.raises(InvalidError, match=rf"^path info of {info.store_path}: bad signature by {key.name}$"):
        check_signatures(replace(info, nar=NarFacts(1, info.nar.sha256)), [key])
    with pytest.raises(InvalidError, match="bad signature"):
        check_signatures(info, [key], "/elsewhere/store")


def test_signatures_by_trusted_keys_are_counted_and_others_left_alone() -> None:
    info = PathInfo(store_path("name"), SymlinkNode(b"x"), NarFacts(112, bytes(32)))
    good, unknown = KEY.sign(info.fingerprint()), OTHER.sign(b"something else")
    assert check_signatures(info, [KEY.public]) == 0
    assert check_signatures(info.with_signatures([good, unknown]), []) == 0
    assert check_signatures(info.with_signatures([good, unknown]), [KEY.public]) == 1
    with pytest.raises(InvalidError, match=r"bad signature by other\.example-1$"):
        check_signatures(info.with_signatures([good, unknown]), [KEY.public, OTHER.public])


def test_of_two_keys_with_one_name_either_may_have_signed() -> None:
    newer = SecretKey.from_seed(KEY.name, b"1" * 32)
    info = PathInfo(store_path("name"), SymlinkNode(b"x"), NarFacts(112, bytes(32)))
    signed = info.with_signatures([newer.sign(info.fingerprint())])
    assert check_signatures(signed, [KEY.public, newer.public]) == 1
    with pytest.raises(InvalidError, match="bad signature"):
        check_signatures(signed, [KEY.public])
    with pytest.raises(InvalidError, match="bad signature"):
        check_signatures(signed.with_signatures([Signature(KEY.name, bytes(64))]), [KEY.public, newer.public])


async def test_references_that_are_not_there_are_told_in_order() -> None:
    store = await open_store()
    there, own = store_path("there", 1), store_path("own", 2)
    absent = [store_path(f"absent-{number}", 100 + number) for number in range(100)]
    node = await put_file(store.blobs, b"content")
    await store.path_infos.put(PathInfo(there, node, file_nar(b"content")))
    info = PathInfo(own, node, file_nar(b"content"), (absent[0], there, own, *absent[1:]))
    assert await missing_references(store, info) == absent
    assert await missing_references(store, replace(info, references=(own, there))) == []


async def test_a_path_of_another_name_is_not_the_one_referred_to() -> None:
    store = await open_store()
    node = await put_file(store.blobs, b"content")
    await store.path_infos.put(PathInfo(store_path("there", 1), node, file_nar(b"content")))
    info = PathInfo(store_path("own", 2), node, file_nar(b"content"), (store_path("other", 1),))
    assert await missing_references(store, info) == [store_path("other", 1)]
