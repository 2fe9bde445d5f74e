"""An OIDC issuer of the tests' own: its documents over HTTP, its keys, and the tokens that it signs."""

from __future__ import annotations

import json
import ssl
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_PATH = "/.well-known/openid-configuration"


@dataclass(frozen=True)
class Key:
    """A private key; `algorithm` is that of its signatures."""

    name: str | None
    algorithm: str
    private: PrivateKey

    def public(self, **more: Any) -> dict[str, Any]:
        """The public key as issuers publish it."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        document: dict[str, Any] = dict(algorithm.to_jwk(self.private.public_key(), as_dict=True))
        document.pop("key_ops", None)
        named = {} if self.name is None else {"kid": self.name}
        return {**document, **named, "use": "sig", "alg": self.algorithm, **more}


def rsa_key(name: str | None = "rsa", algorithm: str = "RS256") -> Key:
    return Key(name, algorithm, rsa.generate_private_key(public_exponent=65537, key_size=2048))


def ec_key(name: str | None = "ec", algorithm: str = "ES256") -> Key:
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    return Key(name, algorithm, ec.generate_private_key(curves[algorithm]))


def ed_key(name: str | None = "ed") -> Key:
    return Key(name, "EdDSA", ed25519.Ed25519PrivateKey.generate())


def encoded(value: Any) -> bytes:
    """A part of a token: JSON, or bytes as they are."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(raw).rstrip(b"=")


def signed(key: Key, claims: Any, **header: Any) -> str:
    """A token of any claims, with a right signature."""
    whole = {"alg": key.algorithm, "typ": "JWT", **({} if key.name is None else {"kid": key.name}), **header}
    content = encoded(whole) + b"." + encoded(claims)
    algorithm = jwt.get_algorithm_by_name(key.algorithm)
    return (content + b"." + encoded(algorithm.sign(content, key.private))).decode()


class Issuer:
    """Serves on a free port of this machine, in threads, until it is closed.

    keys: What it publishes.
    documents: Bodies by path that are answered in place of its own.
    before: Called before each answer, perhaps to wait.
    asked: Paths of the requests that came, and header fields of the last one.
    """

    def __init__(self, *keys: Key, tls: ssl.SSLContext | None = None) -> None:
        self.keys = [key.public() for key in keys]
        self.documents: dict[str, bytes] = {}
        self.status = 200
        self.headers: dict[str, str] = {}
        self.before: Callable[[], object] = lambda: None
        self.asked: list[str] = []
        self.last: dict[str, str] = {}
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.last = {name.lower(): value for name, value in self.headers.items()}
                issuer.before()
                body = issuer._body(self.path)
                try:
                    self.send_response(issuer.status if body is not None else 404)
                    for name, value in issuer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body or b"")))
                    self.end_headers()
                    self.wfile.write(body or b"")
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        scheme = "http://127.0.0.1" if tls is None else "https://localhost"
        self.url = f"{scheme}:{self._server.server_address[1]}"

    def _body(self, path: str) -> bytes | None:
        if path in self.documents:
            return self.documents[path]
        if path == _PATH:
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        return json.dumps({"keys": self.keys}).encode() if path == "/keys" else None

    @property
    def fetches(self) -> int:
        """How often its keys were fetched, or were to be."""
        return self.asked.count(_PATH)

    def claims(self, **more: Any) -> dict[str, Any]:
        """Those of a good token; None takes one away."""
        now = int(time.time())
        whole = {"iss": self.url, "aud": "cache", "sub": "repo:team/app:ref:refs/heads/main", "iat": now, "exp": now + 300, **more}
        return {name: value for name, value in whole.items() if value is not None}

    def token(self, key: Key, **more: Any) -> str:
        return signed(key, self.claims(**more))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
