"""`tvix-store path-info`: the group of its commands."""

from __future__ import annotations

from tvix_store.cli.lazy_group import Entry, LazyGroup

COMMANDS = {
    "get": Entry("tvix_store.cli.path_info_get:get", "Print path infos as JSON."),
    "put": Entry("tvix_store.cli.path_info_put:put", "Store path infos from JSON."),
    "rewrite": Entry("tvix_store.cli.path_info_rewrite:rewrite", "Count sizes of directories by another rule."),
    "sign": Entry("tvix_store.cli.path_info_sign:sign", "Sign store paths."),
    "verify": Entry("tvix_store.cli.path_info_verify:verify", "Check contents and signatures of store paths."),
}
HELP = """Get, put, rewrite, sign and verify path infos.

Their JSON form is close to that of nix path-info --json; docs/cli.md describes it.
"""

path_info = LazyGroup("path-info", {"Commands": COMMANDS}, HELP)
