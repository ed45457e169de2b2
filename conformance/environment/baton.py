"""Threads of the operating system that take turns as greenlets do: who switches hands the baton on and waits for it.

Only one of them ever runs, so the same schedule switches at the same places; but each has a stack and thread-local data
of its own, which a candidate in C may need, and a sanitizer too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

from greenlet import GreenletExit

LAST = 2.0
"""Seconds that a thread has to end once it is dropped; one that does not is left to the end of the process."""

_ending = threading.Lock()
"""Whether a thread has ended, and whether it was abandoned, are decided one after the other."""


class Baton:
    """One thread; with the part of greenlet's interface that the scheduler uses."""

    current: ClassVar[Baton]
    """Whose turn it is."""

    def __init__(self, function: Callable[[], None] | None, parent: Baton | None) -> None:
        self.function = function
        self.parent = parent
        self.dead = False
        self.started = False
        self.abandoned = False
        """It did not end when it was dropped; nobody waits for it, and it never has the turn again."""
        self._ident = threading.get_ident()
        self._turn = threading.Semaphore(0)
        self._thrown: BaseException | None = None

    @classmethod
    def main(cls) -> Baton:
        """The thread that asks, from which others are switched to."""
        cls.current = cls(None, None)
        return cls.current

    def __bool__(self) -> bool:
        """Whether it has begun and not ended."""
        return self.started and not self.dead

    def switch(self) -> None:
        """Let this thread go on; comes back when the caller's turn is there again.

        Raises:
            whatever a thread raised, in its parent; what `throw` threw; GreenletExit in one that was abandoned
        """
        me = Baton.current
        if me._ident != threading.get_ident():
            raise GreenletExit
        self._go()
        me._wait()

    def throw(self) -> None:
        """End this thread where it stands, as far as that can be done."""
        if self.parent is None or not self:
            self.dead = True
            return
        self._thrown = GreenletExit()
        self._go()
        told = self.parent._turn.acquire(timeout=LAST)
        with _ending:
            self.abandoned = not self.dead
        if self.dead and not told:  # it ended just now
            self.parent._turn.acquire()
        self.parent._resume()

    def _go(self) -> None:
        Baton.current = self
        if self.started or self.function is None:
            self._turn.release()
            return
        self.started = True
        threading.Thread(target=self._run, daemon=True).start()

    def _wait(self) -> None:
        self._turn.acquire()
        self._resume()

    def _resume(self) -> None:
        Baton.current = self
        thrown, self._thrown = self._thrown, None
        if thrown is not None:
            raise thrown

    def _run(self) -> None:
        assert self.function is not None
        assert self.parent is not None
        self._ident = threading.get_ident()
        thrown: BaseException | None = None
        try:
            self.function()
        except GreenletExit:
            pass
        except BaseException as error:  # goes on in the parent
            thrown = error
        with _ending:
            self.dead = True
            if not self.abandoned:
                self.parent._thrown = thrown
                self.parent._go()
