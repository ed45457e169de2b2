"""Designs that are not Linux's, each accused once; beside it the wrong code that the same freedom must not let pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream, spte
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import Fault as PageFaultOf
from conformance.candidates.builtin.tdp_mirror.upstream.mmu_internal import ShadowPage
from conformance.candidates.builtin.tdp_mirror.upstream.spte import DIRTY, PA_MASK, TABLE_ENTRY, is_last, is_present
from conformance.lockstep import run_trace
from conformance.model.step import Fault, Parallel, Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.tdp_mirror import constants as k
from conformance.strategies.tdp_mirror.domains import DEEP, FIVE_LEVELS, HUGE, SHARED, SMALL
from conformance.trace import Trace
from tests.conformance.tdp_mirror.designs import (
    Bypass,
    ComparesByItself,
    GivesUpWhileBusy,
    GoesByTheLastNumber,
    KeepsAStock,
    KillsForAnAddition,
    KillsWhileBusy,
    LosesTheStock,
    LosesWhatItTook,
    MapsAround,
    ReachesBeyondTheSlot,
    ReloadsAgain,
    SaysThatItIsDead,
    TakesTheWrongNeighbour,
    TouchesNeighbours,
    WidensTheHead,
    YieldsOnceAFlushIsDue,
)
from tests.conformance.tdp_mirror.judging import CREATE, OF, RELOAD, SECOND, judge

MIXED = replace(HUGE, private_gfns=())
BLOCK = (CREATE, RELOAD, Step(ops.PageFault(0, SHARED)))
"""A vCPU, and a huge leaf at gfn 0."""
RUNNING = (CREATE, Step(ops.InitRegion()), Step(ops.Finalize()))


class SplitsWhatGoesInPart(Upstream):
    """Of a huge leaf that is converted in part the rest stays mapped, in small leaves."""

    def set_attributes(self, address: int, size: int, attributes: int, flags: int) -> int:
        """What lies at the edges is split first."""
        for edge in (address >> k.PAGE_SHIFT, address + size >> k.PAGE_SHIFT):
            if edge % self.pages_per_entry(2):
                self.port.read_lock()
                self.split_huge(0, edge, edge + 1, 1)
                self.port.read_unlock()
        return super().set_attributes(address, size, attributes, flags)


class KeepsTheEdge(SplitsWhatGoesInPart):
    """The last page of a range stays."""

    def invalidation(self, start: int, end: int, attr_filter: int, need: int, may_block: int) -> None:
        """One page too few."""
        super().invalidation(start, end - 1, attr_filter, need, may_block)

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """One page too few."""
        return super().unmap_gfn_range(start, end - 1, attr_filter, may_block, flush)


class TakesBlocksDown(Upstream):
    """A fault that needs a small leaf takes the huge one down, flushes, and puts an empty table there."""

    def build_table(self, sp: ShadowPage, index: int, old: int, fault: PageFaultOf) -> int:
        """Break before make."""
        if not is_present(old) or sp.mirror:
            return super().build_table(sp, index, old, fault)
        port, gfn = self.port, fault.gfn & ~(self.pages_per_entry(sp.level) - 1)
        child = self.alloc_sp(fault.vcpu, False, sp.level - 1, gfn, with_external=False)
        child.parent = (sp.page, index)
        if port.pt_cmpxchg(sp.page, index, old, k.FROZEN) != old:
            self.free_sp(child)
            return k.RET_PF_RETRY
        port.update_page_stats(sp.level, -1)
        self.flush()
        port.pt_store(sp.page, index, TABLE_ENTRY | child.page)
        port.account_pgtable(1)
        return k.RET_PF_CONTINUE

    def flush(self) -> None:
        """What hardware knows of the block."""
        self.port.flush_remote_tlbs()


class TakesBlocksDownUnflushed(TakesBlocksDown):
    """Hardware goes on with the block."""

    def flush(self) -> None:
        """Forgotten."""


class FreezesToSplit(Upstream):
    """A huge leaf is frozen and flushed before its table takes its place."""

    def __init__(self, port: Any) -> None:
        super().__init__(Bypass(port, pt_cmpxchg=self.exchange))
        self.real = port

    def exchange(self, page: int, index: int, old: int, new: int) -> int:
        """In two steps, where a table comes for a leaf."""
        port, sp = self.real, self.sps.get(page)
        if sp is None or sp.level == 1 or not is_last(old, sp.level) or not is_present(new) or is_last(new, sp.level):
            return int(port.pt_cmpxchg(page, index, old, new))
        found: int = port.pt_cmpxchg(page, index, old, k.FROZEN)
        if found == old:
            port.flush_remote_tlbs()
            self.fill(new & PA_MASK)
            port.pt_store(page, index, new)
        return found

    def fill(self, table: int) -> None:
        """It is filled already."""


class FreezesToSplitClean(FreezesToSplit):
    """The last small leaf forgets that the page was written to."""

    def fill(self, table: int) -> None:
        """Its dirty bit goes."""
        self.real.pt_store(table, 1, self.real.pt_read(table, 1) & ~DIRTY)


class FreezesTheTable(Upstream):
    """Recovery freezes all small leaves, then puts the huge one in the place of their table."""

    def recover_huge(self, slot: int) -> int:
        """The first block of the slot."""
        port, merged = self.port, 0
        for root in self.each_root(self.shared_types()):
            for it in self.walk(root, *self.slot_range(slot), 2):
                if it.level == 2 and is_present(it.old_spte) and not is_last(it.old_spte, 2):
                    table = it.old_spte & PA_MASK
                    was = [port.pt_xchg(table, index, k.FROZEN) for index in range(self.entries)]
                    port.update_page_stats(1, -self.entries)
                    self.replace(it.page, it.index, was[0] | spte.HUGE)
                    port.account_pgtable(-1)
                    port.update_page_stats(2, 1)
                    port.call_rcu(table)
                    merged = 1
        return merged

    def replace(self, page: int, index: int, leaf: int) -> None:
        """The table goes."""
        self.port.pt_store(page, index, leaf)


class LeavesTheTableFrozen(FreezesTheTable):
    """All small leaves are frozen, and that is all."""

    def recover_huge(self, slot: int) -> int:
        """The first block of the slot."""
        for root in self.each_root(self.shared_types()):
            for it in self.walk(root, *self.slot_range(slot), 2):
                if it.level == 2 and is_present(it.old_spte) and not is_last(it.old_spte, 2):
                    for index in range(self.entries):
                        self.port.pt_xchg(it.old_spte & PA_MASK, index, k.FROZEN)
                    self.port.update_page_stats(1, -self.entries)
        return 1


class LockInsteadOfRcu(Upstream):
    """Tables go under the write lock alone, so that whoever has the lock for read needs no RCU."""

    def __init__(self, port: Any) -> None:
        self.held = 0
        self.real = port
        self.sections: list[bool] = []
        calls = {
            "read_lock": self.read_lock, "read_unlock": self.read_unlock, "rcu_read_lock": self.rcu_read_lock,
            "rcu_read_unlock": self.rcu_read_unlock,
        }  # fmt: skip
        super().__init__(Bypass(port, **calls))

    def read_lock(self) -> None:
        """Remembered."""
        self.real.read_lock()
        self.held += 1

    def read_unlock(self) -> None:
        """Forgotten."""
        self.held -= 1
        self.real.read_unlock()

    def rcu_read_lock(self) -> None:
        """Where there is no lock."""
        self.sections.append(not self.held)
        if self.sections[-1]:
            self.real.rcu_read_lock()

    def rcu_read_unlock(self) -> None:
        """The same."""
        if self.sections.pop():
            self.real.rcu_read_unlock()

    def zap_invalidated_roots(self) -> None:
        """For write."""
        self.zap_scheduled(shared=False)


class NeitherLockNorRcu(LockInsteadOfRcu):
    """Tables go under the lock for read all the same."""

    zap_invalidated_roots = Upstream.zap_invalidated_roots


class PinsAfterwards(Upstream):
    """The TD has its page, then the page its reference; who resolved it holds it until then."""

    def __init__(self, port: Any) -> None:
        super().__init__(Bypass(port, page_pin=self.later, tdh_mem_page_aug=self.aug))
        self.real = port

    def later(self, pfn: int) -> None:
        """At once only before the TD runs."""
        if self.real.td_state() != k.TD_RUNNABLE:
            self.real.page_pin(pfn)

    def aug(self, gpa: int, level: int, pfn: int) -> int:
        """The page first."""
        status: int = self.real.tdh_mem_page_aug(gpa, level, pfn)
        self.pin(pfn)
        return status

    def pin(self, pfn: int) -> None:
        """Then the reference."""
        self.real.page_pin(pfn)


class PinsNever(PinsAfterwards):
    """The page of a running TD has none."""

    def pin(self, pfn: int) -> None:
        """Forgotten."""


class BlocksBeforehand(Upstream):
    """Before a hole is punched its leaves are blocked, tracked and everybody kicked out once, not for each leaf."""

    def gmem_invalidate(self, start: int, end: int) -> None:
        """One TRACK for all."""
        port = self.port
        port.write_lock()
        for gfn in range(start, end):
            port.tdh_mem_range_block(gfn << k.PAGE_SHIFT, 0)
        self.track()
        port.write_unlock()
        super().gmem_invalidate(start, end)

    def track(self) -> None:
        """Whoever is kicked out after it has seen that all is blocked."""
        self.port.tdh_mem_track()
        self.port.make_all_cpus_request(k.REQ_OUTSIDE_GUEST)

    def sept_remove(self, gfn: int, level: int, pfn: int) -> int:
        """What is left to do."""
        port = self.port
        if port.tdh_mem_page_remove(gfn << k.PAGE_SHIFT, 0):
            port.vm_bug("the page could not be removed")
            return -k.EIO
        port.tdh_phymem_page_wbinvd(pfn)
        port.clear_page(pfn)
        port.page_unpin(pfn)
        return 0


class KicksTooEarly(BlocksBeforehand):
    """vCPUs are kicked out before the TRACK."""

    def track(self) -> None:
        """The wrong way round."""
        self.port.make_all_cpus_request(k.REQ_OUTSIDE_GUEST)
        self.port.tdh_mem_track()


class DropsBothRoots(Upstream):
    """A load that fails leaves the vCPU without any root, the mirror's too."""

    def mmu_reload(self, vcpu: int) -> int:
        """The reference is forgotten."""
        result = super().mmu_reload(vcpu)
        if result == -k.ENOMEM and self.mirror_root_hpa[vcpu] != k.INVALID_PAGE:
            self.mirror_root_hpa[vcpu] = k.INVALID_PAGE
            self.port.vcpu_root(vcpu, 1, k.INVALID_PAGE)
        return result


