"""The firmware's page table of one TD, and its TLB epochs."""

from __future__ import annotations

from conformance.environment.tdp_mirror.gfns import source_of
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror.operations import Table
from conformance.model.tdp_mirror.state import BLOCKED, MAPPED, PENDING, PENDING_BLOCKED, ExternalLeaf
from conformance.specs.tdp_mirror import constants as k


def is_busy(status: int) -> bool:
    """Whether the firmware may grant the same call later."""
    return status & k.TDX_STATUS_MASK == k.TDX_OPERAND_BUSY


class SecureEpt:
    """The firmware's page table of one TD: its leaf functions answer with a status and have no opinion.

    An entry is named by its first gfn and its level as the kernel counts levels; an entry that is in none of
    the maps is FREE. Source: TDX module 1.5, tdh_mem_*.c, sept_state_lookup and is_tlb_tracked.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.runnable = not config.deep
        self.key = True
        """Whether the TD has its key; without it the TD is torn down."""
        self.tables: dict[Table, int] = {}
        """Level and base gfn of each table to its page."""
        self.leaves: dict[tuple[int, int], int] = {}
        """gfn and level of each leaf to its page frame."""
        self.pending: set[tuple[int, int]] = set()
        self.blocked: dict[tuple[int, int], int] = {}
        """gfn and level of each blocked entry to the epoch in which it was blocked."""
        self.assigned: set[int] = set()
        """Page frames that the TD has."""
        self.epoch = 1
        self.inside = [0, 0]
        """vCPUs in the guest, by the parity of the epoch in which they entered."""
        self.sharing: dict[int, str] = {}
        """Who is inside a call, to what it holds: the tree "shared" or "exclusive", "none", or the "root" of the TD."""

    # -- locks and epochs

    def acquire(self, who: int, how: str) -> int:
        """Hold the tree of the TD for one call; 0 or busy, as somebody else holds it."""
        others = [held for holder, held in self.sharing.items() if holder != who]
        if "root" in others or (how == "root" and others):
            return k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_TDR
        if ("exclusive" in others and how != "none") or (how == "exclusive" and "shared" in others):
            return k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_SEPT
        self.sharing[who] = how
        return k.TDX_SUCCESS

    def release(self, who: int) -> None:
        """The call is over."""
        self.sharing.pop(who, None)

    def enter(self) -> int:
        """A vCPU enters the guest; the epoch in which it does."""
        self.inside[self.epoch & 1] += 1
        return self.epoch

    def leave(self, epoch: int) -> None:
        """It leaves."""
        self.inside[epoch & 1] -= 1

    def is_tracked(self, blocked: int) -> bool:
        """Whether no TLB can hold what was blocked in that epoch."""
        return blocked < self.epoch - 1 or (blocked == self.epoch - 1 and not self.inside[blocked & 1])

    def track(self) -> int:
        """MEM.TRACK: a new epoch, unless a vCPU is still in the one before the last."""
        if not self.key:
            return k.TDX_OPERAND_INVALID
        if self.inside[self.epoch - 1 & 1]:
            return k.TDX_PREVIOUS_TLB_EPOCH_BUSY
        self.epoch += 1
        return k.TDX_SUCCESS

    # -- reading

    def _walk(self, gfn: int, level: int) -> int:
        """Whether an entry can be named at all, and is reached."""
        beyond = gfn < 0 or gfn >= self.config.cover(self.config.levels + 1)
        if not self.key or beyond or gfn & self.config.direct_bits or gfn & self.config.cover(level) - 1:
            return k.TDX_OPERAND_INVALID
        if any(table not in self.tables for table in self.config.path(gfn, level)):
            return k.TDX_EPT_WALK_FAILED
        return k.TDX_SUCCESS

    def _is_table(self, gfn: int, level: int) -> bool:
        return (level - 1, gfn) in self.tables

    def _wrong_leaf(self, gfn: int, level: int) -> int:
        """Why there is no such leaf."""
        if self._is_table(gfn, level):
            return k.TDX_PAGE_SIZE_MISMATCH | k.TDX_OPERAND_ID_RCX
        return k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX

    def _out_of_reach(self, gfn: int, level: int) -> int:
        """Whether the guest may still reach an entry that is to change: it must be blocked and tracked."""
        if not self.runnable:
            return k.TDX_SUCCESS
        if (gfn, level) not in self.blocked:
            return k.TDX_GPA_RANGE_NOT_BLOCKED | k.TDX_OPERAND_ID_RCX
        if not self.is_tracked(self.blocked[gfn, level]):
            return k.TDX_TLB_TRACKING_NOT_DONE | k.TDX_OPERAND_ID_RCX
        return k.TDX_SUCCESS

    def state(self, gfn: int, level: int = 1) -> str:
        """State of a leaf, "" while there is none."""
        if (gfn, level) not in self.leaves:
            return ""
        if (gfn, level) in self.blocked:
            return PENDING_BLOCKED if (gfn, level) in self.pending else BLOCKED
        return PENDING if (gfn, level) in self.pending else MAPPED

    def has_page(self, pfn: int) -> bool:
        """Whether the tree maps a page frame."""
        return pfn in self.leaves.values()

    def view(self) -> frozenset[ExternalLeaf]:
        """The leaves."""
        return frozenset(
            (gfn, level, source_of(pfn, gfn), self.state(gfn, level)) for (gfn, level), pfn in self.leaves.items()
        )

    # -- building

    def sept_add(self, gfn: int, level: int, page: int) -> int:
        """MEM.SEPT.ADD: a table under a free entry."""
        status = self._walk(gfn, level) if level > 1 else k.TDX_OPERAND_INVALID
        return status or self._free(gfn, level) or self._assign(page >> k.PAGE_SHIFT) or self._link(gfn, level, page)

    def _link(self, gfn: int, level: int, page: int) -> int:
        self.tables[level - 1, gfn] = page
        return k.TDX_SUCCESS

    def _free(self, gfn: int, level: int) -> int:
        if self._is_table(gfn, level) or (gfn, level) in self.leaves:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        return k.TDX_SUCCESS

    def _assign(self, pfn: int) -> int:
        """A page can be in the tree once."""
        if pfn in self.assigned:
            return k.TDX_PAGE_METADATA_INCORRECT
        self.assigned.add(pfn)
        return k.TDX_SUCCESS

    def _map(self, gfn: int, level: int, pfn: int, *, pending: bool) -> int:
        status = self._walk(gfn, level) or self._free(gfn, level) or self._assign(pfn)
        if not status:
            self.leaves[gfn, level] = pfn
            if pending:
                self.pending.add((gfn, level))
        return status

    def page_add(self, gfn: int, pfn: int) -> int:
        """MEM.PAGE.ADD, before the TD runs."""
        return k.TDX_OPERAND_INVALID if self.runnable else self._map(gfn, 1, pfn, pending=False)

    def page_aug(self, gfn: int, level: int, pfn: int) -> int:
        """MEM.PAGE.AUG, once it runs."""
        if not self.runnable or level not in (1, 2):
            return k.TDX_OPERAND_INVALID
        return self._map(gfn, level, pfn, pending=True)

    def accept(self, gfn: int, level: int = 1) -> int:
        """The guest's MEM.PAGE.ACCEPT."""
        status = self._walk(gfn, level)
        if status:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT if status == k.TDX_EPT_WALK_FAILED else status
        if self._is_table(gfn, level):
            return k.TDX_PAGE_SIZE_MISMATCH
        state = self.state(gfn, level)
        if state == MAPPED:
            return k.TDX_PAGE_ALREADY_ACCEPTED
        if state != PENDING:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT
        self.pending.discard((gfn, level))
        return k.TDX_SUCCESS

    # -- taking apart

    def range_block(self, gfn: int, level: int) -> int:
        """MEM.RANGE.BLOCK: no new translations; notes the epoch."""
        status = self._walk(gfn, level)
        if status:
            return status
        if not self._is_table(gfn, level) and (gfn, level) not in self.leaves:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        if (gfn, level) in self.blocked:
            return k.TDX_GPA_RANGE_ALREADY_BLOCKED
        self.blocked[gfn, level] = self.epoch
        return k.TDX_SUCCESS

    def range_unblock(self, gfn: int, level: int) -> int:
        """MEM.RANGE.UNBLOCK: of what is blocked and tracked."""
        status = self._walk(gfn, level)
        if status:
            return status
        if (gfn, level) not in self.blocked:
            return k.TDX_GPA_RANGE_NOT_BLOCKED | k.TDX_OPERAND_ID_RCX
        if not self.is_tracked(self.blocked[gfn, level]):
            return k.TDX_TLB_TRACKING_NOT_DONE | k.TDX_OPERAND_ID_RCX
        del self.blocked[gfn, level]
        return k.TDX_SUCCESS

    def page_remove(self, gfn: int, level: int) -> int:
        """MEM.PAGE.REMOVE of a leaf."""
        status = self._walk(gfn, level)
        if not status and (gfn, level) not in self.leaves:
            status = self._wrong_leaf(gfn, level)
        status = status or self._out_of_reach(gfn, level)
        if not status:
            self.forget(gfn, level)
        return status

    def forget(self, gfn: int, level: int = 1) -> None:
        """A leaf is gone, and its page is the host's."""
        pfn = self.leaves.pop((gfn, level), None)
        if pfn is not None:
            self.assigned.discard(pfn)
        self.pending.discard((gfn, level))
        self.blocked.pop((gfn, level), None)

    def sept_remove(self, gfn: int, level: int) -> int:
        """MEM.SEPT.REMOVE of an empty table."""
        status = self._walk(gfn, level)
        if not status and not self._is_table(gfn, level):
            status = k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        if not status and self.below(gfn, level):
            status = k.TDX_EPT_PAGE_NOT_FREE
        status = status or self._out_of_reach(gfn, level)
        if not status:
            self.assigned.discard(self.tables.pop((level - 1, gfn)) >> k.PAGE_SHIFT)
            self.blocked.pop((gfn, level), None)
        return status

    def below(self, gfn: int, level: int) -> bool:
        """Whether anything hangs below the table that an entry links."""
        end = gfn + self.config.cover(level)
        return any(lv < level - 1 and gfn <= base < end for lv, base in self.tables) or any(
            lv < level and gfn <= leaf < end for leaf, lv in self.leaves
        )

    # -- other sizes

    def page_demote(self, gfn: int, level: int, page: int) -> int:
        """MEM.PAGE.DEMOTE: a huge leaf becomes a table of leaves in the same state."""
        status = self._walk(gfn, level)
        if not status and (gfn, level) not in self.leaves:
            status = self._wrong_leaf(gfn, level)
        status = status or self._out_of_reach(gfn, level) or self._assign(page >> k.PAGE_SHIFT)
        if status:
            return status
        pfn, pending = self.leaves[gfn, level], (gfn, level) in self.pending
        self.forget(gfn, level)
        self.tables[level - 1, gfn] = page
        step = self.config.cover(level - 1)
        for offset in range(0, self.config.cover(level), step):
            self.leaves[gfn + offset, level - 1] = pfn + offset
            self.assigned.add(pfn + offset)
            if pending:
                self.pending.add((gfn + offset, level - 1))
        return k.TDX_SUCCESS

    def page_promote(self, gfn: int, level: int) -> int:
        """MEM.PAGE.PROMOTE: a full table of leaves side by side and alike becomes a huge leaf."""
        status = self._walk(gfn, level)
        if not status and not self._is_table(gfn, level):
            status = k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        status = status or self._out_of_reach(gfn, level)
        if status:
            return status
        places = [(gfn + n, level - 1) for n in range(0, self.config.cover(level), self.config.cover(level - 1))]
        first = self.leaves.get(places[0], -1)
        alike = len({self.state(*place) for place in places}) == 1
        side_by_side = all(self.leaves.get(place) == first + place[0] - gfn for place in places)
        if first & self.config.cover(level) - 1 or not alike or not side_by_side or places[0] in self.blocked:
            return k.TDX_EPT_ENTRY_STATE_INCORRECT | k.TDX_OPERAND_ID_RCX
        pending = places[0] in self.pending
        for place in places:
            self.forget(*place)
        self.assigned.discard(self.tables.pop((level - 1, gfn)) >> k.PAGE_SHIFT)
        self.blocked.pop((gfn, level), None)
        self.leaves[gfn, level] = first
        self.assigned.add(first)
        if pending:
            self.pending.add((gfn, level))
        return k.TDX_SUCCESS

    # -- the end

    def reclaim(self, page: int) -> int:
        """PHYMEM.PAGE.RECLAIM of a page of a TD that is torn down."""
        if self.key:
            return k.TDX_OPERAND_INVALID
        if page >> k.PAGE_SHIFT not in self.assigned:
            return k.TDX_PAGE_METADATA_INCORRECT
        self.assigned.discard(page >> k.PAGE_SHIFT)
        self.tables = {table: linked for table, linked in self.tables.items() if linked != page}
        return k.TDX_SUCCESS

    def reclaim_root(self) -> int:
        """PHYMEM.PAGE.RECLAIM of the TD's root page: only once it has no other page."""
        if self.key:
            return k.TDX_OPERAND_INVALID
        return k.TDX_TD_ASSOCIATED_PAGES_EXIST if self.assigned else k.TDX_SUCCESS
