"""Grant: the rights and the name of a request's client."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tvix_store.errors import DeniedError, InvalidError, UnauthenticatedError


class Scope(IntEnum):
    """What a client may do; each scope includes those below it."""

    NOTHING = 0
    PULL = 1
    PUSH = 2
    ADMIN = 3

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read `pull`, `push` or `admin`.

        Raises:
            InvalidError: `text` is none of these.
        """
        named = {scope.name.lower(): scope for scope in cls if scope is not cls.NOTHING}
        if text not in named:
            raise InvalidError(f"unknown scope {text!r} (known: {', '.join(named)})")
        return named[text]


@dataclass(frozen=True, slots=True)
class Grant:
    """What the client of a request may do.

    scope: The most that it may do.
    name: Name of the client for logs and limits, such as that of its token; "" for one that named nobody.
    cache: The only named cache that it may use; None for all of them.
    refusal: Why the client's credentials grant nothing; "" where it showed none, or good ones.
    """

    scope: Scope
    name: str = ""
    cache: str | None = None
    refusal: str = ""

    @property
    def may_pull(self) -> bool:
        return self.scope >= Scope.PULL

    def require(self, scope: Scope) -> None:
        """See that the client may do what needs `scope`.

        Raises:
            UnauthenticatedError: it has not shown who it is, or not credibly.
            DeniedError: it may not.
        """
        if self.scope >= scope:
            return
        wanted = f"a token with the scope {scope.name.lower()}"
        if self.refusal:
            raise UnauthenticatedError(f"{self.refusal}; this needs {wanted}")
        if not self.name:
            raise UnauthenticatedError(f"this needs {wanted}, as a bearer token or as the password of any user")
        raise DeniedError(f"{self.name} has the scope {self.scope.name.lower()}; this needs {wanted}")


OPEN = Grant(Scope.PUSH)
"""The grant of a store that asks nobody who it is."""
