"""Threads that hand a baton on: one runs at a time, and what hangs is left behind for good."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from greenlet import GreenletExit

from conformance.environment import baton as module
from conformance.environment.baton import Baton


def thread(body: Callable[[], None]) -> tuple[Baton, Baton]:
    """Who asks, and a thread that has not begun."""
    main = Baton.main()
    return main, Baton(body, main)


def test_they_take_turns() -> None:
    """Each goes on where it was."""
    notes = []

    def body() -> None:
        notes.append("one")
        main.switch()
        notes.append("two")

    main, other = thread(body)
    other.switch()
    notes.append("between")
    assert other
    other.switch()

    assert notes == ["one", "between", "two"]
    assert other.dead


def test_what_it_raises_goes_on_in_its_parent() -> None:
    """It has ended then."""

    def body() -> None:
        raise ValueError("boom")

    _, other = thread(body)
    with pytest.raises(ValueError, match="boom"):
        other.switch()
    assert other.dead


def test_who_is_dropped_ends_where_it_stands() -> None:
    """In the middle, and before it has begun."""
    notes = []

    def body() -> None:
        try:
            main.switch()
        finally:
            notes.append("dropped")

    main, other = thread(body)
    other.switch()
    other.throw()
    assert (other.dead, other.abandoned, notes) == (True, False, ["dropped"])

    _, unused = thread(body)
    unused.throw()
    assert (unused.dead, notes) == (True, ["dropped"])


@pytest.mark.parametrize("asks", [False, True])
def test_who_was_abandoned_has_no_turn_again(asks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by its end nor by asking for another's: the threads of the next schedule run one at a time."""
    monkeypatch.setattr(module, "LAST", 0.05)
    hung, gone = threading.Event(), threading.Event()
    notes: list[str] = []

    def hangs() -> None:
        try:
            first.switch()
        finally:
            hung.wait()
            try:
                if asks:
                    first.switch()
                    notes.append("it has the turn")
            finally:
                gone.set()

    first, abandoned = thread(hangs)
    abandoned.switch()
    abandoned.throw()
    assert (abandoned.dead, abandoned.abandoned) == (False, True)

    def body() -> None:
        hung.set()
        gone.wait()
        while not abandoned.dead:
            pass
        assert Baton.current is other
        second.switch()
        notes.append("it goes on")

    second, other = thread(body)
    other.switch()
    assert notes == []
    assert Baton.current is second
    other.switch()
    assert notes == ["it goes on"]


def test_who_swallows_its_end_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """It can ask for a turn as often as it likes."""
    monkeypatch.setattr(module, "LAST", 0.05)
    notes: list[str] = []
    hung, gone = threading.Event(), threading.Event()

    def body() -> None:
        try:
            main.switch()
        except GreenletExit:
            hung.wait()
        try:
            main.switch()
        except GreenletExit:
            notes.append("no turn")
        gone.set()

    main, other = thread(body)
    other.switch()
    other.throw()
    hung.set()
    gone.wait()

    assert other.abandoned
    assert notes == ["no turn"]
