"""`/serve/`: the store paths of a cache, page by page, for people with browsers.

Clients that may pull may list paths over gRPC too. But no web page of another site may read this list: such a page reads only paths
whose hash it knows.
"""

from __future__ import annotations

from typing import NamedTuple

from tvix_store.errors import UnsupportedError
from tvix_store.http.names import parse_output_hash
from tvix_store.http.own_url import OwnUrl
from tvix_store.http.pages import START, page, section, text
from tvix_store.http.request import Request
from tvix_store.http.response import Response
from tvix_store.model import nixbase32
from tvix_store.model.markup import Html, element, joined, link, quoted
from tvix_store.model.nodes import DirectoryNode
from tvix_store.model.store_path import StorePath
from tvix_store.services.store import Store

PATHS_A_PAGE = 500
TITLE = "Store paths"


class _Row(NamedTuple):
    """What a page shows of a path. The whole path infos of a page may take gigabytes."""

    path: StorePath
    is_directory: bool
    size: int


class PathIndex:
    """The pages of a store's paths, in the order of their hashes. Within a page they are sorted by name."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, request: Request) -> Response:
        """The first page, or that behind the path whose hash (32 characters) is given by `?after=`.

        Raises:
            HttpError: that is no hash.
        """
        after = request.query.get("after", "")
        try:
            rows = await self._some(parse_output_hash(after.encode()) if after else b"")
        except UnsupportedError:
            return _index(request.own_url, *_without_list(request.own_url, from_the_middle=bool(after)))
        here, rest = rows[:PATHS_A_PAGE], rows[PATHS_A_PAGE:]
        if not here:
            return _index(request.own_url, text("No more paths follow." if after else "No paths are here yet."))
        content = [_table(here)]
        if after or rest:
            content.insert(0, text("Each page has the paths behind those of the page before, by their hashes."))
        if rest:
            content.append(text(link(f"?after={nixbase32.encode(here[-1].path.output_hash)}", "Next page")))
        return _index(request.own_url, *content)

    async def _some(self, after: bytes) -> list[_Row]:
        """The rows of a page, and one more where another page follows."""
        found: list[_Row] = []
        async for each in self._store.path_infos.list(after):
            store_path, node, size = each.in_brief
            found.append(_Row(store_path, isinstance(node, DirectoryNode), size))
            if len(found) > PATHS_A_PAGE:
                break
        return found


def _without_list(url: OwnUrl, *, from_the_middle: bool) -> list[Html]:
    if not from_the_middle:
        return [text("The store behind this cache has no list of its paths.")]
    return [
        text("The store behind this cache is a server that lists its paths from the first one on. So pages end here."),
        text("This command lists all paths: ", element("code", f"tvix-store list --store grpc+{url}")),
    ]


def _index(url: OwnUrl, *content: Html) -> Response:
    response = page(
        200,
        TITLE,
        joined(link("../", START), f" / {TITLE}"),
        element("h1", TITLE),
        *content,
        section(
            "A path by its name", text("The files of a store path are at ", element("code", f"{url}/serve/<hash>-<name>/"), ".")
        ),
        headers=((b"cache-control", b"no-cache"), (b"cross-origin-resource-policy", b"same-origin")),
    )
    response.for_pages = False
    return response


def _table(rows: list[_Row]) -> Html:
    by_name = sorted(rows, key=lambda each: (each.path.name, each.path.output_hash))
    head = element("tr", element("th", "Path", scope="col"), element("th", "Bytes of its NAR", scope="col", class_="size"))
    return element("table", head, *map(_row, by_name))


def _row(row: _Row) -> Html:
    name = str(row.path)
    href = "./" + quoted(name.encode()) + ("/" if row.is_directory else "")
    named = link(href, element("span", name.removesuffix(row.path.name), class_="more"), row.path.name)
    return element("tr", element("td", named), element("td", f"{row.size:,}", class_="size"))
