"""The small worlds find what they were written for, each by itself."""

from __future__ import annotations

import pytest

from conformance.candidates.builtin.tdp_mirror.linux import Linux
from conformance.candidates.builtin.tdp_mirror.linux.kvm import Fault, Sp
from conformance.candidates.builtin.tdp_mirror.linux.spte import (
    WRITABLE_MASK,
    is_mmu_writable,
    is_present,
    is_writable,
)
from conformance.candidates.builtin.tdp_mirror.linux.tdp_iter import walk
from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.defects.tdp_mirror import DEFECTS
from conformance.engines import explore
from conformance.engines.context import Context
from conformance.specs.tdp_mirror import Port
from conformance.specs.tdp_mirror.constants import RET_PF_FIXED
from conformance.strategies.tdp_mirror import SCOPES
from tests.conformance.tdp_mirror.judging import context

WRITTEN_FOR = {
    "two vCPUs": ("A-01", "A-02", "U-11"),
    "two halves": ("A-05", "A-06", "A-13"),
    "refusals": ("A-08", "A-09", "A-12", "A-18", "N-01", "U-02", "U-04"),
    "protection and huge pages": ("A-07", "A-10", "N-04", "N-17", "U-01"),
    "protection and huge pages, uneven": ("N-16",),
    "roots that are not valid any more": ("U-05",),
    "teardown": ("A-04",),
    "two slots of guest memory": ("U-07",),
    "SEAMCALLs": ("A-03", "N-11", "U-10", "U-18", "U-19"),
    "before finalize": ("U-09",),
    "reach of the root": ("N-23", "U-15", "U-16"),
    "a last gfn that no entry of the root ends at": ("N-03", "N-18", "N-19"),
    "a flush that is due from the root before": ("N-06",),
    "slots in deletion": ("U-12", "U-13"),
    "slots that come and go": ("N-14",),
    "beside faults": ("U-14",),
    "dirty pages are logged": ("N-21", "N-22"),
    "ageing beside a notifier": ("N-07",),
}
"""Scope to defects of the zoo."""


def found(here: Context, name: str) -> set[str]:
    """The clauses that are broken first when a scope is explored."""
    exploration = explore._Exploration(here, name, SCOPES[name])
    while not here.failures and not here.warnings and exploration.go_on():
        pass
    return {failure.clause.id for failure in here.failures + here.warnings}


@pytest.mark.parametrize(("name", "defect"), [(name, id_) for name, ids in WRITTEN_FOR.items() for id_ in ids])
def test_a_scope_finds_what_it_was_written_for(name: str, defect: str) -> None:
    """By the clauses of the zoo."""
    clauses = found(context(f"builtin:{defect}"), name)

    assert clauses
    assert clauses <= set(next(d.clauses for d in DEFECTS if d.id == defect))


class FlushesNothing(Upstream):
    """What a notifier unmaps may still be in TLBs."""

    def unmap_slots(self, start: int, end: int, attr_filter: int, need: int = 0, may_block: int = 1) -> None:
        """Without a flush."""
        for lo, hi, flags in self.slots_in(start, end):
            if flags & need == need:
                self.unmap_gfn_range(lo, hi, attr_filter, may_block, 0)


@pytest.mark.parametrize("name", ["two halves", "roots that are not valid any more", "slots that come and go"])
def test_what_a_guest_has_translated_is_a_state_of_the_world(name: str) -> None:
    """The model's state is the same before and after an access; what a TLB holds is not."""
    here = context(f"{__file__}:FlushesNothing")

    assert found(here, name) == {"TDP-084"}


class LooksAtTheEnds(Linux):
    """A range has the attributes already when its first gfn and its last have."""

    def _vm_set_mem_attributes(self, start: int, end: int, attributes: int) -> int:
        """What lies between is not looked at."""
        if all(self.port.range_has_attributes(gfn, gfn + 1, attributes) for gfn in (start, end - 1)):
            return 0
        return super()._vm_set_mem_attributes(start, end, attributes)