class TriesOnAfterTheBug(Upstream):
    """A page that cannot be blocked is a VM bug, and is removed all the same if that succeeds later."""

    def gmem_invalidate(self, start: int, end: int) -> None:
        """Blocked beforehand, or each for itself."""
        self.port.write_lock()
        if self.port.tdh_mem_range_block(start << k.PAGE_SHIFT, 0):
            self.complain()
        self.port.write_unlock()
        super().gmem_invalidate(start, end)

    def complain(self) -> None:
        """Whoever uses the VM is told."""
        self.port.vm_bug("a page could not be blocked")


class TriesOnInSilence(TriesOnAfterTheBug):
    """Nobody is told."""

    def complain(self) -> None:
        """As if nothing had happened."""


class OneAtATime(Upstream):
    """Of two who map the second goes back to its guest."""

    mapping = False

    def tdp_mmu_map(self, fault: PageFaultOf) -> int:
        """A lock that nobody waits for."""
        if self.mapping:
            return k.RET_PF_RETRY
        self.mapping = True
        result = super().tdp_mmu_map(fault)
        self.mapping = self.keeps(fault)
        return result

    def keeps(self, _fault: PageFaultOf) -> bool:
        """Whether the lock is forgotten."""
        return False


class NeverAgain(OneAtATime):
    """It stays locked."""

    def keeps(self, _fault: PageFaultOf) -> bool:
        """Always."""
        return True


