"""DELETE: an admin deletes paths and documents, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from tests.http.daemon import Daemon, wait_for_tokens
from tvix_store.config import open_store
from tvix_store.model import nixbase32
from tvix_store.testing.contracts.path_infos import path
from tvix_store.testing.contracts.removal import put

StartDaemon = Callable[..., Daemon]
DERIVATION = "0" * 32 + "-hello-2.10.drv"
DOCUMENTS = (
    f"/log/{DERIVATION}",
    f"/realisations/sha256:{'ab' * 32}!out.doi",
    f"/build-trace-v2/{DERIVATION}/out.doi",
    "/debuginfo/abcd.debug",
)
STRANGER = "this needs a token with the scope admin, as a bearer token or as the password of any user"


def url(name: str) -> str:
    return f"/{nixbase32.encode(path(name).output_hash)}.narinfo"


def fill(daemon: Daemon, more: str = "") -> None:
    """Paths each of which refers to the one before."""

    async def put_all() -> None:
        async with await open_store(f"local://{daemon.program.store}{more}", store_dir=daemon.store_dir) as store:
            await put(store, "far")
            await put(store, "near", "far")
            await put(store, "needs", "near")

    asyncio.run(put_all())


def tokens(daemon: Daemon, *scopes: str, more: Sequence[str] = ()) -> list[dict[str, str]]:
    """Header fields with tokens of some scopes."""
    made = [daemon.program("token", "create", "--scope", scope, "--quiet", *more) for scope in scopes]
    wait_for_tokens()
    return [{"Authorization": f"Bearer {token}"} for token in made]


def answers(daemon: Daemon, place: str, headers: dict[str, str]) -> tuple[int, str]:
    answer = daemon.request("DELETE", place, headers=headers)
    return answer.status, answer.line


def test_an_admin_deletes_a_path(daemon: Daemon) -> None:
    fill(daemon)
    [admin] = tokens(daemon, "admin")
    for _ in range(4):  # both workers keep it
        assert daemon.get(url("needs")).status == 200
    assert answers(daemon, url("near"), admin) == (409, f"{path('near').absolute(daemon.store_dir)} is needed by {path('needs')}")
    assert answers(daemon, url("needs"), admin) == (200, f"{path('needs')} is deleted")
    assert answers(daemon, url("needs"), admin) == (404, f"path {url('needs')[1:33]} is not in the store")
    for _ in range(4):
        assert daemon.get(url("needs")).status == 404
        assert daemon.get(url("near")).status == 200
    assert answers(daemon, url("near"), admin)[0] == 200
    assert len(daemon.paths()) == 1
    assert daemon.is_well()


def test_a_pinned_path_stays(daemon: Daemon) -> None:
    fill(daemon)
    [admin] = tokens(daemon, "admin")
    daemon.program("pin", "add", "--store-dir", daemon.store_dir, "v1", url("needs")[1:33])
    status, line = answers(daemon, url("needs"), admin)
    assert (status, line) == (409, f"{path('needs').absolute(daemon.store_dir)} is pinned by v1: remove that pin first")
    daemon.program("pin", "remove", "v1")
    assert answers(daemon, url("needs"), admin)[0] == 200


@pytest.mark.parametrize("document", DOCUMENTS)
def test_an_admin_deletes_a_document(daemon: Daemon, document: str) -> None:
    assert daemon.put(document, b"{}").status == 201
    [admin] = tokens(daemon, "admin")
    assert answers(daemon, document, admin) == (200, "it is deleted")
    assert daemon.get(document).status == 404
    assert answers(daemon, document, admin) == (404, "this is not here")
    assert daemon.is_well()


@pytest.mark.parametrize("place", [url("needs"), url("nowhere"), DOCUMENTS[0], "/realisations/sha256:ab!out.doi"])
def test_others_hear_the_same_whether_it_is_there_or_not(daemon: Daemon, place: str) -> None:
    fill(daemon)
    daemon.put(DOCUMENTS[0], b"a log")
    assert answers(daemon, place, {}) == (401, STRANGER), "nobody has a token"
    pull, push = tokens(daemon, "pull", "push")
    assert answers(daemon, place, {}) == (401, STRANGER)
    for headers, scope in ((pull, "pull"), (push, "push")):
        status, line = answers(daemon, place, headers)
        assert status == 403
        assert line.endswith(f" has the scope {scope}; this needs a token with the scope admin")
    assert len(daemon.paths()) == 3


def test_what_can_not_be_deleted_is_told(daemon: Daemon, start_daemon: StartDaemon) -> None:
    fill(daemon)
    [admin] = tokens(daemon, "admin")
    for place, status in (("/nar/x", 405), ("/nix-cache-info", 405), ("/x.ls", 405), ("/x.narinfo", 404), ("/log/x", 404)):
        assert answers(daemon, place, admin)[0] == status
    deletable, fixed = (daemon.request("OPTIONS", place).headers["allow"] for place in (url("far"), "/nix-cache-info"))
    assert (deletable, fixed) == ("GET, HEAD, OPTIONS, PUT, DELETE", "GET, HEAD, OPTIONS, PUT")
    tokens_of_daemon = ("--token-file", f"{daemon.program.store}/tokens.json")
    for name, options, line, allow in (
        (
            "reader",
            ("--read-only", "--store", f"local://{daemon.program.store}"),
            "this cache is read-only",
            "GET, HEAD, OPTIONS",
        ),
        (
            "front",
            ("--store", f"grpc+http://127.0.0.1:{daemon.port}"),
            "this daemon deletes nothing from the store behind it",
            "GET, HEAD, OPTIONS, PUT",
        ),
    ):
        other = start_daemon(*options, *tokens_of_daemon, name=name)
        assert answers(other, url("needs"), admin) == (403, line)
        assert other.request("OPTIONS", url("needs")).headers["allow"] == allow
    assert len(daemon.paths()) == 3


def test_a_path_that_only_an_upstream_has_is_not_here(daemon: Daemon, start_daemon: StartDaemon) -> None:
    fill(daemon)
    front = start_daemon("--substituters", f"{daemon.url}?require-signatures=false", name="front")
    [admin] = tokens(front, "admin")
    assert front.get(url("needs")).status == 200
    assert answers(front, url("needs"), admin)[0] == 404
    assert front.paths() == []


def test_a_named_cache_loses_paths_of_its_own(start_daemon: StartDaemon) -> None:
    daemon = start_daemon("--cache", "ours", "--cache", "theirs private")
    for cache in ("?cache=ours", "?cache=theirs", ""):
        fill(daemon, cache)
    ours, theirs, everybody = (
        *tokens(daemon, "admin", more=("--cache", "ours")),
        *tokens(daemon, "admin", more=("--cache", "theirs")),
        *tokens(daemon, "admin"),
    )
    assert answers(daemon, f"/ours{url('needs')}", theirs)[0] == 403
    unknown = answers(daemon, f"/nowhere{url('needs')}", ours)
    assert answers(daemon, f"/theirs{url('needs')}", ours) == unknown == (405, "DELETE is not understood here")
    assert answers(daemon, f"/ours{url('needs')}", {}) == (401, STRANGER)
    assert answers(daemon, f"/ours{url('far')}", ours)[0] == 409
    assert answers(daemon, f"/ours{url('needs')}", ours)[0] == 200
    assert daemon.request("GET", f"/ours{url('needs')}").status == 404
    assert daemon.request("GET", f"/theirs{url('needs')}", headers=theirs).status == 200
    assert daemon.request("GET", url("needs"), headers=everybody).status == 200
    assert answers(daemon, f"/theirs{url('needs')}", everybody)[0] == 200
    assert "Traceback" not in daemon.log
