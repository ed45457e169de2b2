"""The AVIC hardware: it walks the driver's own bytes."""

from __future__ import annotations

from dataclasses import dataclass, field

from conformance.environment.avic.memory import Memory, Page
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_DFR,
    APIC_ICR,
    APIC_ICR2,
    APIC_IRR,
    APIC_ISR,
    APIC_SPIV,
    APIC_TMR,
    BROADCAST,
    ENTRY_RUNNING,
    ENTRY_VALID,
    EXIT_INCOMPLETE_IPI,
    ICR_BUSY,
    INT_CTL_AVIC,
    INT_CTL_X2AVIC,
    IPI_INVALID_PAGE,
    IPI_INVALID_TARGET,
    IPI_INVALID_TYPE,
    IPI_INVALID_VECTOR,
    IPI_NOT_RUNNING,
    LOGICAL_VALID,
    OTHERS,
    SELF,
    SPIV_ENABLE,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
    X2_BROADCAST,
)

CACHED = (VMCB_APIC_BAR, VMCB_BACKING_PAGE, VMCB_LOGICAL_TABLE, VMCB_PHYSICAL_TABLE)
"""VMCB fields that hardware may keep while clean bit 11 is set."""


class Vmcb:
    """The control area of one VMCB, its permission map, and what hardware keeps of it."""

    __slots__ = ("cached", "clean", "cr8", "fields", "flush", "mode", "opened")

    def __init__(self) -> None:
        self.fields: dict[int, int] = {}
        self.clean = 0
        self.cached: tuple[int, ...] | None = None
        self.flush = False
        """A TLB flush was requested since the last VMRUN."""
        self.mode = 0
        """int_ctl bits 31:30 at the last VMRUN."""
        self.cr8 = True
        """CR8 writes are intercepted."""
        self.opened: set[tuple[int, int]] = set()
        """(MSR, 0 read or 1 write) that pass through."""

    def get(self, offset: int) -> int:
        """A field; 0 until it is written."""
        return self.fields.get(offset, 0)

    @property
    def is_avic(self) -> bool:
        """int_ctl bit 31."""
        return self.fields.get(VMCB_INT_CTL, 0) >> INT_CTL_AVIC & 1 == 1

    @property
    def is_x2avic(self) -> bool:
        """int_ctl bit 30."""
        return self.fields.get(VMCB_INT_CTL, 0) >> INT_CTL_X2AVIC & 1 == 1


@dataclass(slots=True, eq=False)
class Cpu:
    """One vCPU as the host's scheduler and the hardware see it."""

    vm: int
    id: int
    handle: int
    base: int
    vmcb: Vmcb | None = None
    core: int = -1
    last_core: int = -1
    asleep: bool = False
    in_guest: bool = False
    blocking: bool = False
    """Between vcpu_blocking and sleep."""
    woken: bool = False
    signalled: bool = False
    unblocked: bool = False
    """Woken while it had no core: vcpu_unblocking comes after the next load."""
    kicked: bool = False
    """Taken out of the guest, or on the way into it; it goes back once its requests are served."""
    entering: bool = False
    """On the way into the guest."""
    leaving: bool = False
    """Being freed, so that its id may be taken by another."""
    refresh: bool = False
    busy: int = 0
    alive: bool = True
    events: int = 0
    injected: int = -1
    exit: tuple[int, int, int] | None = None
    """A deferred exit: code, EXITINFO1, EXITINFO2."""
    log: list[int] = field(default_factory=list)


def highest(page: Page, offset: int) -> int:
    """Highest vector of the bitmap at `offset`, -1 when it is empty."""
    words, first = page.words, offset >> 2
    for n in range(7, -1, -1):
        word = words[first + 4 * n]
        if word:
            return 32 * n + word.bit_length() - 1
    return -1


def has(page: Page, offset: int, vector: int) -> bool:
    """Whether a bit of a bitmap is set."""
    return page.words[(offset >> 2) + 4 * (vector >> 5)] >> (vector & 31) & 1 == 1


def change(page: Page, offset: int, vector: int, on: bool) -> None:
    """Set or clear a bit of a bitmap, atomically as hardware does."""
    index, bit = (offset >> 2) + 4 * (vector >> 5), 1 << (vector & 31)
    word = page.words[index]
    page.set(index, word | bit if on else word & ~bit)


def evaluate(page: Page, v_tpr: int) -> int:
    """Deliver the highest vector of IRR if V_TPR and ISR allow it; the vector, or -1."""
    vector = highest(page, APIC_IRR)
    if vector < 0 or vector >> 4 <= max(v_tpr, highest(page, APIC_ISR) >> 4):
        return -1
    change(page, APIC_IRR, vector, False)
    change(page, APIC_ISR, vector, True)
    return vector


@dataclass(slots=True)
class Knobs:
    """What the manual leaves to the hardware."""

    busy_sticky: bool
    checks_spiv: bool
    clears_tmr: bool
    stale_running: bool
    last_index: bool
    nonfixed_is_invalid_target: bool


@dataclass(slots=True)
class Ipi:
    """What came of an ICR write: doorbells to ring, and the exit if there is one."""

    doorbells: list[int]
    info: tuple[int, int, int] | None = None