class TellsFirst(Upstream):
    """vCPUs are told of obsolete roots first, in the section that makes them obsolete."""

    def zap_all_fast(self) -> None:
        """The other way round."""
        self.port.write_lock()
        self.port.make_all_cpus_request(k.REQ_FREE_OBSOLETE_ROOTS)
        self.invalidate_roots(k.DIRECT_ROOTS)
        self.port.write_unlock()
        self.zap_invalidated_roots()


class SnapshotsOnlyToMap(Upstream):
    """Whoever maps nothing needs no snapshot."""

    def faultin_pfn(self, vcpu: int, gfn: int, is_private: int) -> int:
        """As a fault, but for that."""
        self.port, port = Bypass(self.port, mmu_invalidate_seq=lambda: 0, mmu_invalidate_retry=lambda *_: 0), self.port
        result = super().faultin_pfn(vcpu, gfn, is_private)
        self.port = port
        return result


class SilentWithoutRoots(Upstream):
    """Announces no invalidation while no vCPU has roots: nothing is mapped, and nobody is in a fault."""

    def invalidation(self, start: int, end: int, attr_filter: int, need: int, may_block: int) -> None:
        """Or as usual."""
        if any(root != k.INVALID_PAGE for root in self.root_hpa.values()):
            super().invalidation(start, end, attr_filter, need, may_block)


