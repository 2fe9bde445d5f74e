"""What the daemon says of itself when it serves: from settings to lines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

_HOLDERS = "who shows a token for it"


@dataclass(frozen=True, slots=True)
class StartFacts:
    """What there is to say.

    version: Of the program.
    store: Where the store is, without secrets.
    size: How large it is, for people; "" where that is not known.
    read_only: Whether nobody may write.
    signing_keys: Names of the keys that sign narinfos.
    upstreams: Addresses of the caches from which missing paths come, without secrets.
    tls: Whether TCP listeners serve TLS.
    private: Whether only clients that show who they are may read.
    closed: Whether only such clients may write.
    caches: Named caches, with what there is to say of them. With them, only such clients use the store as a whole.
    has_tokens: Whether anybody can show who it is.
    """

    version: str
    store: str
    read_only: bool = False
    size: str = ""
    signing_keys: tuple[str, ...] = ()
    upstreams: tuple[str, ...] = ()
    tls: bool = False
    private: bool = False
    closed: bool = False
    caches: tuple[str, ...] = ()
    has_tokens: bool = False

    @property
    def strangers_write(self) -> bool:
        """Whether a client may write that has not shown who it is."""
        return not (self.read_only or self.closed or self.caches)


def start_lines(facts: StartFacts, listeners: Sequence[str], host_name: str) -> list[str]:
    """The lines, for a daemon on the machine `host_name` that listens on `listeners`, which are in the form of the line READY."""
    places = urls(listeners, tls=facts.tls, host_name=host_name)
    rows = [
        ("store", f"{facts.store} ({facts.size})" if facts.size else facts.store),
        ("reads", _readers(facts, listeners)),
        ("writes", "nobody" if facts.read_only else _whoever_reaches(listeners) if facts.strangers_write else _HOLDERS),
        *([("caches", ", ".join(facts.caches))] if facts.caches else ()),
        ("signs as", ", ".join(facts.signing_keys) or "nobody: narinfos have the signatures that came with them"),
        ("upstreams", ", ".join(facts.upstreams) or "none"),
        ("metrics", f"{places[0]}/metrics" if not places[0].startswith("unix:") else "/metrics"),
    ]
    return [f"tvix-store {facts.version} serves {' '.join(places)}", *(f"  {name:<10} {value}" for name, value in rows)]


def warnings(facts: StartFacts, listeners: Sequence[str]) -> list[str]:
    """What an operator may not have meant, a line each."""
    if (facts.private or facts.caches) and not facts.has_tokens:
        return ["no token exists yet, and this daemon asks for one; tvix-store token create makes it"]
    if not facts.strangers_write or not is_remote(listeners):
        return []
    return [
        (
            "every stranger that reaches this daemon may write to the store; tvix-store token create --scope push keeps them out, "
            "--read-only everybody"
        )
    ]


def is_remote(listeners: Sequence[str]) -> bool:
    """Whether other machines may reach one of `listeners`."""
    return any(not each.startswith("unix:") and not ip_address(_host(each)).is_loopback for each in listeners)


def urls(listeners: Sequence[str], *, tls: bool, host_name: str) -> list[str]:
    """The URLs of listeners. Both addresses of `localhost` have one, and a listener on all addresses has the machine's name."""
    scheme = "https" if tls else "http"
    found: dict[str, None] = {}
    for each in listeners:
        if each.startswith("unix:"):
            found[each] = None
            continue
        address, port = ip_address(_host(each)), each.rpartition(":")[2]
        host = host_name if address.is_unspecified else "localhost" if str(address) in ("127.0.0.1", "::1") else _bracketed(address)
        found[f"{scheme}://{host}:{port}"] = None
    return list(found)


def ending_line(running: int, grace: float) -> str:
    """What is said when the daemon is told to end, with `running` requests under way, which get `grace` seconds."""
    if not running:
        return "ending; no call is running"
    calls = f"{running} running call{'s' if running > 1 else ''}"
    return f"ending when {calls} {'are' if running > 1 else 'is'} done, in {grace:g} s at most; Ctrl-C once more ends at once"


def _readers(facts: StartFacts, listeners: Sequence[str]) -> str:
    if facts.private:
        return _HOLDERS
    who = _whoever_reaches(listeners)
    return f"of public caches, {who}; of the others, {_HOLDERS}" if facts.caches else who


def _whoever_reaches(listeners: Sequence[str]) -> str:
    return "everybody who reaches this daemon" if is_remote(listeners) else "everybody on this machine"


def _host(listener: str) -> str:
    return listener.rpartition(":")[0].strip("[]")


def _bracketed(address: object) -> str:
    text = str(address)
    return f"[{text}]" if ":" in text else text
