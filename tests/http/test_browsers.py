"""Web pages may read the cache, and may not write: not across origins, and not by a name that leads to this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.http.daemon import Daemon, nar_name
from tvix_store.testing import trees
from tvix_store.testing.trees import TreeFile

NARINFO = f"/{'0' * 32}.narinfo"
PAGE = "https://page.example"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/nix-cache-info", NARINFO, "/nowhere", "/nar/x", "/log/x", "/%2f"])
def test_any_page_may_read_also_errors(shared_daemon: Daemon, method: str, path: str) -> None:
    answer = shared_daemon.request(method, path, headers={"Origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-expose-headers"] == "*"


def test_a_browser_learns_before_a_range_is_asked_for_that_it_may(shared_daemon: Daemon) -> None:
    asking = {"Origin": PAGE, "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "range"}
    answer = shared_daemon.request("OPTIONS", "/nar/x", headers=asking)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-methods"] == "GET, HEAD"
    assert answer.headers["access-control-allow-headers"] == "*"
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, PUT"


@pytest.mark.parametrize("origin", [PAGE, "null", "http://localhost:8000", "chrome-extension://abc", "x" * 5000])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH"])
def test_no_page_may_write(shared_daemon: Daemon, method: str, origin: str) -> None:
    answer = shared_daemon.request(method, "/log/x", b"x", headers={"Origin": origin})
    assert answer.status == 403
    assert "may not write here" in answer.line
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert shared_daemon.is_well()


@pytest.mark.parametrize("path", [NARINFO, nar_name(b"x"), "/log/x"])
def test_an_answer_to_a_put_is_for_no_page(shared_daemon: Daemon, path: str) -> None:
    answer = shared_daemon.put(path, b"x")
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:80", "localhost.", "127.0.0.1", "127.0.0.2:1", "[::1]:8000", "[::1]", "192.0.2.1", "a.localhost"],
)
def test_names_of_this_machine_are_known(shared_daemon: Daemon, host: str) -> None:
    assert shared_daemon.get("/nix-cache-info", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "page.example",
        "page.example:8000",
        "localhost.page.example",
        "notlocalhost",
        "127.0.0.1.page.example",
        "[x]",
        "1.2.3",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
def test_a_name_that_leads_here_by_the_will_of_others_is_refused(shared_daemon: Daemon, method: str, host: str) -> None:
    answer = shared_daemon.request(method, "/nix-cache-info", b"" if method == "PUT" else None, {"Host": host})
    assert answer.status == 421
    assert method == "HEAD" or "--allow-host" in answer.line
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.fixture(scope="module")
def allowing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with names of its own, and with listeners where no name is looked at."""
    directory = tmp_path_factory.mktemp("allowing")
    hosts = ("--allow-host", "cache.example.org", "--allow-host", "Proxy")
    daemon = Daemon(directory, *hosts, "--allow-origin", PAGE, "-l", directory / "socket", "-l", "0.0.0.0:0", "--allow-remote")
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.mark.parametrize(("host", "status"), [("cache.example.org", 200), ("proxy:80", 200), ("other.example.org", 421)])
def test_names_that_are_allowed_are_known(allowing: Daemon, host: str, status: int) -> None:
    assert allowing.get("/nix-cache-info", Host=host).status == status


def test_pages_that_are_allowed_may_write(allowing: Daemon) -> None:
    nar = trees.nar(TreeFile(b"from a page"))
    assert allowing.put(nar_name(nar), nar, Origin=PAGE + ".evil").status == 403
    assert allowing.put(nar_name(nar), nar, Origin=PAGE).status == 201


def test_a_browser_learns_that_an_allowed_page_may_write_and_shows_it_the_answer(allowing: Daemon) -> None:
    asking = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "content-type"}
    answer = allowing.request("OPTIONS", "/log/x", headers={"Origin": PAGE, **asking})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, PAGE)
    assert "PUT" in answer.headers["access-control-allow-methods"].split(", ")
    assert answer.headers["access-control-allow-headers"] == "*, authorization"
    assert allowing.put("/log/x", b"x", Origin=PAGE).headers["access-control-allow-origin"] == PAGE
    other = allowing.request("OPTIONS", "/log/x", headers={"Origin": PAGE + ".evil", **asking})
    assert other.headers["access-control-allow-methods"] == "GET, HEAD"


def test_other_listeners_answer_to_any_name_but_to_no_page_that_writes(allowing: Daemon) -> None:
    *_, remote = allowing.log.split("\n")[0].split()
    there = Daemon(allowing.program.directory / "there")
    there.port = int(remote.rpartition(":")[2])
    assert there.get("/nix-cache-info", Host="page.example").status == 200
    assert there.put("/log/x", b"x", Host="page.example", Origin="http://page.example").status == 403


def test_over_a_unix_socket_clients_may_say_any_name(allowing: Daemon) -> None:
    for authority in (None, "localhost", "page.example"):
        assert check_health(f"unix:{allowing.program.directory}/socket", authority) is grpc.StatusCode.OK


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "ipv4:127.0.0.1"])
def test_grpc_clients_are_known_by_what_they_say_unasked(shared_daemon: Daemon, address: str) -> None:
    assert check_health(f"{address}:{shared_daemon.port}") is grpc.StatusCode.OK


def test_grpc_is_refused_in_its_own_way(shared_daemon: Daemon) -> None:
    address = f"127.0.0.1:{shared_daemon.port}"
    assert check_health(address, "page.example") is grpc.StatusCode.PERMISSION_DENIED
    assert check_health(address, origin=PAGE) is grpc.StatusCode.PERMISSION_DENIED


def check_health(address: str, authority: str | None = None, origin: str | None = None) -> grpc.StatusCode:
    options = [("grpc.default_authority", authority)] if authority else []
    metadata = (("origin", origin),) if origin else ()
    with grpc.insecure_channel(address, options) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(HEALTH)
        try:
            check(b"", timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--allow-host", "https://cache.example.org"),
        ("--allow-host", "cache.example.org:80"),
        ("--allow-host", "*"),
        ("--allow-host", ""),
        ("--allow-origin", "cache.example.org"),
        ("--allow-origin", "https://cache.example.org/"),
        ("--allow-origin", "null"),
        ("--allow-origin", "*"),
    ],
)
def test_what_is_no_name_and_no_origin_cannot_be_allowed(tmp_path: Path, option: str, value: str) -> None:
    daemon = Daemon(tmp_path)
    done = daemon.program.run("daemon", "-l", "127.0.0.1:0", option, value)
    assert done.code == 3
    assert repr(value) in done.error
