"""`serve/<hash>-<name>/…`: the files of a path, for people with browsers.

Symlinks are followed where they stay in the store: inside the path, and into other paths that are here. Content may be hostile. Its
type is set here, and never guessed by a browser, and it runs no scripts (`files.INERT`).
"""

from __future__ import annotations

import codecs
import mimetypes
from collections.abc import AsyncGenerator

from tvix_store.concurrency.cooperative import cooperatively
from tvix_store.errors import ExhaustedError, InvalidError
from tvix_store.http.files import file_response
from tvix_store.http.forms import Form, wanted_form
from tvix_store.http.pages import END, PAGE_HEADERS, START, begin, facts, page_etag
from tvix_store.http.path_index import TITLE
from tvix_store.http.ranges import made_response
from tvix_store.http.request import Request
from tvix_store.http.response import Response, see_slash
from tvix_store.http.status import HttpError
from tvix_store.model import nixbase32
from tvix_store.model.directory import Directory
from tvix_store.model.markup import LINE_BREAK, NOTHING, Html, between, element, escaped, joined, link, quoted
from tvix_store.model.names import as_text
from tvix_store.model.nodes import DirectoryNode, FileNode, Node, SymlinkNode
from tvix_store.model.path_info import PathInfo
from tvix_store.model.store_path import StorePath
from tvix_store.operations.nars.node_urls import node_url
from tvix_store.operations.trees.lookup import lookup_in_store
from tvix_store.services.directories import read_directory
from tvix_store.services.store import Store

_PIECE = 64 * 1024
_LOOKED_AT = 1024
"""Bytes at the start of a file without a known extension that must be text for it to be shown as such."""
_TYPES = mimetypes.MimeTypes()
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_MOST_SHOWN = 256 << 10
"""Bytes of the largest text that is shown on a page."""
_SCRIPTS = (b"application/x-sh", b"application/x-csh")
"""Types of texts that browsers only offer to save."""
_BY_ACCEPT = (b"vary", b"accept")
_REFERENCES = 100
"""References that the page of a store path shows. A path may have 50,000."""
_UP = '<tr><td><a href="../">../</a></td><td></td></tr>\n'
_HEADINGS = '<tr><th scope="col">Name</th><th scope="col" class="size">Bytes</th></tr>\n'


