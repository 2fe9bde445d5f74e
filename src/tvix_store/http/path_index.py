"""`/serve/`: the store paths of a cache, page by page, for people with browsers.

Clients that may pull may list paths over gRPC too. But no web page of another site may read this list: such a page reads only paths
whose hash it knows.
"""

from __future__ import annotations

from tvix_store.errors import UnsupportedError
from tvix_store.http.markup import Html, element, joined, link, quoted
from tvix_store.http.names import parse_output_hash
from tvix_store.http.own_url import OwnUrl
from tvix_store.http.pages import START, page, section, text
from tvix_store.http.request import Request
from tvix_store.http.response import Response
from tvix_store.model import nixbase32
from tvix_store.model.nodes import DirectoryNode
from tvix_store.model.path_info import PathInfo
from tvix_store.services.store import Store

PATHS_A_PAGE = 500
TITLE = "Store paths"


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
            path_infos = await self._some(parse_output_hash(after.encode()) if after else b"")
        except UnsupportedError:
            return _index(request.own_url, text("The store behind this cache has no list of its paths."))
        here, rest = path_infos[:PATHS_A_PAGE], path_infos[PATHS_A_PAGE:]
        if not here:
            return _index(request.own_url, text("No more paths follow." if after else "No paths are here yet."))
        content = [_table(here)]
        if after or rest:
            content.insert(0, text("Each page has the paths behind those of the page before, by their hashes."))
        if rest:
            content.append(text(link(f"?after={nixbase32.encode(here[-1].store_path.output_hash)}", "Next page")))
        return _index(request.own_url, *content)

    async def _some(self, after: bytes) -> list[PathInfo]:
        """The path infos of a page, and one more where another page follows."""
        found: list[PathInfo] = []
        async for path_info in self._store.path_infos.list(after):
            found.append(path_info)
            if len(found) > PATHS_A_PAGE:
                break
        return found


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


def _table(path_infos: list[PathInfo]) -> Html:
    by_name = sorted(path_infos, key=lambda each: (each.store_path.name, each.store_path.output_hash))
    head = element("tr", element("th", "Path", scope="col"), element("th", "Bytes of its NAR", scope="col", class_="size"))
    return element("table", head, *map(_row, by_name))


def _row(path_info: PathInfo) -> Html:
    store_path = path_info.store_path
    name = str(store_path)
    href = "./" + quoted(name.encode()) + ("/" if isinstance(path_info.node, DirectoryNode) else "")
    named = link(href, element("span", name.removesuffix(store_path.name), class_="more"), store_path.name)
    return element("tr", element("td", named), element("td", f"{path_info.nar.size:,}", class_="size"))
