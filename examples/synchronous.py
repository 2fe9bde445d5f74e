"""The library without `async`: in a script, or in a notebook.

python examples/synchronous.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from tvix_store.sync import import_tree, open_store, read_text, walk


def main() -> None:
    with TemporaryDirectory() as scratch, open_store("memory://") as store:
        Path(scratch, "hello.txt").write_text("Hello, World!\n")
        path = import_tree(store, scratch, name="greetings").store_path

        # The verbs are those of `tvix_store`. They wait, and streams are iterators.
        for entry in walk(store, path):
            print(entry.path or path, type(entry.node).__name__)
        print(read_text(store, f"{path}/hello.txt").strip())

        # A blob is put from bytes, an open file, or any iterable of bytes.
        digest = store.blobs.put(f"line {number}\n".encode() for number in range(3))
        print(b"".join(store.blobs.read(digest)).decode().splitlines())


if __name__ == "__main__":
    main()
