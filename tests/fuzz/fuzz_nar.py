#!/usr/bin/env python3
"""Feeds hostile input to everything that parses: NARs, directories, path infos and NARInfos.

    python tests/fuzz/fuzz_nar.py --seconds 20

The input is valid but for some damage. A parser may raise InvalidError with a message of one short line, and nothing else; what it
accepts must come out again as it is. Exits with an error, and the smallest input that it found, on the first finding. Hypothesis
remembers findings in .hypothesis and tries them first the next time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from random import Random

from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from tvix_store.errors import InvalidError
from tvix_store.model.directory import Directory
from tvix_store.model.narinfo import NarInfo
from tvix_store.model.path_info import PathInfo
from tvix_store.nar import NarReader, NarWriter
from tvix_store.testing import strategies, trees

EXAMPLES = 50
DAMAGES = 50
"""Inputs made of each example: damage is quicker done than an example is found."""
LONGEST_MESSAGE = 1000


def nar(data: bytes, random: Random) -> None:
    """An archive that is accepted is the one that its events make, and cuts change nothing, not even the message."""
    whole = attempt(lambda: rewritten([data]))
    assert whole == data or isinstance(whole, str)
    at = sorted(random.randint(0, len(data)) for _ in range(random.randint(0, 10)))
    pieces = [data[start:stop] for start, stop in zip([0, *at], [*at, len(data)], strict=True)]
    assert attempt(lambda: rewritten(pieces)) == whole


def rewritten(pieces: list[bytes]) -> bytes:
    reader, writer = NarReader(), NarWriter()
    written = b"".join(writer.send(event) for piece in pieces for event in reader.feed(piece))
    reader.finish()
    writer.finish()
    return written


def directory(data: bytes, _: Random) -> None:
    """A directory that is accepted has one canonical encoding."""
    read = attempt(lambda: Directory.decode(data))
    if isinstance(read, Directory):
        assert Directory.decode(read.encoded).entries == read.entries
        assert Directory.stored(read.digest, read.encoded).entries == read.entries


def path_info(data: bytes, _: Random) -> None:
    """A path info that is accepted has one canonical encoding, and can be signed."""
    read = attempt(lambda: PathInfo.decode(data))
    if isinstance(read, PathInfo):
        assert PathInfo.decode(read.encoded) == read
        assert read.fingerprint().startswith(b"1;/nix/store/")


def narinfo(data: bytes, _: Random) -> None:
    """A NARInfo that is accepted has one canonical text."""
    read = attempt(lambda: NarInfo.parse(data))
    if isinstance(read, NarInfo):
        assert NarInfo.parse(read.format()) == read


def attempt(parse: Callable[[], object]) -> object:
    """What `parse` gives, or the message with which it refuses."""
    try:
        return parse()
    except InvalidError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < LONGEST_MESSAGE
    return message


TARGETS = (
    (nar, strategies.trees().map(trees.nar)),
    (directory, strategies.directories().map(lambda value: value.encoded)),
    (path_info, strategies.path_infos().map(lambda value: value.encoded)),
    (narinfo, strategies.narinfos().map(NarInfo.format)),
)


def fuzz(target: Callable[[bytes, Random], None], valid: st.SearchStrategy[bytes], number: int) -> None:
    @seed(number)
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(valid | st.binary(), st.integers(0, 1 << 64))
    def batch(data: bytes, damage_seed: int) -> None:
        random = Random(damage_seed)
        for _ in range(DAMAGES):
            damaged = strategies.damage(data, random)
            try:
                target(damaged, random)
            except BaseException:
                note(f"{target.__name__} got {damaged!r}")
                raise

    batch()


def main() -> None:
    arguments = argparse.ArgumentParser(description="PushStream hostile input to the parsers.")
    arguments.add_argument("--seconds", type=float, default=60, help="how long (default: %(default)s)")
    arguments.add_argument("--seed", type=lambda text: int(text, 0), default=time.time_ns(), help="where to begin")
    parsed = arguments.parse_args()
    end = time.monotonic() + parsed.seconds
    number = parsed.seed
    while time.monotonic() < end:
        for target, valid in TARGETS:
            try:
                fuzz(target, valid, number)
            except BaseException:
                print(f"{target.__name__} failed with --seed {number}")
                raise
        number += 1
    rounds = number - parsed.seed
    print(f"{rounds * EXAMPLES * DAMAGES} inputs for each of {len(TARGETS)} parsers, nothing found")


if __name__ == "__main__":
    main()
