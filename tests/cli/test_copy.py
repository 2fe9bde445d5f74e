"""`tvix-store copy`, from stores of the real Nix."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.cli.program import Program
from tests.cli.test_import import WITHOUT_ROOTS_POWERS
from tests.cli.test_progress import CLEAR, on_a_terminal
from tests.http.nix import Nix, listed
from tests.private_nix import PrivateNix, Registered, built
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.store_path import STORE_DIR
from tvix_store.testing.content import noise
from tvix_store.testing.trees import Tree, TreeFile

LIBRARY, ITSELF, APPLICATION = built(1, "library-1.0"), built(2, "itself"), built(3, "application")
DERIVER = built(4, "application.drv")
TREE: dict[bytes, Tree] = {
    b"bin": {b"run": TreeFile(f"#!{LIBRARY}\n".encode(), executable=True), b"sh": SymlinkNode(b"run")},
    b"empty": TreeFile(b""),
    b"large": TreeFile(noise(9_000_001, "large")),
    b"nothing": {},
    b"\xff\xfe": TreeFile(b"not UTF-8"),
}


@pytest.fixture
def nix(tmp_path: Path) -> PrivateNix:
    """A store with an application that refers to a library, and to a path that refers to itself."""
    nix = PrivateNix(tmp_path / "nix")
    nix.register(
        [
            Registered(LIBRARY, TreeFile(noise(100_000, "library"), executable=True)),
            Registered(ITSELF, SymlinkNode(ITSELF.encode()), [ITSELF]),
            Registered(APPLICATION, TREE, [LIBRARY, ITSELF], DERIVER),
        ]
    )
    return nix


@pytest.fixture
def copy(tvix_store: Program, nix: PrivateNix) -> list[str | Path]:
    return ["copy", "--from-nix", "--nix-store", nix.root]


@pytest.fixture
def remote(tvix_store: Program, tmp_path: Path) -> Iterator[Program]:
    """The program with the store of a daemon."""
    socket = tmp_path / "socket"
    with tvix_store.start("daemon", "--workers", "1", "--listen-address", socket) as daemon:
        assert daemon.stderr is not None
        assert daemon.stderr.readline().startswith(b"READY unix:")
        client = Program(tmp_path)
        client.environment["TVIX_STORE"] = f"grpc+unix://{socket}"
        yield client
        daemon.terminate()
        assert daemon.wait(30) == 0


def assert_same(tvix_store: Program, nix: PrivateNix, *paths: str) -> None:
    """What we say of paths, and their NARs, are what Nix says, and has."""
    got = json.loads(tvix_store("path-info", "get", *paths))
    ours = {each["path"]: each for each in (got if isinstance(got, list) else [got])}
    theirs = nix.path_infos(*(path for path in paths if not path.endswith(".drv")))
    for each in theirs:
        stated = {key: each.get(key, none) for key, none in (("deriver", None), ("ca", None), ("signatures", []))}
        stated |= {key: each[key] for key in ("path", "narHash", "narSize", "references")}
        assert {key: value for key, value in ours[each["path"]].items() if key != "root"} == stated
    for path in paths:
        dumped = subprocess.run([programs.require("nix-store"), "--dump", nix.file(path)], capture_output=True, check=True).stdout
        tvix_store("export", "--format", "nar", path, "a.nar")
        assert (tvix_store.directory / "a.nar").read_bytes() == dumped
        (tvix_store.directory / "a.nar").unlink()


def test_a_path_is_copied_with_all_it_refers_to(tvix_store: Program, nix: PrivateNix, copy: list[str | Path]) -> None:
    copied = tvix_store(*copy, APPLICATION).splitlines()
    assert copied[-1] == APPLICATION
    assert sorted(copied) == tvix_store("list").splitlines() == [LIBRARY, ITSELF, APPLICATION]
    assert_same(tvix_store, nix, LIBRARY, ITSELF, APPLICATION)
    tvix_store("path-info", "verify", "--all")


def test_a_daemon_gets_the_same(remote: Program, nix: PrivateNix, copy: list[str | Path]) -> None:
    remote(*copy, APPLICATION)
    assert_same(remote, nix, LIBRARY, ITSELF, APPLICATION)
    assert remote(*copy, APPLICATION) == ""


def test_a_second_copy_finds_all_known_and_reads_nothing(tvix_store: Program, nix: PrivateNix, copy: list[str | Path]) -> None:
    first = json.loads(tvix_store(*copy, "--json", APPLICATION))
    assert {each["status"] for each in first} == {"copied"}
    assert first[-1] == {"path": APPLICATION, "status": "copied"}
    subprocess.run(["rm", "-r", nix.file(APPLICATION), nix.file(LIBRARY)], check=True)
    assert {each["status"] for each in json.loads(tvix_store(*copy, "--json", APPLICATION))} == {"known"}
    assert tvix_store(*copy, APPLICATION) == ""


def test_content_addresses_and_derivations_survive(
    tvix_store: Program, nix: PrivateNix, copy: list[str | Path], tree: Path
) -> None:
    added = nix.nix_store("--add", tree)
    flat = nix.nix_store("--add-fixed", "sha1", tree / "text")
    text = json.loads(nix.evaluated('builtins.toFile "text" "I refer to ${builtins.toFile "other" "x"}."', "--eval", "--json"))
    derivation = nix.evaluated(f'derivation {{ name = "a"; system = "s"; builder = "{text}"; }}').partition("!")[0]
    tvix_store(*copy, added, flat, text, derivation)
    assert_same(tvix_store, nix, added, flat, text, derivation)
    of_derivation = json.loads(tvix_store("path-info", "get", derivation))
    [stated] = listed(nix.nix("path-info", "--derivation", "--json", derivation))
    assert stated["ca"].startswith("text:")
    assert (of_derivation["ca"], of_derivation["references"]) == (stated["ca"], stated["references"])


def test_what_nix_signed_we_trust(tvix_store: Program, nix: PrivateNix, copy: list[str | Path]) -> None:
    tvix_store(*copy, APPLICATION)
    for name in ("first-1", "second-1"):  # the second one when the path is known
        tvix_store("key", "generate", name, "--out", name)
        nix.nix("store", "sign", "--recursive", "--key-file", tvix_store.directory / name, APPLICATION)
        assert tvix_store(*copy, APPLICATION) == ""
        trusted = ("--trusted-public-keys", tvix_store("key", "public", name))
        assert tvix_store("path-info", "verify", "--all", *trusted).splitlines() == [
            f"{path}: good" for path in (LIBRARY, ITSELF, APPLICATION)
        ]
    assert_same(tvix_store, nix, APPLICATION)


def test_what_we_signed_nix_trusts(tvix_store: Program, nix: PrivateNix, copy: list[str | Path]) -> None:
    tvix_store(*copy, APPLICATION)
    tvix_store("key", "generate", "ours-1", "--out", "key")
    tvix_store("path-info", "sign", "--key-file", "key", APPLICATION)
    [signature] = json.loads(tvix_store("path-info", "get", APPLICATION))["signatures"]
    cache = tvix_store.directory / "cache"
    nix.nix("copy", "--no-check-sigs", "--to", f"file://{cache}?compression=none", APPLICATION)
    narinfo = cache / f"{Path(APPLICATION).name[:32]}.narinfo"
    command = ["nix", "--extra-experimental-features", "nix-command", "store", "verify", "--store", f"file://{cache}"]
    command += ["--sigs-needed", "1", "--trusted-public-keys", tvix_store("key", "public", "key"), APPLICATION]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tvix_store.directory / "one")}
    assert subprocess.run(command, check=False, capture_output=True, env=environment).returncode != 0
    narinfo.write_text(f"{narinfo.read_text()}Sig: {signature}\n")
    environment["XDG_CACHE_HOME"] = str(tvix_store.directory / "other")  # Nix remembers narinfos
    subprocess.run(command, check=True, capture_output=True, env=environment)


def test_what_is_not_as_nix_says_is_refused_and_the_rest_is_copied(
    tvix_store: Program, nix: PrivateNix, copy: list[str | Path]
) -> None:
    file = nix.file(LIBRARY)
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    ended = tvix_store.run(*copy, APPLICATION)
    assert ended.code == 6
    assert ended.lines == [ITSELF] == tvix_store("list").splitlines()
    first, second = ended.error.splitlines()
    assert first.startswith(f"tvix-store: error: {Path(LIBRARY).name} is not copied: its NAR hash is sha256:")
    assert second == "tvix-store: 1 more paths refer to such paths, and are left out"
    statuses = {each["path"]: each["status"] for each in json.loads(tvix_store.run(*copy, "--json", APPLICATION).output)}
    assert statuses == {LIBRARY: "failed", ITSELF: "known", APPLICATION: "left out"}


def test_a_lost_executable_bit_is_noticed(tvix_store: Program, nix: PrivateNix, copy: list[str | Path]) -> None:
    nix.file(LIBRARY).chmod(0o444)
    assert tvix_store.run(*copy, LIBRARY).code == 6


def test_what_cannot_be_read_is_named(tvix_store: Program, nix: PrivateNix, copy: list[str | Path]) -> None:
    nix.file(LIBRARY).chmod(0)
    ended = tvix_store.run(*copy, LIBRARY, ITSELF, under=WITHOUT_ROOTS_POWERS)
    assert (ended.code, ended.error) == (8, f"tvix-store: error: cannot read {nix.file(LIBRARY)}: Permission denied\n")
    assert ended.lines == [ITSELF]


def test_another_nar_under_a_known_name_is_refused(tvix_store: Program, nix: PrivateNix, copy: list[str | Path]) -> None:
    tvix_store(*copy, LIBRARY)
    other = PrivateNix(tvix_store.directory / "other")
    other.register([Registered(LIBRARY, TreeFile(b"something else"))])
    ended = tvix_store.run("copy", "--from-nix", LIBRARY, "--nix-store", other.root)
    assert ended.code == 5
    assert "it is not overwritten" in ended.error
    assert_same(tvix_store, nix, LIBRARY)


def test_a_path_that_nix_does_not_have_is_named_and_others_are_copied(tvix_store: Program, copy: list[str | Path]) -> None:
    ended = tvix_store.run(*copy, built(9, "absent"), LIBRARY)
    assert (ended.code, ended.lines) == (3, [LIBRARY])
    assert ended.error == f"tvix-store: error: {built(9, 'absent')} is not a valid path in the store of Nix\n"


def test_a_path_may_be_said_as_a_link_a_base_name_or_with_a_path_inside(
    tvix_store: Program, copy: list[str | Path], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(ITSELF)
    (tmp_path / "result").symlink_to("link")
    assert tvix_store(*copy, "result") == ITSELF
    assert tvix_store(*copy, Path(LIBRARY).name) == LIBRARY
    assert tvix_store(*copy, f"{APPLICATION}/bin/sh") == APPLICATION


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--from-nix", "--nix-store", "/nowhere", LIBRARY], 3, "no Nix store is in /nowhere/nix/store"),
        (["--from-nix", "--nix-store", "https://cache.example.org", LIBRARY], 3, "is not a Nix store on this machine"),
        (["--from-nix", "--nix-store", "NIX", "/etc/passwd"], 3, "not a store path: '/etc/passwd' is not in /nix/store"),
        (["--from-nix", "--nix-store", "NIX", "hello"], 3, "not a store path: 'hello'"),
        (["--from-nix"], 2, "name some PATHs"),
        (["--from-json", "x", LIBRARY], 2, "the PATHs are in the FILE"),
        ([LIBRARY], 2, "say where from and where to"),
        (["--from-nix", "--to", "memory:", LIBRARY], 2, "none of the options for other stores"),
        (["--to", "memory:"], 2, "name some PATHs, or say --all"),
        (["--to", "memory:", "--all", LIBRARY], 2, "name some PATHs, or say --all"),
        (["--to", "memory:", "--require-signatures", LIBRARY], 2, "needs --trusted-public-keys"),
        (["--from", "./absent", "--to", "memory:", "--all"], 12, "/absent; tvix-store import makes one there"),
        (["--from-json", "absent"], 4, "absent"),
    ],
)
def test_what_cannot_be_copied_is_said_in_a_line(
    tvix_store: Program, nix: PrivateNix, arguments: list[str], code: int, reason: str
) -> None:
    (tvix_store.directory / "x").touch()
    ended = tvix_store.run("copy", *(str(nix.root) if each == "NIX" else each for each in arguments))
    assert (ended.code, ended.output, ended.error.count("\n")) == (code, b"", 1)
    assert reason in ended.error
    assert not Path("/nowhere").exists()  # as Nix would have it


def test_without_nix_it_is_said_how_to_get_it(tvix_store: Program, copy: list[str | Path]) -> None:
    environment = {**tvix_store.environment, "PATH": "/nowhere"}
    assert tvix_store.run(*copy, LIBRARY, environment=environment).code == 0
    ended = tvix_store.run(*copy, f"{STORE_DIR}/{'0' * 32}-missing", environment=environment)
    assert ended.code == 7
    assert "nix is not on the PATH; install Nix" in ended.error


def test_what_nix_builds_is_copied_with_a_proven_content_address(tvix_store: Program, tmp_path: Path) -> None:
    nix = Nix(tmp_path / "builder", tmp_path / "builder/store")
    floating = '{ __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; }'
    library = 'sh "library" "echo library > $out"'
    [built] = nix.build(f"""sh' "itself" "mkdir $out; echo ${{{library}}} $out > $out/self" {floating}""")
    tvix_store.environment |= {
        "NIX_STORE_DIR": str(nix.store_dir),
        "NIX_REMOTE": "local",
        "NIX_CONF_DIR": str(tmp_path / "builder/etc"),
    }
    tvix_store.environment |= {"NIX_STATE_DIR": str(tmp_path / "builder/state")}
    copied = tvix_store("copy", "--from-nix", built).splitlines()
    [stated] = nix.path_info(built)
    ours = json.loads(tvix_store("path-info", "get", built))
    assert sorted(copied) == sorted(ours["references"]) == sorted(stated["references"])
    assert (ours["ca"], ours["narHash"]) == (stated["ca"], stated["narHash"])
    assert built in ours["references"]


