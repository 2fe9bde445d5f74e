"""`tvix-store config`: the group of its commands."""

from __future__ import annotations

from tvix_store.cli.lazy_group import Entry, LazyGroup

COMMANDS = {
    "show": Entry("tvix_store.cli.config_show:show", "Show the values of options, and where they come from."),
    "check": Entry("tvix_store.cli.config_check:check", "Check configuration files and variables."),
}
HELP = """Show and check the configuration.

\b
    store = "/srv/store"
    [daemon]
    listen-address = ["localhost:8000"]
    [path-info.sign]
    key-file = "/etc/nix/cache.key"

The command line wins over variables, these over ~/.config/tvix-store/config.toml, and that over /etc/tvix-store/config.toml.
Only FILE is read with --config FILE, or TVIX_STORE_CONFIG=FILE.
"""

config = LazyGroup("config", {"Commands": COMMANDS}, HELP, opens_store=False)
