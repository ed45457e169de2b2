"""The mutexes of the kernel: who holds them, for whom they are there, in which order they are taken."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.locks import Locks
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.model.snp_guest_request.operations import GuestRequest
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import SEV_CMD_MUTEX
from conformance.verdict import Violation

NOBODY = -2
"""In place of a VM, for a lock that goes with none."""


class Mutexes(Simulator):
    """Mutexes by name: a VM's own, the candidate's others, and the one of the secure processor's driver.

    Nobody says in which order they are taken: two orders that contradict one another are wrong, whether or not they
    meet, as lockdep has it. No nesting classes, no priorities.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.LOCK_INITIALISED,
        c.LOCK_FREE_AFTER,
        c.LOCK_ORDER,
        c.VMS_INDEPENDENT,
    )

    def __init__(self, door: Environment, tasks: Tasks) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.refused = door.refused
        self.locks = Locks(door)
        self.vm_of: dict[str, int] = {SEV_CMD_MUTEX: NOBODY}
        """The VM whose operation made each lock that there is, HOST, or NOBODY."""
        self.users: dict[str, int] = {}
        """The VM whose basic requests each lock serves."""
        self.order: dict[Hashable, set[str]] = {}
        """Locks taken under each lock so far."""
        self.loose: set[str] = set()
        """Locks that a VM had when it was moved: it may have kept them or taken them along."""

    def mutex_init(self, name: str) -> int:
        if name in self.vm_of and name not in self.loose:
            raise Violation(c.LOCK_INITIALISED, f"lock {name} is initialised twice")
        self.loose.discard(name)
        self.locks.owners.pop(name, None)
        self.vm_of[name] = self.tasks.current.vm
        self.users.pop(name, None)
        return 0

    def mutex_lock(self, name: str) -> int:
        self._lock(name)
        return 0

    def mutex_lock_killable(self, name: str) -> int:
        self._usable(name)
        refusal = self.refused("mutex_lock_killable")
        if refusal:
            return refusal
        self._lock(name)
        return 0

    def _usable(self, name: str) -> None:
        if name not in self.vm_of:
            raise Violation(c.LOCK_INITIALISED, f"lock {name} is taken before it was initialised")

    def _lock(self, name: str) -> None:
        self._usable(name)
        frame = self.door.frame
        if self.locks.owners.get(name) is frame:
            raise Violation(c.LOCK_FREE_AFTER, f"lock {name} is taken twice by the same thread")
        task = self.tasks.running.get(frame)
        if task is not None:
            if type(task.op) is GuestRequest and name != SEV_CMD_MUTEX:
                user = self.users.setdefault(name, task.vm)
                if user != task.vm:
                    raise Violation(c.VMS_INDEPENDENT, f"lock {name} serves basic requests of two VMs")
            self._ordered(name)
        if not self.locks.take(name, f"lock {name}"):
            raise Violation(c.LOCK_FREE_AFTER, f"lock {name} is held by an operation that has ended or cannot go on")

    def wait_for(self, name: str) -> None:
        """Wait until nobody else holds the lock, as somebody does who takes it and gives it back at once."""
        owners = self.locks.owners
        if owners.get(name) is self.door.frame:
            return
        self._ordered(name)
        if not self.door.wait_until(f"lock {name}", lambda: name not in owners):
            raise Violation(c.LOCK_FREE_AFTER, f"lock {name} is held by an operation that has ended or cannot go on")

    def _ordered(self, name: str) -> None:
        """Note that `name` is taken under the locks held; a cycle among such pairs can deadlock."""
        if not self.locks.owners:
            return
        for held in self.locks.held(self.door.frame):
            if held == name:
                continue
            self.order.setdefault(held, set()).add(name)
            if self._reaches(name, held):
                raise Violation(c.LOCK_ORDER, f"{name} is taken under {held}, and elsewhere {held} under {name}")

    def _reaches(self, start: str, goal: Hashable) -> bool:
        seen, todo = set(), [start]
        while todo:
            name = todo.pop()
            if name == goal:
                return True
            if name not in seen:
                seen.add(name)
                todo += self.order.get(name, ())
        return False

    def mutex_unlock(self, name: str) -> int:
        self._usable(name)
        if not self.locks.drop(name):
            raise Violation(c.LOCK_FREE_AFTER, f"lock {name} is released by a thread that does not hold it")
        return 0

    @property
    def are_free(self) -> bool:
        """Whether nobody holds any."""
        return not self.locks.owners

    def is_held(self) -> bool:
        """Whether the running thread holds one."""
        return bool(self.locks.held(self.door.frame))

    def settle(self, clause: Clause) -> None:
        """An operation has ended: it holds none, or breaks `clause`."""
        held = self.locks.held(self.door.frame) if self.locks.owners else ()
        if held:
            raise Violation(clause, f"lock {held[0]} is still held")

    def loosen(self, vm: int) -> None:
        """The VM was moved; nobody knows whether its locks went along."""
        for name in self._of(vm):
            self.loose.add(name)
            self.vm_of[name] = NOBODY
            self.users.pop(name, None)

    def unload(self) -> None:
        """A guest's driver is gone: its locks are made anew by the next, but for those that it has from its start."""
        self.loose |= self.vm_of.keys() - {SEV_CMD_MUTEX}

    def forget(self, vm: int) -> None:
        """The VM's locks are memory of nobody."""
        for name in self._of(vm):
            del self.vm_of[name]
            self.users.pop(name, None)

    def restart(self) -> None:
        """Another kernel starts: there is no lock but the driver's own."""
        self.vm_of = {SEV_CMD_MUTEX: NOBODY}
        self.locks.owners.clear()

    def _of(self, vm: int) -> list[str]:
        return [name for name, owner in self.vm_of.items() if owner == vm]
