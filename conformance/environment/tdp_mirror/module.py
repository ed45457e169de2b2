"""The TDX module: SEAMCALLs on the tree of the TD, and what a caller must make of their answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.gfns import natural
from conformance.environment.tdp_mirror.guests import Guests
from conformance.environment.tdp_mirror.secure_ept import SecureEpt, is_busy
from conformance.environment.tdp_mirror.td_pages import TdPages
from conformance.environment.tdp_mirror.threads import Threads
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Asked:
    """What an operation asked of the firmware, since the last hook began."""

    __slots__ = ("excused", "failed", "last", "overcome", "refusals")

    def __init__(self) -> None:
        self.last = ""
        """The last SEAMCALL, if the firmware refused it for a reason of its own."""
        self.begin()

    def begin(self) -> None:
        """Nothing was asked yet."""
        self.refusals: dict[str, int] = {}
        """Statuses of the SEAMCALLs that were refused, and not made again with success."""
        self.overcome = False
        """Whether one that was refused was made again with success."""
        self.failed = False
        """Whether a removal failed for good."""
        self.excused = False
        """Whether the firmware refused something for a reason of its own."""


class TdxModule(Simulator):
    """The firmware's door: it takes the locks of the tree for one call each, and tells a caller that comes second BUSY.

    What a call does to the tree is the business of `SecureEpt`. Refusals are planned, or come from the other thread.
    Not modelled: calls that are interrupted and resumed; the contents of pages.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.NO_ALIAS_IN_CALLS,
        c.MIRROR_4K_ONLY,
        c.MIRROR_NO_HUGE,
        c.REMOVAL_SEQUENCE,
        c.BUSY_RETRY_ONCE,
    )

    def __init__(
        self,
        door: Environment,
        threads: Threads,
        sept: SecureEpt,
        guests: Guests,
        td_pages: TdPages,
    ) -> None:
        super().__init__(door)
        self.bits = sept.config.direct_bits
        self.threads = threads
        self.sept = sept
        self.guests = guests
        self.td_pages = td_pages
        self.asked: list[Asked | None] = threads.own(None)
        """What each operation asked, once it did."""
        self.removal_failed = False
        """Whether the firmware did not let go of a page, once."""

    def begin_hook(self) -> Asked:
        """The kernel turns to the firmware: what it asks from now on belongs together."""
        me = self.threads.me
        self.guests.forget_kick(me)
        asked = self._asked(me)
        asked.begin()
        return asked

    def has_kicked(self) -> bool:
        """Whether the operation has kicked vCPUs out of the guest since its hook began, or since it tracked."""
        return self.guests.kicked[self.threads.me]

    def unclean(self) -> dict[int, set[str]]:
        """Pages that came back and are not cleaned yet, with what is missing."""
        return {pfn: missing for pfn, missing in self.td_pages.unclean.items() if missing}

    def _asked(self, me: int) -> Asked:
        asked = self.asked[me]
        if asked is None:
            asked = self.asked[me] = Asked()
        return asked

    def _gpa(self, gpa: int) -> int:
        gfn = gpa >> k.PAGE_SHIFT
        natural(gfn, self.bits, "SEAMCALL")
        return gfn

    def _seamcall(self, name: str, how: str, leaf: Callable[..., int], *args: int) -> int:
        """One call into the module: it holds its locks for a while, and others are busy meanwhile."""
        me = self.threads.me
        asked = self._asked(me)
        status = self.door.refused(name) or self.sept.acquire(me, how)
        if status:
            self.door.frame.given.setdefault(name, status)
            asked.excused = True
            asked.last = name
            return status
        asked.last = ""
        try:
            self.linger()
            return leaf(*args)
        finally:
            self.sept.release(me)

    def linger(self) -> None:
        """Another thread may run inside the module at the same time."""
        door = self.door
        if door.scheduler is not None and door.preempt is not None and not door.atomic:
            door.preempt("SEAMCALL")

    def accept(self, vcpu: int, gfn: int) -> int:
        """The guest: it holds the tree shared while the firmware works for it, and waits until it may."""
        me = self.threads.me
        self.guests.inside[me] = True
        who = -1 - vcpu
        status = self.sept.acquire(who, "shared")
        while is_busy(status):
            self.threads.cond_resched()
            status = self.sept.acquire(who, "shared")
        self.linger()
        status = self.sept.accept(gfn)
        self.sept.release(who)
        self.guests.inside[me] = False
        return status

    # -- environment calls that add to the tree

    def _adds(self, name: str, how: str, leaf: Callable[..., int], *args: int) -> int:
        """A call that adds to the tree; busy is the caller's business (TDP-099)."""
        status = self._seamcall(name, how, leaf, *args)
        asked = self._asked(self.threads.me)
        if status:
            asked.refusals[name] = status
        elif asked.refusals.pop(name, 0):
            asked.overcome = True
        return status

    def tdh_mem_sept_add(self, gpa: int, level: int, page: int) -> int:
        """Link an external page; the entry's table must be there and the entry free."""
        return self._adds("tdh_mem_sept_add", "shared", self.sept.sept_add, self._gpa(gpa), level + 1, page)

    def tdh_mem_page_add(self, gpa: int, pfn: int) -> int:
        """Add a page before finalize; nothing else may run in the TD."""
        gfn = self._gpa(gpa)
        self.td_pages.given_away(pfn)
        return self._adds("tdh_mem_page_add", "root", self.sept.page_add, gfn, pfn)

    def tdh_mem_page_aug(self, gpa: int, level: int, pfn: int) -> int:
        """Add a page to a runnable TD."""
        gfn = self._gpa(gpa)
        if level:
            raise Violation(c.MIRROR_4K_ONLY, f"TDH.MEM.PAGE.AUG of gfn {gfn:#x} at TDX level {level}")
        self.td_pages.given_away(pfn)
        return self._adds("tdh_mem_page_aug", "shared", self.sept.page_aug, gfn, level + 1, pfn)

    def tdh_mem_page_demote(self, gpa: int, level: int, page: int) -> int:
        """Split a huge leaf."""
        gfn = self._gpa(gpa)
        return self._adds("tdh_mem_page_demote", "exclusive", self.sept.page_demote, gfn, level + 1, page)

    def tdh_mem_page_promote(self, gpa: int, level: int) -> int:
        """Merge a table into a huge leaf, which no mirror can follow (TDP-058)."""
        gfn = self._gpa(gpa)
        status = self._adds("tdh_mem_page_promote", "exclusive", self.sept.page_promote, gfn, level + 1)
        if not status:
            raise Violation(c.MIRROR_NO_HUGE, f"TDH.MEM.PAGE.PROMOTE of gfn {gfn:#x}: a table becomes a huge leaf")
        return status

    # -- environment calls that take from it

    def _insists(self, name: str, how: str, leaf: Callable[..., int], *args: int) -> int:
        """A call that must succeed: busy once is met by keeping vCPUs out (TDP-098)."""
        me = self.threads.me
        asked = self._asked(me)
        if name in asked.refusals:
            self.door.require(
                c.BUSY_RETRY_ONCE,
                self.guests.kept_out and self.guests.kicked[me],
                f"{name} tried again without keeping vCPUs out",
            )
        status = self._seamcall(name, how, leaf, *args)
        if status and (name in asked.refusals or not is_busy(status)) and asked.last == name:
            self.door.frame.given.setdefault("sept_failed", 1)
            asked.failed = self.removal_failed = True
        if status:
            asked.refusals[name] = status
        return status

    def tdh_mem_range_block(self, gpa: int, level: int) -> int:
        """Block an entry; records the epoch."""
        return self._insists("tdh_mem_range_block", "exclusive", self.sept.range_block, self._gpa(gpa), level + 1)

    def tdh_mem_range_unblock(self, gpa: int, level: int) -> int:
        """Unblock an entry that was blocked and tracked."""
        return self._insists("tdh_mem_range_unblock", "exclusive", self.sept.range_unblock, self._gpa(gpa), level + 1)

    def tdh_mem_track(self) -> int:
        """A new epoch, unless a vCPU is still in the one before the last."""
        if not self.sept.runnable:
            raise Violation(c.REMOVAL_SEQUENCE, "TDH.MEM.TRACK before the TD is finalized")
        status = self._insists("tdh_mem_track", "none", self.sept.track)
        if not status:
            self.guests.forget_kick(self.threads.me)
        return status

    def _have_left(self, gfn: int) -> bool:
        """Whether vCPUs were kicked out since the last TRACK, or in a later epoch than the page was blocked in."""
        guests = self.guests
        return guests.kicked[self.threads.me] or guests.left > self.sept.blocked.get((gfn, 1), guests.left)

    def tdh_mem_page_remove(self, gpa: int, level: int) -> int:
        """Remove a page: blocked, and tracked if the TD runs (TDP-097)."""
        gfn = self._gpa(gpa)
        if self.sept.runnable and self.sept.state(gfn) and not self._have_left(gfn):
            raise Violation(c.REMOVAL_SEQUENCE, f"TDH.MEM.PAGE.REMOVE of gfn {gfn:#x} without kicking vCPUs out")
        pfn = self.sept.leaves.get((gfn, level + 1), 0)
        failed_before = self._asked(self.threads.me).failed
        status = self._insists("tdh_mem_page_remove", "shared", self.sept.page_remove, gfn, level + 1)
        out_of_order = status & k.TDX_STATUS_MASK in (k.TDX_GPA_RANGE_NOT_BLOCKED, k.TDX_TLB_TRACKING_NOT_DONE)
        if out_of_order and not failed_before:
            raise Violation(
                c.REMOVAL_SEQUENCE, f"TDH.MEM.PAGE.REMOVE of gfn {gfn:#x}, which is not blocked or not tracked yet"
            )
        if not status:
            self.td_pages.taken_out(pfn)
        return status

    def tdh_mem_sept_remove(self, gpa: int, level: int) -> int:
        """Remove an empty table."""
        return self._insists("tdh_mem_sept_remove", "exclusive", self.sept.sept_remove, self._gpa(gpa), level + 1)

    # -- environment calls at both ends of the TD's life

    def tdh_phymem_page_reclaim(self, page: int) -> int:
        """Reclaim a page of a TD without its key."""
        return self._seamcall("tdh_phymem_page_reclaim", "none", self.sept.reclaim, page)

    def tdh_mr_finalize(self) -> int:
        """The TD may run."""
        return self._seamcall("tdh_mr_finalize", "root", self._finalized)

    def _finalized(self) -> int:
        self.sept.runnable = True
        return k.TDX_SUCCESS
