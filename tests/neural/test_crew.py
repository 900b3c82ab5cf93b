"""Work that several threads share: each piece is done once, by the time that the one who asked goes on, and errors come back to him."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inspector.neural import crew, limits


@pytest.fixture
def bell() -> Iterator[threading.Condition]:
    """A crew is gathered at this bell."""
    bell = threading.Condition()
    crew.gather_at(bell)
    yield bell
    crew.gather_at(None)


def helper(bell: threading.Condition, ended: threading.Event) -> threading.Thread:
    """One who waits for work, as an inspecting thread does."""

    def run() -> None:
        while not ended.is_set():
            with bell:
                bell.wait_for(crew.wants_help, 0.01)
            crew.lend_a_hand()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_each_piece_is_done_once_before_it_returns(bell: threading.Condition, helpers: int) -> None:
    ended = threading.Event()
    threads = [helper(bell, ended) for _ in range(helpers)]
    for count in (0, 1, 2, 7, 40):
        done: list[int] = []
        crew.each(count, done.append)
        assert sorted(done) == list(range(count))
    ended.set()
    for thread in threads:
        thread.join()


def test_a_helper_works_at_the_same_time(bell: threading.Condition) -> None:
    ended, both = threading.Event(), threading.Barrier(2)
    thread = helper(bell, ended)

    def meet(_: int) -> None:
        both.wait(10)  # two pieces that end only together

    crew.each(2, meet)
    ended.set()
    thread.join()
    assert not both.broken


@pytest.mark.parametrize("where", ["own", "helper"])
def test_an_error_is_raised_where_the_work_was_asked_for(bell: threading.Condition, where: str) -> None:
    ended, mine, both = threading.Event(), threading.get_ident(), threading.Barrier(2)
    thread = helper(bell, ended)

    def fail(_: int) -> None:
        both.wait(10)
        if (threading.get_ident() == mine) == (where == "own"):
            raise TimeoutError("ended")

    with pytest.raises(TimeoutError, match="ended"):
        crew.each(2, fail)
    assert not crew.wants_help()
    done: list[int] = []
    crew.each(5, done.append)
    assert len(done) == 5
    ended.set()
    thread.join()
    assert thread.ident is not None


def test_the_networks_of_a_picture_that_has_failed_are_ended(bell: threading.Condition) -> None:
    """One thread's trouble is not waited for twice: what the other one runs for the same picture is of no use any more."""
    ended, both, mine = threading.Event(), threading.Barrier(2), threading.get_ident()
    thread = helper(bell, ended)

    def endless(options: Any) -> None:
        both.wait(10)
        until_s = time.monotonic() + 20
        while not options.terminate and time.monotonic() < until_s:
            time.sleep(0.001)
        raise RuntimeError("ended" if options.terminate else "not ended")

    def work(_: int) -> None:
        if threading.get_ident() == mine:
            limits.run(endless)
        else:
            both.wait(10)
            raise ValueError("this picture is in trouble")

    begun_s = time.monotonic()
    with pytest.raises(ValueError, match="in trouble"):
        crew.each(2, work)
    assert time.monotonic() - begun_s < 15
    assert limits.end_older(0.0) is None
    ended.set()
    thread.join()


def test_after_an_error_no_further_piece_is_begun(bell: threading.Condition) -> None:
    begun: list[int] = []

    def fail(piece: int) -> None:
        begun.append(piece)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        crew.each(9, fail)
    assert begun == [0]


def test_several_pictures_at_once(bell: threading.Condition) -> None:
    """Three who ask and help each other: all pieces of all are done, each once."""
    done: Counter[tuple[int, int]] = Counter()
    lock = threading.Lock()

    def ask(who: int) -> None:
        crew.gather_at(bell)
        for turn in range(30):

            def work(piece: int, turn: int = turn) -> None:
                with lock:
                    done[who, turn * 100 + piece] += 1

            crew.each(6, work)
            crew.lend_a_hand()

    threads = [threading.Thread(target=ask, args=(who,)) for who in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(done) == 3 * 30 * 6
    assert set(done.values()) == {1}


def test_nobody_helps_a_thread_that_is_none_of_them(bell: threading.Condition) -> None:
    done: list[int] = []

    def ask() -> None:
        crew.each(3, lambda piece: done.append(piece if not crew.wants_help() else -1))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(10)
    assert done == [0, 1, 2]


@given(st.integers(0, 5))
def test_without_a_crew_it_is_a_loop_in_order(count: int) -> None:
    done: list[int] = []
    crew.each(count, done.append)
    assert done == list(range(count))
    assert not crew.lend_a_hand()
