"""What is said on the link arrives whole, once and in order, however it was put together."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.gate import protocol
from inspector.runtime.link import LARGEST_MESSAGE_BYTES, Beat, End, Judged, Seen, ToGate, pair

NAMES = st.text(max_size=8)
SEEN = st.builds(Seen, NAMES, st.integers(0, 1 << 60), st.integers(0, 1 << 60), st.none() | st.integers(-9, 9), st.booleans(), NAMES)
BODIES = st.dictionaries(NAMES, st.text(max_size=2000) | st.integers(0, 9), max_size=20).map(protocol.dumps)
JUDGED = st.builds(Judged, NAMES, st.integers(0, 1 << 60), st.just("pass"), st.integers(0, 400), NAMES, BODIES)


def heard(end: End) -> list[object]:
    found: list[object] = []
    while (message := end.receive()) is not None:
        found.append(message)
    assert not end.waits
    return found


@given(st.lists(st.lists(SEEN | JUDGED, min_size=1, max_size=8), max_size=6))
def test_what_is_said_together_arrives_in_order(said: list[list[ToGate]]) -> None:
    ours, theirs = pair()
    with closing(ours), closing(theirs):
        assert all(theirs.send(*together) for together in said)
        assert heard(ours) == [message for together in said for message in together]


def test_what_does_not_fit_into_one_packet_goes_in_more() -> None:
    ours, theirs = pair()
    large: list[ToGate] = [Judged("c", n, "pass", 0, "", protocol.dumps("x" * (LARGEST_MESSAGE_BYTES // 3))) for n in range(8)]
    with closing(ours), closing(theirs):
        assert theirs.send(*large)
        assert heard(ours) == large


def test_a_message_that_is_none_spoils_no_other() -> None:
    ours, theirs = pair()
    with closing(ours), closing(theirs):
        theirs._socket.send(b"\x1e".join([b"?", b'H[{"main":1}]', b"G[1]"]))
        with pytest.raises(ValueError, match="not a message of the link"):
            ours.receive()
        assert ours.waits
        assert ours.receive() == Beat({"main": 1})
        with pytest.raises(ValueError, match="not a message of the link"):
            ours.receive()
        assert ours.receive() is None


def test_a_full_line_says_so() -> None:
    ours, theirs = pair()
    with closing(ours), closing(theirs):
        while theirs.send(Beat({"main": 0.0})):
            pass
        assert not theirs.send(Beat({"main": 1.0}), Beat({"main": 2.0}))
        assert heard(ours)[-1] == Beat({"main": 0.0})
