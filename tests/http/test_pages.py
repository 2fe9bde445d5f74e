"""Pages for people: the start of a cache, its paths, texts and refusals. Programs get what they always got."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urljoin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.http.in_process import NO_FIELDS, answer
from tests.http.page_reader import PageReader, read_page
from tvix_store import open_store
from tvix_store.asgi import App, Event, Receive, Send, set_grant
from tvix_store.errors import UnsupportedError
from tvix_store.http import path_index
from tvix_store.http.app import BinaryCache
from tvix_store.http.forms import Form, wanted_form
from tvix_store.http.own_url import OwnUrl
from tvix_store.http.settings import CacheSettings
from tvix_store.layers.passing import PassingPathInfos
from tvix_store.model.grant import Grant, Scope
from tvix_store.model.markup import Html, element
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import SecretKey
from tvix_store.model.store_path import StorePath
from tvix_store.rpc.status import Status
from tvix_store.server.forwarded import Forwarded
from tvix_store.server.named_caches import NamedCaches, ServedCache
from tvix_store.server.push_route import PushRoute
from tvix_store.server.refusal import refuse
from tvix_store.services.store import Store
from tvix_store.testing.content import put_tree
from tvix_store.testing.trees import Tree, TreeFile

BROWSER = {b"accept": b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}
JSON = {b"accept": b"application/json"}
ANY = {b"accept": b"*/*"}
KEY = SecretKey.from_seed("cache.example.org-1", bytes(32))
OTHER_KEY = SecretKey.from_seed("builder-1", bytes(range(32)))
EVIL = "</code><script>alert(1)</script>&amp;\"'"
STRANGER = Grant(Scope.PULL)


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with await open_store("memory://") as store:
        yield store


async def put_path(store: Store, path: StorePath, tree: Tree) -> PathInfo:
    node = await put_tree(store, tree)
    return await store.path_infos.put(PathInfo(path, node, await store.nar.calculate(node)))


async def page(app: App, path: str, fields: Mapping[bytes, bytes] = NO_FIELDS, status: int = 200, **more: Any) -> PageReader:
    got, headers, body = await answer(app, path, fields={**BROWSER, **fields}, **more)
    assert got == status
    assert headers.get(b"content-length", b"%d" % len(body)) == b"%d" % len(body)
    return read_page(headers, body)


def granting(app: App, grant: Grant) -> App:
    """`app`, for a client with this grant."""

    async def granted(scope: Event, receive: Receive, send: Send) -> None:
        set_grant(scope, grant)
        await app(scope, receive, send)

    return granted


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, Form.TEXT),
        (b"", Form.TEXT),
        (b"*/*", Form.TEXT),
        (b"text/*", Form.TEXT),
        (b"application/*;q=1", Form.TEXT),
        (BROWSER[b"accept"], Form.PAGE),
        (b"TEXT/HTML ; charset=utf-8", Form.PAGE),
        (b"application/json", Form.JSON),
        (b"application/json, text/plain, */*", Form.JSON),
        (b"text/html;q=0.5,application/json", Form.JSON),
        (b"application/json;q=0.5, text/html;q=0.501", Form.PAGE),
        (b"text/html;q=0", Form.TEXT),
        (b"text/html; q=x, application/json;q=0.1", Form.PAGE),
        (b",;;q=,text/html", Form.PAGE),
        (b"text/htmlx", Form.TEXT),
    ],
)
def test_the_form_is_the_one_that_a_client_names(accept: bytes | None, form: Form) -> None:
    assert wanted_form(accept) is form


@settings(max_examples=50)
@given(st.text(), st.text())
def test_every_text_enters_a_page_as_text(text: str, value: str) -> None:
    made = element("main", text, element("a", EVIL, href=value))
    assert "<script" not in made
    assert made.count("<") == 4
    assert made.count('"') == 2
    assert type(made) is Html


@pytest.mark.parametrize("fields", [NO_FIELDS, ANY])
async def test_programs_get_the_line_that_they_always_got(store: Store, fields: Mapping[bytes, bytes]) -> None:
    status, headers, body = await answer(BinaryCache(store, CacheSettings()), "/", fields=fields)
    assert (status, headers[b"content-type"]) == (200, b"text/plain; charset=utf-8")
    assert body.endswith(b": a binary cache for Nix. This is its URL for substituters and nix copy\n")
    assert headers[b"vary"] == b"accept"


async def test_the_start_says_how_to_use_the_cache(store: Store) -> None:
    app = BinaryCache(store, CacheSettings(signing_keys=(KEY, OTHER_KEY)))
    start = await page(app, "/", {b"host": b"cache.example.org:8000"}, scheme="https")
    assert start.title.startswith("cache.example.org:8000")
    keys = f"{KEY.public} {OTHER_KEY.public}"
    assert f"extra-substituters = https://cache.example.org:8000\nextra-trusted-public-keys = {keys}" in start.text
    assert "nix copy --to 'https://cache.example.org:8000?compression=zstd' ./result" in start.text
    assert "tvix-store --store grpc+https://cache.example.org:8000 list" in start.text
    assert "fetch and push" in start.text
    assert {urljoin("/", link) for link in start.links} == {"/serve/", "/nix-cache-info"}
    assert KEY.data[:32].hex() not in start.text
    for link in start.links:
        status, *_ = await answer(app, urljoin("/", link))
        assert status == 200


async def test_a_cache_that_signs_nothing_names_the_keys_that_it_checks(store: Store) -> None:
    start = await page(BinaryCache(store, CacheSettings()), "/")
    assert "extra-trusted-public-keys" not in start.text
    assert "signs nothing" in start.text
    start = await page(BinaryCache(store, CacheSettings(trusted_keys=(OTHER_KEY.public,))), "/")
    assert f"extra-trusted-public-keys = {OTHER_KEY.public}" in start.text


async def test_the_start_says_what_its_reader_may_do(store: Store) -> None:
    app = BinaryCache(store, CacheSettings())
    assert "needs a token" in (await page(granting(app, STRANGER), "/", {b"host": b"h:80"})).text
    known = await page(granting(app, Grant(Scope.PUSH, "4wy8b1c0zzk3")), "/", {b"host": b"h:80"})
    assert "fetch and push, by the token 4wy8b1c0zzk3" in known.text
    assert "machine h login any password TOKEN" in known.text
    read_only = BinaryCache(store, CacheSettings(read_only=True))
    assert "takes no pushes" in (await page(read_only, "/")).text


async def test_the_start_of_a_cache_as_json(store: Store) -> None:
    app = BinaryCache(store, CacheSettings(signing_keys=(KEY,), priority=30))
    status, headers, body = await answer(granting(app, STRANGER), "/", fields=JSON)
    assert (status, headers[b"content-type"], headers[b"vary"]) == (200, b"application/json", b"accept")
    told = json.loads(body)
    del told["version"]
    assert told == {
        "program": "tvix-store",
        "storeDir": "/nix/store",
        "priority": 30,
        "wantMassQuery": True,
        "publicKeys": [str(KEY.public)],
        "pull": True,
        "push": False,
        "upstreams": False,
    }
    _, _, body = await answer(app, "/", fields=JSON)
    assert json.loads(body)["push"] is True


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (b"cache.example.org", "http://cache.example.org"),
        (b"[::1]:8000", "http://[::1]:8000"),
        (b"", "http://[fe80::1]:9"),
        (EVIL.encode(), "http://[fe80::1]:9"),
        (b"a/b", "http://[fe80::1]:9"),
        (b"user@host", "http://[fe80::1]:9"),
        (b"host\xff", "http://[fe80::1]:9"),
        (b"host:123456", "http://[fe80::1]:9"),
    ],
)
async def test_the_url_is_the_one_that_the_client_used_if_it_is_one(store: Store, host: bytes, url: str) -> None:
    assert str(OwnUrl.of({"server": ("fe80::1", 9)}, host)) == url
    start = await page(BinaryCache(store, CacheSettings()), "/", {b"host": host}, server=("fe80::1", 9))
    assert f"extra-substituters = {url}" in start.text


def test_a_machine_has_no_port() -> None:
    assert OwnUrl("http", "[::1]:8000").machine == "[::1]"
    assert OwnUrl("http", "h:80").machine == "h"
    assert str(OwnUrl.of({"server": ("/run/socket", None)}, b"")) == "http://localhost"


async def test_a_trusted_proxy_says_that_its_client_speaks_tls(store: Store) -> None:
    app = Forwarded(BinaryCache(store, CacheSettings()), ["10.0.0.0/8"])
    said = {b"host": b"h", b"x-forwarded-proto": b"https"}
    assert "= https://h" in (await page(app, "/", said, client=("10.0.0.1", 1))).text
    assert "= http://h" in (await page(app, "/", said, client=("192.0.2.1", 1))).text
    assert "= http://h" in (await page(app, "/", said | {b"x-forwarded-proto": b"gopher"}, client=("10.0.0.1", 1))).text


async def test_all_paths_are_found_page_by_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_index, "PATHS_A_PAGE", 4)
    paths = [StorePath(bytes([n] * 20), f"path-{9 - n}?") for n in range(9)]
    for path in paths:
        await put_path(store, path, {b"file": TreeFile(b"x")})
    await put_path(store, StorePath(b"\xff" * 20, "a-file"), TreeFile(b"alone"))
    app = BinaryCache(store, CacheSettings())
    url, found = "/serve/", []
    while url:
        index = await page(app, url)
        entries = [link for link in index.links if link.startswith("./")]
        names = [link.removeprefix("./")[33:] for link in entries]
        assert names == sorted(names)
        for link in entries:
            assert (await answer(app, urljoin(url, link)))[0] == 200
        found += names
        url = next((urljoin(url, link) for link in index.links if link.startswith("?")), "")
    assert sorted(found) == ["a-file", *(f"path-{n + 1}%3F/" for n in range(9))]
    assert "No more paths" in (await page(app, f"/serve/?after={'z' * 32}")).text
    assert (await page(app, "/serve/?after=x", status=404)).links
    status, headers, body = await answer(app, "/serve/", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers[b"content-length"]) > 1000


async def test_no_page_of_another_site_reads_the_list_of_paths(store: Store) -> None:
    app = BinaryCache(store, CacheSettings())
    for path, may in (("/serve/", False), ("/", True), ("/nowhere", True)):
        _, headers, _ = await answer(app, path, fields={b"origin": b"https://page.example"})
        assert (b"access-control-allow-origin" in headers) is may
    _, headers, _ = await answer(app, "/serve/")
    assert headers[b"cross-origin-resource-policy"] == b"same-origin"
    status, *_ = await answer(granting(app, Grant(Scope.NOTHING)), "/serve/")
    assert status == 401


class Unlisted(PassingPathInfos):
    def list(self, after: bytes = b"") -> AsyncIterator[PathInfo]:
        raise UnsupportedError("the server has no method List")


async def test_a_store_without_a_list_says_how_to_look_at_a_path(store: Store) -> None:
    app = BinaryCache(store.with_services(path_infos=Unlisted(store.path_infos)), CacheSettings())
    index = await page(app, "/serve/", {b"host": b"h"})
    assert "has no list of its paths" in index.text
    assert "http://h/serve/<hash>-<name>/" in index.text


async def test_a_store_that_lists_from_the_first_path_on_says_how_to_see_the_others(store: Store) -> None:
    app = BinaryCache(store.with_services(path_infos=Unlisted(store.path_infos)), CacheSettings())
    index = await page(app, f"/serve/?after={'0' * 32}", {b"host": b"h"})
    assert "pages end here" in index.text
    assert "tvix-store list --store grpc+http://h" in index.text


async def test_an_empty_cache_says_so(store: Store) -> None:
    assert "No paths are here yet" in (await page(BinaryCache(store, CacheSettings()), "/serve/")).text


@pytest.mark.parametrize("path", ["/nowhere", "/serve/x/y", "/serve/..%2f", "/0.narinfo", "/a/b/c/d", "/%3Cscript%3E"])
async def test_a_refusal_is_a_page_for_a_browser_and_a_line_for_others(store: Store, path: str) -> None:
    app = BinaryCache(store, CacheSettings())
    status, headers, line = await answer(app, path, fields=ANY)
    assert status in (400, 404)
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    refusal = await page(app, path, status=status)
    assert line.decode().strip()[1:] in refusal.text
    assert [urljoin(path, link) for link in refusal.links] == ["/", "/", "/serve/"]
    status, headers, body = await answer(app, path, "HEAD", fields=BROWSER)
    assert body == b""
    status, headers, _ = await answer(app, path, "PUT", fields=BROWSER)
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"


async def test_a_refusal_is_short_whatever_was_asked_for(store: Store) -> None:
    refusal = await answer(BinaryCache(store, CacheSettings()), "/" * 60_000, fields=BROWSER)
    assert refusal[0] == 414
    assert len(refusal[2]) < 30_000


async def test_a_stranger_on_a_private_cache_learns_to_show_a_token(store: Store) -> None:
    app = granting(BinaryCache(store, CacheSettings(signing_keys=(KEY,))), Grant(Scope.NOTHING))
    for path in ("/", "/serve/", "/serve/x/"):
        status, headers, body = await answer(app, path, fields=BROWSER)
        assert (status, headers[b"cache-control"]) == (401, b"no-store")
        refusal = read_page(headers, body)
        assert "a token is the password" in refusal.text
        assert str(KEY.public) not in body.decode()
    status, _, body = await answer(app, "/", fields=JSON)
    assert status == 401
    assert b"{" not in body


async def test_a_refusal_before_the_application_is_a_page_too() -> None:
    async def refusing(scope: Event, _receive: Receive, send: Send) -> None:
        await refuse(scope, send, 421, Status.PERMISSION_DENIED, f"this daemon has no name {EVIL}")

    assert "no name </code><script>" in (await page(refusing, "/", status=421)).text
    status, _, body = await answer(refusing, "/team/rpc/v1/tvix_store.v1.BulkService/MissingChunks", fields=BROWSER)
    assert (status, json.loads(body)["code"]) == (421, "permission_denied")
    _, headers, body = await answer(refusing, "/")
    assert (headers[b"content-type"], body.decode()) == (b"text/plain; charset=utf-8", f"this daemon has no name {EVIL}\n")


async def test_a_text_is_a_page_for_a_browser_and_as_it_is_for_others(store: Store) -> None:
    tree: Tree = {
        b"text": TreeFile(EVIL.encode()),
        b"odd.txt": TreeFile(b"\xff\xfe \x00"),
        b"run.sh": TreeFile(b"#!/bin/sh\n"),
        b"page.html": TreeFile(b"<p>"),
        b"large.txt": TreeFile(b"line\n" * 60_000),
        b"binary": TreeFile(b"\x7fELF\0"),
    }
    path = StorePath(b"t" * 20, "texts")
    await put_path(store, path, tree)
    app = BinaryCache(store, CacheSettings())
    for name, is_page in (("text", True), ("odd.txt", True), ("run.sh", True), ("page.html", False), ("large.txt", False)):
        url = f"/serve/{path}/{name}"
        contents = tree[name.encode()].contents  # type: ignore[index,union-attr]
        for fields, query in ((ANY, ""), (BROWSER, "?raw")):
            status, headers, body = await answer(app, url + query, fields=fields)
            assert (status, body) == (200, contents)
            assert headers[b"content-security-policy"] == b"sandbox"
            assert (headers.get(b"vary") == b"accept") is is_page
        status, headers, body = await answer(app, url, fields=BROWSER)
        if not is_page:
            assert (status, body) == (200, contents)
            continue
        shown = PageReader(body)
        assert contents.decode("utf-8", "backslashreplace") in shown.text
        links = [urljoin(url, link) for link in shown.links]
        assert links == ["/", "/serve/", f"/serve/{path}/", f"{url}?raw", f"{url}?raw"]
        status, headers, _ = await answer(app, url, fields={**BROWSER, b"if-none-match": headers[b"etag"]})
        assert status == 304


async def test_the_page_of_a_store_path_leads_to_its_other_forms_and_references(store: Store) -> None:
    first = await put_path(store, StorePath(b"a" * 20, "first"), {b"f": TreeFile(b"1")})
    node = await put_tree(store, {b"g": TreeFile(b"2")})
    path = StorePath(b"b" * 20, "second")
    await store.path_infos.put(PathInfo(path, node, await store.nar.calculate(node), (first.store_path,)))
    app = BinaryCache(store, CacheSettings())
    url = f"/serve/{path}/"
    index = await page(app, url)
    assert f"/nix/store/{path}" in index.text
    assert f"../{first.store_path}" in index.links
    for link in index.links:
        status, *_ = await answer(app, urljoin(url, link))
        assert status == (302 if link == f"../{first.store_path}" else 200)


async def test_each_named_cache_has_its_own_start(store: Store) -> None:
    root = BinaryCache(store, CacheSettings(signing_keys=(OTHER_KEY,)))
    own = BinaryCache(store, CacheSettings(signing_keys=(KEY,)))
    app = NamedCaches(root, {"shown": ServedCache(own), "hidden": ServedCache(own, private=True)})
    stranger = granting(app, STRANGER)
    start = await page(stranger, "/shown/", {b"host": b"h"})
    assert f"extra-substituters = http://h/shown\nextra-trusted-public-keys = {KEY.public}" in start.text
    assert "grpc+" not in start.text
    refusal = await page(stranger, "/shown/a/b", status=404)
    assert [urljoin("/shown/a/b", link) for link in refusal.links] == ["/shown/", "/shown/", "/shown/serve/"]
    status, headers, _ = await answer(stranger, "/shown", fields=BROWSER)
    assert (status, urljoin("/shown", headers[b"location"].decode())) == (302, "/shown/")

    for fields in (BROWSER, JSON, ANY):
        for behind in ("", "/", "/serve/", "/serve", "/nix-cache-info"):
            assert await answer(stranger, f"/hidden{behind}", fields=fields) == await answer(
                stranger, f"/nobody{behind}", fields=fields
            )
    member = granting(app, Grant(Scope.PUSH, "4wy8b1c0zzk3", "hidden"))
    assert "http://h/hidden?compression" in (await page(member, "/hidden/", {b"host": b"h"})).text
    other = granting(app, Grant(Scope.PUSH, "8y1q2irzjhvm", "hidden"))
    assert "needs a token with the scope push" in (await page(other, "/shown/")).text


async def test_pushes_of_nix_go_past_the_upstreams(store: Store) -> None:
    start = await page(PushRoute(BinaryCache(store, CacheSettings()), BinaryCache(store, CacheSettings())), "/push/")
    assert "nix copy --to 'http://x/push?compression=zstd' ./result" in start.text


async def test_crawlers_are_asked_to_stay_away(store: Store) -> None:
    _, _, body = await answer(BinaryCache(store, CacheSettings()), "/robots.txt")
    assert body == b"User-agent: *\nDisallow: /\n"
