"""What the decompressors accept, however it is cut, and what they refuse."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compression.samples import CHECKED, FORMATS, SKIPPABLE, TEXT, UNCHECKED, compress, decompress, feed_all, lzip
from tvix_store.compression import COMPRESSIONS, DETECT, MAX_PIECE, SUFFIXES, decompressor, of_suffix
from tvix_store.errors import ExhaustedError, InvalidError, UnsupportedError
from tvix_store.testing.content import noise
from tvix_store.testing.strategies import damage

NAR_HEAD = (13).to_bytes(8, "little") + b"nix-archive-1\0\0\0"


def outcome(name: str, data: bytes, size: int = 1 << 20) -> bytes | None:
    """What `data` decompresses to; None where it is refused, with one line that begins with the compression's name."""
    try:
        return decompress(name, data, size)
    except (InvalidError, ExhaustedError) as error:
        message = str(error)
    assert message.startswith(f"{name}: ")
    assert message.isprintable()
    return None


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("data", [b"x", TEXT, noise(300_000), bytes(MAX_PIECE), bytes(2 * MAX_PIECE + 1)], ids=len)
def test_what_was_compressed_comes_out_again(name: str, data: bytes) -> None:
    assert decompress(name, compress(name, data)) == data


@pytest.mark.parametrize("name", FORMATS)
def test_empty_content_is_content(name: str) -> None:
    assert decompress(name, compress(name, b"")) == b""


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_byte_by_byte_is_as_all_at_once(name: str) -> None:
    assert decompress(name, compress(name, TEXT), size=1) == TEXT


@pytest.mark.parametrize("name", COMPRESSIONS)
@given(data=st.binary(max_size=100) | st.builds(bytes, st.integers(0, 5000)), cuts=st.lists(st.integers(0, 3000)))
def test_cuts_change_nothing(name: str, data: bytes, cuts: list[int]) -> None:
    stream = compress(name, data)
    ends = [*sorted(cuts), len(stream)]
    assert feed_all(decompressor(name), (stream[start:stop] for start, stop in zip([0, *ends], ends, strict=False))) == data


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_no_piece_is_empty_or_larger_than_a_mebibyte(name: str) -> None:
    sizes = [len(piece) for piece in decompressor(name).feed(compress(name, bytes(10 * MAX_PIECE)))]
    assert sum(sizes) == 10 * MAX_PIECE
    assert min(sizes) > 0
    assert max(sizes) <= MAX_PIECE


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_streams_may_follow_each_other(name: str, size: int) -> None:
    parts = [b"one", b"", TEXT, *(b"%d" % number for number in range(300))]
    assert decompress(name, b"".join(compress(name, part) for part in parts), size) == b"".join(parts)


@pytest.mark.parametrize("name", UNCHECKED)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_no_stream_follows_another_in_formats_without_checksums(name: str, size: int) -> None:
    with pytest.raises(InvalidError):
        decompress(name, 2 * compress(name, b"content"), size)


@pytest.mark.parametrize("name", ["zstd", "lz4"])
def test_skippable_frames_are_skipped(name: str) -> None:
    frame = compress(name, b"content")
    assert decompress(name, SKIPPABLE + frame + SKIPPABLE + frame + SKIPPABLE) == b"contentcontent"


@pytest.mark.parametrize("size", [1, 1000])
def test_xz_may_be_padded_to_four_bytes(size: int) -> None:
    stream = compress("xz", b"content")
    assert decompress("xz", stream + bytes(8) + stream + bytes(4), size) == b"contentcontent"


@pytest.mark.parametrize("padded", [b"%s" + bytes(3), b"%s" + bytes(5) + b"%s", bytes(4) + b"%s"])
@pytest.mark.parametrize("size", [1, 1000])
def test_xz_may_not_be_padded_otherwise(padded: bytes, size: int) -> None:
    with pytest.raises(InvalidError):
        decompress("xz", padded.replace(b"%s", compress("xz", b"content")), size)


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_cut_short_is_refused_wherever_it_is_cut(name: str) -> None:
    stream = compress(name, b"some content, " * 20)
    for end in range(len(stream)):
        with pytest.raises(InvalidError, match=rf"^{name}: the compressed data is cut short$"):
            decompress(name, stream[:end])


