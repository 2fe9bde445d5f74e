"""The ASGI application of the binary cache: from a request to the part that answers it."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from tvix_store.asgi import DisconnectedError, Event, Receive, Send, is_http1
from tvix_store.errors import StoreError
from tvix_store.http.browse import Browse
from tvix_store.http.documents import FIRST_PARTS, Documents
from tvix_store.http.listings import Listings
from tvix_store.http.narinfos import Narinfos
from tvix_store.http.nars import Nars
from tvix_store.http.pages import refusal_form
from tvix_store.http.path_index import PathIndex
from tvix_store.http.request import Request
from tvix_store.http.response import Headers, Response, length, see_slash, send_response, send_whole, text
from tvix_store.http.settings import CacheSettings
from tvix_store.http.status import HttpError, error_response
from tvix_store.http.uploads import Uploads
from tvix_store.http.welcome import Welcome
from tvix_store.model.grant import Scope
from tvix_store.operations.nars.links import NarLinks
from tvix_store.operations.nars.offer import NarOffers
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.protocol.connect import CALLS_KEY, PREFIX
from tvix_store.services.foreign_paths import FetchBrokeOffError
from tvix_store.services.store import Store
from tvix_store.traffic import LostPlaceError, Traffic

_NARINFO = b".narinfo"
_LISTING = b".ls"
_FOR_ANY_PAGE = ((b"access-control-allow-origin", b"*"),)
"""Lets web pages read, as cache.nixos.org does. Not for PUT and DELETE: no page may write. Source: fetch.spec.whatwg.org.

_FOR_THE_PAGE: for a request that names its page. Others are spared the second field: it was a twentieth of a narinfo's time."""
_FOR_THE_PAGE = (*_FOR_ANY_PAGE, (b"access-control-expose-headers", b"*"))
_FOR_THE_CLIENT = ((b"cache-control", b"private"),)
"""For a client that has shown who it is. Others may be allowed less, and some caches, such as nginx, pass over `Authorization`.
Source: RFC 9111, sections 3.5 and 5.2.2.7."""
_GETTING = ("GET", "HEAD")
_READING = (*_GETTING, "OPTIONS")
_log = logging.getLogger(__name__)


