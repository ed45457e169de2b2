"""GHCBs: the page through which a vCPU and its hypervisor talk."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.frames import Page, check_write
from conformance.environment.snp_guest_request.memslots import Memslots
from conformance.environment.snp_guest_request.taint import is_tainted
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.model.snp_guest_request.operations import VM_OF
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses as c
from conformance.specs.snp_guest_request.constants import (
    EFAULT,
    GHCB_RBX,
    GHCB_SW_EXITINFO1,
    GHCB_SW_EXITINFO2,
    PAGE_SIZE,
)
from conformance.verdict import Crash, Violation


class Ghcb:
    """A vCPU's GHCB as mapped, and what was fetched from it."""

    __slots__ = ("answered", "gpa", "mapped", "missing", "overlaid", "race", "raced", "registered", "supplied")

    def __init__(self) -> None:
        self.mapped: Page | None = None
        self.registered: Page | None = None
        """The page that the guest registered last."""
        self.gpa = 0
        """Where the guest left its last exit."""
        self.answered: dict[int, int] = {}
        """Offset -> what the hypervisor stored there since the exit."""
        self.missing = ""
        """Letters of the valid bits that the guest left clear."""
        self.overlaid = False
        """The guest has its response or its certificates put where a GHCB is: what it finds there is its own doing."""
        self.race: dict[int, int] = {}
        """Byte of the GHCB -> what the guest stores there once it was fetched."""
        self.raced: set[int] = set()
        """Bytes that the guest changed after they were fetched."""
        self.supplied: dict[int, int] = {}
        """Offset -> value of each register that the guest filled in."""


class Ghcbs(Simulator):
    """The GHCB of each vCPU, from VMGEXIT to the guest's entry; the guest may change it behind the hypervisor's back.

    Only bytes and their offsets: which fields there are, and which are valid, is between candidate and guest.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.GHCB_SNAPSHOT,
        c.NO_UNINITIALISED,
        c.NO_WRITE_TO_ASSIGNED,
        c.REFERENCES_DROPPED,
        c.ROBUST,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"ghcb_write": (c.NO_UNINITIALISED,)}

    def __init__(self, door: Environment, tasks: Tasks, memslots: Memslots) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.memslots = memslots
        self.refused = door.refused
        self.of_vcpu = [Ghcb() for _ in VM_OF]

    def ghcb_map(self, vcpu: int, gpa: int) -> int:
        page = self.memslots.page(VM_OF[vcpu], gpa, write=False)
        if page is None or gpa % PAGE_SIZE:
            return -EFAULT
        # What was mapped in this exit can be mapped again, to tell the guest its answer.
        refusal = 0 if self.tasks.current.entered else self.refused("ghcb_map")
        if refusal:
            return refusal
        self.tasks.current.entered = True
        self.of_vcpu[vcpu].mapped = page
        return 0

    def ghcb_read(self, vcpu: int, offset: int, size: int) -> int:
        page = self._mapped(vcpu)
        value = int.from_bytes(page.data[offset : offset + size], "little")
        ghcb = self.of_vcpu[vcpu]
        for at in [at for at in ghcb.race if offset <= at < offset + size]:
            page.data[at] = ghcb.race.pop(at)
            ghcb.raced.add(at)
            self.door.hold(c.GHCB_SNAPSHOT)
        return value

    def ghcb_write(self, vcpu: int, offset: int, value: int) -> int:
        page = self._mapped(vcpu)
        if not 0 <= value < 1 << 64:
            raise Crash(f"ghcb_write({offset:#x}): {value!r} is no 64-bit value", "type")
        if offset in (GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2):
            self.tasks.current.ghcb_written = True
        if offset in (GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2, GHCB_RBX) and is_tainted(value):
            raise Violation(c.NO_UNINITIALISED, f"GHCB field {offset:#x} is {value:#x}, bits that nobody wrote")
        check_write(page, "the GHCB")
        page.data[offset : offset + 8] = value.to_bytes(8, "little")
        self.of_vcpu[vcpu].answered[offset] = value
        self.of_vcpu[vcpu].raced -= set(range(offset, offset + 8))
        return 0

    def ghcb_unmap(self, vcpu: int) -> int:
        self.of_vcpu[vcpu].mapped = None
        return 0

    def _mapped(self, vcpu: int) -> Page:
        page = self.of_vcpu[vcpu].mapped
        if page is None:
            raise Violation(c.ROBUST, f"vCPU {vcpu} has no GHCB mapped")
        return page

    def register(self, vcpu: int, gpa: int) -> None:
        """The guest registers the page as a GHCB; what it registered before is none any more."""
        self.of_vcpu[vcpu].registered = self.memslots.own(VM_OF[vcpu], gpa)
        registered = [ghcb.registered for ghcb in self.of_vcpu]
        for page in self.memslots.mapped[VM_OF[vcpu]].values():
            page.is_ghcb = page in registered

    def judge_left(self, vcpu: int) -> None:
        """The guest is entered: its GHCB is mapped no more."""
        mapped = self.of_vcpu[vcpu].mapped
        self.door.require(c.REFERENCES_DROPPED, mapped is None, f"the GHCB of vCPU {vcpu} stays mapped")

    def forget(self, vm: int) -> None:
        """The VM's vCPUs are gone."""
        for vcpu, owner in enumerate(VM_OF):
            if owner == vm:
                self.of_vcpu[vcpu] = Ghcb()
