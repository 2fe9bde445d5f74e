"""Where the server listens: addresses, and the sockets that they stand for."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TypeAlias

from tvix_store.errors import DeniedError, InvalidError, StoreError, UnavailableError

_BACKLOG = 1024
_LOCALHOST = ("127.0.0.1", "::1")
_NO_SUCH_FAMILY = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of a machine without IPv6."""
_FIRST_SYSTEMD_FD = 3
"""Where systemd puts the sockets that it passes. Source: sd_listen_fds(3)."""


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host name or IP address, and a port; port 0 is any free one."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a Unix socket."""

    path: Path


@dataclass(frozen=True, slots=True)
class SystemdSockets:
    """All sockets that systemd passed to this process."""


Address: TypeAlias = TcpAddress | UnixAddress | SystemdSockets


def parse(text: str) -> Address:
    """Read `host:port`, `[IPv6]:port`, `/path`, `./path`, `unix:path`, `unix:///path` or `sd-listen`.

    Raises:
        InvalidError: `text` is none of these.
    """
    if text == "sd-listen":
        return SystemdSockets()
    path = text.removeprefix("unix:").removeprefix("//")
    if path.startswith(("/", "./", "../")) or (path and path != text):
        return UnixAddress(Path(path))
    host, separator, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not separator or not bare or (":" in host and bare == host) or not port.isdecimal() or int(port) > 65535:
        raise InvalidError(
            f"not an address to listen on: {text!r} (expected host:port, [IPv6]:port, /path of a socket, or sd-listen)"
        )
    return TcpAddress(bare, int(port))


def host_names(addresses: Iterable[str]) -> list[str]:
    """The hosts, names or IP addresses, in `addresses`."""
    return [address.host for address in map(parse, addresses) if isinstance(address, TcpAddress)]


@contextmanager
def listening(addresses: Sequence[str], *, allow_remote: bool = False) -> Iterator[list[socket.socket]]:
    """Listen on all `addresses`, and stop at the end; a Unix socket's file is removed then.

    Raises:
        InvalidError: an address is malformed, or can be reached from other machines and `allow_remote` is not set.
        UnavailableError: an address is taken, or cannot be listened on.
        DeniedError: the system does not let us listen there.
    """
    parsed = [parse(address) for address in addresses]
    sockets: list[socket.socket] = []
    created: list[Path] = []
    try:
        for address in parsed:
            match address:
                case TcpAddress():
                    sockets += _listen_tcp(address, allow_remote=allow_remote)
                case UnixAddress(path):
                    sockets.append(_listen_unix(path))
                    created.append(path)
                case SystemdSockets():
                    sockets += _take_over_from_systemd(allow_remote=allow_remote)
        yield sockets
    finally:
        for each in sockets:
            each.close()
        for path in created:
            path.unlink(missing_ok=True)


def stop_listening(sockets: Sequence[socket.socket]) -> None:
    """Refuse connections from now on, in all processes that share the listeners.

    Closing our own end would not: they would be accepted, and nobody would answer. Sockets of systemd stay open for its next
    process.
    """
    systemds = range(_FIRST_SYSTEMD_FD, _FIRST_SYSTEMD_FD + _passed_by_systemd())
    for each in sockets:
        if each.fileno() not in systemds:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def name(listener: socket.socket) -> str:
    """The address of a listener, with its real port, as `parse` reads it."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{address}"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen_tcp(address: TcpAddress, *, allow_remote: bool) -> list[socket.socket]:
    """A listener for each IP address of the host; `localhost` has one of IPv4 and one of IPv6, as far as the machine has them."""
    hosts = _LOCALHOST if address.host == "localhost" else _resolve(address.host)
    if not allow_remote:
        _check_local(f"{address.host}:{address.port}", hosts)
    sockets: list[socket.socket] = []
    port = address.port
    for host in hosts:
        try:
            listener = _bind_tcp(host, port)
        except OSError as error:
            if hosts is _LOCALHOST and sockets and error.errno in _NO_SUCH_FAMILY:
                continue
            for each in sockets:
                each.close()
            raise _refused(f"{host}, port {port}", error) from None
        sockets.append(listener)
        port = listener.getsockname()[1]
    return sockets


def _check_local(shown: str, hosts: Sequence[str]) -> None:
    """Refuse IP addresses that other machines can reach."""
    remote = [host for host in hosts if not ip_address(host).is_loopback]
    if remote:
        raise InvalidError(
            f"{shown} can be reached from other machines ({', '.join(remote)}), and whoever reaches it may "
            "read and write the store; make a token for those who may (tvix-store token create), say that it is wanted "
            "(--allow-remote), or listen on localhost"
        )


def _resolve(host: str) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnavailableError(f"cannot listen on {host}: {error.strerror}") from None
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def _bind_tcp(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_unix(path: Path) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _refused(path, error) from None
    return listener


def _refused(where: object, error: OSError) -> StoreError:
    kind = DeniedError if isinstance(error, PermissionError) else UnavailableError
    hint = "; perhaps another daemon has it: --listen-address names another place" if error.errno == errno.EADDRINUSE else ""
    return kind(f"cannot listen on {where}: {error.strerror or error}{hint}")


def _remove_stale(path: Path) -> None:
    """Remove the file of a socket on which nobody listens any more."""
    try:
        kind = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(kind):
        raise InvalidError(f"cannot listen on {path}: there is a file, which is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UnavailableError(f"cannot listen on {path}: {error.strerror}") from None
        else:
            raise UnavailableError(f"cannot listen on {path}: another process listens there")


def _take_over_from_systemd(*, allow_remote: bool) -> list[socket.socket]:
    count = _passed_by_systemd()
    if not count:
        raise InvalidError("sd-listen: systemd passed no sockets to this process (LISTEN_PID and LISTEN_FDS)")
    try:
        sockets = [socket.socket(fileno=fd) for fd in range(_FIRST_SYSTEMD_FD, _FIRST_SYSTEMD_FD + count)]
    except OSError as error:
        raise InvalidError(f"sd-listen: LISTEN_FDS names what is not a socket: {error.strerror}") from None
    for each in sockets:
        if each.family != socket.AF_UNIX and not allow_remote:
            _check_local(f"sd-listen: {name(each)}", each.getsockname()[:1])
    return sockets


def _passed_by_systemd() -> int:
    """How many sockets systemd passed to this process."""
    count = os.environ.get("LISTEN_FDS", "")
    return int(count) if os.environ.get("LISTEN_PID") == str(os.getpid()) and count.isdecimal() else 0