class SilentWithoutLeaves(Upstream):
    """Announces none as long as nothing was mapped, although somebody may be about to map."""

    faulted = False

    def page_fault(self, *args: Any) -> int:
        """From now on as usual."""
        self.faulted = True
        return super().page_fault(*args)

    def invalidation(self, start: int, end: int, attr_filter: int, need: int, may_block: int) -> None:
        """Or not."""
        if self.faulted:
            super().invalidation(start, end, attr_filter, need, may_block)


PUBLIC = Step(ops.PageFault(0, SHARED | 0x3000))
HOLE, PAGE_OUT = Step(ops.GmemInvalidate(0, 4)), Step(ops.HvaInvalidate(0, 4))
CONVERT = Step(ops.SetAttributes(0, 0x1000, k.ATTRIBUTE_PRIVATE))
NO_MEMORY = Step(ops.MmuReload(0), (Fault("cache_topup", -k.ENOMEM),))
UNBLOCKABLE = Step(ops.GmemInvalidate(0, 1), (Fault("tdh_mem_range_block", k.TDX_OPERAND_INVALID),))
SPLIT = Step(ops.SplitHuge(0, 0, 4))
ZAP = Step(ops.ZapAllFast())
FAULTIN = Step(ops.Faultin(0, 0, True))
OTHER = Step(ops.PageFault(0, 0x1000, True))
PROTECT = Step(ops.WrprotSlot(0))
SMALLER = Step(ops.TdpMap(0, SHARED, False, 1))
TOGETHER = Step(Parallel(Step(ops.PageFault(0, 0, True)), Step(ops.PageFault(1, 0x1000, True)), (8, 8)))
TWICE = Step(ops.InitRegion())
BUSY_ADDITION = Step(ops.InitRegion(), (Fault("tdh_mem_page_add", k.TDX_OPERAND_BUSY),))
INVALIDATED = Step(ops.MmuReload(0), during=((27, Step(ops.InvalidateRoots(k.DIRECT_ROOTS))),))
END = (Step(ops.HkidRelease()), Step(ops.VcpuDestroy(0)), Step(ops.VmUninit()))
PUBLIC_ALONE = replace(SMALL, private_gfns=())
KILLING = Step(ops.PageFault(0, 0, True), (Fault("ext_set", -k.EIO),))
BUSY_FAULT = Step(ops.PageFault(0, 0, True), (Fault("ext_set", -k.EBUSY),))
NOT_BOTH = Step(ops.PageFault(0, SHARED), (Fault("mmu_invalidate_retry", 1, 2),))
MEANWHILE = Step(ops.PageFault(0, 0, True), during=((17, PAGE_OUT),))
AROUND = Step(ops.PageFault(0, SHARED))
RIGHT: dict[str, tuple[type[Upstream], Config, tuple[Step, ...]]] = {
    "silent-without-roots": (
        SilentWithoutRoots,
        SMALL,
        (CREATE, HOLE, PAGE_OUT, RELOAD, HOLE, PAGE_OUT),
    ),
    "splits-what-goes-in-part": (
        SplitsWhatGoesInPart,
        MIXED,
        (*BLOCK, CONVERT),
    ),
    "takes-blocks-down": (TakesBlocksDown, MIXED, (*BLOCK, PROTECT, SMALLER, Step(ops.Access(0, SHARED | 0x1000)))),
    "freezes-to-split": (FreezesToSplit, MIXED, (*BLOCK, Step(ops.SplitHuge(0, 0, 4)))),
    "freezes-the-table": (FreezesTheTable, HUGE, (*BLOCK, SPLIT, Step(ops.RecoverHuge(0)))),
    "lock-instead-of-rcu": (LockInsteadOfRcu, SMALL, (CREATE, RELOAD, PUBLIC, ZAP)),
    "pins-afterwards": (PinsAfterwards, DEEP, (*RUNNING, Step(ops.PageFault(0, 0x1000, True)))),
    "blocks-beforehand": (BlocksBeforehand, DEEP, (*RUNNING, Step(ops.GmemInvalidate(0, 1)))),
    "tries-on-after-the-bug": (TriesOnAfterTheBug, DEEP, (*RUNNING, UNBLOCKABLE)),
    "one-at-a-time": (OneAtATime, SMALL, (CREATE, RELOAD, *SECOND, TOGETHER)),
    "tells-first": (TellsFirst, SMALL, (CREATE, RELOAD, ZAP, RELOAD)),
    "maps-around": (MapsAround, PUBLIC_ALONE, (CREATE, RELOAD, AROUND, PROTECT, AROUND)),
    "keeps-a-stock": (KeepsAStock, HUGE, (*BLOCK, SPLIT, *END)),
    "kills-for-an-addition": (KillsForAnAddition, DEEP, (CREATE, TWICE, TWICE)),
    "says-that-it-is-dead": (SaysThatItIsDead, SMALL, (CREATE, RELOAD, KILLING)),
    "goes-on-without-the-neighbour": (MapsAround, PUBLIC_ALONE, (CREATE, RELOAD, NOT_BOTH)),
    "compares-by-itself": (ComparesByItself, SMALL, (CREATE, RELOAD, MEANWHILE, MEANWHILE)),
    "reloads-again": (ReloadsAgain, SMALL, (CREATE, RELOAD, ZAP, NO_MEMORY, INVALIDATED, RELOAD)),
    "snapshots-only-to-map": (SnapshotsOnlyToMap, SMALL, (CREATE, RELOAD, FAULTIN)),
}
WRONG: dict[str, tuple[type[Upstream], Config, tuple[Step, ...], str]] = {
    "silent-without-leaves": (SilentWithoutLeaves, SMALL, (CREATE, HOLE, RELOAD, HOLE), "TDP-056"),
    "keeps-the-edge": (KeepsTheEdge, MIXED, (*BLOCK, CONVERT), "TDP-089"),
    "takes-blocks-down-unflushed": (
        TakesBlocksDownUnflushed, MIXED, (*BLOCK, PROTECT, Step(ops.Access(0, SHARED | 0x1000)), SMALLER), "TDP-084",
    ),
    "freezes-to-split-clean": (FreezesToSplitClean, MIXED, (*BLOCK, Step(ops.SplitHuge(0, 0, 4))), "TDP-107"),
    "leaves-the-table-frozen": (
        LeavesTheTableFrozen, HUGE, (*BLOCK, SPLIT, Step(ops.RecoverHuge(0))), "TDP-045",
    ),
    "neither-lock-nor-rcu": (
        NeitherLockNorRcu, SMALL, (CREATE, RELOAD, PUBLIC, ZAP), "TDP-050",
    ),
    "pins-never": (PinsNever, DEEP, (*RUNNING, Step(ops.PageFault(0, 0x1000, True))), "TDP-079"),
    "kicks-too-early": (KicksTooEarly, DEEP, (*RUNNING, Step(ops.GmemInvalidate(0, 1))), "TDP-097"),
    "tries-on-in-silence": (TriesOnInSilence, DEEP, (*RUNNING, UNBLOCKABLE), "TDP-079"),
    "touches-neighbours": (
        TouchesNeighbours, PUBLIC_ALONE, (CREATE, RELOAD, AROUND), "TDP-108",
    ),
    "takes-the-wrong-neighbour": (
        TakesTheWrongNeighbour, PUBLIC_ALONE, (CREATE, RELOAD, AROUND), "TDP-013",
    ),
    "loses-the-stock": (LosesTheStock, HUGE, (*BLOCK, *END), "TDP-036"),
    "loses-what-it-took": (LosesWhatItTook, HUGE, (*BLOCK, SPLIT), "TDP-072"),
    "kills-while-busy": (KillsWhileBusy, DEEP, (CREATE, BUSY_ADDITION), "TDP-064"),
    "reaches-beyond-the-slot": (
        ReachesBeyondTheSlot, replace(MIXED, slots=((0, 0, 3, k.MEM_GUEST_MEMFD),)),
        (CREATE, RELOAD, Step(ops.PageFault(0, SHARED | 0x2000))), "TDP-053",
    ),
    "goes-by-the-last-number": (GoesByTheLastNumber, SMALL, (CREATE, RELOAD, MEANWHILE), "TDP-051"),
    "yields-once-a-flush-is-due": (
        YieldsOnceAFlushIsDue, replace(PUBLIC_ALONE, slots=((0, 0, 2, 0), (1, 2, 2, 0))),
        (CREATE, RELOAD, AROUND, PUBLIC,
         Step(ops.HvaInvalidate(0, 4, False), (Fault("resched", 1),))), "TDP-083",
    ),
    "gives-up-while-busy": (GivesUpWhileBusy, SMALL, (CREATE, RELOAD, BUSY_FAULT), "TDP-064"),
    "drops-both-roots": (DropsBothRoots, SMALL, (CREATE, RELOAD, ZAP, NO_MEMORY), "TDP-027"),
    "never-again": (NeverAgain, SMALL, (CREATE, RELOAD, Step(ops.PageFault(0, 0, True)), OTHER), "TDP-068"),
}  # fmt: skip


