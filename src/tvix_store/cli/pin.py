"""`tvix-store pin`: the group of its commands."""

from __future__ import annotations

from tvix_store.cli.lazy_group import Entry, LazyGroup

COMMANDS = {
    "add": Entry("tvix_store.cli.pin_add:add", "Pin store paths under a name."),
    "list": Entry("tvix_store.cli.pin_list:list_pins", "List the pins."),
    "remove": Entry("tvix_store.cli.pin_remove:remove", "Remove a pin."),
}
HELP = """Name store paths that stay, with all that they need, however long nobody uses them.

Whoever pins under the same name again adds a revision. All revisions stay, unless `pin add` says otherwise.
"""

pin = LazyGroup("pin", {"Commands": COMMANDS}, HELP)
