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


class Baton:
    """One thread; with the part of greenlet's interface that the scheduler uses."""

    current: ClassVar[Baton]
    """Whose turn it is."""

    def __init__(self, function: Callable[[], None] | None, parent: Baton | None) -> None:
        self.function = function
        self.parent = parent
        self.dead = False
        self.started = False
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
            whatever a thread raised, in the one that it was switched to from; what `throw` threw
        """
        me = Baton.current
        self._go()
        me._wait(None)

    def throw(self) -> None:
        """End this thread where it stands, as far as that can be done."""
        if self.parent is None or not self:
            self.dead = True
            return
        self._thrown = GreenletExit()
        self._go()
        self.parent._wait(LAST)

    def _go(self) -> None:
        Baton.current = self
        if self.started or self.function is None:
            self._turn.release()
            return
        self.started = True
        threading.Thread(target=self._run, daemon=True).start()

    def _wait(self, seconds: float | None) -> None:
        self._turn.acquire(timeout=seconds)
        Baton.current = self
        thrown, self._thrown = self._thrown, None
        if thrown is not None:
            raise thrown

    def _run(self) -> None:
        assert self.function is not None
        assert self.parent is not None
        try:
            self.function()
        except GreenletExit:
            pass
        except BaseException as error:  # goes on in the thread that is told of it
            self.parent._thrown = error
        finally:
            self.dead = True
            self.parent._go()