@pytest.mark.parametrize("row", RIGHT)
def test_another_design_is_not_accused(row: str) -> None:
    """Of none of them is anything seen that a clause forbids."""
    candidate, config, steps = RIGHT[row]

    assert judge(*steps, config=config, candidate=candidate).failure is None


@pytest.mark.parametrize("row", WRONG)
def test_what_it_might_get_wrong_is_seen(row: str) -> None:
    """The same design, with one thing forgotten."""
    candidate, config, steps, clause = WRONG[row]
    failure = judge(*steps, config=config, candidate=candidate).failure

    assert failure is not None
    assert failure.clause.id == clause


@pytest.mark.parametrize("flags", [k.MEM_GUEST_MEMFD, 0])
def test_a_huge_range_that_goes_back_is_judged_at_once(flags: int) -> None:
    """A slot of 2^30 pages, without an invalidation: none of its gfns is private, so the file has nothing there."""
    deleted = [Step(ops.SlotDelete(slot)) for slot, *_ in FIVE_LEVELS.slots]
    back = ops.GmemInvalidate if flags else ops.HvaInvalidate
    steps = (CREATE, RELOAD, *deleted, Step(ops.SlotCreate(7, 2**20, 2**30, flags)), Step(back(2**20, 2**35)))

    failure = judge(*steps, config=FIVE_LEVELS, candidate=SilentWithoutLeaves).failure

    assert (failure and failure.clause.id) == (None if flags else "TDP-056")


