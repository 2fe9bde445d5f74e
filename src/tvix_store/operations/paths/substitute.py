"""fetch_path: a store path from an upstream cache into a store. Nothing that the upstream says is trusted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from tvix_store.compression import decompressor
from tvix_store.concurrency.from_thread import from_thread
from tvix_store.concurrency.window import Window
from tvix_store.errors import CorruptError, ExhaustedError, InvalidError, NotFoundError, UnsupportedError
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash, hasher
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import PublicKey
from tvix_store.model.store_path import STORE_DIR
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.operations.paths.accept_nar import accept_nar
from tvix_store.operations.paths.check import check_follows, check_signatures, proves_content_address
from tvix_store.services.store import Store
from tvix_store.services.upstream import Upstream, UpstreamLiesError

_SLACK = 1 << 20
"""Bytes by which a compressed file may be larger than its NAR where the upstream does not say how large it is."""


def check_narinfo(
    narinfo: NarInfo, output_hash: bytes, public_keys: Sequence[PublicKey], *, store_dir: str = STORE_DIR, unsigned: bool = False
) -> None:
    """Check that the narinfo is of this output hash, and signed by one of the keys, unless `unsigned` ones are taken.

    Raises:
        UpstreamLiesError: it is not, or a signature bears the name of a key and is not that key's, or the path does not follow from
            the content address. Whether the content has that address is seen when it comes.
    """
    path = narinfo.store_path
    if path.output_hash != output_hash:
        raise UpstreamLiesError(f"asked for {nixbase32.encode(output_hash)}, it describes {path}")
    try:
        signed = check_signatures(narinfo, public_keys, store_dir)
        check_follows(narinfo, store_dir)
    except InvalidError as error:
        raise UpstreamLiesError(str(error)) from None
    if not signed and not unsigned:
        raise UpstreamLiesError(f"{path} is not signed by {' or '.join(key.name for key in public_keys)}")


async def fetch_path(store: Store, upstream: Upstream, narinfo: NarInfo, window: Window | None = None) -> PathInfo:
    """Bring the content of a path whose `narinfo` was checked into the store; the path info, true of it, is the caller's to put.

    Each piece of the NAR that the store has taken is shown in `window`. To confirm it is the caller's, when all is stored.

    Raises:
        UpstreamLacksError: the NAR is not there.
        UpstreamDownError: it does not come, or stops.
        UpstreamLiesError: the NAR, or its file, is not what the narinfo says.
        StoreError: an error of the store.
    """
    links = NarLinks.of(store)
    known = await links.get(narinfo.nar.sha256) if links is not None else None
    if known is not None and known.nar == narinfo.nar and await _is_complete(store, known):
        return await _checked(store, narinfo.path_info(known.node))
    file = _File(upstream, narinfo)

    def check(facts: NarFacts) -> Sequence[bytes]:
        if facts != narinfo.nar:
            raise UpstreamLiesError(
                f"the NAR of {narinfo.store_path} has {facts.size} bytes and hash {NixHash('sha256', facts.sha256)}, "
                f"not {narinfo.nar.size} and {NixHash('sha256', narinfo.nar.sha256)}"
            )
        return file.sha256s

    async with aclosing(file.nar()) as nar:
        try:
            shown = nar if window is None else _shown(nar, window, narinfo.nar)
            link = await accept_nar(store, shown, narinfo.nar.sha256, check)
        except UpstreamLiesError:
            raise
        except InvalidError as error:
            raise UpstreamLiesError(f"the NAR of {narinfo.store_path}: {error}") from None
    return await _checked(store, narinfo.path_info(link.node))


async def _shown(nar: AsyncGenerator[bytes, None], window: Window, facts: NarFacts) -> AsyncGenerator[bytes, None]:
    window.begin(facts.sha256, facts.size)
    async for piece in nar:
        yield piece
        window.add(piece)


async def _checked(store: Store, path_info: PathInfo) -> PathInfo:
    """Check the content address, which signatures do not cover, and which others may take for a proof."""
    try:
        await proves_content_address(store, path_info)
    except InvalidError as error:
        raise UpstreamLiesError(str(error)) from None
    return path_info


async def _is_complete(store: Store, known: NarLink) -> bool:
    """Whether the content that the link leads to is all there: it is remembered, or looked through once."""
    try:
        return await store.nar.calculate(known.node) == known.nar
    except (NotFoundError, CorruptError, InvalidError):
        return False


class _File:
    """The file that an upstream offers, on its way to being a NAR."""

    def __init__(self, upstream: Upstream, narinfo: NarInfo) -> None:
        self._upstream = upstream
        self._narinfo = narinfo
        self._size = 0
        self._stated = narinfo.file_size or None
        """FileSize. 0 says nothing, as for Nix; caches that do not know it write it."""
        expected = narinfo.file_hash
        self._hash = hasher(expected.algorithm) if expected is not None else None

    @property
    def sha256s(self) -> tuple[bytes, ...]:
        """The SHA-256 of the file, if it was compared: debug information of the upstream refers to the file so."""
        expected = self._narinfo.file_hash
        return (expected.digest,) if expected is not None and expected.algorithm == "sha256" else ()

    async def nar(self) -> AsyncGenerator[bytes, None]:
        """The NAR: not a byte more than NarSize; the file's hash and size are checked at its end.

        It is hashed and decompressed in threads; meanwhile the next bytes come.
        """
        try:
            decompress = decompressor(self._narinfo.compression)
        except UnsupportedError as error:
            raise UpstreamLiesError(str(error)) from None
        left = self._narinfo.nar.size
        async with aclosing(self._file()) as file:
            async for piece in file:
                hashing = asyncio.get_running_loop().run_in_executor(None, self._hash.update, piece) if self._hash else None
                try:
                    async for data in from_thread(decompress.feed(piece)):
                        left -= len(data)
                        if left < 0:
                            raise UpstreamLiesError(f"the NAR has more than {self._narinfo.nar.size} bytes, its NarSize")
                        yield data
                except ExhaustedError as error:
                    raise UpstreamLiesError(str(error)) from None
                finally:
                    if hashing is not None:
                        await asyncio.wait((hashing,))
        decompress.finish()
        self._check()

    async def _file(self) -> AsyncGenerator[bytes, None]:
        stated = self._stated
        nar_size = self._narinfo.nar.size
        most = stated if stated is not None else nar_size + nar_size // 8 + _SLACK
        async with aclosing(self._upstream.nar_file(self._narinfo)) as pieces:
            async for piece in pieces:
                self._size += len(piece)
                if self._size > most:
                    raise UpstreamLiesError(f"the file has more than {most} bytes")
                yield piece

    def _check(self) -> None:
        narinfo = self._narinfo
        if self._stated is not None and self._size != self._stated:
            raise UpstreamLiesError(f"the file has {self._size} bytes, not {self._stated}, its FileSize")
        if self._hash is not None and narinfo.file_hash is not None and self._hash.digest() != narinfo.file_hash.digest:
            raise UpstreamLiesError(
                f"the file has hash {NixHash(narinfo.file_hash.algorithm, self._hash.digest())}, not its FileHash"
            )