class LooksFromTheFault(Linux):
    """A block may be huge when all is shared from the gfn of the fault on."""

    def lpage_level(self, slot: tuple[int, ...], gfn: int) -> int:
        """What comes before it is not looked at."""
        pages = self.pages_per_hpage(2)
        start = gfn & -pages
        inside = slot[1] <= start and start + pages <= slot[1] + slot[2]
        return 2 if inside and self.port.range_has_attributes(gfn, start + pages, 0) else 1


class LooksAtTheHost(Linux):
    """Recovery asks how large the pages of the host are, and not what the gfns are."""

    def max_mapping_level(self, slot: tuple[int, ...], gfn: int) -> int:
        """Private ones among them."""
        return self.port.max_mapping_level(slot[0], gfn)


class AdvancesByAPage(Linux):
    """Prefault of the second half of a huge page advances by all of it."""

    def _arch_pre_fault_memory(self, vcpu: int, gpa: int, size: int) -> int:
        """As if the address were aligned."""
        done = super()._arch_pre_fault_memory(vcpu, gpa, size)
        return (
            min(size, 2 * done)
            if done > 0 and gpa & 0x1000 and self.get_walk(vcpu, gpa | self.kvm.direct_bits << 12)[-1] >> 7 & 1
            else done
        )


class MaskFromTheTable(Linux):
    """The mask is taken to begin where a table does."""

    def clear_dirty_masked(self, slot: int, gfn: int, mask: int, wrprot: int) -> None:
        """As if every word of the bitmap did."""
        first = gfn & -(1 << self.kvm.index_bits) if self.kvm.index_bits > 1 else gfn
        super().clear_dirty_masked(slot, first, mask, wrprot)


class MaskOf32Bits(Linux):
    """The upper half of a word of the bitmap is lost."""

    def clear_dirty_masked(self, slot: int, gfn: int, mask: int, wrprot: int) -> None:
        """As where a long has 32 bits."""
        super().clear_dirty_masked(slot, gfn, mask & 0xFFFFFFFF, wrprot)


class LastOfTheMask(Linux):
    """The last page of a word of the bitmap is left out."""

    def clear_dirty_masked(self, slot: int, gfn: int, mask: int, wrprot: int) -> None:
        """One too few."""
        super().clear_dirty_masked(slot, gfn, mask & ~(1 << 63), wrprot)


class SignalKeepsSrcu(Linux):
    """A prefault that meets a signal returns as it is."""

    def prefault(self, vcpu: int, gpa: int, size: int, flags: int) -> int:
        """Inside the section."""
        self.port.srcu_read_lock()
        if self.port.signal_pending():
            return -4
        self.port.srcu_read_unlock()
        return super().prefault(vcpu, gpa, size, flags)


class FixedWhateverHappened(Linux):
    """The fast path calls fixed what it has tried to fix."""

    def fast_page_fault(self, fault: Fault) -> int:
        """Though the entry was another by then."""
        root = self.root_to_sp(self.kvm.vcpus[fault.vcpu].root)
        walked = self.get_walk(fault.vcpu, fault.addr) if root and self._can_be_fast(fault) else ()
        tried = bool(walked) and is_present(walked[-1]) and is_mmu_writable(walked[-1]) and not is_writable(walked[-1])
        return RET_PF_FIXED if tried and self._exchange(fault, root) else super().fast_page_fault(fault)

    def _exchange(self, fault: Fault, root: Sp | None) -> bool:
        """Once."""
        assert root is not None
        self.port.rcu_read_lock()
        *_, last = ((it.table, it.index, it.old_spte) for it in walk(self, root, fault.gfn, fault.gfn + 1))
        self.port.pt_cmpxchg(*last, last[2] | WRITABLE_MASK)
        self.port.rcu_read_unlock()
        return True


class KeepsAnObsoleteRoot(Linux):
    """A prefault loads roots once; when they become obsolete meanwhile, every try is stale."""

    def mmu_reload(self, vcpu: int) -> int:
        """Not what it has already."""
        return super().mmu_reload(vcpu) if not self.is_obsolete_root(vcpu) else 0


