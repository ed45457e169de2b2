"""vCPUs in the guest of a TD: who is inside, and who must stay out."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.secure_ept import SecureEpt
from conformance.environment.tdp_mirror.threads import Threads
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Guests(Simulator):
    """Entries into the guest and exits from it, as the firmware's TLB epochs count them.

    A vCPU enters when it does something in the guest, and stays inside until it performs another operation or is
    kicked out. Not modelled: where the candidate makes no SEAMCALLs, nobody counts.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.BUSY_RETRY_ONCE,)

    def __init__(self, door: Environment, threads: Threads, mmu_lock: MmuLock, sept: SecureEpt) -> None:
        super().__init__(door)
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.sept = sept
        self.counted = sept.config.deep
        self.epochs: dict[int, int] = {}
        """vCPU in the guest to the TLB epoch in which it entered."""
        self.kept_out = False
        """wait_for_sept_zap."""
        self.keeper = 0
        """The thread that stored it."""
        self.inside = threads.own(False)
        """Whether the thread is a vCPU in the middle of running the guest."""
        self.kicked = threads.own(False)
        """Whether the operation has kicked vCPUs out of the guest."""
        self.left = -1
        """TLB epoch in which all vCPUs were kicked out last."""

    def digest(self) -> Hashable:
        """Who is in the guest, and for how many epochs."""
        return frozenset((vcpu, self.sept.epoch - epoch) for vcpu, epoch in self.epochs.items())

    def enter(self, vcpu: int) -> bool:
        """False while vCPUs must stay out (TDP-098)."""
        if self.counted and vcpu not in self.epochs:
            if self.kept_out:
                return False
            self.epochs[vcpu] = self.sept.enter()
        return True

    def leave(self, vcpu: int) -> None:
        """It leaves the guest, if it is there."""
        epoch = self.epochs.pop(vcpu, None)
        if epoch is not None:
            self.sept.leave(epoch)

    def all_leave(self) -> None:
        """Nobody is in the guest any more."""
        for vcpu in sorted(self.epochs):
            self.leave(vcpu)

    def kick(self) -> None:
        """All vCPUs leave the guest; who kicks waits for those that run there."""
        me = self.threads.me
        if self.inside[1 - me]:
            self.door.wait_until("vCPUs to leave the guest", lambda: not self.inside[1 - me])
        self.kicked[me] = True
        self.left = self.sept.epoch
        self.all_leave()

    def forget_kick(self, me: int) -> None:
        """vCPUs may have entered again since: who wants them out must kick once more."""
        self.kicked[me] = False

    def wait_for_sept_zap(self, value: int) -> None:
        """Keep vCPUs out."""
        me = self.threads.me
        if self.mmu_lock.writer != me:
            raise Violation(c.BUSY_RETRY_ONCE, "wait_for_sept_zap stored without the write lock")
        self.kept_out, self.keeper = bool(value), me
        self.kicked[me] = self.kicked[me] and not value

    def none_left(self, me: int) -> None:
        """Whoever returns lets vCPUs in again."""
        if self.kept_out and self.keeper == me:
            raise Violation(c.BUSY_RETRY_ONCE, "wait_for_sept_zap is left set")
