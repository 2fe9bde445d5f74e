"""`<hash>.narinfo`: a path info as Nix reads and writes it."""

from __future__ import annotations

import logging
from base64 import urlsafe_b64encode
from dataclasses import dataclass

from blake3 import blake3

from tvix_store.errors import CorruptError, IncompleteError, InvalidError, NotFoundError
from tvix_store.http.ranges import not_modified
from tvix_store.http.request import Request
from tvix_store.http.response import Headers, Response, length, text
from tvix_store.http.settings import COMPRESSIONS, CacheSettings
from tvix_store.http.status import HttpError
from tvix_store.model import nixbase32
from tvix_store.model.narinfo import MAX_NARINFO, NarInfo
from tvix_store.model.nodes import encode_node
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import OUTPUT_HASH_SIZE
from tvix_store.operations.check_path_info import missing_references
from tvix_store.operations.nar_links import NarLink, NarLinks
from tvix_store.operations.zstd_nar import can_be_planned
from tvix_store.services.store import Store

_log = logging.getLogger(__name__)
_KEPT_BYTES = 32 << 20
"""Bytes of rendered narinfos, and what they were rendered from, that a worker keeps."""
_TYPE = (b"content-type", b"text/x-nix-narinfo")


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A narinfo, which holds as long as the stored record is `encoded`."""

    output_hash: bytes
    encoded: bytes
    etag: bytes
    response: Response

    @property
    def size(self) -> int:
        return len(self.encoded) + len(self.response.body) + 1000  # type: ignore[arg-type]  # narinfos are whole


class Narinfos:
    """The narinfos of a store."""

    def __init__(self, store: Store, links: NarLinks | None, settings: CacheSettings) -> None:
        self._store = store
        self._links = links
        self._settings = settings
        self._kept: dict[bytes, _Rendered] = {}
        self._kept_bytes = 0

    async def get(self, request: Request, name: bytes) -> Response:
        """The narinfo of the path whose hash (32 characters) is `name`."""
        kept = self._kept.get(name)
        output_hash = parse_output_hash(name) if kept is None else kept.output_hash
        path_info = await self._store.path_infos.get(output_hash)
        if path_info is None:
            raise NotFoundError("path", name.decode())
        compression = request.query.get("compression") if request.has_query else None
        if kept is None or kept.encoded != path_info.encoded or compression is not None:
            kept = await self._rendered(path_info, compression or self._settings.nar_compression)
            if compression is None:
                self._keep(name, kept)
        if not_modified(request.headers, kept.etag):
            return Response(304, ((b"etag", kept.etag),))
        return kept.response

    async def put(self, request: Request, name: bytes) -> Response:
        """Record a path whose NAR was put before."""
        output_hash = parse_output_hash(name)
        narinfo = NarInfo.parse(await request.decoded_body(MAX_NARINFO), self._store.store_dir)
        if narinfo.store_path.output_hash != output_hash:
            raise InvalidError(f"the narinfo of {narinfo.store_path} does not belong at {name.decode()}.narinfo")
        if self._links is None:
            raise HttpError(403, "this store has no place for what is pushed over HTTP; push to one that has")
        link = await self._links.get(narinfo.nar.sha256)
        if link is None:
            raise IncompleteError(f"the NAR of {narinfo.store_path}, {narinfo.nar.sha256.hex()}, is not here; put it first")
        if link.nar != narinfo.nar:
            raise InvalidError(f"the NAR of {narinfo.store_path} has {link.nar.size} bytes, not {narinfo.nar.size} as NarSize says")
        path_info = narinfo.path_info(link.node)
        if self._settings.require_references:
            missing = await missing_references(self._store.path_infos, path_info)
            if missing:
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise IncompleteError(f"{path_info.store_path} refers to {missing[0]}{more}, not in the store; put that first")
        await self._store.path_infos.put(path_info)
        return text(201, f"{path_info.store_path} is stored")

    async def _rendered(self, path_info: PathInfo, compression: str) -> _Rendered:
        if compression not in COMPRESSIONS:
            raise InvalidError(f"unknown NAR compression {compression!r} (known: {', '.join(COMPRESSIONS)})")
        await self._check_complete(path_info)
        url, compression = await self._offer(path_info, compression)
        signed = path_info.with_signatures(
            key.sign(path_info.fingerprint(self._store.store_dir)) for key in self._settings.signing_keys
        )
        body = NarInfo.of(signed, url, compression).format(self._store.store_dir)
        etag = b'"%b"' % blake3(body).hexdigest(16).encode()
        headers: Headers = (_TYPE, length(len(body)), (b"etag", etag))
        return _Rendered(path_info.store_path.output_hash, path_info.encoded, etag, Response(200, headers, body))

    async def _check_complete(self, path_info: PathInfo) -> None:
        """Raise NotFoundError where the NAR could not be served: what a client is told it remembers for a month."""
        try:
            # Remembered as long as nothing of the content can have gone; else the NAR is rendered once.
            facts = await self._store.nar.calculate(path_info.node)
        except (NotFoundError, CorruptError, InvalidError) as error:
            _log.error("%s is not served: %s", path_info.store_path, error)
            raise NotFoundError("path", path_info.store_path) from error
        if facts != path_info.nar:
            _log.error("%s is not served: its content has NAR hash %s", path_info.store_path, facts.sha256.hex())
            raise NotFoundError("path", path_info.store_path)

    async def _offer(self, path_info: PathInfo, compression: str) -> tuple[str, str]:
        """Where the NAR is, and how it is compressed."""
        if compression == "zstd" and self._links and self._store.frames and can_be_planned(path_info.node, path_info.nar.size):
            if await self._links.get(path_info.nar.sha256) is None:
                await self._links.put(NarLink(path_info.nar, path_info.node))
            return f"nar/{nixbase32.encode(path_info.nar.sha256)}.nar.zst", "zstd"
        root = urlsafe_b64encode(encode_node(b"", path_info.node)).rstrip(b"=").decode()
        return f"nar/snix-castore/{root}?narsize={path_info.nar.size}", "none"

    def _keep(self, name: bytes, rendered: _Rendered) -> None:
        before = self._kept.pop(name, None)
        self._kept_bytes += rendered.size - (before.size if before else 0)
        self._kept[name] = rendered
        while self._kept_bytes > _KEPT_BYTES:
            oldest = next(iter(self._kept))
            self._kept_bytes -= self._kept.pop(oldest).size


def parse_output_hash(name: bytes) -> bytes:
    """The 20 bytes behind the 32 characters that name a path's narinfo, and its listing.

    Raises:
        HttpError: they are not that.
    """
    try:
        digest = nixbase32.decode(name.decode())
    except (UnicodeDecodeError, InvalidError):
        digest = b""
    if len(digest) != OUTPUT_HASH_SIZE:
        raise HttpError(404, "narinfos and listings are named by the 32 characters of a store path's hash")
    return digest
