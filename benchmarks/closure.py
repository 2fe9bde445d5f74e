"""A closure of many small paths, in a Nix of its own."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.bench import Bench, say
from tests.http.nix import Nix

_EXPRESSION = """
  let
    size = %d;
    script = "mkdir $out; echo $refers > $out/refers; for each in 1 2 3; do head -c 20000 /dev/urandom > $out/$each; done";
    path = number: sh' "path-${toString number}" script { refers = if number == 0 then "" else [ (path ((number - 1) / 2)) ]; };
    paths = builtins.genList path (size - 1);
  in sh' "all" script { refers = paths; }
"""


class Closure(NamedTuple):
    """`size` paths of 60 kB, each of which refers to another (they are a tree, 8 levels deep), and `top`, one of them, that refers
    to all.
    """

    nix: Nix
    top: str
    size: int

    @classmethod
    def built(cls, bench: Bench) -> Closure:
        inputs = bench.fresh()
        nix = Nix(inputs / "nix", inputs / "nix/store")
        size = 5 if bench.quick else 200
        say(f"building {size} paths")
        [top] = nix.build(_EXPRESSION % size)
        assert len(nix("nix-store", "--query", "--requisites", top).splitlines()) == size
        return cls(nix, top, size)
