"""`<hash>.narinfo`: a path info as Nix reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic

from blake3 import blake3

from tvix_store.errors import IncompleteError, InvalidError, NotFoundError
from tvix_store.http.names import parse_output_hash, unfetched_url
from tvix_store.http.ranges import not_modified
from tvix_store.http.request import Request
from tvix_store.http.response import Headers, Response, length, text
from tvix_store.http.settings import COMPRESSIONS, CacheSettings
from tvix_store.http.status import HttpError
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import MAX_NARINFO, NarInfo
from tvix_store.model.nix_hash import NixHash
from tvix_store.model.path_info import PathInfo
from tvix_store.model.signature import MAX_SIGNATURES, SecretKey, Signature
from tvix_store.model.trust import Trust
from tvix_store.operations.collection.delete import delete_paths
from tvix_store.operations.nars.links import NarLink, NarLinks
from tvix_store.operations.nars.offer import NarOffers
from tvix_store.services.foreign_paths import ForeignPaths
from tvix_store.services.store import Store
from tvix_store.telemetry import meters, notes

_KEPT_BYTES = 32 << 20
"""Bytes of rendered narinfos, and what they were rendered from, that a worker keeps."""
_FRESH = 60.0
"""Seconds after which a narinfo is made anew, since its content may turn out to be damaged.

_FRESH_FOR_NOW: the same for a narinfo that offers another compression for now."""
_FRESH_FOR_NOW = 2.0
_LOOK = 0.5
"""Seconds within which a narinfo is made anew after something was found damaged."""
_TYPE = (b"content-type", b"text/x-nix-narinfo")
_TAKE_NODES = (b"snix-store/", b"tvix-store/")
"""How the User-Agent begins of clients that take a NAR by its root node in the URL, piece by piece where they can. Those of 2025
read no more than the first frame of a zstd file."""


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A narinfo, which holds as long as the stored record is `encoded`, up to the time `until` (seconds of the monotonic clock)."""

    output_hash: bytes
    encoded: bytes
    etag: bytes
    until: float
    response: Response

    @property
    def size(self) -> int:
        return len(self.encoded) + self.length + 1000

    @property
    def length(self) -> int:
        """Bytes of the narinfo."""
        return len(self.response.body)  # type: ignore[arg-type]  # narinfos are whole


