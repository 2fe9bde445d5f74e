"""The pictures in the design pages show what is there."""

from __future__ import annotations

import re
from pathlib import Path

from tools import layer_picture
from tvix_store import import_tree, open_store

DESIGN = Path(__file__).parents[2] / "docs/design"
PACKAGE = Path(__file__).parents[2] / "src/tvix_store"


def pictures(page: str) -> list[str]:
    return re.findall(r"^```mermaid\n(.*?)^```$", (DESIGN / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_layers_are_those_that_the_linter_checks() -> None:
    page = layer_picture.PAGE.read_text()
    assert page == layer_picture.page(page), "run: python3 dev.py page"


def test_the_modules_in_the_pictures_of_the_data_exist() -> None:
    named = [name for picture in pictures("architecture.md")[1:] for name in re.findall(r'["> ]([a-z]+/[a-z_]+)', picture)]
    assert len(named) > 15
    assert [name for name in named if not any((PACKAGE / place / f"{name}.py").exists() for place in ("", "operations"))] == []


async def test_the_files_of_a_local_store_are_those_that_its_page_lists(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with await open_store(str(tmp_path / "store")) as store:
        await import_tree(store, tmp_path / "file")
    files = [str(path.relative_to(tmp_path / "store")) for path in (tmp_path / "store").rglob("*") if path.is_file()]
    found = {re.sub(r"\d+\.mdb", "N.mdb", re.sub(r"[0-9a-f]{8}\.pack$", "XXXXXXXX.pack", file)) for file in files}
    listed = re.findall(r"^    (\S+?),? .*$", (DESIGN / "local.md").read_text().partition("```mermaid")[0], re.MULTILINE)
    assert found - set(listed) == set()
    [picture] = pictures("local.md")
    assert set(re.findall(r'\[\("([^"]+)"\)\]', picture)) <= found