class Browse:
    """The files of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, request: Request, names: list[bytes]) -> Response:
        """A file, or the index of a directory; the first name is that of a store path, the last one empty behind a slash."""
        is_directory_url = len(names) > 1 and names[-1] == b""
        names = names[:-1] if is_directory_url else names
        if b"" in names or any(b"/" in name for name in names):
            raise HttpError(404, "a path has no empty names, and no slashes in them")
        try:
            tree = await lookup_in_store(self._store, b"/".join(names))
        except (InvalidError, ExhaustedError) as error:
            raise HttpError(404, str(error)) from None
        node = tree.root
        if isinstance(node, DirectoryNode):
            if not is_directory_url:
                return see_slash(quoted(names[-1]).encode())
            return await self._index(request, names, await read_directory(tree, node.digest))
        if is_directory_url or not isinstance(node, FileNode):
            raise HttpError(404, "this is no directory")
        return await self._file(request, names, node)

    async def _file(self, request: Request, names: list[bytes], file: FileNode) -> Response:
        """The contents of a file; a text as a page for a browser that has not asked for `?raw`."""
        content_type = (b"content-type", await self._type(names[-1], file))
        if not _has_page(content_type[1], file):
            return file_response(request, self._store.blobs, file, (content_type,))
        if wanted_form(request.headers.get(b"accept")) is not Form.PAGE or "raw" in request.query:
            return file_response(request, self._store.blobs, file, (content_type, _BY_ACCEPT))
        etag = page_etag(b"file", file.digest.raw)
        return await made_response(request, etag, (*PAGE_HEADERS, _BY_ACCEPT), self._file_page(names, file))

    async def _file_page(self, names: list[bytes], file: FileNode) -> AsyncGenerator[bytes, None]:
        contents = b"".join([piece async for piece in self._store.blobs.read(file.digest)])
        raw = "./" + quoted(names[-1]) + "?raw"
        content = (
            element("h1", as_text(names[-1])),
            facts(
                ("Bytes", f"{file.size:,}"),
                ("BLAKE3", element("code", file.digest.hex)),
                ("Also as", joined(link(raw, "plain text"), ", ", element("a", "download", href=raw, download=""))),
            ),
            element("pre", element("code", as_text(contents))),
        )
        yield f"{begin(_title(names), _crumbs(names, is_file=True))}{joined(*content)}\n{END}".encode()

    async def _type(self, name: bytes, file: FileNode) -> bytes:
        """The media type of a file."""
        guessed, packed = _TYPES.guess_type(name.decode("latin-1"))
        if packed is not None:
            return _PACKED.get(packed, "application/octet-stream").encode()
        if guessed is None:
            start = b"".join([piece async for piece in self._store.blobs.read(file.digest, 0, _LOOKED_AT)])
            guessed = "text/plain" if _is_text(start) else "application/octet-stream"
        return (f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed).encode()

    async def _index(self, request: Request, names: list[bytes], directory: Directory) -> Response:
        path_info = await self._path_info(names[0]) if len(names) == 1 else None
        about = NOTHING if path_info is None else _about(path_info, self._store.store_dir)
        etag = page_etag(b"index", directory.digest.raw, about.encode())
        return await made_response(request, etag, PAGE_HEADERS, format_index(names, directory, about))

    async def _path_info(self, name: bytes) -> PathInfo | None:
        return await self._store.path_infos.get(StorePath.from_base_name(name.decode()).output_hash)


async def format_index(names: list[bytes], directory: Directory, about: Html = NOTHING) -> AsyncGenerator[bytes, None]:
    """The page of a directory at `names`, in pieces. `about`: what else there is to say of it."""
    title = as_text(names[-1])
    head = begin(_title(names), _crumbs(names))
    parts = [head, joined(element("h1", title), about), "\n<table>\n", _HEADINGS, _UP if len(names) > 1 else ""]
    size = 0
    async for name, node in cooperatively(directory.entries.items()):
        row = _row(name, node)
        parts.append(row)
        size += len(row)
        if size >= _PIECE:
            yield "".join(parts).encode()
            parts, size = [], 0
    yield "".join([*parts, "</table>\n", END]).encode()


def _title(names: list[bytes]) -> str:
    return "/".join(map(as_text, names))


def _crumbs(names: list[bytes], *, is_file: bool = False) -> Html:
    """Links to all directories above, and the name of this one, or of a file. The URL of a file has no slash behind it."""
    above = [START, TITLE, *map(as_text, names[:-1])]
    ups = len(names) + 1 - is_file
    links = [link("../" * (ups - depth) or "./", name) for depth, name in enumerate(above)]
    return between(Html(" / "), [*links, as_text(names[-1])])


def _row(name: bytes, node: Node) -> str:
    mark = size = more = ""
    if isinstance(node, DirectoryNode):
        mark = "/"
    elif isinstance(node, SymlinkNode):
        more = f'<span class="more"> → {escaped(as_text(node.target))}</span>'
    else:
        size = f"{node.size:,}"
        more = '<span class="more"> executable</span>' if node.executable else ""
    named = f'<a href="./{quoted(name)}{mark}">{escaped(as_text(name))}{mark}</a>'
    return f'<tr><td>{named}{more}</td><td class="size">{size}</td></tr>\n'


def _about(path_info: PathInfo, store_dir: str) -> Html:
    """What there is to say of a store path, and links to its other forms."""
    store_path = path_info.store_path
    hash_part = nixbase32.encode(store_path.output_hash)
    forms = [
        link(f"../../{hash_part}.narinfo", "narinfo"),
        element("a", "NAR", href=f"../../{node_url(path_info.node, path_info.nar.size)}", download=f"{store_path.name}.nar"),
        link(f"../../{hash_part}.ls", "listing as JSON"),
    ]
    references = [link(f"../{quoted(str(each).encode())}", str(each)) for each in path_info.references[:_REFERENCES]]
    if (more := len(path_info.references) - _REFERENCES) > 0:
        references.append(joined(f"and {more} more, in the narinfo"))
    return facts(
        ("Store path", element("code", store_path.absolute(store_dir))),
        ("Bytes of its NAR", f"{path_info.nar.size:,}"),
        ("References", element("span", between(LINE_BREAK, references), class_="names") if references else "none"),
        ("Also as", between(Html(", "), forms)),
    )


def _has_page(content_type: bytes, file: FileNode) -> bool:
    """Whether a file is shown as a text on a page, and not as its type wants."""
    is_text = content_type.startswith(b"text/") and not content_type.startswith(b"text/html")
    return (is_text or content_type in _SCRIPTS) and file.size <= _MOST_SHOWN


def _is_text(start: bytes) -> bool:
    try:
        decoded = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return not any(character < " " and character not in "\t\n\r\f\x1b" for character in decoded)
