"""What the hardware of the vCPUs holds: the root that it walks, and translations."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.gfns import natural
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.words import pfn_of
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Tlb:
    """One vCPU's hardware."""

    __slots__ = ("held", "pgd")

    def __init__(self) -> None:
        self.pgd: Page | None = None
        """The direct root that hardware walks."""
        self.held: dict[int, tuple[Page, int, bool, Page]] = {}
        """Shared translations: gfn to root, page frame, whether it is writable, and the table that held the leaf."""


class Tlbs(Simulator):
    """The MMUs of the vCPUs: they walk the direct root, set accessed and dirty, and remember what they found.

    Also which flushes are due, as a kernel that forgot none would know it. The private half is translated by the
    firmware's tree and is not here. Not modelled: translations that go by themselves.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.NO_ALIAS_IN_CALLS,
        c.ROOT_BY_ADDRESS,
        c.FLUSH_BEFORE_YIELD,
        c.NO_STALE_TLB,
    )

    def __init__(self, door: Environment, config: Config, threads: Threads, tables: Tables) -> None:
        super().__init__(door)
        self.config = config
        self.bits = config.direct_bits
        self.threads = threads
        self.tables = tables
        self.all: list[Tlb | None] = [None] * config.vcpus
        self.due: set[int] = set()
        """gfns whose leaves went from valid roots since the last flush."""
        self.asked = threads.own(False)
        """Whether the caller of this operation came with a flush pending."""

    def digest(self) -> Hashable:
        """What is translated from roots that are valid."""
        return tuple(
            frozenset((gfn, writable) for gfn, (root, _, writable, _) in tlb.held.items() if not root.invalid)
            if tlb is not None and tlb.held
            else ()
            for tlb in self.all
        )

    def create(self, vcpu: int) -> None:
        """Hardware that has translated nothing."""
        self.all[vcpu] = Tlb()

    def destroy(self, vcpu: int) -> None:
        """Its vCPU is gone."""
        self.all[vcpu] = None

    def unload(self, vcpu: int) -> None:
        """Hardware walks nothing until the next root is loaded; what it translated stays."""
        self.of(vcpu).pgd = None

    def of(self, vcpu: int) -> Tlb:
        """The hardware of a vCPU."""
        tlb = self.all[vcpu] if 0 <= vcpu < len(self.all) else None
        if tlb is None:
            raise Crash(f"there is no vCPU {vcpu}")
        return tlb

    def is_due(self) -> bool:
        """Whether somebody must flush before the lock is let go."""
        return self.asked[self.threads.me] or bool(self.due)

    def access(self, vcpu: int, gfn: int, *, write: bool) -> None:
        """A guest accesses a raw gfn: walk, set accessed and dirty, remember."""
        tlb = self.of(vcpu)
        if tlb.pgd is None or (self.bits and not gfn & self.bits):
            return
        if gfn >= self.config.cover(self.config.levels + 1):
            return
        place = self.tables.place(tlb.pgd, gfn)
        if place is None:
            return
        table, index, entry = place
        writable = bool(entry >> k.WRITE & 1)
        if write and not writable:
            return
        table.entries[index] = entry | 1 << k.ACCESSED | (write << k.DIRTY)
        self.tables.dirtied += write & ~(entry >> k.DIRTY) & 1
        offset = gfn & (self.config.cover(table.level) - 1)
        tlb.held[gfn & ~self.bits] = (tlb.pgd, pfn_of(entry) + offset, writable, table)

    # -- what they may hold

    def judge_yield(self) -> None:
        """No lock is dropped with a flush pending; when all is zapped nobody runs any more (TDP-082)."""
        if self.is_due() and type(self.threads.op) is not ops.ZapAll:
            raise Violation(c.FLUSH_BEFORE_YIELD, "mmu_lock is dropped with a flush pending")
        self.door.hold(c.FLUSH_BEFORE_YIELD)

    def judge_release(self) -> None:
        """No TLB holds what was zapped; when the VM's memory goes away nobody runs any more (TDP-084)."""
        if type(self.threads.op) is ops.ZapAll:
            return
        for number, tlb in enumerate(self.all):
            if tlb is None or not tlb.held:
                continue
            for gfn, (root, pfn, _, table) in tlb.held.items():
                if root.listed and not root.invalid and (table.removed or self.tables.lookup(root, gfn) != pfn):
                    raise Violation(
                        c.NO_STALE_TLB, f"the TLB of vCPU {number} maps gfn {gfn:#x} to {pfn:#x}, which was zapped"
                    )
            self.door.hold(c.NO_STALE_TLB)

    def judge_mapped(self) -> None:
        """Who takes a leaf down to map another flushes what is known of it (TDP-084)."""
        if self.due:
            raise Violation(c.NO_STALE_TLB, f"the leaf of gfn {min(self.due):#x} was taken down, and no TLB is flushed")

    def judge_protected(self) -> None:
        """No TLB lets be written what is write-protected."""
        for number, tlb in enumerate(self.all):
            for gfn, (root, _, writable, _) in tlb.held.items() if tlb is not None else ():
                if writable and root.listed and not root.invalid and not self.tables.is_writable(root, gfn):
                    raise Violation(
                        c.NO_STALE_TLB, f"the TLB of vCPU {number} lets gfn {gfn:#x} be written, which is protected"
                    )

    # -- environment calls

    def load_pgd(self, vcpu: int, page: int, level: int) -> None:
        """Load the direct root."""
        table = self.tables.of(page)
        tlb = self.of(vcpu)
        if not table.listed or table.is_mirror or level != self.config.levels:
            raise Violation(c.ROOT_BY_ADDRESS, f"load_pgd({page:#x}, level {level}): not the direct root of this VM")
        tlb.pgd = table
        tlb.held.clear()

    def flush_remote_tlbs(self) -> None:
        """Flush every TLB."""
        for tlb in self.all:
            if tlb is not None:
                tlb.held.clear()
        self.due.clear()
        self.asked[self.threads.me] = False

    def flush_range(self, gfn: int, count: int) -> int:
        """Flush a range of gfns and their aliases."""
        natural(gfn, self.bits, "flush_range")
        refusal = self.door.refused("flush_range")
        if refusal:
            return refusal
        for tlb in self.all:
            if tlb is not None:
                tlb.held = {g: entry for g, entry in tlb.held.items() if not gfn <= g < gfn + count}
        self.due = {g for g in self.due if not gfn <= g < gfn + count}
        return 0
