"""Sizes and counts for people."""

from __future__ import annotations


def human(size: int) -> str:
    """`size` bytes to three digits or more: `512 B`, `1.50 KiB`, `234 MiB`."""
    if size < 1024:
        return f"{size} B"
    value, unit = size / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB", "PiB"):
        if value < 1023.5:
            break
        value, unit = value / 1024, larger
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def counted(count: int, noun: str) -> str:
    """`1 path`, `2 paths`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
