"""mmu_lock: under which the page tables are read and changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.threads import Threads
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class MmuLock(Simulator):
    """The rwlock of the VM's MMU: held by threads, many for read or one for write.

    What must be true before it is let go is for others to say: `before_yield` and `before_release` are theirs.
    Not modelled: fairness; whoever the scheduler lets go on first has it.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.BALANCED,
        c.NO_BLOCK_NO_YIELD,
    )

    def __init__(self, door: Environment, threads: Threads) -> None:
        super().__init__(door)
        self.threads = threads
        self.readers = [0, 0]
        """Whether each thread holds it for read."""
        self.writer = -1
        """The thread that holds it for write, -1 for none."""
        self.may_block = threads.own(True)
        """Whether the caller of this operation lets it sleep."""
        self.reads = threads.own(0)
        """Sections of this operation for read that are over."""
        self.before_yield: Callable[[], None] = _nothing
        self.before_release: Callable[[bool], None] = _nothing
        """Called with whether it is held for write."""

    def is_held(self, me: int) -> bool:
        """Whether a thread holds it, either way."""
        return bool(self.readers[me]) or self.writer == me

    def is_free(self) -> bool:
        """Whether nobody holds it."""
        return self.writer < 0 and not any(self.readers)

    # -- environment calls

    def read_lock(self) -> None:
        """mmu_lock for read."""
        me = self.threads.me
        if self.readers[me] or self.writer == me:
            raise Violation(c.BALANCED, "mmu_lock taken for read while held")
        if self.writer >= 0 and not self.door.wait_until("mmu_lock for read", lambda: self.writer < 0):
            raise Violation(c.BALANCED, "mmu_lock for read taken while it is held")
        self.readers[me] = 1

    def read_unlock(self) -> None:
        """Release it."""
        me = self.threads.me
        if not self.readers[me]:
            raise Violation(c.BALANCED, "mmu_lock released for read, not held")
        self.before_release(False)
        self.readers[me] = 0
        self.reads[me] += 1

    def write_lock(self) -> None:
        """mmu_lock for write."""
        me = self.threads.me
        if self.readers[me] or self.writer == me:
            raise Violation(c.BALANCED, "mmu_lock taken for write while held")
        if not self.is_free() and not self.door.wait_until("mmu_lock for write", self.is_free):
            raise Violation(c.BALANCED, "mmu_lock for write taken while it is held")
        self.writer = me

    def write_unlock(self) -> None:
        """Release it: no TLB may hold what was zapped (TDP-084)."""
        me = self.threads.me
        if self.writer != me:
            raise Violation(c.BALANCED, "mmu_lock released for write, not held")
        if not self.may_block[me] and type(self.threads.op) is ops.Unmap:
            raise Violation(c.NO_BLOCK_NO_YIELD, "mmu_lock is dropped though the call may not block")
        self.before_release(True)
        self.writer = -1

    def lock_yield(self) -> None:
        """Let others in between (TDP-082, 083)."""
        door = self.door
        me = self.threads.me
        if not self.may_block[me]:
            raise Violation(c.NO_BLOCK_NO_YIELD, "mmu_lock is dropped though the call may not block")
        self.before_yield()
        writing = self.writer == me
        (self.write_unlock if writing else self.read_unlock)()
        if door.preempt is not None and not door.atomic:
            door.preempt("lock_yield")
        (self.write_lock if writing else self.read_lock)()


def _nothing(*_: bool) -> None:
    """Nothing has to be true."""
