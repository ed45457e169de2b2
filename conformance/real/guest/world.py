"""A world inside a guest: one at a time, since its devices are there once."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from conformance.real.adapter import RealWorld
from conformance.real.guest.channel import Channel, Gone
from conformance.real.guest.machine import Guest
from conformance.reports.values import snake
from conformance.verdict import NOT_TRIED, Breach, Crash, Hang, HarnessError

MOST = 4
"""Guests that may end under one trace, each at another step."""
_BEGINNING = -1
"""Where a trace stands that has no step yet."""


class GuestWorld(RealWorld):
    """Base of the worlds in guests. A new one takes the guest from the one before, which is given back by then.

    A guest that ends, or does not answer, takes with it what the world had there: the trace is taken once more in a
    fresh one. Only what ends at the same step again is told: of the kernel that it crashed; of the emulator, which
    nobody judges, in `lost`, and nothing is judged from there on.

    A subclass gives `set_up()`, `look()` and `clean()`, and `finish()` where there is something to do after each
    operation.
    """

    lost: ClassVar[dict[str, None]]
    """What ended emulators at the same step twice, a sentence each, in this process and worlds of this class."""

    guest: Guest
    channel: Channel

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.lost = {}

    def __init__(self, started: Callable[[], Guest]) -> None:
        super().__init__()
        self._started = started
        self._taken: list[tuple[Any, Any]] = []
        """Operations performed, and their results."""
        self._at = _BEGINNING
        """The step that the guest is at."""
        self._doing = ""
        self._seen: Any = None
        self._given = False
        """Whether what the world had in the guest is given back."""

    # -- what a subclass gives

    @abstractmethod
    def set_up(self) -> None:
        """Make what this world begins with, in a guest that has nothing of it."""

    @abstractmethod
    def look(self) -> Any:
        """What can be seen: the view."""

    @abstractmethod
    def clean(self) -> None:
        """Give back all that this world has in the guest."""

    def finish(self, op: Any) -> None:
        """What is done and held after each operation."""

    # -- what the lockstep asks

    def start(self, factory: Callable[[Any], Any]) -> None:
        """Begin, in the guest of this process."""
        super().start(factory)
        self._survive(self._begin)

    def perform(self, op: Any) -> Any:
        """Perform one operation and look at what it did, unless another world has the guest by now."""
        if self.guest.holder is not self:
            raise HarnessError("two worlds in one guest at once")
        result, self._seen = self._survive(lambda: (self._act(op, len(self._taken)), self.look()))
        self._taken.append((op, result))
        return result

    def view(self) -> Any:
        """What was seen after the last operation."""
        return self._seen if self._taken else self.look()

    def end(self) -> None:
        """Give the guest back; one that ends of it ends in the trace."""
        super().end()
        if self.breach is None and not self._given:
            self._survive(self._give_back)

    def close(self) -> None:
        """Leave nothing in the guest, if it is still this world's, whatever has happened."""
        if self._given or not hasattr(self, "guest") or self.guest.holder is not self:
            return
        self.guest.holder = None
        if self.guest.alive:
            try:
                self.clean()
            except Breach:
                self.guest.close()

    # -- guests that end

    def _survive(self, act: Callable[[], Any]) -> Any:
        """What it gives; where the guest ends under it, in a fresh one that is brought there first.

        Raises:
            Crash   the guest's kernel ended at the same step again
            Hang    the guest did not answer at the same step again
            Breach  the emulator ended so: nobody can tell what comes after
        """
        ended: set[int] = set()
        while True:
            try:
                if ended:
                    self._again()
                return act()
            except (Gone, Hang) as gone:
                of_kernel, how = self.guest.ended() if isinstance(gone, Gone) else (False, "")
                self.guest.close()
                if self._at not in ended and len(ended) < MOST:
                    ended.add(self._at)
                elif isinstance(gone, Hang):
                    raise self.remember(gone) from None
                elif of_kernel:
                    raise self.remember(Crash(how)) from None
                else:
                    again = "and again when the trace was taken once more, which is not judged from there on"
                    raise self._losing(f"{how} {self._doing}, {again}") from None

    def _begin(self) -> None:
        """Take the guest, which is a fresh one where the last has ended, and set up."""
        self._at, self._doing = _BEGINNING, "at the beginning"
        try:
            guest = self._started()
        except HarnessError:
            guest = self._started()
        if guest.holder is not None and guest.holder is not self:
            guest.holder.close()
        guest.holder = self
        self.guest, self.channel = guest, guest.channel
        self.set_up()

    def _act(self, op: Any, at: int) -> Any:
        self._at, self._doing = at, f"in {snake(type(op).__name__)}"
        result = super().perform(op)
        self.finish(op)
        return result

    def _again(self) -> None:
        """Bring a fresh guest to where the last one was."""
        self._begin()
        for at, (op, before) in enumerate(self._taken):
            if (result := self._act(op, at)) != before:
                raise self._losing(f"the guest ended, and in a fresh one {op!r} gave {result!r}, not {before!r}")

    def _give_back(self) -> None:
        self._at, self._doing = len(self._taken), "at the end"
        self.clean()
        self.guest.holder = None
        self._given = True

    def _losing(self, detail: str) -> Breach:
        """The end of a trace of which nobody can tell more."""
        self.lost[detail] = None
        return self.remember(Breach(None, NOT_TRIED, detail))


World = TypeVar("World", bound=GuestWorld)


@contextlib.contextmanager
def outside(world: World) -> Iterator[World]:
    """A world that no trace is about: begun, and given back.

    Raises:
        HarnessError  the guest ended
    """
    try:
        try:
            world.start(lambda _port: None)
            yield world
        finally:
            world.close()
    except Breach as breach:
        raise HarnessError(breach.detail) from None
