"""`tvix-store key`: the group of its commands."""

from __future__ import annotations

from tvix_store.cli.lazy_group import Entry, LazyGroup

COMMANDS = {
    "generate": Entry("tvix_store.cli.key_generate:generate", "Make a secret key."),
    "public": Entry("tvix_store.cli.key_public:public", "Print the public key of a secret key."),
}
HELP = """Make the keys with which store paths are signed. Their form is that of nix key."""

key = LazyGroup("key", {"Commands": COMMANDS}, HELP, opens_store=False)
