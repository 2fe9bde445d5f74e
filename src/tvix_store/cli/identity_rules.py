"""Rules for the tokens of other issuers, as users write them: in an option, or as a table in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tvix_store.cli.settings import TableType

if TYPE_CHECKING:
    from tvix_store.access.identity_rule import IdentityRule


class IdentityRuleType(TableType["IdentityRule"]):
    """A rule as words, `issuer=URL audience=NAME scope=push CLAIM=GLOB`, or as a table with these and a table `claims`."""

    name = "rule"
    example = "issuer=https://ci.example.org audience=cache scope=push sub=repo:team/*"

    def made(self, value: str | Mapping[str, Any], param: click.Parameter | None, ctx: click.Context | None) -> IdentityRule:
        from tvix_store.access.identity_rule import IdentityRule

        return IdentityRule.parse(value) if isinstance(value, str) else IdentityRule.from_table(value)