class Narinfos:
    """The narinfos of a store."""

    def __init__(self, store: Store, links: NarLinks | None, offers: NarOffers, settings: CacheSettings) -> None:
        self._store = store
        self._links = links
        self._offers = offers
        self._settings = settings
        self._varies = settings.nar_compression != "none"
        """Whether clients that take root nodes are offered something else than others."""
        self._vary: Headers = ((b"vary", b"user-agent"),) if self._varies else ()
        self._trust = Trust(settings.trusted_keys, store.store_dir)
        self._foreign = store.foreign_paths
        self._get_kept = store.path_infos.get if self._foreign is None else self._foreign.kept
        self._kept: dict[bytes, _Rendered] = {}
        self._kept_bytes = 0
        self._hits = meters.CACHE_LOOKUPS.of("narinfo", "hit")
        self._misses = meters.CACHE_LOOKUPS.of("narinfo", "miss")
        self._epoch = -1
        """That of the store from which the kept ones were rendered, and
        _look_at: when to see whether it has changed."""
        self._look_at = 0.0

    async def get(self, request: Request, name: bytes) -> Response:
        """The narinfo of the path whose hash (32 characters) is `name`."""
        headers = request.headers
        takes_nodes = self._varies and headers.get(b"user-agent", b"").startswith(_TAKE_NODES)
        key = name + b" by node" if takes_nodes else name
        kept = self._kept.get(key)
        output_hash = parse_output_hash(name) if kept is None else kept.output_hash
        path_info = await self._get_kept(output_hash)
        if path_info is None:
            if self._foreign is not None and (request.method == "HEAD" or not self._settings.waits_for_nars):
                return await self._offered(request, self._foreign, output_hash)
            path_info = await self._store.path_infos.get(output_hash)
            if path_info is None:
                raise NotFoundError("path", name.decode())
        compression = request.query.get("compression") if request.has_query else None
        now = monotonic()
        if now > self._look_at:
            self._look_at = now + _LOOK
            epoch = await self._store.epoch()
            if epoch != self._epoch:
                self._epoch = epoch
                self._kept.clear()
                self._kept_bytes = 0
                kept = None
        if kept is None or kept.encoded != path_info.encoded or compression is not None or now > kept.until:
            self._misses.add()
            usual = "none" if takes_nodes else self._settings.nar_compression
            kept = await self._rendered(path_info, compression or usual)
            if compression is None:
                self._keep(key, kept)
        else:
            self._hits.add()
        if not_modified(headers, kept.etag):
            return Response(304, ((b"etag", kept.etag), length(kept.length), *self._vary))
        return kept.response

    async def put(self, request: Request, name: bytes) -> Response:
        """Record a path whose NAR was put before."""
        output_hash = parse_output_hash(name)
        narinfo = NarInfo.parse(await request.decoded_body(MAX_NARINFO), self._store.store_dir)
        if narinfo.store_path.output_hash != output_hash:
            raise InvalidError(f"the narinfo of {narinfo.store_path} does not belong at {name.decode()}.narinfo")
        if self._links is None:
            raise HttpError(403, "this store has no place for what is pushed over HTTP; push to one that has")
        link = await self._links.get(narinfo.nar.sha256) or await self._known(narinfo)
        if link is None:
            raise IncompleteError(f"the NAR of {narinfo.store_path}, {narinfo.nar.sha256.hex()}, is not here; put it first")
        if link.nar != narinfo.nar:
            raise InvalidError(f"the NAR of {narinfo.store_path} has {link.nar.size} bytes, not {narinfo.nar.size} as NarSize says")
        if narinfo.file_hash is not None and narinfo.file_hash.algorithm == "sha256":
            of_file = await self._links.get(narinfo.file_hash.digest)
            if of_file is not None and of_file.nar != narinfo.nar:
                raise InvalidError(f"FileHash of {narinfo.store_path} is that of another NAR")
        path_info = narinfo.path_info(link.node)
        await self._store.path_infos.put(path_info)
        meters.PATHS_PUSHED.of("http").add()
        notes.note("pushed", str(path_info.store_path))
        if self._settings.nar_compression == "zstd":
            self._offers.prepare(path_info)
        return text(201, f"{path_info.store_path} is stored")

    async def delete(self, name: bytes) -> Response:
        """Delete the path whose hash (32 characters) is `name`, if no other path refers to it, and it is not pinned."""
        kept = await self._get_kept(parse_output_hash(name))
        if kept is None:
            raise NotFoundError("path", name.decode())
        await delete_paths(self._store, [kept.store_path])
        notes.note("deleted", str(kept.store_path))
        return text(200, f"{kept.store_path} is deleted")

    async def _known(self, narinfo: NarInfo) -> NarLink | None:
        """What a path holds that is there, though its NAR was never pushed: `nix store sign` puts the narinfo alone."""
        known = await self._store.path_infos.get(narinfo.store_path.output_hash)
        return NarLink(known.nar, known.node) if known is not None and known.nar == narinfo.nar else None

    async def _rendered(self, path_info: PathInfo, compression: str) -> _Rendered:
        if compression not in COMPRESSIONS:
            raise InvalidError(f"unknown NAR compression {compression!r} (known: {', '.join(COMPRESSIONS)})")
        offer = await self._offers.offer(path_info, compression)
        signed = replace(path_info, signatures=self._signatures(path_info, self._settings.signing_keys))
        narinfo = NarInfo.of(signed, offer.url, offer.compression, NixHash("sha256", offer.file.sha256), offer.file.size)
        body = narinfo.format(self._store.store_dir)
        etag = b'"%b"' % blake3(body).hexdigest(16).encode()
        headers: Headers = (_TYPE, length(len(body)), (b"etag", etag), *self._vary)
        until = monotonic() + (_FRESH if offer.compression == compression else _FRESH_FOR_NOW)
        return _Rendered(path_info.store_path.output_hash, path_info.encoded, etag, until, Response(200, headers, body))

    async def _offered(self, request: Request, foreign: ForeignPaths, output_hash: bytes) -> Response:
        """The narinfo of a path that an upstream has. The NAR is fetched when a client asks for it.

        We do not sign it: nothing of it was verified here.
        """
        theirs = await foreign.offered(output_hash)
        if theirs is None:
            raise NotFoundError("path", nixbase32.encode(output_hash))
        narinfo = replace(
            theirs,
            url=unfetched_url(theirs),
            compression="none",
            file_hash=NixHash("sha256", theirs.nar.sha256),
            file_size=theirs.nar.size,
            system=None,
            signatures=self._signatures(theirs, ()),
        )
        body = narinfo.format(self._store.store_dir)
        etag = b'"%b"' % blake3(body).hexdigest(16).encode()
        if not_modified(request.headers, etag):
            return Response(304, ((b"etag", etag), length(len(body)), *self._vary))
        return Response(200, (_TYPE, length(len(body)), (b"etag", etag), *self._vary), body)

    def _signatures(self, path_info: PathInfo | NarInfo, keys: Sequence[SecretKey]) -> tuple[Signature, ...]:
        """Those by `keys`, which are ours, those by trusted keys, and the others; no more than a reader takes."""
        message = path_info.fingerprint(self._store.store_dir)
        own = [key.sign(message) for key in keys]
        trusted = self._trust.good(path_info.signatures, message)
        return tuple(dict.fromkeys((*own, *trusted, *path_info.signatures)))[:MAX_SIGNATURES]

    def _keep(self, name: bytes, rendered: _Rendered) -> None:
        before = self._kept.pop(name, None)
        self._kept_bytes += rendered.size - (before.size if before else 0)
        self._kept[name] = rendered
        while self._kept_bytes > _KEPT_BYTES:
            oldest = next(iter(self._kept))
            self._kept_bytes -= self._kept.pop(oldest).size
