"""`tvix-store push`, from stores of the real Nix, to daemons of ours and to a real nginx."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

from benchmarks.nginx import running_nginx
from tests import programs
from tests.cli.program import Program
from tests.http.daemon import Daemon
from tests.nginx import nginx_before
from tests.private_nix import PrivateNix, Registered, built
from tvix_store.cli.push_paths import Skip, push_paths
from tvix_store.errors import IncompleteError, InvalidError, UnsupportedError
from tvix_store.model.nodes import SymlinkNode
from tvix_store.model.signature import SecretKey
from tvix_store.operations.granular.account import Account
from tvix_store.operations.paths.pushed import Pushed, PushStatus
from tvix_store.testing import trees
from tvix_store.testing.content import noise
from tvix_store.testing.trees import Tree, TreeFile

LIBRARY, ITSELF, APPLICATION, OTHER = (built(n, name) for n, name in enumerate(("library", "itself", "application", "other"), 1))
LARGE = noise(9_000_001, "large")
TREE: dict[bytes, Tree] = {
    b"bin": {b"run": TreeFile(f"#!{LIBRARY}\n".encode(), executable=True), b"sh": SymlinkNode(b"run")},
    b"empty": TreeFile(b""),
    b"large": TreeFile(LARGE),
    b"nothing": {},
    b"\xff\xfe": TreeFile(b"not UTF-8"),
}
PATHS = (
    Registered(LIBRARY, TreeFile(noise(100_000, "library"), executable=True)),
    Registered(ITSELF, SymlinkNode(ITSELF.encode()), [ITSELF]),
    Registered(APPLICATION, TREE, [LIBRARY, ITSELF]),
    Registered(OTHER, TreeFile(b"alone")),
)
KEY = SecretKey.generate("upstream-1")


@pytest.fixture
def nix(tmp_path: Path) -> PrivateNix:
    """A store with an application that refers to a library, and to a path that refers to itself; and with another path."""
    nix = PrivateNix(tmp_path / "nix")
    nix.register(PATHS)
    return nix


CACHES = ("parts", "changes", "stopped", "broken", "program", "proxied", "skipped", "token")


class Caches(NamedTuple):
    """A daemon with an empty cache for each test, and a token to push with."""

    daemon: Daemon
    token: str

    def url(self, name: str) -> str:
        """Of a cache, for clients that push."""
        assert name in CACHES
        return f"http://any:{self.token}@127.0.0.1:{self.daemon.port}/{name}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caches]:
    options = [each for name in CACHES for each in ("--cache", name)]
    daemon = Daemon(tmp_path_factory.mktemp("shared"), *options)
    [token] = daemon.program.run("token", "create", "--scope", "push").lines
    daemon.start()
    yield Caches(daemon, token)
    daemon.stop()


def pushed(nix: PrivateNix, to: str, *paths: str, skip: Skip | None = None, account: Account | None = None) -> dict[str, Pushed]:
    """The outcomes by path."""

    async def push() -> dict[str, Pushed]:
        async with aclosing(push_paths(paths, to, nix_store=str(nix.root), skip=skip, account=account)) as outcomes:
            return {each.path: each async for each in outcomes}

    return asyncio.run(push())


def statuses(outcomes: dict[str, Pushed]) -> dict[str, PushStatus]:
    return {path: each.status for path, each in outcomes.items()}


def fetched(nix: PrivateNix, url: str, *paths: str) -> list[str]:
    """What another Nix has, which has fetched `paths` from `url`."""
    other = PrivateNix(nix.root.with_name("other"))
    other.nix("copy", "--no-check-sigs", "--from", url, *paths)
    other.nix_store("--verify", "--check-contents")
    return sorted(other.nix_store("--query", "--requisites", *paths).splitlines())


CLOSURE = sorted((LIBRARY, ITSELF, APPLICATION))


def test_a_closure_is_pushed_in_parts_and_nix_fetches_it(nix: PrivateNix, shared: Caches) -> None:
    url, account = shared.url("parts"), Account()
    assert statuses(pushed(nix, url, APPLICATION, account=account)) == dict.fromkeys(CLOSURE, PushStatus.COPIED)
    assert account.chunks > 10
    assert fetched(nix, f"{shared.daemon.url}/parts", APPLICATION) == CLOSURE
    account = Account()
    assert statuses(pushed(nix, url, APPLICATION, account=account)) == dict.fromkeys(CLOSURE, PushStatus.KNOWN)
    assert account.sent == 0


def test_of_a_changed_file_only_changed_chunks_are_sent(nix: PrivateNix, shared: Caches) -> None:
    pushed(nix, shared.url("changes"), APPLICATION)
    newer = built(9, "newer")
    nix.register([Registered(newer, {**TREE, b"large": TreeFile(LARGE[:4_000_000] + b"!" + LARGE[4_000_000:])}, [LIBRARY])])
    account = Account()
    assert pushed(nix, shared.url("changes"), newer, account=account)[newer].status is PushStatus.COPIED
    assert 0 < account.sent < 1_500_000


def test_a_push_that_was_stopped_goes_on(nix: PrivateNix, shared: Caches) -> None:
    async def push() -> None:
        async with aclosing(push_paths([APPLICATION], shared.url("stopped"), nix_store=str(nix.root))) as outcomes:
            await anext(outcomes)

    asyncio.run(push())
    again = statuses(pushed(nix, shared.url("stopped"), APPLICATION))
    assert sorted(again) == CLOSURE
    assert set(again.values()) <= {PushStatus.COPIED, PushStatus.KNOWN}


def test_a_path_that_has_changed_is_refused_by_the_daemon_and_others_go_on(nix: PrivateNix, shared: Caches) -> None:
    url = shared.url("broken")
    nix.file(LIBRARY).chmod(0o755)
    nix.file(LIBRARY).write_bytes(noise(100_000, "something else"))
    outcomes = pushed(nix, url, APPLICATION, OTHER)
    assert statuses(outcomes) == {
        LIBRARY: PushStatus.FAILED,
        APPLICATION: PushStatus.LEFT_OUT,
        ITSELF: PushStatus.COPIED,
        OTHER: PushStatus.COPIED,
    }
    assert isinstance(outcomes[LIBRARY].error, InvalidError)
    assert LIBRARY.rpartition("/")[2] in str(outcomes[LIBRARY].error)
    nix.file(LIBRARY).write_bytes(noise(100_000, "library") + b"more")
    assert LIBRARY.rpartition("/")[2] in str(pushed(nix, url, LIBRARY)[LIBRARY].error)
    nix.file(LIBRARY).unlink()
    assert LIBRARY in str(pushed(nix, url, LIBRARY)[LIBRARY].error)


def test_the_program_takes_symlinks_and_the_standard_input(nix: PrivateNix, shared: Caches, tvix_store: Program) -> None:
    (tvix_store.directory / "result").symlink_to(OTHER)
    tvix_store.environment["TVIX_STORE_PUSH_TO"] = shared.url("program")
    options: Sequence[str | Path] = ["push", "--nix-store", nix.root]
    ended = tvix_store.run(*options, "./result")
    assert (ended.code, ended.lines) == (0, [OTHER])
    assert ended.error.startswith("1 path pushed, 0 were there; ")
    assert tvix_store(*options, "--quiet", "./result") == ""
    made = tvix_store.run(*options, "--to", "./new", "./result")
    assert (made.code, made.lines) == (0, [OTHER])
    misspelt = tvix_store.run(*options, "--to", "new", "./result")
    assert (misspelt.code, misspelt.error.count("\n")) == (3, 1)
    ended = tvix_store.run(*options, "--stdin", "--json", data=f"{LIBRARY} {OTHER}\n{built(8, 'gone')}\nnonsense".encode())
    told = json.loads(ended.output)
    assert ended.code == 3
    assert {each["path"]: each["status"] for each in told["paths"]} == {
        LIBRARY: "copied",
        OTHER: "known",
        built(8, "gone"): "failed",
        "nonsense": "failed",
    }
    account, size = told["account"], sum(len(trees.nar(each.tree)) for each in PATHS if each.path in (LIBRARY, OTHER))
    assert [account[each] for each in ("copied", "known", "failed", "nar_bytes")] == [1, 1, 2, size]
    assert account["sent_bytes"] >= 100_000
    assert ended.error.count("\n") == 2


def test_wrong_uses_of_the_program_are_lines(nix: PrivateNix, tvix_store: Program) -> None:
    for arguments, code, words in (
        (("push", OTHER), 2, "say where to: --to URL, or TVIX_STORE_PUSH_TO"),
        (("push", "--to", "http://localhost:1"), 2, "name some PATHs, or say --stdin"),
        (("push", "--to", "http://localhost:1", "--nix-store", nix.root, OTHER), 7, "localhost:1"),
        (("push", "--to", "ftp://localhost:1", "--nix-store", nix.root, OTHER), 3, "unknown scheme 'ftp'"),
        (("push", "--to", "file:///x?compression=xz", "--nix-store", nix.root, OTHER), 3, "written as zstd or none"),
    ):
        ended = tvix_store.run(*arguments)
        assert (ended.code, words in ended.error) == (code, True), ended.error
        assert "Traceback" not in ended.error


def test_other_caches_get_nars(nix: PrivateNix, tmp_path: Path) -> None:
    programs.require("nginx")
    key = tmp_path / "key"
    key.write_text(str(KEY))
    key.chmod(0o600)
    with running_nginx(tmp_path / "nginx") as url:
        files = tmp_path / "nginx/files"
        assert statuses(pushed(nix, f"{url}?secret-key={key}", APPLICATION)) == dict.fromkeys(CLOSURE, PushStatus.COPIED)
        assert len(list((files / "nar").glob("*.nar.zst"))) == 3
        assert all(f"Sig: {KEY.name}:" in each.read_text() for each in files.glob("*.narinfo"))
        assert fetched(nix, url, APPLICATION) == CLOSURE
        nix.file(OTHER).chmod(0o755)
        nix.file(OTHER).write_bytes(b"ALONE")
        outcomes = pushed(nix, url, APPLICATION, OTHER)
        assert statuses(outcomes) == {**dict.fromkeys(CLOSURE, PushStatus.KNOWN), OTHER: PushStatus.FAILED}
        assert "nix-store --verify-path" in str(outcomes[OTHER].error)
        assert len(list(files.glob("*.narinfo"))) == 3


def test_what_a_cache_does_not_take_is_told(nix: PrivateNix, tmp_path: Path) -> None:
    programs.require("nginx")
    with running_nginx(tmp_path / "nginx", most="1m") as url:
        outcomes = pushed(nix, url, APPLICATION, OTHER)
        assert statuses(outcomes) == {
            APPLICATION: PushStatus.FAILED,
            **dict.fromkeys((LIBRARY, ITSELF, OTHER), PushStatus.COPIED),
        }
        assert "status 413; it is too large for the server" in str(outcomes[APPLICATION].error)
    reader = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    Thread(target=reader.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    with pytest.raises(UnsupportedError, match="status 501; is it a binary cache that takes PUT"):
        pushed(nix, f"http://127.0.0.1:{reader.server_port}", OTHER)
    reader.shutdown()
    reader.server_close()


def test_a_daemon_behind_a_proxy_that_speaks_no_grpc_gets_parts(nix: PrivateNix, shared: Caches, tmp_path: Path) -> None:
    with nginx_before(f"127.0.0.1:{shared.daemon.port}", tmp_path / "proxy") as proxy:
        account = Account()
        outcomes = pushed(nix, f"http://any:{shared.token}@{proxy.address}/store/proxied", APPLICATION, account=account)
        assert statuses(outcomes) == dict.fromkeys(CLOSURE, PushStatus.COPIED)
        assert account.chunks > 10
        assert any("PutChunks" in line for line in proxy.log)


def test_paths_of_upstreams_are_left_out(nix: PrivateNix, shared: Caches, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(str(KEY))
    nix.nix("store", "sign", "--key-file", key, LIBRARY)
    skip = Skip((KEY.name,), ask=False)
    url = shared.url("skipped")
    outcomes = pushed(nix, url, APPLICATION, OTHER, skip=skip)
    assert outcomes[LIBRARY] == Pushed(LIBRARY, PushStatus.SKIPPED, "signed by upstream-1")
    error = outcomes[APPLICATION].error
    assert isinstance(error, IncompleteError)
    assert "was left out, and which the cache cannot get" in str(error)
    assert outcomes[OTHER].status is PushStatus.COPIED
    # A directory does not insist on references.
    assert pushed(nix, f"file://{tmp_path}/cache", APPLICATION, skip=skip)[APPLICATION].status is PushStatus.COPIED
    # The cache has `other` meanwhile, and is itself the upstream of another one.
    options = ("--workers", "1", "--substituters", f"{url}?require-signatures=false")
    front = Daemon(tmp_path / "front", *options)
    front.start()
    try:
        outcomes = pushed(nix, front.url, OTHER, LIBRARY, skip=Skip(()))
        assert outcomes[OTHER] == Pushed(OTHER, PushStatus.SKIPPED, "an upstream of the cache has it")
        assert outcomes[LIBRARY].status is PushStatus.COPIED
        # Without that wish, the path is pushed, and not fetched.
        assert pushed(nix, front.url, OTHER)[OTHER].status is PushStatus.COPIED
    finally:
        front.stop()
    skip = Skip((), (f"{url}?require-signatures=false",), ask=False)
    assert "has it" in pushed(nix, f"file://{tmp_path}/cache", OTHER, skip=skip)[OTHER].reason


def test_a_token_lets_push(nix: PrivateNix, shared: Caches, tvix_store: Program) -> None:
    command: Sequence[str | Path] = ["push", "--nix-store", nix.root, "--to", f"{shared.daemon.url}/token"]
    ended = tvix_store.run(*command, APPLICATION, OTHER)
    assert (ended.code, ended.lines) == (8, [])
    assert ended.error.count("error:") == 1, ended.error
    netrc = tvix_store.directory / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login any password {shared.token}\n")
    netrc.chmod(0o600)
    ended = tvix_store.run(*command, OTHER)
    assert (ended.code, ended.lines) == (0, [OTHER]), ended.error
