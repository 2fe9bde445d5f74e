"""Deltas: only the difference takes bytes, `zstd --patch-from` agrees, and a hostile frame is refused in bounded memory."""

from __future__ import annotations

import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests import programs
from tests.compression.samples import SKIPPABLE, TEXT
from tvix_store.compression import delta
from tvix_store.compression.delta import apply_delta, make_delta
from tvix_store.errors import InvalidError
from tvix_store.testing.content import noise

MEBIBYTE = 1 << 20
BASE = noise(300_000, "base")
TARGET = BASE[:100_000] + b"new" + BASE[100_500:] + TEXT[:5000]


@st.composite
def bases_with_targets(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two byte strings, of which the second is made of parts of the first and of new bytes."""
    base = draw(st.binary(max_size=300)) * draw(st.integers(0, 40))
    parts = []
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(base)))
        parts += [base[start : start + draw(st.integers(0, 5000))], draw(st.binary(max_size=40))]
    return base, b"".join(parts)


@given(bases_with_targets())
def test_what_was_made_into_a_delta_comes_out(pair: tuple[bytes, bytes]) -> None:
    base, target = pair
    assert apply_delta(base, make_delta(base, target), len(target)) == target


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_any_two_files_have_a_delta(base: bytes, target: bytes) -> None:
    assert apply_delta(base, make_delta(base, target), len(target)) == target


@pytest.mark.parametrize("base", [b"", b"short", bytes.fromhex("37a430ec") + BASE], ids=["empty", "short", "as of a dictionary"])
@pytest.mark.parametrize("target", [b"", b"x", BASE], ids=["empty", "short", "long"])
def test_unusual_files_have_deltas(base: bytes, target: bytes) -> None:
    assert apply_delta(base, make_delta(base, target), len(target)) == target


def test_views_are_taken() -> None:
    frame = make_delta(memoryview(BASE), memoryview(TARGET))
    assert apply_delta(memoryview(BASE), frame, len(TARGET)) == TARGET


def test_the_same_file_takes_a_few_bytes() -> None:
    assert len(make_delta(BASE, BASE)) < 50


@pytest.mark.parametrize("size", [10_000, 300_000, 4 * MEBIBYTE])
def test_only_the_difference_takes_bytes(size: int) -> None:
    base = noise(size, "old")
    target = bytearray(base)
    for at in range(1000, size, 2000):
        target[at] ^= 1
    changes = size // 2000
    # A match, a literal and its bookkeeping. Where a large base has a small table, a fifth of the base is sent again.
    assert len(make_delta(base, bytes(target))) < 100 + 16 * changes


def test_the_whole_base_is_looked_at() -> None:
    base = noise(8 * MEBIBYTE, "old")
    target = base[7 * MEBIBYTE :] + base[: 7 * MEBIBYTE]
    assert len(make_delta(base, target)) < 10_000


def test_a_delta_against_another_base_is_refused_or_makes_something_else() -> None:
    frame = make_delta(BASE, TARGET)
    assert apply_delta(BASE[::-1], frame, len(TARGET)) != TARGET
    with pytest.raises(InvalidError, match="the delta is damaged"):
        apply_delta(BASE[:1000], frame, len(TARGET))


# --- the program zstd


def patch(tmp_path: Path, *options: str, base: bytes, content: bytes) -> bytes:
    """What `zstd --patch-from` makes of `content`."""
    (tmp_path / "base").write_bytes(base)
    (tmp_path / "content").write_bytes(content)
    command = [programs.require("zstd"), *options, f"--patch-from={tmp_path / 'base'}", str(tmp_path / "content"), "-c", "-q"]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize("options", [["-3"], ["-1", "--no-check"], ["-19", "--long=27"]], ids=" ".join)
def test_a_patch_by_zstd_is_read(tmp_path: Path, options: list[str]) -> None:
    frame = patch(tmp_path, *options, base=BASE, content=TARGET)
    assert len(frame) < 10_000
    assert apply_delta(BASE, frame, len(TARGET)) == TARGET


def test_zstd_reads_a_delta(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(BASE)
    command = [programs.require("zstd"), "-d", f"--patch-from={tmp_path / 'base'}", "-c", "-q"]
    done = subprocess.run(command, input=make_delta(BASE, TARGET), stdout=subprocess.PIPE, check=True)
    assert done.stdout == TARGET


def test_a_patch_whose_checksum_is_wrong_is_refused(tmp_path: Path) -> None:
    frame = patch(tmp_path, "--check", base=BASE, content=TARGET)
    with pytest.raises(InvalidError, match=r"the delta is damaged: .*checksum"):
        apply_delta(BASE, frame[:-4] + bytes(4), len(TARGET))


# --- frames of strangers


def framed(size: int, *blocks: bytes) -> bytes:
    """A frame that states `size` bytes in a window of as many."""
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", size) + b"".join(blocks)


def raw_block(content: bytes, *, last: bool = True) -> bytes:
    return struct.pack("<I", len(content) << 3 | last)[:3] + content


def repeated(count: int, *, last: bool = True) -> bytes:
    """A block of `count` times x."""
    return struct.pack("<I", count << 3 | 1 << 1 | last)[:3] + b"x"


WHOLE = framed(3, raw_block(b"abc"))
WINDOWED = b"\x28\xb5\x2f\xfd\x80"
"""The beginning of a frame with a window, and a size of 4 bytes behind it."""
BOMB = framed(3, repeated(128 << 10, last=False) * 100, repeated(1))


def test_a_frame_by_hand_is_read() -> None:
    assert apply_delta(BASE, WHOLE, 3) == b"abc"
    assert apply_delta(b"", framed(7, repeated(7)), 7) == b"x" * 7


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (framed(4, raw_block(b"abcd")), "states 4 bytes, and should make 3 bytes"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(b"abc"), "states no size, and should make 3 bytes"),
        (framed(3, raw_block(b"abcd")), "damaged"),
        (framed(3, raw_block(b"ab")), "damaged"),
        (BOMB, "damaged"),
        (WINDOWED + bytes([17 << 3]) + struct.pack("<I", 3) + raw_block(b"abc"), "a window of 134217728 bytes, more than base"),
        (WHOLE + b"\0", "1 bytes follow behind the end"),
        (WHOLE + WHOLE, f"{len(WHOLE)} bytes follow behind the end"),
        (WHOLE + SKIPPABLE, f"{len(SKIPPABLE)} bytes follow behind the end"),
        (SKIPPABLE + WHOLE, "begins as a frame of zstd does"),
        (SKIPPABLE, "begins as a frame of zstd does"),
        (b"", "begins as a frame of zstd does"),
        (b"\x28\xb5\x2f\xfd\xa1" + b"\x05" + struct.pack("<I", 3) + raw_block(b"abc"), "names the dictionary 5"),
        (framed(3, b"\x07\0\0"), "cut short or damaged"),  # a block of the reserved kind
        (framed(3, raw_block(b"abc", last=False)), "cut short or damaged"),
        (b"\x28\xb5\x2f\xfd\xa8" + struct.pack("<I", 3) + raw_block(b"abc"), "cut short or damaged"),  # a reserved bit
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:30],
)
def test_a_frame_that_is_no_delta_is_refused(frame: bytes, complaint: str) -> None:
    with pytest.raises(InvalidError, match=complaint):
        apply_delta(b"", frame, 3)


@pytest.mark.parametrize("blocks", [repeated(1), repeated(128 << 10), raw_block(b"abc")])
def test_empty_content_is_empty(blocks: bytes) -> None:
    with pytest.raises(InvalidError, match="damaged"):
        apply_delta(BASE, framed(0, blocks), 0)
    assert apply_delta(BASE, framed(0, raw_block(b"")), 0) == b""


def test_a_delta_that_is_cut_short_is_refused() -> None:
    frame = make_delta(BASE, TARGET)
    for length in (*range(30), len(frame) // 2, len(frame) - 1):
        with pytest.raises(InvalidError):
            apply_delta(BASE, frame[:length], len(TARGET))


@given(st.data())
def test_a_damaged_delta_makes_other_content_or_an_error(data: st.DataObject) -> None:
    frame = bytearray(make_delta(BASE, TARGET))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidError):
        assert len(apply_delta(BASE, bytes(frame), len(TARGET))) == len(TARGET)


def test_a_window_over_base_and_content_is_taken() -> None:
    def windowed(log: int) -> bytes:
        return WINDOWED + bytes([log - 10 << 3]) + struct.pack("<I", 3) + raw_block(b"abc")

    assert apply_delta(b"", windowed(10), 3) == b"abc"
    assert apply_delta(BASE, windowed(19), 3) == b"abc"
    with pytest.raises(InvalidError, match="a window of 1048576 bytes"):
        apply_delta(BASE, windowed(20), 3)


def test_files_over_the_limits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = make_delta(BASE, TARGET)
    monkeypatch.setattr(delta, "MAX_FRAME", len(frame) - 1)
    with pytest.raises(InvalidError, match=f"at most {len(frame) - 1} bytes, and not {len(frame)}"):
        apply_delta(BASE, frame, len(TARGET))
    for limit, most, kind in (("MAX_BASE", len(BASE) - 1, "base"), ("MAX_TARGET", len(TARGET) - 1, "content")):
        with monkeypatch.context() as patched:
            patched.setattr(delta, limit, most)
            with pytest.raises(InvalidError, match=f"the {kind} of a delta has at most {most} bytes, and not {most + 1}"):
                make_delta(BASE, TARGET)
            with pytest.raises(InvalidError, match=f"the {kind} of a delta has at most {most} bytes, and not {most + 1}"):
                apply_delta(BASE, frame, len(TARGET))


def test_the_largest_frame_that_is_made_is_taken() -> None:
    assert len(make_delta(b"", noise(MEBIBYTE))) <= MEBIBYTE + (MEBIBYTE >> 8) + 64
    assert delta.MAX_FRAME == delta.MAX_TARGET + (delta.MAX_TARGET >> 8) + 64


IN_A_PROCESS = """
import resource, sys
from tvix_store.compression.delta import apply_delta, make_delta
from tvix_store.errors import InvalidError
what, size, base = sys.argv[1], int(sys.argv[2]), b"base" * (int(sys.argv[3]) // 4)
apply_delta(b"base" * 9, make_delta(b"base" * 9, b"x"), 1)  # what the libraries take
given = sys.stdin.buffer.read() if what == "apply" else base[1:] + b"x"
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    apply_delta(base, given, size) if what == "apply" else make_delta(base, given)
except InvalidError as error:
    print(error, file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def memory_of(what: str, size: int, base: int = 0, frame: bytes = b"") -> float:
    """The MiB that a process takes for a delta, beside its input."""
    command = [sys.executable, "-c", IN_A_PROCESS, what, str(size), str(base)]
    return int(subprocess.run(command, input=frame, stdout=subprocess.PIPE, check=True).stdout) / 1024


def test_a_bomb_takes_no_memory() -> None:
    blocks = repeated(128 << 10, last=False) * 10_000  # 1.2 GiB
    assert memory_of("apply", 3, frame=framed(3, blocks, repeated(1))) < 8


def test_the_largest_delta_is_made_in_bounded_memory() -> None:
    assert memory_of("make", delta.MAX_TARGET, delta.MAX_BASE) < 64 + 32 + 8  # the base once more, the table


def test_the_largest_content_is_made_in_bounded_memory() -> None:
    blocks = repeated(128 << 10, last=False) * 511
    frame = framed(delta.MAX_TARGET, blocks, repeated(128 << 10))
    assert memory_of("apply", delta.MAX_TARGET, delta.MAX_BASE, frame) < 64 + 64 + 8  # the base once more, the content