class InvalidatesAgain(Linux):
    """Roots that are invalid already are scheduled again, and put once more."""

    def invalidate_roots(self, types: int) -> None:
        """All of them."""
        super().invalidate_roots(types)
        for root in self.kvm.roots:
            root.scheduled |= root.invalid


class AsksAfterwards(Linux):
    """Whether pages wait to be added is asked once the firmware has finalized the TD."""

    def _finalize_locked(self) -> int:
        """Too late."""
        waiting = self.port.premapped(0)
        if waiting and self.port.hkid_assigned() and not self._is_runnable():
            self.port.tdh_mr_finalize()
            return -22
        return super()._finalize_locked()


class RemembersObsolescence(Linux):
    """The header of a table that was freed is used for the next at its address, and still says that it is invalid."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.attic: dict[int, Sp] = {}

    def tdp_mmu_free_sp(self, sp: Sp) -> None:
        """What it said is kept."""
        super().tdp_mmu_free_sp(sp)
        self.attic[sp.spt] = sp

    def tdp_mmu_alloc_sp(self, vcpu: int) -> Sp:
        """And is there again."""
        sp = super().tdp_mmu_alloc_sp(vcpu)
        if sp.spt in self.attic:
            self.remember(sp, self.attic[sp.spt])
        return sp

    def remember(self, sp: Sp, old: Sp) -> None:
        """What was not initialised."""
        sp.invalid = old.invalid


class RemembersExternalPage(RemembersObsolescence):
    """The header of a table of a mirror is used for one of a direct root, and still names an external page."""

    def remember(self, sp: Sp, old: Sp) -> None:
        """Which went back to the allocator."""
        sp.external_spt = old.external_spt


class YieldsAtTheSecondRoot(Linux):
    """That a call may not block is remembered for the first root alone."""

    asked = 0

    def unmap_gfn_range(self, start: int, end: int, attr_filter: int, may_block: int, flush: int) -> int:
        """None was zapped yet."""
        self.asked = 0
        return super().unmap_gfn_range(start, end, attr_filter, may_block, flush)

    def tdp_mmu_zap_leafs(self, root: Sp, start: int, end: int, *, may_yield: bool, flush: bool) -> bool:
        """Later ones may yield."""
        self.asked += 1
        return super().tdp_mmu_zap_leafs(root, start, end, may_yield=may_yield or self.asked > 1, flush=flush)


@pytest.mark.parametrize(
    ("name", "wrong", "clause"),
    [
        ("what lies between", LooksAtTheEnds, "TDP-089"),
        ("what lies between", LooksFromTheFault, "TDP-092"),
        ("what lies between", LooksAtTheHost, "TDP-092"),
        ("what lies between", AdvancesByAPage, "TDP-103"),
        ("64 pages of one mask", MaskOf32Bits, "TDP-109"),
        ("64 pages of one mask", MaskFromTheTable, "TDP-109"),
        ("64 pages of one mask", LastOfTheMask, "TDP-109"),
        ("refusals", SignalKeepsSrcu, "TDP-072"),
        ("protection and huge pages", FixedWhateverHappened, "TDP-068"),
        ("in the middle of faults", KeepsAnObsoleteRoot, "TDP-105"),
        ("two halves", InvalidatesAgain, "TDP-032"),
        ("two halves", RemembersObsolescence, "TDP-023"),
        ("refusals", RemembersExternalPage, "TDP-065"),
        ("SEAMCALLs", AsksAfterwards, "TDP-102"),
        ("a flush that is due from the root before", YieldsAtTheSecondRoot, "TDP-083"),
    ],
)
def test_a_scope_finds_what_is_in_no_zoo(name: str, wrong: type[Linux], clause: str) -> None:
    """By one clause, and at once."""
    assert found(context(f"{__file__}:{wrong.__name__}"), name) == {clause}