def test_the_graph_that_a_build_writes_is_copied(tvix_store: Program, tmp_path: Path) -> None:
    nix = Nix(tmp_path / "builder", tmp_path / "builder/store")
    top = 'sh "top" "echo ${sh "library" "echo library > $out"} $out > $out"'
    attributes = f'__structuredAttrs = true; exportReferencesGraph.closure = [ ({top}) ]; list = [ "a" ];'
    script = "/bin/cp .attrs.json ${placeholder ''out''}"
    [graph_file] = nix.build(f"""sh' "graph" "{script}" {{ {attributes} }}""")
    ended = tvix_store.run("copy", "--from-json", graph_file, "--store-dir", nix.store_dir)
    assert (ended.code, ended.error) == (0, "")
    assert [Path(path).name[33:] for path in ended.lines] == ["library", "top"]


def graph(nix: PrivateNix, *paths: str) -> bytes:
    """The file .attrs.json of a build with exportReferencesGraph, in the form that Nix 2.8 writes."""
    listed = [
        {
            "path": each["path"],
            "narHash": NixHash.parse(each["narHash"]).nixbase32,
            "narSize": each["narSize"],
            "references": each["references"],
            "closureSize": each["narSize"],
        }
        for each in nix.path_infos(*paths)
    ]
    attributes: dict[str, Any] = {"builder": "/bin/sh", "closure": listed, "exportReferencesGraph": {"closure": [paths[0]]}}
    return json.dumps(attributes | {"list": ["a"], "name": "graph", "outputs": {"out": built(8, "graph")}}).encode()