@pytest.mark.parametrize("name", CHECKED)
def test_a_flipped_bit_is_never_taken_for_other_content(name: str) -> None:
    content = b"some content, " * 20
    stream = compress(name, content)
    for position in range(len(stream) * 8):
        flipped = bytearray(stream)
        flipped[position // 8] ^= 1 << position % 8
        assert outcome(name, bytes(flipped)) in (None, content)  # the latter in a field that means nothing, such as gzip's time


@pytest.mark.parametrize("name", UNCHECKED)
def test_damage_without_a_check_is_no_worse_than_other_content(name: str) -> None:
    stream = compress(name, b"some content, " * 20)
    for position in range(len(stream) * 8):
        flipped = bytearray(stream)
        flipped[position // 8] ^= 1 << position % 8
        outcome(name, bytes(flipped))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("garbage", [b"\0", b"\n", b"x" * 100, bytes(100_000), NAR_HEAD])
@pytest.mark.parametrize("size", [1, 1000])
def test_garbage_behind_the_end_is_refused(name: str, garbage: bytes, size: int) -> None:
    if name == "xz" and garbage == bytes(100_000):
        garbage = bytes(99_999)
    with pytest.raises(InvalidError):
        decompress(name, compress(name, b"content") + garbage, size)


@pytest.mark.parametrize("name", FORMATS)
def test_something_else_altogether_is_refused(name: str) -> None:
    for data in (b"", NAR_HEAD, noise(1000), bytes(1000)):
        with pytest.raises((InvalidError, ExhaustedError)):
            decompress(name, data)


@pytest.mark.parametrize("name", FORMATS)
def test_after_an_error_nothing_is_taken(name: str) -> None:
    stream = decompressor(name)
    with pytest.raises((InvalidError, ExhaustedError)):
        list(stream.feed(noise(1000)))
    for again in (lambda: list(stream.feed(compress(name, b"content"))), stream.finish):
        with pytest.raises(InvalidError, match="was refused before"):
            again()


def test_what_was_not_taken_to_the_end_is_not_finished() -> None:
    stream = decompressor("zstd")
    next(stream.feed(compress("zstd", bytes(3 * MAX_PIECE))))
    with pytest.raises(InvalidError, match="was refused before"):
        stream.finish()


@pytest.mark.parametrize("name", [name for name in COMPRESSIONS if name != "br"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_compression_is_told_by_its_first_bytes(name: str, size: int) -> None:
    assert decompress(DETECT, compress(name, NAR_HEAD + TEXT), size) == NAR_HEAD + TEXT


def test_what_is_neither_a_nar_nor_compressed_is_refused() -> None:
    with pytest.raises(InvalidError, match="neither a NAR nor a known compression of one: the first bytes are b'<!DOCTYP'"):
        decompress(DETECT, b"<!DOCTYPE html>")
    with pytest.raises(InvalidError, match="cut short"):
        decompress(DETECT, NAR_HEAD[:7])


@pytest.mark.parametrize("name", ["compress", "lzop", "lrzip", "grzip", "rar", ""])
def test_a_compression_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    known = "known: none, gzip, bzip2, xz, zstd, br, lz4, lzip, lzma"
    with pytest.raises(UnsupportedError, match=rf"^compression '{name}' is not supported \({known}\)$"):
        decompressor(name)


def test_a_compression_that_is_not_there_is_refused_by_its_first_bytes_too() -> None:
    with pytest.raises(UnsupportedError, match="compression 'lzop' is not supported"):
        decompress(DETECT, b"\x89LZO\0\r\n\x1a\n")


def test_suffixes_are_those_of_nix_and_some_that_others_write() -> None:
    assert {name: of_suffix(suffix) for suffix, name in SUFFIXES.items()} == {name: name for name in SUFFIXES.values()}
    assert [of_suffix(suffix) for suffix in ("", ".xz", ".bz2", ".zst", ".lzip", ".lz4", ".br")] == [
        DETECT, "xz", "bzip2", "zstd", "lzip", "lz4", "br",
    ]  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"no known compression has the suffix '.rar' \(known: .bz2, .xz, "):
        of_suffix(".rar")


def test_lzip_names_what_is_wrong_with_a_member() -> None:
    member = lzip(b"content")
    for damaged, message in (
        (b"LZIP\0" + member[5:], "a member begins with"),
        (member[:-20] + bytes(4) + member[-16:], "the data does not match its CRC"),
        (member[:-16] + bytes(8) + member[-8:], "the sizes of the data and of the member are not those in the trailer"),
        (member[:-8] + bytes(8), "the sizes of the data and of the member are not those in the trailer"),
        (member[:5] + b"\x0b" + member[6:], "a dictionary of 2048 bytes, where 4 KiB to 512 MiB may be"),
    ):
        with pytest.raises(InvalidError, match=rf"^lzip: {message}"):
            decompress("lzip", damaged)


@pytest.mark.parametrize("name", FORMATS)
def test_damage_of_any_kind_is_refused_or_harmless(name: str) -> None:
    random = Random(name)
    for _ in range(300):
        damaged = damage(compress(name, TEXT[:500]), random)
        outcome(name, damaged, random.randint(1, len(damaged) + 1))


@pytest.mark.parametrize("name", CHECKED)
def test_the_contents_of_small_frames_come_together(name: str) -> None:
    parts = [noise(size * 10, name) for size in range(1, 1000)]
    pieces = list(decompressor(name).feed(b"".join(compress(name, part) for part in parts)))
    assert b"".join(pieces) == b"".join(parts)
    assert min(map(len, pieces[:-1])) > MAX_PIECE - 10_000
    assert max(map(len, pieces)) <= MAX_PIECE
