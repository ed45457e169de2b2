"""The pages behind gfns: from guest memory or from the host, and how a fault resolves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.gfns import ORIGIN, natural
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.secure_ept import SecureEpt
from conformance.environment.tdp_mirror.slots import Slots
from conformance.environment.tdp_mirror.td_pages import TdPages
from conformance.environment.tdp_mirror.threads import Threads
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.model.tdp_mirror.state import GMEM_SOURCES, Gfns, gfns_in_slots
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class GuestMemory(Simulator):
    """guest_memfd and the host's mappings: each has two pages for a gfn, and an invalidation moves it to the other.

    Not modelled: pages that are not there yet, other than by a planned refusal; contents.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.NO_ALIAS_IN_CALLS,
        c.SNAPSHOT_FIRST,
        c.NO_BACKING,
        c.BALANCED,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "gmem_get_pfn": (c.SNAPSHOT_FIRST, c.NO_ALIAS_IN_CALLS),
        "hva_get_pfn": (c.SNAPSHOT_FIRST, c.NO_ALIAS_IN_CALLS),
    }

    def __init__(
        self,
        door: Environment,
        config: Config,
        threads: Threads,
        mmu_lock: MmuLock,
        slots: Slots,
        sept: SecureEpt,
        td_pages: TdPages,
    ) -> None:
        super().__init__(door)
        self.config = config
        self.bits = config.direct_bits
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.slots = slots
        self.sept = sept
        self.td_pages = td_pages
        self.file_holder = -1
        """The thread that holds the lock of the file of guest memory, -1 for none."""
        self.moved = {"hva": Gfns(), "gmem": Gfns()}
        """gfns whose page is the second one, by where it comes from."""
        self.grabbed = threads.own(0)
        """References to guest pages that the operation holds."""
        self.phase = threads.own((0, 0))
        """1 after a snapshot of the invalidation sequence, 2 after attributes were read then; and the sections of
        mmu_lock for read that were over then, as the phase ends with the next one."""
        self.is_free = threads.own(False)
        """Whether the operation has a page that no lock keeps where it is."""
        self.is_late = threads.own(False)
        """Whether it has taken a snapshot since."""
        self.moving: list[tuple[str, int, int, Gfns] | None] = threads.own(None)
        """Pages that go back to the host as the operation's invalidations of them end; gfns whose have."""
        self.gone: list[tuple[str, Gfns]] = []
        """Pages that went back since mmu_lock was taken: gfns, by where they come from."""

    # -- where pages are

    def page(self, gfn: int, private: bool) -> int:
        """The page frame of a gfn now."""
        kind = "gmem" if private else "hva"
        return ORIGIN[kind + "'" * (gfn in self.moved[kind])] + gfn

    @staticmethod
    def pages(gfn: int) -> tuple[int, ...]:
        """Both pages of guest memory that a gfn has at some time."""
        return tuple(ORIGIN[name] + gfn for name in GMEM_SOURCES)

    def will_move(self, kind: str, start: int, end: int) -> None:
        """Pages go back to the host when the invalidation of this operation ends."""
        self.moving[self.threads.me] = (kind, start, end, Gfns())

    def move(self, first: int = 0, last: int = 2**64) -> Gfns:
        """Pages go back to the host at the end of the invalidation of [first, last), and the next ones are others."""
        me = self.threads.me
        moving = self.moving[me]
        if moving is None:
            return Gfns()
        kind, start, end, gone = moving
        lo, hi = max(start, first), min(end, last)
        self.moving[me] = None if (lo, hi) == (start, end) else (kind, start, end, gone.with_range(lo, hi, True))
        gfns = gfns_in_slots(tuple(self.slots.by_id.values()), kind, lo, hi)
        for before, after in gone.ranges():
            gfns = gfns.with_range(before, after, False)
        for (gfn, _), pfn in self.sept.leaves.items() if kind == "gmem" else ():
            if gfn in gfns and pfn == self.page(gfn, True):
                self.td_pages.go_back(pfn)
        self.moved[kind] ^= gfns
        if gfns.ranges():
            self.gone.append((kind, gfns))
        return gfns

    # -- the order in which a fault resolves its page

    def snapshot_taken(self, *, is_new: bool) -> None:
        """The invalidation sequence is read: what follows belongs to it, unless it says the same."""
        me = self.threads.me
        section = self.mmu_lock.reads[me]
        if is_new or self.phase[me][1] != section:
            self.phase[me] = (1, section)
        self.is_late[me] = self.is_free[me] and (is_new or self.is_late[me])

    def attributes_read(self) -> None:
        """Attributes are read; after a snapshot a page may be resolved now."""
        me = self.threads.me
        section = self.mmu_lock.reads[me]
        if self.phase[me] == (1, section):
            self.phase[me] = (2, section)

    def _may_grab(self, what: str, slot: int, gfn: int) -> None:
        """Pages are resolved outside mmu_lock, after a snapshot and the attributes (TDP-051).

        Or while a lock keeps them where they are: that of the file, or in the TD's beginning, which takes no
        snapshot, the one of the slots. Who maps nothing needs none either.
        """
        natural(gfn, self.bits, what)
        me = self.threads.me
        if not self.slots.has(slot, gfn):
            raise Violation(c.NO_BACKING, f"{what}: gfn {gfn:#x} is not in slot {slot}")
        if self.mmu_lock.is_held(me):
            raise Violation(c.SNAPSHOT_FIRST, f"{what} under mmu_lock")
        op = type(self.threads.op)
        if self.file_holder == me or op is ops.Faultin or (op is ops.InitRegion and self.slots.slots_lock.holder == me):
            return
        self.is_free[me], self.is_late[me] = True, False
        phase, section = self.phase[me]
        if section != self.mmu_lock.reads[me] or phase < (2 if self.config.private else 1):
            raise Violation(c.SNAPSHOT_FIRST, f"{what} before the invalidation sequence and the attributes are read")

    # -- environment calls

    def filemap_invalidate_lock(self) -> None:
        """The file's lock; not under mmu_lock."""
        me = self.threads.me
        if self.file_holder == me or self.mmu_lock.is_held(me):
            raise Violation(c.BALANCED, "the lock of the file taken twice, or under mmu_lock")
        if not self.door.wait_until("the lock of the file", lambda: self.file_holder < 0):
            raise Violation(c.BALANCED, "the lock of the file taken while it is held")
        self.file_holder = me

    def filemap_invalidate_unlock(self) -> None:
        """Release it."""
        if self.file_holder != self.threads.me:
            raise Violation(c.BALANCED, "the lock of the file released, not held")
        self.file_holder = -1

    def gmem_get_pfn(self, slot: int, gfn: int) -> int:
        """A page of guest memory."""
        self._may_grab("gmem_get_pfn", slot, gfn)
        refusal = self.door.refused("gmem_get_pfn")
        if refusal:
            return refusal
        self.grabbed[self.threads.me] += 1
        return self.page(gfn, True)

    def hva_get_pfn(self, slot: int, gfn: int, write: int) -> tuple[int, int, int]:
        """A page of the host."""
        self._may_grab("hva_get_pfn", slot, gfn)
        self.grabbed[self.threads.me] += 1
        writable = int(bool(write) or gfn not in self.config.readonly_gfns)
        return self.page(gfn, False), writable, self.max_mapping_level(slot, gfn)

    def max_mapping_level(self, slot: int, gfn: int) -> int:
        """2 where the pages of a block lie side by side."""
        config = self.config
        if not config.huge:
            return 1
        start = config.base(gfn, 2)
        moved = self.moved["hva"]
        return 2 if moved.has_all(start, start + config.cover(2), start in moved) else 1

    def pfn_release(self, pfn: int) -> None:
        """Put the reference."""
        me = self.threads.me
        if not self.grabbed[me]:
            raise Violation(c.BALANCED, f"pfn_release({pfn:#x}): no reference is held")
        self.grabbed[me] -= 1
        self.is_free[me] = self.is_late[me] = False
