"""The threads of the kernel that perform operations, and what belongs to one operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from conformance.environment.simulator import Simulator

if TYPE_CHECKING:
    from conformance.environment.door import Environment, Frame

Value = TypeVar("Value")


class Threads(Simulator):
    """Two threads: which operation each performs, and when it has to make way.

    What an operation has of its own, such as how deep it is in RCU sections, is kept by the simulator whose
    business that is, in a list that `own` gives it: by thread, and as it was at first for each operation. So an
    operation in the middle of another one begins afresh, and what the outer one had is there again afterwards.
    Not modelled: more threads, priorities. Whether to reschedule and whether a signal is pending is planned.
    """

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.ops: list[Any] = [None, None]
        """The operation of each thread; None between operations."""
        self._own: list[tuple[list[Any], Any]] = []

    @property
    def me(self) -> int:
        """Number of the running thread."""
        scheduler = self.door.scheduler
        return scheduler.running if scheduler is not None else 0

    @property
    def op(self) -> Any:
        """The operation that the running thread performs."""
        scheduler = self.door.scheduler
        return self.ops[scheduler.running if scheduler is not None else 0]

    def own(self, first: Value) -> list[Value]:
        """A value for each thread, which is `first` when an operation begins; a value that does not change itself."""
        values = [first, first]
        self._own.append((values, first))
        return values

    def begin(self, me: int, op: Any) -> list[Any] | None:
        """Start an operation; what it interrupts, for `end`, None for nothing."""
        outer = None
        if self.ops[me] is not None:
            outer = [self.ops[me], *(values[me] for values, _ in self._own)]
        self.ops[me] = op
        for values, first in self._own:
            values[me] = first
        return outer

    def end(self, me: int, outer: list[Any] | None) -> None:
        """Go on with what the operation interrupted."""
        if outer is None:
            self.ops[me] = None
            return
        self.ops[me] = outer[0]
        for (values, _), value in zip(self._own, outer[1:], strict=True):
            values[me] = value

    def tell_others(self, what: str) -> None:
        """Other threads may have met what this one did, and so may what this one interrupted."""
        for frame in self._others():
            frame.given.setdefault(what, 1)

    def count_for_others(self, what: str) -> None:
        """The same of what matters as often as it happens."""
        for frame in self._others():
            frame.given[what] = frame.given.get(what, 0) + 1

    def _others(self) -> Iterator[Frame]:
        door = self.door
        outer = door.frame.outer
        while outer is not None:
            yield outer
            outer = outer.outer
        for frame in door.scheduler.frames if door.scheduler is not None else ():
            if frame is not door.frame:
                yield frame

    # -- environment calls

    def resched(self) -> int:
        """Planned: once, or from then on."""
        frame = self.door.frame
        plan = frame.plan
        if not plan:
            return 0
        made = frame.made["resched"]
        for (call, nth), value in plan.items():
            if call == "resched" and (made == nth or (value == 2 and made > nth)):
                frame.given["resched"] = value
                return 1
        return 0

    def cond_resched(self) -> None:
        """Let the other thread run."""
        if self.door.scheduler is not None:
            self.door.scheduler.give_way()

    def signal_pending(self) -> int:
        """Planned."""
        return int(bool(self.door.refused("signal_pending")))
