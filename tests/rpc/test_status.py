"""Errors become statuses in one place."""

from __future__ import annotations

import logging
from urllib.parse import unquote

import pytest

from tvix_store import errors
from tvix_store.rpc.status import RpcError, Status, rpc_error, status_fields


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidError("bad name"), Status.INVALID_ARGUMENT),
        (errors.NotFoundError("blob", "b3:00"), Status.NOT_FOUND),
        (errors.IncompleteError("refers to nothing"), Status.FAILED_PRECONDITION),
        (errors.ConflictError("another one"), Status.FAILED_PRECONDITION),
        (errors.ExhaustedError("disk full"), Status.RESOURCE_EXHAUSTED),
        (errors.CorruptError("damaged"), Status.DATA_LOSS),
        (errors.UnavailableError("away"), Status.UNAVAILABLE),
        (errors.DeniedError("not you"), Status.PERMISSION_DENIED),
        (errors.UnsupportedError("not here"), Status.UNIMPLEMENTED),
        (errors.RemoteError("over there"), Status.INTERNAL),
        (RpcError(Status.UNAUTHENTICATED, "who?"), Status.UNAUTHENTICATED),
    ],
)
def test_each_error_has_its_status_and_keeps_its_words(error: Exception, status: Status) -> None:
    assert rpc_error(error).status == status
    assert rpc_error(error).message == str(error)


def test_every_error_of_the_store_has_a_status() -> None:
    for kind in errors.StoreError.__subclasses__():
        error = kind("blob", "key") if kind is errors.NotFoundError else kind("words")
        assert rpc_error(error).message == str(error), kind


def test_what_nobody_foresaw_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        told = rpc_error(ZeroDivisionError("secret"))
    assert told.status == Status.INTERNAL
    assert "secret" not in told.message
    assert "ZeroDivisionError: secret" in caplog.text


@pytest.mark.parametrize("message", ["plain words", "100 % of\nlines", "Grüße, 世界", "caf\udce9"])
def test_a_message_passes_as_ascii(message: str) -> None:
    fields = dict(status_fields(RpcError(Status.INTERNAL, message)))
    assert fields[b"grpc-message"].isascii()
    assert b"\n" not in fields[b"grpc-message"]
    assert unquote(fields[b"grpc-message"].decode(), errors="surrogateescape") == message


def test_a_long_message_is_cut() -> None:
    assert len(dict(status_fields(RpcError(Status.INTERNAL, "x" * 100_000)))[b"grpc-message"]) < 8000
