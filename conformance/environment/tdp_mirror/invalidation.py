"""mmu_invalidate: ranges that are being invalidated, and the sequence by which a fault finds out."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.gfns import natural
from conformance.environment.tdp_mirror.guest_memory import GuestMemory
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.slots_lock import SlotsLock
from conformance.environment.tdp_mirror.threads import Threads
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import PAGE_SHIFT
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Invalidation(Simulator):
    """Invalidations in progress, each begun and ended by one operation under the write lock.

    When one ends that was asked for by whoever owns the pages, those go back to the host.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.NO_ALIAS_IN_CALLS,
        c.SNAPSHOT_FIRST,
        c.STALE_FAULT,
        c.CONVERSION_ZAPS_OLD,
    )

    def __init__(
        self,
        door: Environment,
        config: Config,
        threads: Threads,
        mmu_lock: MmuLock,
        slots_lock: SlotsLock,
        guest_memory: GuestMemory,
    ) -> None:
        super().__init__(door)
        self.bits = config.direct_bits
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.slots_lock = slots_lock
        self.guest_memory = guest_memory
        self.sequence = 2**32 - 1
        """Of 64 bits; a VM that lives long enough passes those of 32."""
        self.ranges: list[tuple[int, int]] = []
        """Ranges of the invalidations in progress."""
        self.begun: list[tuple[tuple[int, int], ...]] = threads.own(())
        """Ranges of those that each operation has begun."""
        self.told: list[tuple[int, ...]] = threads.own(())
        """Values of the sequence that each operation was told."""

    def covers(self, start: int, end: int) -> bool:
        """Whether a whole range is being invalidated."""
        for lo, hi in sorted(self.ranges):
            if lo <= start < hi:
                start = hi
        return start >= end

    def judge_slots_unlock(self) -> None:
        """A conversion keeps slots_lock to its end (TDP-089)."""
        if self.begun[self.threads.me] and type(self.threads.op) is ops.SetAttributes:
            raise Violation(c.CONVERSION_ZAPS_OLD, "slots_lock released in the middle of a conversion")

    # -- environment calls

    def mmu_invalidate_begin(self, start: int, end: int) -> None:
        """Begin."""
        me = self.threads.me
        if self.mmu_lock.writer != me:
            raise Violation(c.STALE_FAULT, "mmu_invalidate_begin without the write lock")
        op = self.threads.op
        if type(op) is ops.SetAttributes:
            self.slots_lock.needed("the invalidation of a conversion")
        if start < end and getattr(op, "end", 0) <= (self.bits or end):
            natural(start, self.bits, "mmu_invalidate_begin")
            if start:  # from 0 on it may be all there is, whatever the bits
                natural(end - 1, self.bits, "mmu_invalidate_begin")
        self.ranges.append((start, end))
        self.begun[me] += ((start, end),)

    def mmu_invalidate_end(self) -> None:
        """End."""
        me = self.threads.me
        if self.mmu_lock.writer != me or not self.begun[me]:
            raise Violation(c.STALE_FAULT, "mmu_invalidate_end without the write lock, or without a beginning")
        self.guest_memory.move(*self.begun[me][-1])
        self.ranges.remove(self.begun[me][-1])
        self.begun[me] = self.begun[me][:-1]
        self.sequence += 1

    def mmu_invalidate_seq(self) -> int:
        """Snapshot."""
        me = self.threads.me
        is_new = self.sequence not in self.told[me]
        self.guest_memory.snapshot_taken(is_new=is_new)
        if is_new:
            if self.told[me]:  # whoever compares the two knows as much as he who asks whether to retry
                frame = self.door.frame
                frame.given.setdefault("mmu_invalidate_retry", 1)
                frame.overcome = {*frame.overcome, "mmu_invalidate_retry"}
            self.told[me] += (self.sequence,)
        return self.sequence

    def mmu_invalidate_retry(self, seq: int, gfn: int) -> int:
        """Stale, really or as planned."""
        natural(gfn, self.bits, "mmu_invalidate_retry")
        me = self.threads.me
        if seq not in self.told[me]:
            raise Violation(c.STALE_FAULT, f"mmu_invalidate_retry({seq:#x}): the sequence was never {seq:#x} here")
        if self.guest_memory.is_late[me] and seq == self.told[me][-1] and self.mmu_lock.is_held(me):
            raise Violation(c.SNAPSHOT_FIRST, "the page was resolved before the snapshot that it is judged by")
        if seq != self.sequence or any(start <= gfn < end for start, end in self.ranges):
            self.door.frame.given.setdefault("mmu_invalidate_retry", 1)
            self._excuse_others(gfn)
            return 1
        if "mmu_invalidate_retry" in self.door.frame.given:
            frame = self.door.frame  # whoever was told so has tried again
            frame.overcome = {*frame.overcome, "mmu_invalidate_retry"}
        refused = int(bool(self.door.refused("mmu_invalidate_retry")))
        if refused:
            self._excuse_others(gfn)
        return refused

    def _excuse_others(self, gfn: int) -> None:
        """A page beside the fault's own need not be mapped, and the fault goes on."""
        gpa = getattr(self.threads.op, "gpa", None)
        if gpa is not None and gpa >> PAGE_SHIFT & ~self.bits != gfn:
            frame = self.door.frame
            frame.overcome = {*frame.overcome, "mmu_invalidate_retry"}
