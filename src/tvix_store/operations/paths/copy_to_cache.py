"""copy_to_cache: bring store paths of a store into a binary cache, as NARs and narinfos."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import zstandard

from tvix_store.compression import COMPRESSIONS
from tvix_store.concurrency.background_hash import BackgroundHash
from tvix_store.errors import DeniedError, ExhaustedError
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import NarFacts, PathInfo
from tvix_store.model.signature import PublicKey, SecretKey
from tvix_store.operations.granular.account import Account
from tvix_store.operations.nars.calculate import calculate_nar
from tvix_store.operations.nars.pass_through import PlannedNars
from tvix_store.operations.nars.plan import Plan
from tvix_store.operations.nars.planner import can_be_planned
from tvix_store.operations.nars.render import render_nar
from tvix_store.operations.paths.check import check_signatures, proves_content_address
from tvix_store.operations.paths.path_copies import Copied, PathCopies, check_nar
from tvix_store.services.store import Store
from tvix_store.services.writable_cache import WritableCache

JOBS = 8
"""NARs that are written at a time; each takes some 5 MB."""
_LEVEL = 3
"""Of zstd, as Nix has it, where nothing is compressed yet."""


@dataclass(frozen=True, slots=True)
class Form:
    """How paths are written.

    compression: `zstd` or `none`.
    signing_keys: The keys that sign each narinfo.
    trusted_keys: A signature in the name of one of these keys must be right.
    require_signatures: A path needs a signature by a trusted key, unless it proves itself.
    """

    compression: str = "zstd"
    signing_keys: tuple[SecretKey, ...] = ()
    trusted_keys: tuple[PublicKey, ...] = ()
    require_signatures: bool = False


async def copy_to_cache(
    source: Store,
    target: WritableCache,
    path_infos: Iterable[PathInfo],
    form: Form,
    *,
    jobs: int | None = None,
    account: Account | None = None,
) -> AsyncGenerator[Copied, None]:
    """Copy paths of `source`, which says so much of them, to `target`. Yields the outcome of each, references first.

    Nothing that the source says is believed: the hash of each NAR is computed before its file gets a name. A path that the target
    has with the same NAR is not looked at, and new signatures are added to it. An error of one path keeps this path, and all that
    refer to it, from being recorded; the others are copied.

    Raises:
        InvalidError: the references go round in a circle, or the cache is for another store directory.
        DeniedError, ExhaustedError, UnavailableError: the target cannot take them, or the source cannot give them.
    """
    await target.prepare()
    copies = _Copies(source, target, form, jobs or JOBS, account or Account())
    try:
        async with aclosing(copies.run(path_infos)) as outcomes:
            async for each in outcomes:
                yield each
    finally:
        await copies.close()
        await target.close()


class _Copies(PathCopies[PathInfo, NarInfo]):
    def __init__(self, source: Store, target: WritableCache, form: Form, jobs: int, account: Account) -> None:
        super().__init__(target, source.name or "the source", jobs)
        self._store = source
        self._target = target
        self._form = form
        self._account = account
        self._planned = PlannedNars.of(source) if form.compression == "zstd" else None

    async def close(self) -> None:
        if self._planned is not None:
            await self._planned.finish()

    async def merged(self, known: NarInfo, stated: PathInfo) -> NarInfo:
        check_signatures(stated, self._form.trusted_keys, self._store.store_dir)
        merged = known.merged(NarInfo.of(self._signed(stated), known.url, known.compression))
        if self._form.signing_keys and merged is not known:
            self._check(await self._true_nar(stated), stated)
        self._account.logical += stated.nar.size
        self._account.moved(stated.nar.size)
        return merged

    async def bring(self, stated: PathInfo) -> NarInfo:
        form, account = self._form, self._account
        good = check_signatures(stated, form.trusted_keys, self._store.store_dir)
        refusal = DeniedError(f"{stated.store_path} has no signature by a trusted key, and its content does not prove it")
        if form.require_signatures and not good and stated.ca is None:
            raise refusal
        progress = _Progress(account, stated.nar.size)
        file = await self._target.put_nar(self._file(stated, progress), COMPRESSIONS[form.compression].suffix)
        # The NAR is the stated one. That comes first, for this proof and for our signatures.
        proven = await proves_content_address(self._store, stated)
        if form.require_signatures and not (good or proven):
            raise refusal
        progress.finish()
        account.logical += stated.nar.size
        account.sent += file.size
        file_hash = NixHash("sha256", file.sha256)
        return NarInfo.of(self._signed(stated), file.url, form.compression, file_hash, file.size)

    async def _file(self, stated: PathInfo, progress: _Progress) -> AsyncGenerator[bytes, None]:
        """The file of the NAR. It ends with an error if the NAR is not the stated one."""
        plan = await self._plan(stated)
        if plan is not None and self._planned is not None:
            pieces = self._planned.read_zstd(stated.node, plan, 0, plan.zstd_size)
        else:
            pieces = self._rendered(stated)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
                progress.add(len(piece), plan.zstd_size if plan is not None else stated.nar.size)

    async def _plan(self, stated: PathInfo) -> Plan | None:
        """How to make the file from stored frames; None where that is not possible."""
        if self._planned is None or not can_be_planned(stated.node, stated.nar.size):
            return None
        self._check(await self._true_nar(stated), stated)
        try:
            return await self._planned.plan(stated.node)
        except ExhaustedError:
            return None

    async def _rendered(self, stated: PathInfo) -> AsyncGenerator[bytes, None]:
        """The file of the NAR, rendered and compressed; its hash is computed on the way."""
        sha256 = hashlib.sha256()
        hashing = BackgroundHash(sha256)
        size = 0
        stream = zstandard.ZstdCompressor(_LEVEL).compressobj() if self._form.compression == "zstd" else None
        async with aclosing(render_nar(self._store.blobs, self._store.directories.tree(stated.node))) as nar:
            async for piece in nar:
                await hashing.update(piece)
                size += len(piece)
                data = piece if stream is None else await asyncio.to_thread(stream.compress, piece)
                if data:
                    yield data
        await hashing.finish()
        self._check(NarFacts(size, sha256.digest()), stated)
        if stream is not None:
            yield await asyncio.to_thread(stream.flush)

    async def _true_nar(self, stated: PathInfo) -> NarFacts:
        """What is true of the NAR, computed or remembered on this machine: a server's word does not count."""
        if self._store.known_nars is not None:
            return await self._store.nar.calculate(stated.node)
        return await calculate_nar(self._store.blobs, self._store.directories.tree(stated.node))

    def _check(self, true: NarFacts, stated: PathInfo) -> None:
        check_nar(stated.store_path, true, stated.nar, "the store")

    def _signed(self, stated: PathInfo) -> PathInfo:
        message = stated.fingerprint(self._store.store_dir)
        own: Sequence[SecretKey] = self._form.signing_keys
        return stated.with_signatures(key.sign(message) for key in own) if own else stated


@dataclass(slots=True)
class _Progress:
    """Tells of a NAR of `size` bytes as parts of its file are written."""

    account: Account
    size: int
    told: int = 0
    written: int = 0

    def add(self, written: int, of: int) -> None:
        """So many more bytes of the file are written, which has `of` bytes, or fewer."""
        self.written += written
        self._tell(self.size * min(self.written, of) // max(of, 1))

    def finish(self) -> None:
        self._tell(self.size)

    def _tell(self, done: int) -> None:
        self.account.moved(done - self.told)
        self.told = done
