"""SubstitutingDocuments: realisations, logs and debug information that the store lacks come from upstream caches.

Realisations and build traces are signed. They are checked, and kept. Nobody signs logs and debug information, neither here nor in
Nix. They are passed on and not kept, so the store holds nothing that an upstream made up.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from urllib.parse import quote

from tvix_store.errors import InvalidError
from tvix_store.layers.substituter import Terms
from tvix_store.layers.substituters import Substituters
from tvix_store.model.realisation import Realisation
from tvix_store.operations.paths.documents import MAX_JSON, MAX_LOG, KeptDocuments
from tvix_store.services.store import Store

_LITERAL = "!+=:/"
"""What Nix does not encode in the names of files; a `?` would begin a query."""


class SubstitutingDocuments:
    """ForeignDocuments of upstreams. `store` keeps what can be checked, where it has records."""

    def __init__(self, store: Store, substituters: Substituters) -> None:
        self._kept = KeptDocuments.of(store)
        self._substituters = substituters

    async def get(self, kind: str, name: str) -> bytes | AsyncGenerator[bytes, None] | None:
        match kind:
            case "realisations":
                return await self._signed(kind, name, lambda text: Realisation.parse(text, name))
            case "build-trace-v2":
                derivation, _, output = name.partition("/")
                return await self._signed(kind, name, lambda text: Realisation.parse_build_trace(text, derivation, output))
            case "debuginfo":
                # Nix writes the former; indexes of old caches have the latter.
                return await self._first((f"{kind}/{name}.debug", f"{kind}/{name}"), _check_debug_info)
            case "log":
                return await self._log(f"{kind}/{quote(name, safe=_LITERAL)}")
        return None

    async def _signed(self, kind: str, name: str, parse: Callable[[bytes], Realisation]) -> bytes | None:
        document = await self._first((f"{kind}/{quote(name, safe=_LITERAL)}.doi",), partial(_check, parse))
        # Somebody may have put one meanwhile, which counts: the store is asked first.
        if document is not None and self._kept is not None and await self._kept.get(kind, name) is None:
            await self._kept.put(kind, name, _stream(document))
        return document

    async def _first(self, paths: tuple[str, ...], check: Callable[[bytes, Terms], bytes]) -> bytes | None:
        for substituter in await self._substituters.in_order():
            for path in paths:
                document = await substituter.document(path, MAX_JSON, check)
                if document is not None:
                    return document
        return None

    async def _log(self, path: str) -> bytes | AsyncGenerator[bytes, None] | None:
        for substituter in await self._substituters.in_order():
            log = await substituter.stream(path, MAX_LOG)
            if log is not None:
                return log
        return None


def _check(parse: Callable[[bytes], Realisation], text: bytes, terms: Terms) -> bytes:
    realisation = parse(text)
    if not realisation.check_signatures(terms.public_keys) and not terms.unsigned:
        keys = " or ".join(key.name for key in terms.public_keys)
        raise InvalidError(f"the realisation {realisation.what} is not signed by {keys}")
    return realisation.document


def _check_debug_info(text: bytes, _: Terms) -> bytes:
    """See that it names an archive, and a member below the archive's root: debuggers look for the member there."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    match told:
        case {"archive": str(archive), "member": str(member)} if not {"", ".", ".."} & set(member.split("/")):
            return json.dumps({"archive": archive, "member": member}).encode()
    raise InvalidError("debug information names no archive and no member of it")


async def _stream(document: bytes) -> AsyncIterator[bytes]:
    yield document
