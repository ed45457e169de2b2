"""The VM as a whole: whether it is dead, what was warned of, what user space is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.threads import Threads
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment

BUGS = 100
"""VM bugs within one operation after which it counts as a loop that spins on a dead VM."""

_WARNED_OF = (
    c.MATCH_NEEDS_KIND,
    c.FILTER_TO_TYPES,
    c.EMPTY_FILTER_NOT_SILENT,
    c.WALK_START_BOUND,
    c.INVALIDATE_IGNORES_INVALID_BIT,
)
"""Clauses that ask for a warning."""
_WARNINGS: dict[type, frozenset[Clause]] = {
    ops.RootMatch: frozenset({c.MATCH_NEEDS_KIND}),
    ops.FilterToTypes: frozenset({c.FILTER_TO_TYPES, c.EMPTY_FILTER_NOT_SILENT}),
    ops.ZapLeafs: frozenset({c.WALK_START_BOUND}),
    ops.InvalidateRoots: frozenset({c.INVALIDATE_IGNORES_INVALID_BIT, c.MATCH_NEEDS_KIND}),
}
"""What a warning within an operation can be about; the others may warn of anything."""


class Vm(Simulator):
    """KVM_BUG_ON, WARN_ON_ONCE and the exit record: what becomes of a VM whose MMU found something wrong.

    Not modelled: the texts of warnings; what one was about is known by the operation that gave it.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.MATCH_NEEDS_KIND,
        c.FILTER_TO_TYPES,
        c.EMPTY_FILTER_NOT_SILENT,
        c.INVALIDATE_IGNORES_INVALID_BIT,
        c.NO_ALIAS_IN_CALLS,
        c.WALK_START_BOUND,
        c.ATOMIC_ZAP_REFUSED,
    )

    def __init__(self, door: Environment, threads: Threads) -> None:
        super().__init__(door)
        self.threads = threads
        self.bugged = False
        self.warned: set[Clause] = set()
        """What was warned of so far; a warning of a kind need not come twice."""
        self.bugs = threads.own(0)
        """VM bugs of this operation."""
        self.exits: list[tuple[int, ...]] = threads.own(())
        """The memory-fault exit of this operation: gpa, size, flags."""

    def kill(self) -> None:
        """The VM is dead; what other threads have begun goes on."""
        if not self.bugged:
            self.threads.tell_others("killed")
        self.bugged = True

    def warns(self, clause: Clause, detail: str) -> None:
        """A warning was due, now or the first time that there was reason for it."""
        self.door.require(clause, clause in self.warned, f"no warning: {detail}")

    # -- environment calls

    def vm_is_dead(self) -> int:
        """After a VM bug."""
        return int(self.bugged)

    def vm_bug(self, what: str) -> None:
        """Note it, and go on; but not for ever (TDP-074)."""
        self.kill()
        me = self.threads.me
        self.bugs[me] += 1
        if self.bugs[me] > BUGS:
            raise Violation(c.ATOMIC_ZAP_REFUSED, f"the VM is bugged {BUGS} times in one call: {what}")

    def warn_once(self, what: str) -> None:
        """Note it."""
        op = type(self.threads.op)
        self.warned |= _WARNINGS.get(op, frozenset(_WARNED_OF))
        if op is ops.FastFault:
            raise Violation(c.NO_ALIAS_IN_CALLS, f"the fast path warns: {what}")

    def memory_fault_exit(self, gpa: int, size: int, flags: int) -> None:
        """Note the exit."""
        self.exits[self.threads.me] = (gpa, size, flags)
