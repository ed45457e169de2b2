"""The kernel's locks, and the places where nothing may sleep."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from conformance.environment.locks import Locks
from conformance.environment.simulator import Simulator
from conformance.specs.avic import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment

SPINLOCKS = ("ir_list", "ga_hash")


class KernelLocks(Simulator):
    """The mutexes and spinlocks that a driver takes by name, and kvm->lock, which generic code holds around it.

    Readers and writers are not told apart, nor are interrupts off: no handler runs on the core that holds a spinlock.
    """

    CLAUSES = (c.ACQUISITIONS_BALANCE, c.NO_SLEEPING_WHILE_ATOMIC)

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.table = Locks(door)
        self.owners = self.table.owners

    def may_sleep(self, call: str) -> None:
        """Refuse calls that may sleep while a spinlock is held."""
        door = self.door
        if door.atomic:
            raise Violation(c.NO_SLEEPING_WHILE_ATOMIC, f"{call} with a spinlock held")
        door.hold(c.NO_SLEEPING_WHILE_ATOMIC)

    def lock(self, name: str, of: int) -> None:
        """Take a lock; wait for it while there is another thread."""
        if name not in SPINLOCKS:
            self.may_sleep(f"lock {name}")
        if not self.table.take((name, of), name):
            raise Violation(c.ACQUISITIONS_BALANCE, f"deadlock: {name} of {of:#x} is held already")
        if name in SPINLOCKS:
            self.door.atomic += 1

    def unlock(self, name: str, of: int) -> None:
        """Release a lock that is held."""
        if not self.table.drop((name, of)):
            raise Violation(c.ACQUISITIONS_BALANCE, f"unlock of {name} of {of:#x}, which is not held")
        self.door.hold(c.ACQUISITIONS_BALANCE)
        if name in SPINLOCKS:
            self.door.atomic -= 1

    def take_kvm(self, vm: int) -> None:
        """Generic code takes kvm->lock around what it calls with it."""
        self.table.take(("kvm", vm), "kvm->lock")

    def drop_kvm(self, vm: int) -> None:
        """It lets go."""
        self.table.drop(("kvm", vm))

    def returned(self) -> None:
        """What the operation in progress took it has given back."""
        for key in self.table.held(self.door.frame):
            name, _ = cast("tuple[str, int]", key)
            raise Violation(c.ACQUISITIONS_BALANCE, f"returned with {name} held")
