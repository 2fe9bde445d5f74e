"""`tvix-store token`: the group of its commands."""

from __future__ import annotations

from tvix_store.cli.lazy_group import Entry, LazyGroup

COMMANDS = {
    "create": Entry("tvix_store.cli.token_create:create", "Make a token, and print it."),
    "list": Entry("tvix_store.cli.token_list:list_tokens", "List the tokens, without their secrets."),
    "revoke": Entry("tvix_store.cli.token_revoke:revoke", "Take what tokens grant away."),
}
HELP = """Make, list and revoke the tokens that let others use a store.

As soon as a token exists that may push, nobody writes without one. A daemon heeds a change within a second.
"""

token = LazyGroup("token", {"Commands": COMMANDS}, HELP)
