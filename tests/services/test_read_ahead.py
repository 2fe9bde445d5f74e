"""A bound on the memory for content that is read ahead."""

from __future__ import annotations

import pytest

from tvix_store.services.read_ahead import ReadAhead


def test_there_is_room_for_what_others_have_left() -> None:
    ahead = ReadAhead(10)
    with ahead.room(6) as first, ahead.room(5) as second, ahead.room(4) as third, ahead.room(1) as fourth:
        assert (first, second, third, fourth) == (True, False, True, False)
    with ahead.room(11) as more, ahead.room(10) as all_:
        assert (more, all_) == (False, True)


def test_a_reader_that_fails_gives_its_room_back() -> None:
    ahead = ReadAhead(10)
    with pytest.raises(ValueError, match="failed"), ahead.room(10):
        raise ValueError("failed")
    with ahead.room(10) as is_there:
        assert is_there
