"""The ring keeps its accounts whatever the order of calls, and nobody writes a picture that is lent."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inspector.records import Bytes1D, Stamp
from inspector.runtime.ring import Lent, Ring

SIZE = 8


class RingMachine(RuleBasedStateMachine):
    """A model of the ring: every picture is filled with its own number, and stays so as long as it waits or is lent."""

    @initialize(slots=st.integers(2, 5), rule_=st.sampled_from(["drop_oldest", "drop_newest", "wait"]))
    def begin(self, slots: int, rule_: Literal["drop_oldest", "drop_newest", "wait"]) -> None:
        self.ring, self.slots = Ring(slots, SIZE, rule_), slots
        self.seq = 0
        self.ready: list[int] = []
        self.lent: list[Lent] = []
        self.dropped = self.done = 0

    @rule()
    def write(self) -> None:
        into = self.ring.slot(0.0)
        if into is None:
            assert self.ring.when_full == "wait"
            assert len(self.ready) + len(self.lent) == self.slots
            return
        self.seq += 1
        into[:] = self.seq % 256
        gone = self.ring.commit(Stamp("c", self.seq, self.seq, None, (2, 4)), self.seq)
        self.ready.append(self.seq)
        if gone is not None:
            expected = self.seq if self.ring.when_full == "drop_newest" or len(self.ready) == 1 else self.ready[0]
            assert gone.seq == expected
            self.ready.remove(gone.seq)
            self.dropped += 1

    @rule()
    def half_write(self) -> None:
        """A driver that fails in the middle of a picture harms nobody else's."""
        into = self.ring.slot(0.0)
        if into is not None:
            into[:5] = 255

    @rule(most=st.integers(1, 4))
    def borrow(self, most: int) -> None:
        got = self.ring.borrow(most)
        assert [each.frame.stamp.seq for each in got] == self.ready[:most]
        del self.ready[:most]
        self.lent += got

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        each = self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))
        self.ring.give_back(each)
        self.done += 1

    @invariant()
    def accounts(self) -> None:
        counts = self.ring.counts()
        assert counts.written == counts.ready + counts.lent + counts.dropped + counts.done
        assert (counts.written, counts.ready, counts.lent, counts.dropped, counts.done) == (
            self.seq,
            len(self.ready),
            len(self.lent),
            self.dropped,
            self.done,
        )

    @invariant()
    def lent_pictures_are_untouched(self) -> None:
        for each in self.lent:
            assert (each.frame.image == each.frame.stamp.seq % 256).all()


TestRing = RingMachine.TestCase
TestRing.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def filled(ring: Ring, seq: int) -> Stamp | None:
    into = ring.slot(0.0)
    assert into is not None
    into[:] = seq
    return ring.commit(Stamp("c", seq, 0, None, (2, 2, 2)), 0)


def test_pictures_are_views_of_the_slots_and_cannot_be_written() -> None:
    ring = Ring(3, SIZE, "drop_oldest")
    into: Bytes1D | Any = ring.slot(0.0)
    filled(ring, 7)
    (lent,) = ring.borrow(4)
    assert lent.frame.image.shape == (2, 2, 2)
    assert np.shares_memory(lent.frame.image, into)
    with pytest.raises(ValueError, match="read-only"):
        lent.frame.image[0, 0, 0] = 1


def test_giving_back_twice_is_an_error() -> None:
    ring = Ring(3, SIZE, "drop_oldest")
    filled(ring, 1)
    (lent,) = ring.borrow(1)
    ring.give_back(lent)
    with pytest.raises(KeyError):
        ring.give_back(lent)


def test_the_rule_wait_holds_the_writer_until_something_is_given_back() -> None:
    ring = Ring(2, SIZE, "wait")
    assert filled(ring, 1) is None
    assert filled(ring, 2) is None
    assert ring.slot(0.0) is None
    (lent,) = ring.borrow(1)
    assert ring.slot(0.0) is None
    ring.give_back(lent)
    assert ring.slot(0.0) is not None


class AheadMachine(RuleBasedStateMachine):
    """A driver that fills several slots on its own, in any order, and may be lost with all of them."""

    @initialize(ahead=st.integers(1, 4), slots=st.integers(2, 4), rule_=st.sampled_from(["drop_oldest", "drop_newest", "wait"]))
    def begin(self, ahead: int, slots: int, rule_: Literal["drop_oldest", "drop_newest", "wait"]) -> None:
        self.ring, self.ahead, self.slots = Ring(slots, SIZE, rule_, ahead=ahead), ahead, slots
        self.mine: dict[int, Bytes1D] = {}
        self.lent: list[Lent] = []
        self.seq = 0

    @rule()
    def give(self) -> None:
        got = self.ring.give(0.0)
        if got is not None:
            assert got[0] not in self.mine
            self.mine[got[0]] = got[1]
            assert len(self.mine) <= self.ahead
        else:
            assert len(self.mine) == self.ahead or self.ring.when_full == "wait"

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def fill(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.mine)))
        self.seq += 1
        self.mine.pop(slot)[:] = self.seq % 256
        self.ring.commit(Stamp("c", self.seq, self.seq, None, (2, 4)), self.seq, slot)

    @precondition(lambda self: self.mine)
    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.mine)))
        del self.mine[slot]
        self.ring.keep(slot)

    @rule()
    def lose_the_driver(self) -> None:
        self.mine.clear()
        self.ring.reclaim()

    @rule(most=st.integers(1, 4))
    def borrow(self, most: int) -> None:
        self.lent += self.ring.borrow(most)

    @precondition(lambda self: self.lent)
    @rule()
    def give_back(self) -> None:
        self.ring.give_back(self.lent.pop(0))

    @invariant()
    def balanced(self) -> None:
        counts = self.ring.counts()
        assert counts.written == counts.ready + counts.lent + counts.dropped + counts.done
        assert all((lent.frame.image == lent.frame.stamp.seq % 256).all() for lent in self.lent)


TestAhead = AheadMachine.TestCase
TestAhead.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
