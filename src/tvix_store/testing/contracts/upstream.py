"""The contract of Upstream."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tvix_store.model import nixbase32
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import NarFacts
from tvix_store.model.store_path import StorePath
from tvix_store.services.upstream import DEFAULT_PRIORITY, Upstream, UpstreamLacksError, UpstreamLiesError
from tvix_store.testing.content import collect, noise

DATA = noise(1_500_000, "upstream")


@dataclass(frozen=True)
class Offering:
    """An upstream for /nix/store, and a way to put files into it, by their paths relative to the cache."""

    upstream: Upstream
    put: Callable[[str, bytes], object]


def narinfo(name: str = "path", url: str = "nar/file.nar", data: bytes = DATA) -> NarInfo:
    """A narinfo that says of `data` that it is a NAR, with a reference to itself."""
    path = StorePath(noise(20, name), name)
    return NarInfo(path, url, "none", NarFacts(len(data), hashlib.sha256(data).digest()), references=(path,))


@pytest.mark.asyncio
class UpstreamContract:
    """Subclasses give a fixture `offering` of a cache that has nothing but a `nix-cache-info` with the store directory."""

    async def test_the_priority_is_the_one_that_is_stated(self, offering: Offering) -> None:
        assert await offering.upstream.priority() == DEFAULT_PRIORITY
        for line, priority in (
            ("Priority: 7", 7),
            ("Priority: 07x", DEFAULT_PRIORITY),
            ("Priority: " + "9" * 20, DEFAULT_PRIORITY),
        ):
            offering.put("nix-cache-info", f"StoreDir: /nix/store\n{line}\nWantMassQuery: 1\n".encode())
            assert await offering.upstream.priority() == priority

    async def test_a_cache_for_another_store_directory_is_refused(self, offering: Offering) -> None:
        offering.put("nix-cache-info", b"StoreDir: /gnu/store\n")
        with pytest.raises(UpstreamLiesError, match=r"cache for '/gnu/store', not for /nix/store"):
            await offering.upstream.priority()

    async def test_a_narinfo_is_read_and_an_absent_one_is_none(self, offering: Offering) -> None:
        stated = narinfo()
        output_hash = stated.store_path.output_hash
        assert await offering.upstream.narinfo(output_hash) is None
        offering.put(f"{nixbase32.encode(output_hash)}.narinfo", stated.format())
        assert await offering.upstream.narinfo(output_hash) == stated

    @pytest.mark.parametrize("text", [b"", b"x", b"StorePath: /gnu/store/x\n", narinfo().format()[:-1], bytes(5 << 20)])
    async def test_a_malformed_narinfo_is_refused(self, offering: Offering, text: bytes) -> None:
        output_hash = noise(20, "path")
        offering.put(f"{nixbase32.encode(output_hash)}.narinfo", text)
        with pytest.raises(UpstreamLiesError):
            await offering.upstream.narinfo(output_hash)

    async def test_the_file_of_a_nar_comes_whole(self, offering: Offering) -> None:
        offering.put("nar/file.nar", DATA)
        offering.put("elsewhere/deep/file", b"x")
        assert await collect(offering.upstream.nar_file(narinfo())) == DATA
        assert await collect(offering.upstream.nar_file(narinfo(url="elsewhere/deep/file"))) == b"x"

    @pytest.mark.parametrize("url", ["nar/absent.nar", "absent/file.nar"])
    async def test_an_absent_nar_is_lacked(self, offering: Offering, url: str) -> None:
        offering.put("nar/file.nar", DATA)
        with pytest.raises(UpstreamLacksError):
            await collect(offering.upstream.nar_file(narinfo(url=url)))

    async def test_a_file_may_be_left_before_its_end(self, offering: Offering) -> None:
        offering.put("nar/file.nar", DATA)
        for _ in range(20):
            pieces = offering.upstream.nar_file(narinfo())
            assert DATA.startswith(await anext(pieces))
            await pieces.aclose()

    async def test_documents_have_a_bound(self, offering: Offering) -> None:
        offering.put("log/a", b"12345678")
        assert await offering.upstream.document("log/a", 8) == b"12345678"
        assert await collect(offering.upstream.stream("log/a", 8)) == b"12345678"
        for most in (7, 0):
            with pytest.raises(UpstreamLiesError, match=f"log/a has more than {most} bytes"):
                await offering.upstream.document("log/a", most)
            with pytest.raises(UpstreamLiesError, match=f"log/a has more than {most} bytes"):
                await collect(offering.upstream.stream("log/a", most))

    async def test_an_absent_document_is_none(self, offering: Offering) -> None:
        assert await offering.upstream.document("log/absent", 8) is None
        with pytest.raises(UpstreamLacksError):
            await collect(offering.upstream.stream("log/absent", 8))

    async def test_a_plain_cache_has_no_content_in_parts(self, offering: Offering) -> None:
        await offering.upstream.priority()
        assert await offering.upstream.content() is None