class BinaryCache:
    """Serves a store to Nix."""

    def __init__(self, store: Store, settings: CacheSettings, traffic: Traffic | None = None) -> None:
        self._traffic = traffic or Traffic()
        links = NarLinks.of(store)
        self._settings = settings
        self._cache_info = _cache_info(store, settings)
        self._may_delete = store.removal is not None and store.records is not None and not settings.read_only
        self._allow = (b"allow", b"GET, HEAD, OPTIONS" if settings.read_only else b"GET, HEAD, OPTIONS, PUT")
        self._options = _options(self._allow)
        self._options_of_deletable = _options((b"allow", b"GET, HEAD, OPTIONS, PUT, DELETE")) if self._may_delete else self._options
        planned = PlannedNars.of(store)
        self._narinfos = Narinfos(store, links, NarOffers(store, planned), settings)
        self._nars = Nars(store, links, planned)
        self._listings = Listings(store)
        self._documents = Documents(store, links)
        self._browse = Browse(store)
        self._path_index = PathIndex(store)
        self._uploads = Uploads(store, settings) if links is not None else None
        self._welcome = Welcome(store, settings, takes_pushes=self._uploads is not None and not settings.read_only)

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, self._settings.body_timeout, self._traffic.incoming)
        try:
            try:
                if request.method in _GETTING:
                    request.grant.require(Scope.PULL)
                    response = await self._get(request)
                else:
                    with request.arriving:
                        response = await self._answer(request)
            except DisconnectedError:
                raise
            except Exception as error:  # noqa: BLE001 - every error becomes a status; the unforeseen are logged
                response = await self._refusal(error, request)
            more: Headers = ()
            if request.method in _READING:
                if response.for_pages:
                    more = _FOR_THE_PAGE if b"origin" in request.headers else _FOR_ANY_PAGE
                if request.grant.name:
                    more += _FOR_THE_CLIENT
            if response.is_small:
                await send_whole(response, send, head=request.method == "HEAD", more=more)
            else:
                await self._send_large(response, request, send, more)
            if request.has_rest and not await request.is_over():
                self._traffic.hang_up(request.client)
                await request.see_end()
        except DisconnectedError:
            return
        except LostPlaceError:
            self._traffic.hang_up(request.client if is_http1(scope) else None)
        except FetchBrokeOffError:
            return  # as below, but the log has the cause once, and not once a client
        except StoreError as error:
            # The engine ends the connection, or the stream, of an answer that is not finished.
            _log.error("the answer to %s %r breaks off: %s", scope["method"], scope["path"], error)

    async def _send_large(self, response: Response, request: Request, send: Send, more: Headers) -> None:
        head = request.method == "HEAD"
        with self._traffic.outgoing.place(request.client) as leaving:
            if not head:
                try:
                    await response.prepare(leaving)
                except DisconnectedError:
                    raise
                except Exception as error:  # noqa: BLE001 - as above
                    response = await self._refusal(error, request)
            await send_response(response, send, leaving, head=head, more=more)

    async def _answer(self, request: Request) -> Response:
        match request.method:
            case "PUT":
                request.grant.require(Scope.PUSH)
                if self._settings.read_only:
                    raise HttpError(403, "this cache is read-only")
                return await self._put(request)
            case "OPTIONS":
                return self._options_of_deletable if _may_be_deleted(request.segments) else self._options
            case "DELETE" if _may_be_deleted(request.segments):
                request.grant.require(Scope.ADMIN)
                return await self._delete(request)
            case _:
                raise HttpError(405, f"{request.method} is not understood here", (self._allow,))

    def _get(self, request: Request) -> Coroutine[Any, Any, Response]:
        match request.segments:
            case [name] if name.endswith(_NARINFO):
                return self._narinfos.get(request, name[: -len(_NARINFO)])
            case [b"nix-cache-info"]:
                return self._get_cache_info()
            case [b""]:
                return self._welcome.get(request)
            case [b"nar", b"snix-castore" | b"tvix-castore", name]:
                return self._nars.get_rendered(request, name)
            case [b"nar", name]:
                return self._nars.get_file(request, name)
            case [name] if name.endswith(_LISTING):
                return self._listings.get(request, name[: -len(_LISTING)])
            case [first, _, *_] if first in FIRST_PARTS:
                return self._documents.get(request)
            case [b"serve"]:
                return self._see_slash(b"serve")
            case [b"serve", b""]:
                return self._path_index.get(request)
            case [b"serve", _, *_] as segments:
                return self._browse.get(request, segments[1:])
            case [b"robots.txt"]:
                return _no_robots()
        raise HttpError(404, "there is nothing here")

    async def _refusal(self, error: Exception, request: Request) -> Response:
        """The answer that tells of `error`."""
        response = error_response(
            error,
            writing=request.method == "PUT",
            private_places=self._settings.private_places,
            form=refusal_form(request.method, request.raw_path, request.headers.get(b"accept")),
        )
        if await request.forget_body():
            return response
        return replace(response, headers=(*response.headers, (b"connection", b"close")))

    async def _get_cache_info(self) -> Response:
        return self._cache_info

    async def _see_slash(self, name: bytes) -> Response:
        return see_slash(name)

    async def _put(self, request: Request) -> Response:
        match request.segments:
            case [name] if name.endswith(_NARINFO):
                return await self._narinfos.put(request, name[: -len(_NARINFO)])
            case [b"nar", name]:
                if self._uploads is None:
                    raise HttpError(403, "this store has no place for what is pushed over HTTP; push to one that has")
                return await self._uploads.put(request, name)
            case [name] if name.endswith(_LISTING):
                return await self._listings.put(request, name[: -len(_LISTING)])
            case [first, _, *_] if first in FIRST_PARTS:
                return await self._documents.put(request)
            case [b"nix-cache-info"]:
                await request.whole_body(1 << 16)
                return text(200, "this cache describes itself")
        raise HttpError(404, "nothing can be put here")

    async def _delete(self, request: Request) -> Response:
        if not self._may_delete:
            why = "this cache is read-only" if self._settings.read_only else "this daemon deletes nothing from the store behind it"
            raise HttpError(403, why, (self._allow,))
        match request.segments:
            case [name]:
                return await self._narinfos.delete(name[: -len(_NARINFO)])
        return await self._documents.delete(request)


async def _no_robots() -> Response:
    """Keeps crawlers from reading a store file by file."""
    return text(200, "User-agent: *\nDisallow: /")


def _options(allow: tuple[bytes, bytes]) -> Response:
    """The answer to OPTIONS."""
    return Response(
        204,
        (
            allow,
            (b"access-control-allow-methods", b"GET, HEAD"),
            (b"access-control-allow-headers", b"*"),
            (b"access-control-max-age", b"86400"),
        ),
    )


def _may_be_deleted(segments: list[bytes]) -> bool:
    """Whether there may be something that is deleted by this name: a path, or a document."""
    match segments:
        case [name]:
            return name.endswith(_NARINFO)
        case [first, _, *_]:
            return first in FIRST_PARTS
    return False


def _cache_info(store: Store, settings: CacheSettings) -> Response:
    body = (
        f"StoreDir: {store.store_dir}\nWantMassQuery: {int(settings.want_mass_query)}\nPriority: {settings.priority}\n"
        # Stock Nix ignores it.
        f"{CALLS_KEY}: {PREFIX.strip('/')}\n"
    ).encode()
    return Response(200, ((b"content-type", b"text/x-nix-cache-info"), length(len(body))), body)
