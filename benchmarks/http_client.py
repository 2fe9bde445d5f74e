"""Clients of HTTP: curl where time counts, since it costs little and drops what it gets; Python for the rest."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

from benchmarks.bench import output, timed

_CURL = ("curl", "--silent", "--show-error", "--fail")


def seconds_to_get(url: str) -> float:
    """Seconds that one GET takes, from the start of curl to its end."""
    return timed(*_CURL, "--output", os.devnull, url)


def download(url: str, file: Path) -> None:
    output(*_CURL, "--output", file, url)


def upload(file: Path, url: str) -> None:
    output(*_CURL, "--upload-file", file, "--output", os.devnull, url)


def narinfo(cache_url: str, store_path: str, compression: str) -> dict[str, str]:
    """The fields of a path's narinfo, as a cache of ours gives it to those who ask for a compression."""
    output_hash = Path(store_path).name[:32]
    with urllib.request.urlopen(f"{cache_url}/{output_hash}.narinfo?compression={compression}") as answer:
        lines = answer.read().decode().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def nar_url(cache_url: str, store_path: str, compression: str) -> str:
    return f"{cache_url}/{narinfo(cache_url, store_path, compression)['URL']}"
