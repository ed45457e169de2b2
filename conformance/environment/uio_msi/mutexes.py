"""The driver's mutexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.locks import Locks
from conformance.environment.simulator import Simulator
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import PAGE_SIZE
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.heap import Heap


class Mutexes(Simulator):
    """struct mutex by address, with the misuse that lockdep and slab debugging report. There is no trylock."""

    CLAUSES = (c.MEMORY_SAFE,)

    def __init__(self, door: Environment, context: Context, heap: Heap) -> None:
        super().__init__(door)
        self.context = context
        self.heap = heap
        self.locks = Locks(door)
        self.known: set[int] = set()
        """Mutexes that were initialised, and static ones that were used."""

    def mutex_init(self, mutex: int) -> None:
        """As the port says."""
        if not self.heap.is_held(mutex):
            raise Violation(c.MEMORY_SAFE, f"mutex_init({mutex:#x}): not in allocated memory")
        self.known.add(mutex)
        self.locks.owners.pop(mutex, None)

    def mutex_lock(self, mutex: int) -> None:
        """As the port says."""
        self.context.may_sleep("mutex_lock")
        if mutex not in self.known:
            self._meet(mutex)
        if not self.locks.take(mutex, f"mutex {mutex:#x}"):
            raise Violation(c.MEMORY_SAFE, f"mutex_lock({mutex:#x}): deadlock, the caller holds it")
        if mutex not in self.known:  # freed while the caller waited
            self._meet(mutex)

    def _meet(self, mutex: int) -> None:
        """A static mutex is known when it is first used; any other must have been initialised, and not freed."""
        if not 0 < mutex < PAGE_SIZE:
            raise Violation(c.MEMORY_SAFE, f"mutex_lock({mutex:#x}): there is no mutex, or no longer")
        self.known.add(mutex)

    def mutex_unlock(self, mutex: int) -> None:
        """As the port says."""
        if not self.locks.drop(mutex):
            raise Violation(c.MEMORY_SAFE, f"mutex_unlock({mutex:#x}) by who does not hold it")

    def forget(self, token: int, size: int) -> None:
        """The memory of these mutexes is freed."""
        for mutex in [m for m in self.known if token <= m < token + max(size, 1)]:
            if mutex in self.locks.owners:
                raise Violation(c.MEMORY_SAFE, f"kfree of {token:#x}, in which a mutex is held")
            self.known.remove(mutex)

    def must_be_free(self, clause: Clause) -> None:
        """The operation returns, and holds none."""
        for mutex in self.locks.held(self.door.frame):
            raise Violation(clause, f"mutex {mutex:#x} is still held on return")
