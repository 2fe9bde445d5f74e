"""Authority: who may do what, by the credentials that a client shows."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any

from tvix_store.access.credentials import shown_secret
from tvix_store.access.identities import Identities
from tvix_store.access.token_file import WatchedTokens
from tvix_store.access.tokens import is_token
from tvix_store.model.grant import OPEN, Grant, Scope

_READER = Grant(Scope.PULL)
_STRANGER = Grant(Scope.NOTHING)
_MALFORMED = Grant(Scope.NOTHING, refusal="the credentials are neither a bearer token nor a user with a token as password")
_UNKNOWN = Grant(Scope.NOTHING, refusal="the token is not one of this store")


class Authority:
    """Grants by tokens, by identities of other issuers, and for strangers.

    `private`: strangers may not even read. `closed`: they may not write. They may not either as soon as there is a token or a rule
    by which somebody else may.
    """

    def __init__(
        self,
        tokens: WatchedTokens | None,
        identities: Identities | None = None,
        *,
        private: bool = False,
        closed: bool = False,
    ) -> None:
        self._tokens = tokens
        self._identities = identities
        self._private = private
        self._closed = closed or private or identities is not None

    @property
    def is_closed(self) -> bool:
        """Whether strangers may not write. Nothing that becomes of the tokens' file opens a store again while it is served."""
        if not self._closed and self._tokens is not None:
            self._closed = self._tokens.table().has_pusher
        return self._closed

    def of_stranger(self) -> Grant:
        """The grant of a client that shows nothing."""
        if self._private:
            return _STRANGER
        return _READER if self.is_closed else OPEN

    def grant(self, value: bytes) -> Grant | Coroutine[Any, Any, Grant]:
        """The grant of a client that shows `value`, at once or after the keys of an issuer were fetched.

        Wrong credentials grant nothing, also where strangers may do something: who shows them should hear that they are wrong. A
        store that has given nobody credentials passes over those of others, such as a proxy's.
        """
        secret = shown_secret(value)
        if secret is not None:
            if self._tokens is not None and is_token(secret):
                return self._tokens.table().grant(secret, time.time())
            if self._identities is not None and secret.count(".") == 2:
                return self._identities.grant(secret)
        if not self.is_closed and not (self._tokens is not None and len(self._tokens.table())):
            return OPEN
        return _MALFORMED if secret is None else _UNKNOWN
