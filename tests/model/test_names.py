"""What a child in a directory may be called, and where a symlink may point."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvix_store.errors import InvalidError
from tvix_store.model.names import check_name, check_target, show
from tvix_store.model.nodes import SymlinkNode
from tvix_store.testing import strategies


@given(strategies.names())
def test_any_bytes_may_be_a_name(name: bytes) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (b"", "is empty"),
        (b".", "is reserved"),
        (b"..", "is reserved"),
        (b"/", "holds a slash or a NUL"),
        (b"a/b", "holds a slash or a NUL"),
        (b"a\0", "holds a slash or a NUL"),
        (b"n" * 256, "is longer than 255 bytes"),
    ],
)
def test_a_name_that_breaks_a_rule_is_refused(name: bytes, rule: str) -> None:
    with pytest.raises(InvalidError, match=rule):
        check_name(name)


@given(strategies.targets())
def test_any_bytes_may_be_a_target(target: bytes) -> None:
    assert check_target(target) == SymlinkNode(target).target


@pytest.mark.parametrize(
    ("target", "rule"), [(b"", "is empty"), (b"a\0b", "holds a NUL"), (b"t" * 4096, "is longer than 4095 bytes")]
)
def test_a_target_that_breaks_a_rule_is_refused(target: bytes, rule: str) -> None:
    with pytest.raises(InvalidError, match=rule):
        SymlinkNode(target)


@given(st.binary(max_size=400))
def test_a_name_in_a_message_is_short_and_on_one_line(name: bytes) -> None:
    text = show(name)
    assert text.isprintable()
    assert len(text) <= 80 * len("\\U00000000")