def test_a_graph_of_references_is_copied_without_asking_nix(tvix_store: Program, nix: PrivateNix) -> None:
    data = graph(nix, APPLICATION, LIBRARY, ITSELF)
    environment = {**tvix_store.environment, "PATH": "/nowhere"}
    ended = tvix_store.run("copy", "--from-json", "-", "--nix-store", nix.root, data=data, environment=environment)
    assert (ended.code, ended.error) == (0, "")
    assert ended.lines[-1] == APPLICATION
    assert tvix_store("list").splitlines() == [LIBRARY, ITSELF, APPLICATION]


def test_a_graph_with_a_hole_is_refused(tvix_store: Program, nix: PrivateNix) -> None:
    ended = tvix_store.run("copy", "--from-json", "-", "--nix-store", nix.root, data=graph(nix, APPLICATION, ITSELF))
    assert (ended.code, ended.lines) == (5, [ITSELF])
    assert f"it refers to {Path(LIBRARY).name}, which is neither in the store nor among the paths to copy" in ended.error
    data = graph(nix, LIBRARY)
    tvix_store("copy", "--from-json", "-", "--nix-store", nix.root, data=data)
    data = graph(nix, APPLICATION, ITSELF)
    assert tvix_store("copy", "--from-json", "-", "--nix-store", nix.root, data=data) == APPLICATION


