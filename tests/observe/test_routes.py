"""Routes: few of them, whatever clients ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.observe.routes import Route, route_of

CALLS = {"/tvix.store.v1.PathInfoService/Get"}
KNOWN = {
    *("narinfo", "nar", "listing", "log", "realisation", "debuginfo", "browse", "cache-info", "metrics", "health", "other"),
    "tvix.store.v1.PathInfoService/Get",
}


def scope(path: str, method: str = "GET", content_type: bytes = b"") -> dict[str, Any]:
    return {"type": "http", "path": path, "method": method, "headers": [(b"content-type", content_type)] if content_type else []}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/p29k1yxncm9hr9pbsjn5xvcvr54jayny.narinfo", "narinfo"),
        ("/team-a/p29k1yxncm9hr9pbsjn5xvcvr54jayny.narinfo", "narinfo"),
        ("/nar/x.nar.zst", "nar"),
        ("/team-a/nar/x.nar.zst", "nar"),
        ("/nar/snix-castore/abc", "nar"),
        ("/x.ls", "listing"),
        ("/log/x.drv", "log"),
        ("/realisations/sha256:x!out.doi", "realisation"),
        ("/build-trace-v2/x.drv/out.doi", "realisation"),
        ("/debuginfo/abc", "debuginfo"),
        ("/serve/x/a/nar/b", "browse"),
        ("/nix-cache-info", "cache-info"),
        ("/metrics", "metrics"),
        ("/healthz", "health"),
        ("/readyz", "health"),
        ("/", "other"),
        ("", "other"),
        ("/a/b/nar/c", "other"),
    ],
)
def test_questions_of_a_cache(path: str, name: str) -> None:
    assert route_of(scope(path), CALLS) == Route("http", name, "GET")


def test_calls() -> None:
    path = "/tvix.store.v1.PathInfoService/Get"
    assert route_of(scope(path, "POST"), CALLS) == Route("grpc", path[1:], "POST")
    assert route_of(scope(f"/rpc/v1{path}", "POST"), CALLS) == Route("connect", path[1:], "POST")
    assert route_of(scope("/rpc/v1/made.up/Name", "POST"), CALLS) == Route("connect", "other", "POST")
    assert route_of(scope("/made.up/Name", "POST", b"application/grpc+proto"), CALLS) == Route("grpc", "other", "POST")


@given(st.text().map(lambda text: f"/{text}"), st.text(), st.binary())
def test_nothing_that_a_client_makes_up_becomes_a_label(path: str, method: str, content_type: bytes) -> None:
    route = route_of(scope(path, method, content_type), CALLS)
    assert route.name in KNOWN
    assert route.protocol in ("http", "grpc", "connect")
    assert route.method in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "other")