def _target(memory: Memory, table: Page, index: int, limit: int) -> tuple[int, Page | None]:
    """Entry and backing page at a physical index; entry 0 where it is not valid."""
    if index > limit or 8 * index + 8 > 4 * len(table.words):
        return 0, None
    entry = table.read64(8 * index)
    if not entry >> ENTRY_VALID & 1:
        return 0, None
    return entry, memory.pages.get(entry & ADDRESS_BITS)


def _named(vmcb: Vmcb, memory: Memory, page: Page, dest: int, logical: bool) -> tuple[list[tuple[int, int]], int]:
    """(physical index, index to report) of each directed target, and a logical index that is invalid or -1."""
    if not logical:
        return [(dest, dest)], -1
    if vmcb.is_x2avic:
        first = dest >> 16 << 4
        return [(first + b, first + b) for b in range(16) if dest >> b & 1], -1
    if page.words[APIC_DFR >> 2] >> 28 & 0xF == 0xF:
        indices = [b for b in range(8) if dest >> b & 1]
    else:
        indices = [4 * (dest >> 4) + b for b in range(4) if dest >> b & 1]
    table = memory.pages.get(vmcb.get(VMCB_LOGICAL_TABLE) & ADDRESS_BITS)
    targets = []
    for index in indices:
        entry = 0 if table is None or index >= 1024 else table.words[index]
        if not entry >> LOGICAL_VALID & 1:
            return [], index
        targets.append((entry & 0xFF, index))
    return targets, -1


def send(
    vmcb: Vmcb, memory: Memory, page: Page, own: int, low: int, high: int, knobs: Knobs, stale: set[tuple[int, int]]
) -> Ipi:
    """Perform an ICR write (APM 15.29.6.1).

    A directed IPI with any invalid target exits before it sets a single IRR bit; targets that do
    not run get their bit and the exit names one of them. `own` is the sender's physical id.
    """
    low &= ~(1 << ICR_BUSY)
    page.set(APIC_ICR >> 2, low)
    page.set(APIC_ICR2 >> 2, high)
    info1 = high << 32 | low
    vector, shorthand = low & 0xFF, low >> 18 & 3

    def gives_up(identifier: int, index: int = 0) -> Ipi:
        if knobs.busy_sticky and identifier in (IPI_INVALID_TYPE, IPI_INVALID_TARGET):
            page.set(APIC_ICR >> 2, low | 1 << ICR_BUSY)
        return Ipi([], (EXIT_INCOMPLETE_IPI, info1, identifier << 32 | index))

    if low >> 8 & 7 or low >> 15 & 1:
        return gives_up(IPI_INVALID_TARGET if knobs.nonfixed_is_invalid_target else IPI_INVALID_TYPE)
    if vector < 16:
        return gives_up(IPI_INVALID_VECTOR)
    if shorthand == SELF:
        if knobs.checks_spiv and not page.words[APIC_SPIV >> 2] >> SPIV_ENABLE & 1:
            return Ipi([])
        change(page, APIC_IRR, vector, True)
        if knobs.clears_tmr:
            change(page, APIC_TMR, vector, False)
        return Ipi([-1])
    x2 = vmcb.is_x2avic
    dest = high if x2 else high >> 24
    field_ = vmcb.get(VMCB_PHYSICAL_TABLE)
    limit = field_ & 0xFFF
    table = memory.pages.get(field_ & ADDRESS_BITS)
    if table is None:
        return gives_up(IPI_INVALID_TARGET)
    targets: list[tuple[int, int]]
    if shorthand or dest == (X2_BROADCAST if x2 else BROADCAST):
        targets = [(i, i) for i in table.entries() if i <= limit and not (shorthand == OTHERS and i == own)]
        targets = [(i, i) for i, _ in targets if _target(memory, table, i, limit)[0]]
    else:
        targets, invalid = _named(vmcb, memory, page, dest, low >> 11 & 1 == 1)
        if invalid >= 0:
            return gives_up(IPI_INVALID_TARGET, invalid)
    found = []
    for index, reported in targets:
        entry, hit = _target(memory, table, index, limit)
        if not entry:
            return gives_up(IPI_INVALID_TARGET, reported)
        if hit is None:
            return gives_up(IPI_INVALID_PAGE, reported)
        found.append((entry, hit, reported, index))
    return _hit(table, found, vector, knobs, stale, info1)


def _hit(
    table: Page,
    found: list[tuple[int, Page, int, int]],
    vector: int,
    knobs: Knobs,
    stale: set[tuple[int, int]],
    info1: int,
) -> Ipi:
    """Set the IRR bits, ring, and exit if somebody does not run."""
    doorbells = []
    absent = []
    for entry, hit, reported, index in found:
        if knobs.checks_spiv and not hit.words[APIC_SPIV >> 2] >> SPIV_ENABLE & 1:
            continue
        change(hit, APIC_IRR, vector, True)
        if knobs.clears_tmr:
            change(hit, APIC_TMR, vector, False)
        if entry >> ENTRY_RUNNING & 1 or (knobs.stale_running and (table.address, index) in stale):
            doorbells.append(entry & 0xFFF)
        else:
            absent.append(reported)
    if absent:
        index = absent[-1 if knobs.last_index else 0]
        return Ipi(doorbells, (EXIT_INCOMPLETE_IPI, info1, IPI_NOT_RUNNING << 32 | index))
    return Ipi(doorbells)
