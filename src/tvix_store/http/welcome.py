"""`/`: what this cache is, and how to use it. A page for a browser, JSON for a program, a line for all others."""

from __future__ import annotations

import json

from tvix_store import __version__
from tvix_store.http.forms import Form, wanted_form
from tvix_store.http.own_url import OwnUrl
from tvix_store.http.pages import START, VARIES, facts, lines, page, section, text
from tvix_store.http.request import Request
from tvix_store.http.response import Response, length
from tvix_store.http.response import text as line_of_text
from tvix_store.http.settings import CacheSettings
from tvix_store.model.grant import Grant, Scope
from tvix_store.model.markup import LINE_BREAK, Html, between, element, joined, link
from tvix_store.model.store_path import STORE_DIR
from tvix_store.services.store import Store

_LINE = f"tvix-store {__version__}: a binary cache for Nix. This is its URL for substituters and nix copy"


class Welcome:
    """The start of a cache. `takes_pushes`: whether anybody may push to it."""

    def __init__(self, store: Store, settings: CacheSettings, *, takes_pushes: bool) -> None:
        self._store_dir = store.store_dir
        self._settings = settings
        self._takes_pushes = takes_pushes
        self._has_upstreams = store.foreign_paths is not None
        # A cache that signs nothing hands on the signatures that it checks.
        keys = [key.public for key in settings.signing_keys] or settings.trusted_keys
        self._keys = tuple(map(str, keys))

    async def get(self, request: Request) -> Response:
        match wanted_form(request.headers.get(b"accept")):
            case Form.PAGE:
                return self._page(request.own_url, request.grant)
            case Form.JSON:
                body = json.dumps(self._told(request.grant), indent=2).encode() + b"\n"
                return Response(200, ((b"content-type", b"application/json"), length(len(body)), *VARIES), body)
        return line_of_text(200, _LINE, VARIES[:1])

    def _told(self, grant: Grant) -> dict[str, object]:
        """What a program needs to use the cache. `pull` and `push` say what the client may do."""
        return {
            "program": "tvix-store",
            "version": __version__,
            "storeDir": self._store_dir,
            "priority": self._settings.priority,
            "wantMassQuery": self._settings.want_mass_query,
            "publicKeys": self._keys,
            "pull": grant.may_pull,
            "push": self._may_push(grant),
            "upstreams": self._has_upstreams,
        }

    def _may_push(self, grant: Grant) -> bool:
        return self._takes_pushes and grant.scope >= Scope.PUSH

    def _page(self, url: OwnUrl, grant: Grant) -> Response:
        return page(
            200,
            f"{url.host}{url.path}: a binary cache for Nix",
            joined(START),
            element("h1", url.host + url.path),
            text("This is a binary cache for Nix. It keeps built store paths. Nix fetches them in place of building them."),
            self._facts(url, grant),
            *self._how_to_fetch(url, grant),
            *self._how_to_push(url, grant),
            *self._how_to_look_inside(url),
        )

    def _facts(self, url: OwnUrl, grant: Grant) -> Html:
        keys = [_code(key) for key in self._keys]
        rights = "fetch and push" if self._may_push(grant) else "fetch"
        return facts(
            ("URL", _code(str(url))),
            ("Store directory", _code(self._store_dir)),
            ("Public keys" if len(keys) > 1 else "Public key", between(LINE_BREAK, keys) if keys else "none"),
            ("You may", f"{rights}, by the token {grant.name}" if grant.name else rights),
        )

    def _how_to_fetch(self, url: OwnUrl, grant: Grant) -> list[Html]:
        configuration = [f"extra-substituters = {url}"]
        if self._keys:
            configuration.append(f"extra-trusted-public-keys = {' '.join(self._keys)}")
        where = text("Add these lines to ", _code("/etc/nix/nix.conf"), ". NixOS has them in ", _code("nix.settings"), ".")
        said = [section("Fetch from it", where, lines(*configuration))]
        if not self._keys:
            said.append(
                text("This cache signs nothing. Nix takes from it paths that a key it trusts has signed, or that prove themselves.")
            )
        if self._store_dir != STORE_DIR:
            said.append(text("Only a Nix whose store directory is ", _code(self._store_dir), " can use these paths."))
        if grant.name:
            said += _netrc(url, "Nix shows a token to this cache if its netrc file has one:")
        return [*said, text("Or let tvix-store write what is needed:"), lines(f"tvix-store use {url}")]

    def _how_to_push(self, url: OwnUrl, grant: Grant) -> list[Html]:
        title = "Push to it"
        if not self._takes_pushes:
            return [section(title, text("This cache takes no pushes over HTTP."))]
        # Below /push/, Nix is not told that an upstream has a path.
        target = f"{url}/push" if self._has_upstreams else str(url)
        said = [section(title, lines(f"nix copy --to '{target}?compression=zstd' ./result"))]
        said += [text("Faster, with tvix-store:"), lines(f"tvix-store push --to {url} ./result")]
        if not self._may_push(grant):
            said += _netrc(url, "This needs a token with the scope push. It stands in a netrc file:")
        return said

    def _how_to_look_inside(self, url: OwnUrl) -> list[Html]:
        content = [
            text("The ", link("./serve/", "store paths"), " of this cache, and their files."),
            text("For Nix: ", link("./nix-cache-info", "nix-cache-info"), ". For programs, the same as this page:"),
            lines(f"curl -H 'Accept: application/json' {url}/"),
        ]
        if not url.path:
            content += [text("Over gRPC:"), lines(f"tvix-store --store grpc+{url} list")]
        return [section("Look inside", *content)]


def _code(said: str) -> Html:
    return element("code", said)


def _netrc(url: OwnUrl, why: str) -> list[Html]:
    return [text(why), lines("# /etc/nix/netrc", f"machine {url.machine} login any password TOKEN")]
