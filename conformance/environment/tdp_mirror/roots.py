"""The list of roots, and their references."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.groups import ZAPPING
from conformance.environment.tdp_mirror.heap import Heap
from conformance.environment.tdp_mirror.links import Links
from conformance.environment.tdp_mirror.mmu_lock import MmuLock
from conformance.environment.tdp_mirror.pages_lock import PagesLock
from conformance.environment.tdp_mirror.tables import Page, Tables
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.vcpus import Vcpus
from conformance.environment.tdp_mirror.words import is_leaf, present
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror import constants as k
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


_NOTED = 1 << k.ACCESSED | 1 << k.DIRTY


class Roots(Simulator):
    """The roots of the VM, in the order listed: direct and mirror, valid and invalid.

    Keeps `refs`, `listed` and `invalid` of pages. Not modelled: overflow of counts.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.ROOT_KIND_FIXED,
        c.ONE_ROOT_PER_ROLE,
        c.MIRROR_BEFORE_DIRECT,
        c.ROOT_REFERENCES,
        c.DESTROY_PUTS_MIRROR,
        c.ONE_MIRROR_ROOT,
        c.INVALIDATE_WRITE_LOCK,
        c.ZAP_WHOLE_ROOT,
        c.SCHEDULED_ONCE,
        c.FREED_AFTER_GRACE,
        c.ROOT_WITHOUT_EXTERNAL,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "role_invalidate": (c.INVALIDATE_WRITE_LOCK,),
        "roots_del": (c.FREED_AFTER_GRACE,),
        "roots_add": (c.ROOT_KIND_FIXED, c.ONE_ROOT_PER_ROLE, c.ROOT_WITHOUT_EXTERNAL),
    }

    def __init__(
        self,
        door: Environment,
        config: Config,
        threads: Threads,
        mmu_lock: MmuLock,
        pages_lock: PagesLock,
        vcpus: Vcpus,
        tables: Tables,
        heap: Heap,
        links: Links,
    ) -> None:
        super().__init__(door)
        self.config = config
        self.threads = threads
        self.mmu_lock = mmu_lock
        self.pages_lock = pages_lock
        self.vcpus = vcpus
        self.tables = tables
        self.heap = heap
        self.links = links
        self.listed: list[Page] = []

    def digest(self) -> Hashable:
        """Accessed and dirty leaves of direct roots, which the hardware marks and nobody is told of."""
        tables = self.tables
        return tuple(
            frozenset(
                (tables.gfn(table, index), entry & _NOTED)
                for table, index, entry in tables.walk(root)
                if is_leaf(entry, table.level)
            )
            for root in self.listed
            if not root.is_mirror
        )

    def valid(self, *, mirror: bool) -> Page | None:
        """The valid root of a kind."""
        return next((root for root in self.listed if root.is_mirror == mirror and not root.invalid), None)

    # -- environment calls: references

    def refcount_set(self, page: int, count: int) -> None:
        """Set a count."""
        self.tables.of(page).refs = count

    def refcount_inc_not_zero(self, page: int) -> int:
        """Take a reference unless there is none."""
        table = self.tables.of(page)
        if table.refs <= 0:
            return 0
        table.refs += 1
        return 1

    def refcount_dec_and_test(self, page: int) -> int:
        """Put a reference."""
        table = self.tables.of(page)
        op = type(self.threads.op)
        if table.refs <= 0:
            raise Violation(c.ROOT_REFERENCES, f"reference of root {page:#x} put once too often")
        if op is ops.VcpuDestroy and table.is_mirror and not self.mmu_lock.is_held(self.threads.me):
            raise Violation(c.DESTROY_PUTS_MIRROR, f"reference of mirror root {page:#x} put without mmu_lock")
        if table.invalid and op in ZAPPING and self.door.scheduler is None:
            if table.refs <= self._still_needed(table) and any(present(e) for e in table.entries.values()):
                self._judge_zapped(page)
        table.refs -= 1
        return int(table.refs == 0)

    def _judge_zapped(self, page: int) -> None:
        """The MMU's reference to a root that still maps something is put: before it is zapped, or a part of it."""
        if any(name == "pt_read" and args[0] == page for name, args, _ in self.door.frame.log):
            raise Violation(c.ZAP_WHOLE_ROOT, f"root {page:#x} is given up, and entries of it are left")
        raise Violation(c.SCHEDULED_ONCE, f"the MMU's reference to root {page:#x} is put before it is zapped")

    def _still_needed(self, table: Page) -> int:
        """References to an invalid root while it is being zapped: the MMU's, the iterator's and the vCPUs'."""
        return 2 + self.vcpus.users(table.pa)

    # -- environment calls: the list

    def roots_add(self, page: int) -> None:
        """List a root (TDP-023, 037, 041)."""
        table = self.tables.of(page)
        if self.pages_lock.holder != self.threads.me:
            raise Violation(c.ONE_ROOT_PER_ROLE, "a root is listed without pages_lock")
        if table.external:
            raise Violation(c.ROOT_WITHOUT_EXTERNAL, f"root {page:#x} has the external page {table.external:#x}")
        if table.role < 0 or table.role & k.ROLE_LEVEL_MASK != self.config.levels:
            raise Violation(c.ROOT_KIND_FIXED, f"root {page:#x} has role {table.role:#x}")
        if table.is_mirror and not self.config.mirror:
            raise Violation(c.MIRROR_BEFORE_DIRECT, "a mirror root on a VM without mirrors")
        for other in self.listed:
            if not other.invalid and other.role == table.role and other.refs:
                raise Violation(c.ONE_ROOT_PER_ROLE, f"two valid roots of role {table.role:#x}")
        self.links.fresh(table)
        table.level, table.root, table.raw = self.config.levels, table, 0
        table.linked = table.listed = True
        self.listed.append(table)
        self.tables.version += 1
        self.heap.take(table.pa, table.header)

    def roots_del(self, page: int) -> None:
        """Unlist a root (TDP-034)."""
        table = self.tables.of(page)
        holder = self.pages_lock.holder
        if holder != self.threads.me or not table.listed or table.refs:
            raise Violation(
                c.FREED_AFTER_GRACE,
                f"root {page:#x} unlisted with {table.refs} references, pages_lock held by {holder}",
            )
        self.listed.remove(table)
        table.listed = table.linked = False
        table.removed = True
        self.tables.version += 1

    def role_invalidate(self, page: int) -> None:
        """Mark a root invalid (TDP-029, 031)."""
        table = self.tables.of(page)
        ending = type(self.threads.op) is ops.VmUninit
        if self.mmu_lock.writer != self.threads.me and not ending:
            raise Violation(c.INVALIDATE_WRITE_LOCK, f"root {page:#x} invalidated without the write lock")
        if table.is_mirror and not ending:
            raise Violation(c.ONE_MIRROR_ROOT, f"mirror root {page:#x} invalidated")
        if not ending:
            self.vcpus.must_be_told()
            self.threads.count_for_others("invalidated")
        table.invalid = True
        table.role |= 1 << k.ROLE_INVALID
        self.tables.version += 1
