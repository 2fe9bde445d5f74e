"""Stock Nix pushes to the daemon and substitutes from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.http.daemon import Daemon
from tests.http.nix import PRELUDE, Nix, skip_lzma
from tvix_store.compression import decompressor
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.signature import SecretKey
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import Tree, TreeFile

OtherNix = Callable[..., Nix]
COMPRESSIONS = ("xz", "none", "zstd", "bzip2", "gzip", "br", "lz4", "lzip", "lzma")
ODD: Tree = {
    b"bin": {b"run": TreeFile(b"#!/bin/sh\n", executable=True), b"link": SymlinkNode(b"run"), b".hidden": TreeFile(b"x")},
    b"empty": TreeFile(b""),
    b"empty and executable": TreeFile(b"", executable=True),
    b"void": {b"in": {b"void": {}}},
    b"dangling": SymlinkNode(b"/nowhere/at all"),
    b"up": SymlinkNode(b"../../.."),
    b"long": SymlinkNode(b"t" * 4000),
    b"n" * 255: TreeFile(b"a long name"),
    b"line\nfeed": TreeFile(b"line\nfeed"),
    b" spaces ": TreeFile(b" "),
    b"-rf": TreeFile(b"-rf"),
    b"a:b?c*d|e<f>g%20h&i\"j'k\\l": TreeFile(b"signs"),
    b"\xff\xfe not UTF-8": TreeFile(b"bytes"),
    "ünïcödé ☃".encode(): TreeFile("☃".encode()),
    b"B": TreeFile(b"sorted by bytes"),
    b"a": TreeFile(b"sorted by bytes"),
    b"large": TreeFile(noise(3_000_000, "large") + bytes(3_000_000)),
    b"many": {b"%d" % n: TreeFile(noise(n, "many")) for n in range(500)},
}


def closure(nix: Nix) -> str:
    """A path that refers to another, and to itself."""
    [path] = nix.build("""
      let library = sh "library" "mkdir $out; echo text > $out/file; echo $out > $out/self";
      in sh "program" "mkdir -p $out/bin; echo ${library}/file > $out/bin/run; chmod +x $out/bin/run; ln -s ${library} $out/link"
    """)
    return path


def same(one: Nix, other: Nix, *paths: str) -> bool:
    """Whether two stores have the same of `paths`: contents, and what Nix knows of them."""

    def told(nix: Nix) -> list[dict[str, Any]]:
        kept = ("path", "narHash", "narSize", "references", "ca", "deriver")
        return [{name: info.get(name) for name in kept} for info in nix.path_info(*paths)]

    return told(one) == told(other) and all(trees.read(one.real(path)) == trees.read(other.real(path)) for path in paths)


def test_a_closure_is_substituted_into_an_empty_store(daemon: Daemon, nix: Nix, other_nix: OtherNix) -> None:
    path = closure(nix)
    nix.copy_to(daemon.url, path)
    other = other_nix()
    assert other("nix-store", "-r", path, "--option", "substituters", daemon.url) == path
    whole = nix("nix-store", "-qR", path).splitlines()
    assert len(whole) == 2
    assert same(nix, other, *whole)
    other("nix-store", "--verify", "--check-contents")
    assert daemon.is_well()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_each_compression_is_taken(daemon: Daemon, nix: Nix, other_nix: OtherNix, compression: str) -> None:
    path = closure(nix)
    large = nix.build('sh "large" "head -c 3000000 /dev/urandom > $out"')[0]
    nix.copy_to(f"{daemon.url}?compression={compression}", path, large)
    other = other_nix()
    other("nix", "copy", "--from", daemon.url, path, large)
    assert same(nix, other, path, large)
    assert daemon.is_well()


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_trees_with_everything_in_them_come_back(
    start_daemon: Callable[..., Daemon], nix: Nix, other_nix: OtherNix, compression: str
) -> None:
    daemon = start_daemon("--nar-compression", compression)
    source = nix.directory / "sources"
    source.mkdir()
    many: dict[str, Tree] = {
        "everything": ODD,
        "empty": TreeFile(b""),
        "executable": TreeFile(b"#!", executable=True),
        "void": {},
        "link": SymlinkNode(b"everything"),
        "Name-with+all._of?the=signs": {b"x": TreeFile(b"x")},
        "n" * 211: TreeFile(b"the longest name"),
        "0": TreeFile(b"the shortest name"),
    }
    for name, tree in many.items():
        trees.write(tree, source / name)
    paths = [nix.add(source / name) for name in many]
    nix.copy_to(daemon.url, *paths)
    other = other_nix()
    other("nix-store", "-r", *paths, "--option", "substituters", daemon.url)
    assert same(nix, other, *paths)
    other("nix-store", "--verify", "--check-contents")
    assert daemon.is_well()


def test_a_closure_of_200_paths(daemon: Daemon, nix: Nix, other_nix: OtherNix) -> None:
    expression = """
      let
        at = builtins.elemAt;
        some = before: n: map (at before) (if n == 0 then [] else [ (n - 1) ] ++ builtins.genList (i: i * 10) (n / 10));
        more = before: n: before ++ [ (builtins.toFile "file-${toString n}" (toString ([ n ] ++ some before n))) ];
      in at (builtins.foldl' more [] (builtins.genList (n: n) 200)) 199
    """
    path = nix("nix-instantiate", "--eval", "--read-write-mode", "--expr", expression).strip('"')
    whole = nix("nix-store", "-qR", path).splitlines()
    assert len(whole) == 200
    nix.copy_to(f"{daemon.url}?compression=zstd", path)
    assert set(daemon.paths()) == set(whole)
    other = other_nix("")  # they prove themselves: signatures are required
    other("nix-store", "-r", path, "--option", "substituters", daemon.url)
    assert same(nix, other, *whole)
    nix("nix", "copy", "--to", daemon.url, path)
    assert daemon.is_well()


class TestSignatures:
    """Nix takes what a key signed that it trusts; so does the daemon, where it is told to."""

    @staticmethod
    def key(nix: Nix, name: str) -> tuple[Path, str]:
        """The file of a new secret key, and the public key."""
        file = nix.directory / name
        file.write_text(nix("nix", "key", "generate-secret", "--key-name", name))
        return file, str(SecretKey.parse(file.read_text()).public)

    def test_what_the_daemon_signs_is_taken_and_what_nobody_signed_is_not(
        self, start_daemon: Callable[..., Daemon], nix: Nix, other_nix: OtherNix
    ) -> None:
        (one, public), (two, also_public) = self.key(nix, "cache-1"), self.key(nix, "cache-2")
        path = closure(nix)
        unsigned, signed = start_daemon(), start_daemon("--signing-key-file", one, "--signing-key-file", two, name="signing")
        nix.copy_to(unsigned.url, path)
        nix.copy_to(signed.url, path)
        for key in (public, also_public):
            other = other_nix(f"trusted-public-keys = {key}")
            assert other.run("nix-store", "-r", path, "--option", "substituters", unsigned.url).returncode != 0
            assert not other.real(path).exists()
            other("nix-store", "-r", path, "--option", "substituters", signed.url)
            assert same(nix, other, path)
            other("nix", "store", "verify", "--recursive", path)

    def test_signatures_that_were_pushed_are_served(self, daemon: Daemon, nix: Nix, other_nix: OtherNix) -> None:
        file, public = self.key(nix, "builder-1")
        path = closure(nix)
        nix("nix", "store", "sign", "--recursive", "--key-file", file, path)
        nix.copy_to(daemon.url, path)
        other = other_nix(f"trusted-public-keys = {public}")
        other("nix", "copy", "--from", daemon.url, path)
        assert same(nix, other, path)

    def test_a_signature_is_added_over_http(self, daemon: Daemon, nix: Nix, other_nix: OtherNix) -> None:
        path = closure(nix)
        nix.copy_to(daemon.url, path)
        keys = [self.key(nix, f"late-{n}") for n in range(3)]
        for n, (file, public) in enumerate(keys, 1):
            nix("nix", "store", "sign", "--store", daemon.url, "--recursive", "--key-file", file, path)
            reader = other_nix(f"trusted-public-keys = {public}")
            [info] = reader.path_info(path, store=daemon.url)
            assert len(info["signatures"]) == n
            reader("nix", "store", "verify", "--store", daemon.url, "--recursive", path)
        last = other_nix(f"trusted-public-keys = {keys[0][1]}")
        last("nix-store", "-r", path, "--option", "substituters", daemon.url)
        assert same(nix, last, path)

    @pytest.mark.parametrize("compression", ["zstd", "none"])
    def test_a_nix_that_never_saw_the_path_can_sign_it(
        self, start_daemon: Callable[..., Daemon], nix: Nix, other_nix: OtherNix, compression: str
    ) -> None:
        daemon = start_daemon("--nar-compression", compression)
        path = closure(nix)
        nix.copy_to(daemon.url, path)
        file, public = self.key(nix, "stranger-1")
        signer = other_nix("").with_own_cache()
        signer("nix", "store", "sign", "--store", daemon.url, "--recursive", "--key-file", file, path)
        reader = other_nix(f"trusted-public-keys = {public}").with_own_cache()
        reader("nix-store", "-r", path, "--option", "substituters", daemon.url)
        assert same(nix, reader, path)

    def test_where_signatures_are_required_a_path_needs_one_or_proves_itself(
        self, start_daemon: Callable[..., Daemon], nix: Nix
    ) -> None:
        file, public = self.key(nix, "trusted-1")
        daemon = start_daemon("--trusted-public-keys", public, "--require-signatures")
        path = closure(nix)
        refused = nix.run("nix", "copy", "--to", daemon.url, path)
        assert refused.returncode != 0
        assert "has no signature by a trusted key" in refused.stderr
        assert daemon.paths() == []
        (nix.directory / "source").write_bytes(b"proves itself")
        addressed = nix.add(nix.directory / "source")
        nix.copy_to(daemon.url, addressed)
        assert daemon.paths() == [addressed]
        nix("nix", "store", "sign", "--recursive", "--key-file", file, path)
        nix.copy_to(daemon.url, path)
        assert path in daemon.paths()


def test_nix_looks_into_a_path(daemon: Daemon, nix: Nix, other_nix: OtherNix) -> None:
    path = closure(nix)
    nix.copy_to(daemon.url, path)
    reader = other_nix()
    store = ("--store", daemon.url)
    listing = json.loads(reader("nix", "store", "ls", "--json", "--recursive", *store, path))
    assert listing["entries"]["bin"]["entries"]["run"]["executable"]
    assert listing["entries"]["link"]["type"] == "symlink"
    [library] = [each for each in nix("nix-store", "-qR", path).splitlines() if each.endswith("-library")]
    assert reader("nix", "store", "cat", *store, f"{library}/file") == "text"
    assert reader("nix", "store", "cat", *store, f"{library}/self") == library
    reader("nix", "store", "verify", *store, "--recursive", "--no-trust", path)
    [info] = reader.path_info("-rS", path, store=daemon.url)[-1:]
    [true] = nix.path_info("-rS", path)[-1:]
    assert {name: info[name] for name in ("path", "narHash", "narSize", "references", "closureSize")} == {
        name: true[name] for name in ("path", "narHash", "narSize", "references", "closureSize")
    }
    assert daemon.is_well()


def test_a_listing_that_nix_writes_is_the_one_that_is_served(daemon: Daemon, nix: Nix) -> None:
    path = closure(nix)
    nix.copy_to(f"{daemon.url}?write-nar-listing=true", path)
    listing = json.loads(daemon.get(f"/{Path(path).name[:32]}.ls").body)
    assert listing["version"] == 1
    assert listing["root"]["entries"]["bin"]["entries"]["run"]["executable"]


def test_the_log_of_a_build_is_kept(daemon: Daemon, nix: Nix, other_nix: OtherNix) -> None:
    [path] = nix.build('sh "logged" "echo this was said while building; touch $out"')
    nix.copy_to(daemon.url, path)
    nix("nix", "store", "copy-log", "--to", daemon.url, nix("nix-store", "-q", "--deriver", path))
    assert other_nix()("nix", "log", "--store", daemon.url, path) == "this was said while building"


def test_content_addressed_derivations_are_not_built_twice(daemon: Daemon, nix: Nix, other_nix: OtherNix) -> None:
    addressed = '{ __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }'
    expression = f"""
      let early = sh' "early" "mkdir $out; echo early > $out/file; echo $out > $out/self" {addressed};
      in sh' "late" "mkdir $out; ln -s ${{early}} $out/early; cat ${{early}}/file > $out/file" {addressed}
    """
    [path] = nix.build(expression)
    # By the path alone, Nix does not tell which derivations have made it.
    nix("nix", "copy", "--to", daemon.url, "--impure", "--expr", PRELUDE + expression)
    other = other_nix()
    done = other.run("nix-build", "--no-out-link", "--option", "substituters", daemon.url, "--expr", PRELUDE + expression)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [path]
    assert "building" not in done.stderr
    assert same(nix, other, path)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_who_has_pushed_can_fetch_it_again(daemon: Daemon, nix: Nix, compression: str) -> None:
    """Nix remembers the narinfo that it has pushed for a month, with the URL of the file that it has sent."""
    skip_lzma(nix, compression)
    path = closure(nix)
    nix.copy_to(f"{daemon.url}?compression={compression}", path)
    whole = nix("nix-store", "-qR", path).splitlines()
    before = {each: trees.read(nix.real(each)) for each in whole}
    # Else Nix looks at what all processes have open, and fails where another test is in a directory whose path is too long to read.
    nix("nix-store", "--delete", "--ignore-liveness", *whole)
    nix("nix-store", "-r", path, "--option", "substituters", daemon.url, "--option", "require-sigs", "false")
    assert {each: trees.read(nix.real(each)) for each in whole} == before


@pytest.mark.timeout(300)
def test_a_file_of_2_gib(daemon: Daemon, nix: Nix) -> None:
    """Some 15 seconds; most of them are those of the pusher. On a busy machine the zstd file is not known in time, and the NAR is
    offered as it is."""
    [path] = nix.build('sh "sparse" "head -c 1000000 /dev/urandom > $out; truncate -s 2G $out; echo end >> $out"')
    nix.copy_to(f"{daemon.url}?compression=zstd", path)
    [info] = nix.path_info(path)
    assert info["narSize"] > 2 << 30
    narinfo = NarInfo.parse(daemon.narinfo(path), daemon.store_dir)
    assert (narinfo.compression, narinfo.url.endswith(".nar.zst")) in {("zstd", True), ("none", False)}
    file_hash, nar_hash = hashlib.sha256(), hashlib.sha256()
    file_size = nar_size = 0
    with closing(HTTPConnection("127.0.0.1", daemon.port)) as connection:
        connection.request("GET", f"/{narinfo.url}")
        response = connection.getresponse()
        assert response.status == 200, response.read()
        nar = decompressor(narinfo.compression)
        while piece := response.read(1 << 20):
            file_hash.update(piece)
            file_size += len(piece)
            for each in nar.feed(piece):
                nar_hash.update(each)
                nar_size += len(each)
        nar.finish()
    assert (nar_size, NixHash("sha256", nar_hash.digest()).sri) == (info["narSize"], info["narHash"])
    assert (file_size, NixHash("sha256", file_hash.digest())) == (narinfo.file_size, narinfo.file_hash)
    assert daemon.most_memory() < 150 << 20
    assert daemon.is_well()
