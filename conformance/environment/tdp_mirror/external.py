"""The hooks of the external tree: what the MMU tells it, and when it may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.frozen import FrozenEntries, Key
from conformance.environment.tdp_mirror.gfns import hex_of, natural
from conformance.environment.tdp_mirror.guest_memory import GuestMemory
from conformance.environment.tdp_mirror.heap import Heap
from conformance.environment.tdp_mirror.meaning import Meaning
from conformance.environment.tdp_mirror.mirror import Mirror
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.module import Asked, TdxModule
from conformance.environment.tdp_mirror.secure_ept import SecureEpt, is_busy
from conformance.environment.tdp_mirror.tables import Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.vm import Vm
from conformance.environment.tdp_mirror.words import present
from conformance.model.tdp_mirror import Config
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import Profile
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.specs.tdp_mirror.constants import EBUSY, EIO
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment

_HOOK_CLAUSES = {
    "ext_link": c.LINK_ARGUMENTS,
    "ext_set": c.SET_ARGUMENTS,
    "ext_remove": c.REMOVAL_SEQUENCE,
    "ext_free": c.FREE_ARGUMENTS,
}
"""What a hook breaks that fails though the firmware had nothing against it."""


class ExternalTree(Simulator):
    """The kvm_x86_ops of external page tables: link, set, remove and free.

    Where the candidate makes the SEAMCALLs itself its own hooks are called, and judged by what they made of the
    firmware's answers; elsewhere a hook succeeds at once, or is refused as planned.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.NO_ALIAS_IN_CALLS,
        c.STALE_FAULT,
        c.MIRROR_4K_ONLY,
        c.BUILD_TOP_DOWN,
        c.FREEZE_EXTERNAL_PUBLISH,
        c.LOST_FREEZE,
        c.LINK_ARGUMENTS,
        c.SET_ARGUMENTS,
        c.PRESENT_NOT_SET_AGAIN,
        c.REMOVE_WRITE_LOCKED,
        c.REMOVE_ARGUMENTS,
        c.FREE_BOTTOM_UP,
        c.FREE_ARGUMENTS,
        c.REMOVAL_SEQUENCE,
        c.BUSY_RETRY_ONCE,
        c.BUSY_TO_EBUSY,
        c.HKID_ORDER,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "ext_link": (c.BUILD_TOP_DOWN, c.LINK_ARGUMENTS, c.PRESENT_NOT_SET_AGAIN),
        "ext_set": (c.BUILD_TOP_DOWN, c.SET_ARGUMENTS, c.PRESENT_NOT_SET_AGAIN),
        "ext_remove": (c.REMOVE_WRITE_LOCKED, c.REMOVE_ARGUMENTS, c.HKID_ORDER),
        "ext_free": (c.FREE_BOTTOM_UP, c.FREE_ARGUMENTS, c.HKID_ORDER),
    }

    def __init__(
        self,
        door: Environment,
        config: Config,
        profile: Profile,
        threads: Threads,
        mmu_lock: MmuLock,
        vm: Vm,
        tables: Tables,
        meaning: Meaning,
        frozen: FrozenEntries,
        mirror: Mirror,
        heap: Heap,
        guest_memory: GuestMemory,
        sept: SecureEpt,
        module: TdxModule,
    ) -> None:
        super().__init__(door)
        self.config = config
        self.profile = profile
        self.bits = config.direct_bits
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.vm = vm
        self.meaning = meaning
        self.tables = tables
        self.frozen = frozen
        self.mirror = mirror
        self.heap = heap
        self.guest_memory = guest_memory
        self.sept = sept
        self.module = module
        self.failed = threads.own(False)
        """Whether a hook failed in this operation."""
        self.kept: dict[tuple[int, int], int] = {}
        """Pages of tables that the TD did not give back, by level and gfn."""

    def _judge_new(self, what: str, gfn: int, level: int) -> Key:
        """What must hold before the external tree is told anything new: the key of the frozen entry."""
        me = self.threads.me
        natural(gfn, self.bits, what)
        self.frozen.may_map(what)
        if not self.mmu_lock.is_held(me):
            raise Violation(c.FREEZE_EXTERNAL_PUBLISH, f"{what}({gfn:#x}, level {level}) without mmu_lock")
        place = self.meaning.mirror_entry(gfn, level)
        if place is None:
            built = all(table in self.sept.tables for table in self.config.path(gfn, level))
            clause = c.FREEZE_EXTERNAL_PUBLISH if built else c.BUILD_TOP_DOWN
            raise Violation(clause, f"{what}({gfn:#x}, level {level}): the mirror has no such entry")
        key = (place[0].pa, place[1])
        owner, before = self.frozen.owners.get(key, (-1, place[0].read(place[1])))
        if self.frozen.lost[me] == key and owner != me:
            raise Violation(c.LOST_FREEZE, f"{what}({gfn:#x}, level {level}) though the entry could not be frozen")
        if present(before):
            raise Violation(c.PRESENT_NOT_SET_AGAIN, f"{what}({gfn:#x}, level {level}): the entry is present")
        if owner != me:
            raise Violation(c.FREEZE_EXTERNAL_PUBLISH, f"{what}({gfn:#x}, level {level}): the entry is not frozen")
        if key in self.mirror.agreed:
            raise Violation(c.FREEZE_EXTERNAL_PUBLISH, f"{what}({gfn:#x}, level {level}) twice for one entry")
        for table in self.config.path(gfn, level):
            if table not in self.sept.tables:
                raise Violation(
                    c.BUILD_TOP_DOWN, f"{what}({gfn:#x}, level {level}): the external tree lacks table {table}"
                )
        self.door.hold(c.LOST_FREEZE)
        return key

    # -- environment calls

    def ext_link(self, gfn: int, level: int, page: int) -> int:
        """Link an external page (TDP-060, 061, 065, 067)."""
        config = self.config
        if not 2 <= level <= config.levels or gfn & (config.cover(level) - 1):
            raise Violation(c.LINK_ARGUMENTS, f"ext_link({gfn:#x}, level {level}): not an entry of a table")
        if not self.heap.is_spare(page, k.EXTERNAL):
            raise Violation(c.LINK_ARGUMENTS, f"ext_link({gfn:#x}, level {level}): {page:#x} is no external page")
        key = self._judge_new("ext_link", gfn, level)
        child = self.tables.with_external(page)
        if child is None or (child.gfn, child.role & k.ROLE_LEVEL_MASK) != (gfn, level - 1):
            raise Violation(c.LINK_ARGUMENTS, f"ext_link({gfn:#x}, level {level}): the page belongs to another table")
        refusal = self._hook("ext_link", gfn, level, page) or self._adds(
            "ext_link", self.sept.sept_add, gfn, level, page
        )
        if refusal:
            return refusal
        if self.sept.tables.get((level - 1, gfn)) != page:
            raise Violation(c.BUILD_TOP_DOWN, f"ext_link({gfn:#x}, level {level}) -> 0, the firmware has no such table")
        self.heap.give_to_td(page)
        self.mirror.agree(key, 0)
        return 0

    def ext_set(self, gfn: int, level: int, pfn: int) -> int:
        """Map an external page (TDP-057, 060, 061, 066, 067)."""
        if level != 1:
            raise Violation(c.MIRROR_4K_ONLY, f"ext_set({gfn:#x}) at level {level}")
        key = self._judge_new("ext_set", gfn, level)
        wanted = self.guest_memory.page(gfn, True)
        if pfn != wanted:
            clause = c.STALE_FAULT if pfn in self.guest_memory.pages(gfn) else c.SET_ARGUMENTS
            raise Violation(clause, f"ext_set({gfn:#x}): page {pfn:#x}, gfn has {wanted:#x}")
        refusal = self._hook("ext_set", gfn, level, pfn) or self._adds("ext_set", self.sept.page_aug, gfn, level, pfn)
        if refusal:
            return refusal
        self.mirror.agree(key, pfn)
        return 0

    def ext_remove(self, gfn: int, level: int, pfn: int) -> int:
        """Unmap an external page (TDP-073, 075, 100)."""
        natural(gfn, self.bits, "ext_remove")
        if self.mmu_lock.writer != self.threads.me:
            raise Violation(c.REMOVE_WRITE_LOCKED, f"ext_remove({gfn:#x}) without the write lock")
        cleared = self.mirror.cleared.get(gfn)
        if level != 1 or cleared is None or cleared[0] != pfn:
            raise Violation(c.REMOVE_ARGUMENTS, f"ext_remove({gfn:#x}, level {level}, {pfn:#x}): no such leaf cleared")
        if not self.sept.key:
            raise Violation(c.HKID_ORDER, f"ext_remove({gfn:#x}) after the HKID was released")
        self.threads.tell_others("taken")
        try:
            refusal = self._hook("ext_remove", gfn, level, pfn)
        finally:
            self.mirror.told(gfn)
        if not refusal and not self.config.deep:
            self.sept.forget(gfn)
        return refusal

    def ext_free(self, gfn: int, level: int, page: int) -> int:
        """Take back an external table (TDP-076, 077, 078, 100)."""
        natural(gfn, self.bits, "ext_free")
        sept = self.sept
        if sept.key:
            raise Violation(c.HKID_ORDER, f"ext_free({gfn:#x}, level {level}) while the HKID is assigned")
        if self.mmu_lock.writer != self.threads.me:
            raise Violation(c.REMOVE_WRITE_LOCKED, f"ext_free({gfn:#x}) without the write lock")
        if self.kept.get((level, gfn)) == page:
            return -EIO  # asked once more, it is kept as before
        if sept.tables.get((level, gfn)) != page:
            raise Violation(c.FREE_ARGUMENTS, f"ext_free({gfn:#x}, level {level}, {page:#x}): no such table")
        if self.vm.bugged:
            end = gfn + self.config.cover(level + 1)
            for leaf in [leaf for leaf, _ in sept.leaves if gfn <= leaf < end]:
                sept.forget(leaf)
        if sept.below(gfn, level + 1):
            raise Violation(c.FREE_BOTTOM_UP, f"ext_free({gfn:#x}, level {level}): the table is not empty")
        refusal = self._hook("ext_free", gfn, level, page)
        if refusal:
            self.heap.withhold(page)
            self.vm.kill()
            self.kept[level, gfn] = page
            sept.tables.pop((level, gfn), None)
            return refusal
        if not self.config.deep:
            sept.reclaim(page)
        if (level, gfn) in sept.tables:
            raise Violation(c.FREE_ARGUMENTS, f"ext_free({gfn:#x}, level {level}) -> 0, the page was not reclaimed")
        self.heap.take_from_td(page)
        return 0

    # -- the hooks behind them

    def _hook(self, name: str, gfn: int, level: int, page: int) -> int:
        """The module behind the external tree: ours, or the candidate's own hooks."""
        refusal = (self._ask if self.config.deep else self._plan)(name, gfn, level, page)
        if refusal:
            self.failed[self.threads.me] = True
            if refusal != -EBUSY and not self.config.deep:
                self.vm.kill()  # where the hook is the candidate's, it is his to do, here or in whoever is told
        return refusal

    def _adds(self, name: str, leaf: Callable[..., int], *args: int) -> int:
        """Where no candidate asks the firmware, we do: what it refuses is broken for good."""
        if self.config.deep or not leaf(*args):
            return 0
        self.failed[self.threads.me] = True
        self.door.frame.given.setdefault(name, -EIO)
        self.vm.kill()
        return -EIO

    def _plan(self, name: str, *_: int) -> int:
        return self.door.refused(name)

    def _ask(self, name: str, gfn: int, level: int, page: int) -> int:
        """A candidate's hook, and whether it had a reason to fail."""
        door = self.door
        hook = getattr(door.driver, name.replace("ext_", "sept_"))
        asked = self.module.begin_hook()
        was_bugged = self.vm.bugged
        refusal = door.enter_int(hook, gfn, level, page)
        self.module.td_pages.judge_given()
        if refusal and not asked.excused and not self.config.early and not was_bugged:
            statuses = ", ".join(f"{call}: {status:#x}" for call, status in asked.refusals.items())
            raise Violation(
                _HOOK_CLAUSES[name], f"{name}({gfn:#x}, level {level}) -> {refusal}; {statuses or 'no call'}"
            )
        if name in ("ext_link", "ext_set") and (asked.refusals or asked.overcome):
            self._judge_addition(name, gfn, refusal, asked)
        if name == "ext_remove":
            self._judge_removal(gfn, refusal, was_bugged, asked)
        if refusal:
            door.frame.given.setdefault(name, refusal)
        elif door.frame.given.get(name) == -EBUSY:
            door.frame.overcome = {*door.frame.overcome, name}
        return refusal

    def _judge_addition(self, name: str, gfn: int, result: int, asked: Asked) -> None:
        """What a hook that adds made of the firmware's answers (TDP-099)."""
        require = self.door.require
        busy = all(is_busy(status) for status in asked.refusals.values())
        wanted = 0 if not asked.refusals else -EBUSY if busy else -EIO
        kicked = self.module.has_kicked()
        require(c.BUSY_TO_EBUSY, result == wanted, f"{name}({gfn:#x}): {result}, expected {wanted}")
        require(c.BUSY_TO_EBUSY, not (busy and kicked), f"{name}({gfn:#x}): vCPUs kicked on BUSY")

    def _judge_removal(self, gfn: int, result: int, was_bugged: bool, asked: Asked) -> None:
        """What a hook that removes made of the firmware's answers (TDP-097, 098)."""
        require = self.door.require
        if asked.failed:
            told = result == -EIO or (self.vm.bugged and not self.profile.premapped)
            require(c.BUSY_RETRY_ONCE, told, f"ext_remove({gfn:#x}) -> {result}, and the firmware kept the page")
        elif not was_bugged:
            require(
                c.BUSY_RETRY_ONCE if asked.refusals else c.REMOVAL_SEQUENCE,
                not result,
                f"ext_remove({gfn:#x}) -> {result}, refused: {hex_of(asked.refusals)}",
            )
            gone = not self.sept.state(gfn)
            require(c.REMOVAL_SEQUENCE, gone, f"ext_remove({gfn:#x}) -> {result}, the page is still there")
        dirty = self.module.unclean()
        require(c.REMOVAL_SEQUENCE, not dirty, f"ext_remove({gfn:#x}): pages not cleaned: {hex_of(dirty)}")
