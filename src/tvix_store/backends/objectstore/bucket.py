"""Bucket: objects by key, in S3, GCS, Azure, WebDAV, a directory or memory.

Objects are written whole, by one request each. An object is visible to all as soon as its put is acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import NamedTuple, TypeVar

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
)
from obstore.exceptions import (
    UnauthenticatedError as WrongCredentialsError,
)
from obstore.store import LocalStore, ObjectStore, S3Store

from tvix_store.backends.objectstore.threads import check_process
from tvix_store.errors import (
    CorruptError,
    DeniedError,
    ExhaustedError,
    StoreError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)

T = TypeVar("T")
SETTINGS = "tvix-store.json"
"""The object that makes a bucket a store."""
_PATIENCE = 10.0
"""Seconds within which a bucket answers that works."""
MOST_REQUESTS = 32
"""Requests that one process has under way."""
_READS = 3
"""Times that a body is read which ends before its end: `obstore` tries requests again, and bodies not always."""
_CONFLICTS = 6
"""Times that an object is created of which the server says that it is there, when it is not."""
_PAUSE = 0.1
"""Seconds before the second time, at most; then twice as many each time."""
MOST_WHOLE = 64 << 20
"""Bytes of the largest object that is read as a whole."""
_AWAY = re.compile(r"Error performing \w+ (https?://[^/ ]+)[^\n]*error sending request\n.*(?:kind: Connect)", re.DOTALL)
"""What an error has, with its details, where there was no connection."""
_TOLD = re.compile("<(?:Code|Message)>([^<]+)</")
"""What is of use in the XML of an error."""
_PASSWORD = re.compile("://[^/?#\\s@]*@")
"""What stands before the host in the addresses that errors name: with HTTP, a user and a password."""
_PAGE = 1000
"""Keys that are listed or deleted by one request."""


class Version(NamedTuple):
    """What tells one content of an object from another, as the object store says it."""

    e_tag: str | None
    version: str | None


class Found(NamedTuple):
    """An object that was read."""

    data: bytes
    version: Version


class Listed(NamedTuple):
    """An object in a listing: its key, its size (bytes), and when it was written (seconds since 1970, by the object store)."""

    key: str
    size: int
    written: float


class Bucket:
    """The objects below the root of an `obstore` store. `name` stands in messages, and has no secrets.

    All methods raise UnavailableError where the object store does not answer, or fails, also after some tries; DeniedError where it
    refuses; and ExhaustedError where a disk is full.

    is_conditional: Whether the object store makes conditional writes. Where it does not, `create` and `replace` are safe within
        this process alone.
    has_settings: Whether the object `SETTINGS` was seen. Without it, the store is gone.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.name = name
        self.is_conditional = True
        self.has_settings = False
        self._store = store
        self._turns = asyncio.Semaphore(MOST_REQUESTS)
        self._alone = asyncio.Lock()

    async def get(self, key: str, most: int = MOST_WHOLE) -> Found | None:
        """A whole object. For those that are small by their nature: what is large is read by ranges.

        Raises:
            CorruptError: it has more than `most` bytes.
        """

        async def whole() -> Found:
            answer = await obstore.get_async(self._store, key)
            if answer.meta["size"] > most:
                raise CorruptError(f"{self.name}: {key} has {answer.meta['size']} bytes; at most {most} can be right")
            version = Version(answer.meta["e_tag"], answer.meta["version"])
            return Found(bytes(await answer.bytes_async()), version)

        return await self._read(key, whole)

    async def get_range(self, key: str, start: int, length: int) -> memoryview | None:
        """`length` bytes (at least one) from `start` on; fewer where the object ends before, None where it is not there.

        The object must have more than `start` bytes.
        """

        async def some() -> memoryview:
            return memoryview(await obstore.get_range_async(self._store, key, start=start, length=length))

        return await self._read(key, some)

    async def size(self, key: str) -> int | None:
        """How many bytes an object has; None where it is not there."""

        async def head() -> int:
            return (await obstore.head_async(self._store, key))["size"]

        return await self._read(key, head)

    async def put(self, key: str, data: bytes | memoryview) -> None:
        """Write an object, in place of one that may be there."""
        async with self._request(key):
            await obstore.put_async(self._store, key, data, use_multipart=False)

    async def create(self, key: str, data: bytes) -> bool:
        """Write an object that is not there yet; whether this call has written it.

        `data` needs a nonce: an answer may be lost, or say that the object exists when it was a former try that wrote it. Then it
        is read back, and counts as written here if it has the same bytes.
        """
        return await self._conditional(key, data, None)

    async def replace(self, key: str, data: bytes, version: Version) -> bool:
        """Write an object in place of one that still has `version`; whether this call has written it. `data` needs a nonce."""
        return await self._conditional(key, data, version)

    async def check(self) -> None:
        """Raise UnavailableError, soon, where the object store does not answer, or has lost the store."""
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await self.size(SETTINGS)
        except TimeoutError:
            raise UnavailableError(f"{self.name} does not answer within {_PATIENCE:.0f} s") from None
        if found is None and self.has_settings:
            raise UnavailableError(f"{self.name}: {SETTINGS} is not there any more")

    async def sync(self) -> None:
        """Bring all that was put to the disk. Object stores have done that when they acknowledge a put; a directory has not."""

    async def close(self) -> None:
        """To be called when done."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, as far as they are there."""
        if not isinstance(self._store, S3Store):  # others name an object that is not there, and may stop at it
            await asyncio.gather(*map(self._delete_one, keys))
            return
        for at in range(0, len(keys), _PAGE):
            await self._repeated(keys[at], partial(obstore.delete_async, self._store, list(keys[at : at + _PAGE])))

    async def _next_page(self, prefix: str, pages: obstore.ListStream[Sequence[obstore.ObjectMeta]]) -> list[Listed]:
        async with self._request(prefix):
            try:
                page = await anext(pages)  # a default for the end does not work with its awaitables
            except StopAsyncIteration:
                return []
        return [Listed(each["path"], each["size"], each["last_modified"].timestamp()) for each in page]

    async def list(self, prefix: str, after: str = "") -> AsyncIterator[Sequence[Listed]]:
        """The objects whose keys begin with the folder `prefix` (without its slash), ordered by key, a page at a time.

        With `after`, only those behind this key.
        """
        for number in range(_READS):
            try:
                async for page in self._listed(prefix, after):
                    yield page
                    after = page[-1].key
            except UnavailableError as error:
                if not _is_cut(error) or number == _READS - 1:
                    raise
            else:
                return

    async def _listed(self, prefix: str, after: str) -> AsyncIterator[Sequence[Listed]]:
        pages = obstore.list(self._store, prefix=prefix, offset=after or None, chunk_size=_PAGE)
        if isinstance(self._store, LocalStore):  # which knows no order
            entries: list[Listed] = []
            while page := await self._next_page(prefix, pages):
                entries += page
            if entries:
                yield sorted(entries)
            return
        while page := await self._next_page(prefix, pages):
            yield page

    async def folders(self) -> set[str]:
        """The names at the root: folders, and objects that stand in none. Hidden ones do not count."""

        async def listed() -> Sequence[str]:
            answer = await obstore.list_with_delimiter_async(self._store)
            return (*answer["common_prefixes"], *(each["path"] for each in answer["objects"]))

        names = await self._read("/", listed) or ()
        return {name.strip("/") for name in names if not name.startswith(".")}

    async def _delete_one(self, key: str) -> None:
        await self._read(key, partial(obstore.delete_async, self._store, key))

    async def _conditional(self, key: str, data: bytes, version: Version | None) -> bool:
        if not self.is_conditional:
            return await self._alone_here(key, data, version)
        for number in range(_CONFLICTS):
            try:
                if await self._put_if(key, data, version):
                    return True
            except UnavailableError:
                # It may have been stored all the same. What stands there now may also be proof that it never will be.
                found = await self.get(key)
                if found is None or (found.data != data and found.version == version):
                    raise
                return found.data == data
            found = await self.get(key)
            if found is not None or version is not None:
                return found is not None and found.data == data
            # "409 Conflict" is an answer to two who write at once, and neither may have won. `obstore` takes it for an object.
            await asyncio.sleep(random.uniform(0, _PAUSE * 2**number))  # noqa: S311  # no secret
        raise UnavailableError(f"{self.name}: {key}: the server says that it is there, and that it is not")

    async def _put_if(self, key: str, data: bytes, version: Version | None) -> bool:
        """Put an object that is not there, or has a version; whether the server says that it is done."""
        mode: obstore.PutMode = "create"
        if version is not None:  # what is not known must not be named
            mode = {name: value for name, value in version._asdict().items() if value is not None}  # type: ignore[assignment]
        refusals = (AlreadyExistsError, PreconditionError, FileNotFoundError)
        with suppress(*refusals):
            async with self._request(key, *refusals):
                await obstore.put_async(self._store, key, data, mode=mode, use_multipart=False)
            return True
        return False

    async def _alone_here(self, key: str, data: bytes, version: Version | None) -> bool:
        """Look, and write then: what another process writes in between is lost."""
        async with self._alone:
            found = await self.get(key)
            if (found and found.version) != version:
                return False
            await self.put(key, data)
        return True

    async def _read(self, key: str, read: Callable[[], Awaitable[T]]) -> T | None:
        with suppress(FileNotFoundError):
            return await self._repeated(key, read)
        return None

    async def _repeated(self, key: str, call: Callable[[], Awaitable[T]]) -> T:
        """What a call says that may be made again. Raises FileNotFoundError as well."""
        for _ in range(_READS - 1):
            try:
                async with self._request(key, FileNotFoundError):
                    return await call()
            except UnavailableError as error:
                if not _is_cut(error):
                    raise
        async with self._request(key, FileNotFoundError):
            return await call()

    @asynccontextmanager
    async def _request(self, key: str, *passed: type[Exception]) -> AsyncIterator[None]:
        """Wait for a turn, and translate errors, but for those that are `passed` on."""
        check_process()
        async with self._turns:
            try:
                yield
            except (BaseError, NotImplementedError, OSError) as error:
                if isinstance(error, passed):
                    raise
                raise self._translated(key, error) from None

    def _translated(self, key: str, error: Exception) -> StoreError:
        said = _PASSWORD.sub("://", str(error))
        away = _AWAY.search(said)
        if away is not None:
            return UnavailableError(f"{self.name}: nobody answers at {away[1]}; is the endpoint right, and the server started?")
        what = f"{self.name}: {key}: {_said(said)}"
        if isinstance(error, WrongCredentialsError):
            return UnauthenticatedError(what)
        if isinstance(error, PermissionDeniedError):
            return DeniedError(what)
        if isinstance(error, NotImplementedError):
            return UnsupportedError(what)
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return ExhaustedError(what)
        return UnavailableError(what)


def _is_cut(error: UnavailableError) -> bool:
    """Whether the body of an answer has ended too early."""
    return "body error" in str(error)


def _said(message: str) -> str:
    """What an error of `obstore` says, in one line: its first one, and what the server's XML has to say."""
    first = message.partition("\n")[0].partition("<?xml")[0].strip().removesuffix(":")
    said = first[:400]
    for found in _TOLD.finditer(message):
        part = found.group(1).partition("\n")[0][:200]
        said += "" if part in said else f": {part}"
    return said
