"""Stores that must be there already, since a command makes no sense with a new one."""

from __future__ import annotations

from tvix_store.cli.invocation import Invocation


def see_the_store(invocation: Invocation) -> None:
    """Raise InvalidError where the store is not there: opening its address would make an empty one."""
    from tvix_store.config import check_is_there
    from tvix_store.config.compose import DEFAULT_ADDRESS

    for address in invocation.addresses().values():
        check_is_there(address or DEFAULT_ADDRESS)
