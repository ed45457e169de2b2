"""Two threads of a candidate: who runs, who waits, and how it ends when nobody can go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import pytest

from conformance.environment import scheduler as module
from conformance.environment.door import Environment, Frame
from conformance.environment.scheduler import Priorities, Scheduler
from conformance.specs.clause import Clause, Kind, Level
from conformance.verdict import Hang, Violation

NO_BOOM = Clause(id="RUN-001", level=Level.MUST, kind=Kind.ENV_PROTOCOL, text="Nobody calls boom.", source="the tests")


class Calls(Protocol):
    """What the threads may call."""

    def note(self, what: str) -> int:
        """Write it down."""

    def lock(self) -> None:
        """Take the lock."""

    def unlock(self) -> None:
        """Release it."""

    def give_way(self) -> None:
        """Let others run."""

    def boom(self) -> None:
        """A breach."""


class Room(Environment):
    """A notebook and a lock."""

    PORT = Calls
    OPERATIONS: ClassVar[dict[type, Callable[[Any, Any], Any]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.owner = -1

    def note(self, what: str) -> int:
        """Write it down."""
        self.notes.append(what)
        return len(self.notes)

    def lock(self) -> None:
        """Block until it is free."""
        self.scheduler.block("the lock", lambda: self.owner < 0)
        self.owner = self.scheduler.running

    def unlock(self) -> None:
        """Release it."""
        self.owner = -1

    def give_way(self) -> None:
        """Let others run."""
        self.scheduler.give_way()

    def boom(self) -> None:
        """Break the rule."""
        raise Violation(NO_BOOM, "boom")


def writer(room: Room, name: str, count: int) -> Callable[[], str]:
    """A thread that writes `count` notes."""

    def work() -> str:
        for number in range(count):
            room.port.note(f"{name}{number}")
        return name

    return work


def run(room: Room, schedule: tuple[int, ...], *work: Callable[[], Any]) -> tuple[list[Any], Scheduler]:
    """The results of the work, and the scheduler."""
    scheduler = Scheduler(room, schedule)
    return scheduler.run([(function, Frame()) for function in work]), scheduler


def test_without_a_schedule_the_first_thread_ends_before_the_second_starts() -> None:
    """No switch but at the end."""
    room = Room()

    results, scheduler = run(room, (), writer(room, "a", 2), writer(room, "b", 2))

    assert results == ["a", "b"]
    assert room.notes == ["a0", "a1", "b0", "b1"]
    assert (scheduler.points, scheduler.switches) == (8, 1)


@pytest.mark.parametrize(
    ("schedule", "notes"),
    [
        ((0,), ["b0", "b1", "a0", "a1"]),
        ((1,), ["a0", "b0", "b1", "a1"]),
        ((2,), ["a0", "b0", "b1", "a1"]),
        ((1, 3), ["a0", "b0", "a1", "b1"]),
        ((1, 2), ["a0", "a1", "b0", "b1"]),
        ((7,), ["a0", "a1", "b0", "b1"]),
    ],
)
def test_threads_switch_at_the_points_of_the_schedule(schedule: tuple[int, ...], notes: list[str]) -> None:
    """Every call has a point before and after its effect, counted over both threads."""
    room = Room()

    run(room, schedule, writer(room, "a", 2), writer(room, "b", 2))

    assert room.notes == notes


def test_a_schedule_replays_to_the_same_switches() -> None:
    """Twice the same schedule, twice the same story."""
    stories = []
    for _ in range(2):
        room = Room()
        _, scheduler = run(room, (1, 4, 9), writer(room, "a", 4), writer(room, "b", 4))
        stories.append((room.notes, scheduler.points, scheduler.switches))

    assert stories[0] == stories[1]


def test_points_beyond_the_end_do_not_matter() -> None:
    """A schedule made for another candidate is harmless."""
    room = Room()

    results, _ = run(room, (1, 500, 10_000), writer(room, "a", 1), writer(room, "b", 1))

    assert results == ["a", "b"]


def locker(room: Room, name: str) -> Callable[[], None]:
    """A thread that writes two notes under the lock."""

    def work() -> None:
        room.port.lock()
        room.port.note(f"{name}0")
        room.port.note(f"{name}1")
        room.port.unlock()

    return work


@pytest.mark.parametrize("point", range(12))
def test_a_held_lock_blocks_the_other_thread(point: int) -> None:
    """Wherever the switch is, the section under the lock stays whole."""
    room = Room()

    run(room, (point,), locker(room, "a"), locker(room, "b"))

    assert room.notes in (["a0", "a1", "b0", "b1"], ["b0", "b1", "a0", "a1"])


def test_a_deadlock_names_what_each_thread_waits_for() -> None:
    """Two threads that wait for each other are found at once."""
    room = Room()

    def wait(what: str) -> Callable[[], None]:
        return lambda: room.scheduler.block(what, lambda: False)

    with pytest.raises(Hang, match="deadlock: thread 0 waits for the left, thread 1 waits for the right"):
        run(room, (), wait("the left"), wait("the right"))

    assert room.scheduler is None
    assert room.preempt is None


def test_a_candidate_cannot_swallow_a_deadlock() -> None:
    """It is no Exception, and every later call ends as well."""
    room = Room()

    def stubborn() -> None:
        try:
            room.port.lock()
        except Exception:
            room.port.note("went on")

    room.owner = 7
    with pytest.raises(Hang, match="deadlock"):
        run(room, (), stubborn, stubborn)

    assert room.notes == []


def test_threads_that_only_yield_to_each_other_are_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by counting points, not by a clock."""
    monkeypatch.setattr(module, "POINT_BUDGET", 200)
    room = Room()

    def spin() -> None:
        while True:
            room.port.give_way()

    with pytest.raises(Hang, match="livelock: 200 points"):
        run(room, (), spin, spin)


