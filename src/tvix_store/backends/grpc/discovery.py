"""Finding out which of our services a server offers, and in which dialect to speak with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import aclosing
from dataclasses import dataclass

from tvix_store.backends.grpc.connection import PROMPT, Connection
from tvix_store.concurrency.each_at_once import each_at_once
from tvix_store.errors import DeniedError, StoreError, UnavailableError, UnsupportedError
from tvix_store.model import wire
from tvix_store.model.digest import EMPTY
from tvix_store.model.store_path import OUTPUT_HASH_SIZE
from tvix_store.protocol.blobs import encode_digest, encode_stat_request
from tvix_store.protocol.dialects import (
    BLOB_STORE_SERVICE,
    BULK_SERVICE,
    CHUNK_STORE_SERVICE,
    SEED,
    SETTINGS_SERVICE,
    SNIX,
    STATISTICS_SERVICE,
    TVIX,
    Dialect,
)
from tvix_store.protocol.directories import encode_get_directory
from tvix_store.protocol.path_infos import encode_get_path_info

_PREFERENCE = (TVIX, SNIX, SEED)
_REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_LIST_SERVICES = wire.message_field(7, b"")
_OWN = (BULK_SERVICE, SETTINGS_SERVICE, STATISTICS_SERVICE)
_CHUNK_STORES = (CHUNK_STORE_SERVICE, BLOB_STORE_SERVICE)
_KNOWN = frozenset((*_OWN, *_CHUNK_STORES, *(service for dialect in _PREFERENCE for service in dialect.services)))


@dataclass(frozen=True, slots=True)
class Abilities:
    """The services of a server that we can use.

    dialect: The dialect to speak.
    bulk: Whether the server has our BulkService.
    only_snix: Whether it has nothing but the services of snix until 2025. Such a server knows snix's size rule only.
    whole_blobs: Whether it has the dialect's BlobService.
    directories: Whether it has the dialect's DirectoryService.
    chunks: Whether it has snix's ChunkStoreService and BlobStoreService.
    path_infos: Whether it has the dialect's PathInfoService, which calculates NARs too.
    counts: Whether its reflection lists our StatisticsService. It is never tried: counting is no harmless question.
    settings: Whether it has our SettingsService.
    """

    dialect: Dialect
    bulk: bool
    only_snix: bool
    whole_blobs: bool = True
    directories: bool = True
    chunks: bool = False
    path_infos: bool = True
    counts: bool = False
    settings: bool = False


async def discover(connection: Connection, pinned: Dialect | None) -> Abilities:
    """Ask the server's reflection for its services. Where it has none, try each service. `pinned` is the dialect that the user
    wants.

    Raises:
        UnsupportedError: it offers no dialect, or not the pinned one.
        UnavailableError, DeniedError: it does not talk to us.
    """
    offered = await _reflected(connection) or await _tried(connection)
    spoken = [dialect for dialect in _PREFERENCE if offered.intersection(dialect.services[:2])]
    # The service of path infos is the same in two dialects: it tells something only of a server that has nothing else.
    spoken = spoken or [dialect for dialect in _PREFERENCE if dialect.services[2] in offered]
    if not spoken:
        raise UnsupportedError(f"{connection.server}: the server offers none of the services of a store")
    if pinned is not None and pinned not in spoken:
        names = ", ".join(dialect.name for dialect in spoken)
        raise UnsupportedError(f"{connection.server}: the server does not speak the dialect {pinned.name} (it speaks {names})")
    dialect = pinned or spoken[0]
    return Abilities(
        dialect,
        bulk=BULK_SERVICE in offered,
        only_snix=spoken == [SNIX] and not offered.intersection(_CHUNK_STORES),
        whole_blobs=dialect.services[0] in offered,
        directories=dialect.services[1] in offered,
        chunks=offered.issuperset(_CHUNK_STORES),
        path_infos=dialect.services[2] in offered,
        counts=STATISTICS_SERVICE in offered,
        settings=SETTINGS_SERVICE in offered,
    )


async def _reflected(connection: Connection) -> frozenset[str]:
    """The services that the server lists, as far as we know them; none where it has no reflection."""
    for service in _REFLECTION:
        try:
            answer = await _first(connection, f"/{service}/ServerReflectionInfo", _LIST_SERVICES)
            return _KNOWN.intersection(_listed(answer))
        except UnavailableError:
            raise
        except StoreError:  # UNIMPLEMENTED; but who forbids this call, or garbles it, may still serve the others
            continue
    return frozenset()


def _listed(answer: bytes) -> list[str]:
    """The names in a ServerReflectionResponse: list_services_response=6, in it service=1, in it name=1."""
    bodies = [answer]
    for number in (6, 1, 1):
        bodies = [wire.as_bytes(field, value) for body in bodies for field, value in wire.fields(body) if field == number]
    return [name.decode(errors="replace") for name in bodies]


async def _tried(connection: Connection) -> frozenset[str]:
    """The services that answer a harmless question."""
    unary = {
        BULK_SERVICE: (f"/{BULK_SERVICE}/Missing", b""),
        SETTINGS_SERVICE: (f"/{SETTINGS_SERVICE}/Get", b""),
        CHUNK_STORE_SERVICE: (f"/{CHUNK_STORE_SERVICE}/StatChunk", encode_digest(EMPTY)),
        BLOB_STORE_SERVICE: (f"/{BLOB_STORE_SERVICE}/StatBlob", encode_digest(EMPTY)),
    }
    streams: dict[str, tuple[str, bytes]] = {}
    for dialect in _PREFERENCE:
        blobs, directories, path_infos = dialect.services
        unary[blobs] = dialect.blob("Stat"), encode_stat_request(EMPTY, chunks=False)
        streams[directories] = dialect.directory("Get"), encode_get_directory(EMPTY, recursive=False)
        unary[path_infos] = dialect.path_info("Get"), encode_get_path_info(bytes(OUTPUT_HASH_SIZE))
    questions = unary | streams

    async def answers(service: str) -> bool:
        path, message = questions[service]
        if service in streams:
            return await _answers(_first(connection, path, message))
        return await _answers(connection.call(path, message, ("call", path)))

    answered = await each_at_once(answers, list(questions))
    return frozenset(service for service, found in zip(questions, answered, strict=True) if found)


async def _answers(asking: Awaitable[object]) -> bool:
    """Whether there is a call that answers."""
    try:
        await asking
    except UnsupportedError:
        return False
    except (UnavailableError, DeniedError):
        raise
    except StoreError:  # such as NOT_FOUND
        pass
    return True


async def _first(connection: Connection, path: str, message: bytes) -> bytes:
    """The first answer, of one or many; none at all is an empty one."""
    try:
        async with asyncio.timeout(PROMPT), aclosing(connection.receive(path, message, ("call", path))) as answers:
            return await anext(answers, b"")
    except TimeoutError:
        raise UnavailableError(f"{connection.server}: no answer to {path} within {PROMPT:g} seconds") from None
