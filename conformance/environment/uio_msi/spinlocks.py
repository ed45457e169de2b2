"""The driver's spinlocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.locks import Locks
from conformance.environment.simulator import Simulator
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.heap import Heap
    from conformance.environment.uio_msi.intx import Intx


class Spinlocks(Simulator):
    """spinlock_t by address. Interrupts of this CPU are off while one is held, and taken once it is released."""

    CLAUSES = (c.MEMORY_SAFE,)

    def __init__(self, door: Environment, context: Context, heap: Heap, intx: Intx) -> None:
        super().__init__(door)
        self.context = context
        self.heap = heap
        self.intx = intx
        self.locks = Locks(door)

    def spin_lock_irqsave(self, lock: int) -> None:
        """As the port says."""
        if not self.heap.is_held(lock):
            raise Violation(c.MEMORY_SAFE, f"spin_lock_irqsave({lock:#x}): not in allocated memory")
        if not self.locks.take(lock, f"spinlock {lock:#x}"):
            raise Violation(c.MEMORY_SAFE, f"spin_lock_irqsave({lock:#x}): deadlock, the caller holds it")
        spinning, frame = self.context.spinning, self.door.frame
        spinning[frame] = spinning.get(frame, 0) + 1
        self.door.atomic += 1

    def spin_unlock_irqrestore(self, lock: int) -> None:
        """As the port says."""
        if not self.locks.drop(lock):
            raise Violation(c.MEMORY_SAFE, f"spin_unlock_irqrestore({lock:#x}) by who does not hold it")
        spinning, frame = self.context.spinning, self.door.frame
        spinning[frame] -= 1
        if not spinning[frame]:
            del spinning[frame]
        self.door.atomic -= 1
        self.intx.evaluate()

    def must_be_free(self, clause: Clause) -> None:
        """The operation returns, and holds none."""
        if self.door.frame in self.context.spinning:
            raise Violation(clause, "a spinlock is still held on return")