@pytest.mark.parametrize("point", range(12))
def test_who_looked_too_early_was_not_told(point: int) -> None:
    """Between the telling and the end of the roots nobody may look, or he never hears of it."""
    step = Step(Parallel(Step(ops.ZapAllFast()), Step(ops.MmuReload(0)), (point, 40)))
    trace = Trace("tdp_mirror", "upstream", SMALL, (CREATE, RELOAD, step))
    right, wrong = (run_trace(OF, trace, candidate).failure for candidate in (Upstream, TellsFirst))

    assert right is None
    assert wrong is None or wrong.clause.id == "TDP-030"


@pytest.mark.parametrize(
    ("name", "candidate", "clause"),
    [("a huge fault and a conversion of its other half", WidensTheHead, "TDP-092")],
)
def test_a_race_finds_what_is_in_no_zoo(name: str, candidate: type[Upstream], clause: str) -> None:
    """Some schedule of one switch does."""
    race = OF.races[name]
    pair = (race.left, race.right), (race.right, race.left)
    steps = [Step(Parallel(left, right, (point, 80))) for left, right in pair for point in range(40)]
    traces = [Trace("tdp_mirror", "upstream", race.config, (*race.steps, step)) for step in steps]

    assert clause in {f.clause.id for trace in traces if (f := run_trace(OF, trace, candidate).failure)}