def test_what_is_no_graph_is_refused(tvix_store: Program, nix: PrivateNix) -> None:
    for data, reason in (
        (b"{", "the standard input is not JSON"),
        (b'{"name": "x"}', "the standard input: not what nix path-info --json prints"),
    ):
        ended = tvix_store.run("copy", "--from-json", "-", "--nix-store", nix.root, data=data)
        assert (ended.code, ended.error.count("\n")) == (3, 1)
        assert reason in ended.error


def chain(nix: PrivateNix, length: int, size: int) -> list[str]:
    """Paths that refer to the three before them."""
    paths = [built(100 + number, f"link-{number}") for number in range(length)]
    nix.register(
        Registered(path, {b"a": TreeFile(noise(size, path)), b"b": TreeFile(b"everywhere")}, paths[max(0, number - 3) : number])
        for number, path in enumerate(paths)
    )
    return paths


def test_two_hundred_paths_are_copied(tvix_store: Program, nix: PrivateNix, copy: list[str | Path]) -> None:
    paths = chain(nix, 200, 5_000)
    assert tvix_store(*copy, paths[-1]).splitlines() == paths
    assert_same(tvix_store, nix, *paths[:3], paths[-1])
    tvix_store("path-info", "verify", "--all")


def test_an_interrupted_copy_leaves_complete_closures_and_goes_on(
    tvix_store: Program, nix: PrivateNix, copy: list[str | Path]
) -> None:
    paths = chain(nix, 60, 400_000)
    tvix_store("copy", "--quiet", "--all", "--from", "memory:", "--to", "./store")  # a store for the first one that comes early
    interrupted = 0
    for delay in (0.25, 0.3, 0.35, 0.4, 0.5):
        ended = tvix_store.run(*copy, paths[-1], under=("timeout", "--preserve-status", "--signal=INT", str(delay)))
        assert (ended.code, ended.own_error) in ((130, ""), (0, ""))
        interrupted += ended.code == 130
        there = tvix_store("list").splitlines()
        assert there == paths[: len(there)]
    assert interrupted
    tvix_store(*copy, paths[-1])
    assert tvix_store("list").splitlines() == paths
    tvix_store("path-info", "verify", "--all")


def test_a_person_sees_how_a_copy_goes(tvix_store: Program, copy: list[str | Path]) -> None:
    output, seen = on_a_terminal(tvix_store, *copy, APPLICATION)
    assert output.decode().splitlines()[-1] == APPLICATION
    lines = seen.split(CLEAR)
    assert lines[-1] == b""
    assert all(line.startswith(b"copy") and b"of 8.68 MiB" in line for line in lines if b"MiB" in line)  # none, where it is quick
