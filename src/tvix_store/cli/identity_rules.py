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

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> IdentityRule:
        from tvix_store.access.identity_rule import IdentityRule
        from tvix_store.errors import InvalidError

        if isinstance(value, IdentityRule):
            return value
        try:
            return IdentityRule.from_table(value) if isinstance(value, Mapping) else IdentityRule.parse(value)
        except InvalidError as error:
            self.fail(str(error), param, ctx)