@pytest.mark.parametrize("schedule", [(), (0,), (1,), (2,)])
def test_a_breach_in_either_thread_ends_both(schedule: tuple[int, ...]) -> None:
    """The other thread is dropped where it stands."""
    room = Room()

    with pytest.raises(Violation, match="boom"):
        run(room, schedule, writer(room, "a", 3), room.port.boom)

    assert room.breach is not None
    assert room.breach.clause is NO_BOOM


def test_what_a_dropped_thread_does_on_its_way_out_changes_nothing() -> None:
    """Its `finally` runs, but the first breach stays."""
    room = Room()

    def careful() -> None:
        try:
            room.port.note("in")
            room.port.note("more")
        finally:
            room.port.note("out")

    with pytest.raises(Violation, match="boom"):
        run(room, (1,), careful, room.port.boom)

    assert room.notes == ["in"]


def test_each_thread_has_its_own_frame_and_atomic_context() -> None:
    """Calls are logged where they were made, and nobody is preempted in atomic context."""
    room = Room()
    frames = [Frame(), Frame()]

    def atomic() -> None:
        room.atomic += 1
        room.port.note("a0")
        room.port.note("a1")
        room.atomic -= 1
        room.port.note("a2")

    Scheduler(room, (0,)).run([(atomic, frames[0]), (writer(room, "b", 1), frames[1])])

    assert room.notes == ["a0", "a1", "b0", "a2"]
    assert [len(frame.log) for frame in frames] == [3, 1]
    assert room.atomic == 0


def test_the_thread_of_higher_priority_goes_on_as_soon_as_it_can() -> None:
    """Thread 0 waits for the lock; once thread 1 releases it, thread 0 does not wait for its end."""
    room = Room()

    def first() -> None:
        room.port.note("a")
        room.port.lock()
        room.port.note("a has it")
        room.port.unlock()

    def second() -> None:
        room.port.lock()
        room.port.unlock()
        room.port.note("b goes on")

    scheduler = Scheduler(room, (), Priorities(frozenset({0}), highest=0))
    scheduler.priorities = Priorities(frozenset(), highest=1)
    scheduler.run([(first, Frame()), (second, Frame())])

    assert room.notes == ["b goes on", "a", "a has it"]
    assert scheduler.taken == [0]


def test_priorities_change_where_they_are_told_to() -> None:
    """The running thread falls below the other one, and the points taken repeat that."""
    room = Room()
    scheduler = Scheduler(room, (), Priorities(frozenset({1})))
    scheduler.run([(writer(room, "a", 2), Frame()), (writer(room, "b", 1), Frame())])
    again = Room()
    run(again, tuple(scheduler.taken), writer(again, "a", 2), writer(again, "b", 1))

    assert room.notes == ["a0", "b0", "a1"]
    assert again.notes == room.notes


def test_invariants_are_asked_whenever_another_thread_goes_on() -> None:
    """Once for each switch."""

    class Watchful(Room):
        """Counts."""

        PORT = Calls
        asked = 0

        def at_switch(self) -> None:
            """Called by the scheduler."""
            self.asked += 1

    room = Watchful()
    _, scheduler = run(room, (1, 3), writer(room, "a", 2), writer(room, "b", 2))

    assert room.asked == scheduler.switches == 3
