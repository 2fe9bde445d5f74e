"""Settings of who may use the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvix_store.access.authority import Authority
from tvix_store.access.identities import Identities
from tvix_store.access.identity_rule import IdentityRule
from tvix_store.access.token_file import TokenFile, WatchedTokens


@dataclass(frozen=True, slots=True)
class AccessSettings:
    """Who may use the store.

    token_file: File of the store's tokens, which need not be there; None for a store that has none.
    identity_rules: What the tokens of other issuers grant.
    private: Whether strangers may not even read.
    closed: Whether strangers may not write, whatever becomes of the file.
    """

    token_file: Path | None = None
    identity_rules: tuple[IdentityRule, ...] = ()
    private: bool = False
    closed: bool = False

    @property
    def asks(self) -> bool:
        """Whether anybody can show who it is, now or later."""
        return self.token_file is not None or bool(self.identity_rules) or self.private

    def is_closed(self) -> bool:
        """Whether strangers may not write.

        Raises:
            StoreError: as `TokenFile.read`.
        """
        return (
            self.private
            or self.closed
            or bool(self.identity_rules)
            or (self.token_file is not None and TokenFile(self.token_file).read().has_pusher)
        )

    def authority(self) -> Authority:
        """What decides by these settings. It belongs to the running event loop, where there are rules.

        Raises:
            StoreError: as `TokenFile.read`.
        """
        tokens = WatchedTokens(TokenFile(self.token_file)) if self.token_file is not None else None
        identities = Identities(self.identity_rules) if self.identity_rules else None
        return Authority(tokens, identities, private=self.private, closed=self.closed)
