"""Write protection and dirty logging take what they were asked for, all of it, and nothing else."""

from __future__ import annotations

import pytest

from conformance.candidates.builtin.tdp_mirror import CANDIDATES
from conformance.candidates.builtin.tdp_mirror.linux import Linux
from conformance.candidates.builtin.tdp_mirror.linux.spte import DIRTY_MASK
from conformance.candidates.builtin.tdp_mirror.linux.tdp_iter import TdpIter
from conformance.model.step import Step
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.strategies.tdp_mirror.domains import MIXED, fault_at
from tests.conformance.tdp_mirror.judging import CREATE, RELOAD, failed, judge

WRITTEN = (CREATE, RELOAD, *(fault_at(gfn, False, write=True) for gfn in range(4)))
"""Four dirty leaves of 4K in the shared half."""
SHARED = Config(slots=((0, 0, 3, 0), (1, 3, 1, 0)), private_gfns=())
"""Two slots, all of them shared."""


class ForgetsTheMask(Linux):
    """Every page from the first of the mask on is taken for clean."""

    def clear_dirty_masked(self, slot: int, gfn: int, mask: int, wrprot: int) -> None:
        """Whatever the mask says."""
        super().clear_dirty_masked(slot, gfn, -mask & 2**64 - 1 if not wrprot else mask, wrprot)


class PassesTheEnd(Linux):
    """Dirty bits of the page after the slot are cleared as well."""

    def slot_range(self, slot: int) -> tuple[int, int]:
        """One too many."""
        start, end = super().slot_range(slot)
        return start, end + 1


class CleansWhatItProtects(Linux):
    """Whoever protects a page takes it for clean, though nobody has asked which pages were written."""

    def wrprot_slot(self, slot: int, min_level: int) -> int:
        """After it."""
        changed = super().wrprot_slot(slot, min_level)
        self.clear_dirty_slot(slot)
        return changed

    def protect(self, it: TdpIter, new: int) -> None:
        """At once."""
        super().protect(it, new & ~DIRTY_MASK)


@pytest.mark.parametrize(
    ("candidate", "op"),
    [
        (ForgetsTheMask, ops.ClearDirtyMasked(0, 0, 1)),
        (PassesTheEnd, ops.ClearDirtySlot(0)),
        (CleansWhatItProtects, ops.WrprotSlot(0)),
        (CleansWhatItProtects, ops.WriteProtectGfn(0, 1)),
    ],
)
def test_nobody_forgets_that_another_page_was_written(candidate: type[Linux], op: object) -> None:
    """What is not dirty any more is never sent to the other host."""
    steps = (*WRITTEN, Step(op))

    assert failed(judge(*steps, candidate=candidate, config=SHARED)).clause.id == "TDP-109"
    assert judge(*steps, candidate=Linux, config=SHARED).failure is None


class ProtectsWhateverTheLevel(Linux):
    """Leaves of 4K are protected too when huge ones alone are meant, as where pages begin as dirty."""

    def wrprot_slot(self, slot: int, min_level: int) -> int:
        """All of the slot."""
        return super().wrprot_slot(slot, 1)

    def write_protect_gfn(self, slot: int, gfn: int, min_level: int) -> int:
        """All that maps the page."""
        return super().write_protect_gfn(slot, gfn, 1)


class ProtectsSmallLeavesAlone(Linux):
    """A huge leaf is passed over."""

    def wrprot_slot(self, slot: int, min_level: int) -> int:
        """By the level that is meant, taken for the one up to which."""
        start, end = self.slot_range(slot)
        return max(self.write_protect_gfn(slot, gfn, 1) for gfn in range(start, end)) if min_level == 1 else 0


@pytest.mark.parametrize(
    ("candidate", "steps"),
    [
        (ProtectsWhateverTheLevel, (fault_at(0, False, write=True), Step(ops.WrprotSlot(0, 2)))),
        (ProtectsWhateverTheLevel, (fault_at(0, False, write=True), Step(ops.WriteProtectGfn(0, 0, 2)))),
        (ProtectsSmallLeavesAlone, (fault_at(2, False, write=True), Step(ops.WrprotSlot(0, 2)))),
    ],
)
def test_leaves_are_protected_from_the_level_on_that_is_meant(candidate: type[Linux], steps: tuple[Step, ...]) -> None:
    """Those below it may still be written, those above it may not."""
    assert failed(judge(CREATE, RELOAD, *steps, candidate=candidate, config=MIXED)).clause.id == "TDP-109"
    assert judge(CREATE, RELOAD, *steps, candidate=Linux, config=MIXED).failure is None


@pytest.mark.parametrize("name", ["linux", "upstream"])
@pytest.mark.parametrize(
    "op",
    [
        ops.ClearDirtyMasked(0, 0, 5),
        ops.ClearDirtyMasked(0, 1, 3, True),
        ops.ClearDirtySlot(1),
        ops.WrprotSlot(0),
        ops.WriteProtectGfn(0, 2),
    ],
)
def test_a_right_candidate_takes_what_it_was_asked_for(name: str, op: object) -> None:
    """And is not accused of more."""
    assert judge(*WRITTEN, Step(op), candidate=CANDIDATES[name], config=SHARED).failure is None
