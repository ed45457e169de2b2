"""An ICR write as the AVIC hardware performs it: it walks the driver's own tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conformance.environment.avic.bitmaps import change
from conformance.environment.avic.memory import Page
from conformance.environment.avic.vmcbs import Vmcb
from conformance.model.avic import Config
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_DFR,
    APIC_ICR,
    APIC_ICR2,
    APIC_IRR,
    APIC_SPIV,
    APIC_TMR,
    BROADCAST,
    ENTRY_RUNNING,
    ENTRY_VALID,
    EXIT_INCOMPLETE_IPI,
    ICR_BUSY,
    IPI_INVALID_PAGE,
    IPI_INVALID_TARGET,
    IPI_INVALID_TYPE,
    IPI_INVALID_VECTOR,
    IPI_NOT_RUNNING,
    LOGICAL_VALID,
    OTHERS,
    SELF,
    SPIV_ENABLE,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
    X2_BROADCAST,
)


@dataclass(slots=True)
class Ipi:
    """What came of an ICR write: doorbells to ring, and the exit if there is one."""

    doorbells: list[int]
    info: tuple[int, int, int] | None = None


def _target(pages: Mapping[int, Page], table: Page, index: int, limit: int) -> tuple[int, Page | None]:
    """Entry and backing page at a physical index; entry 0 where it is not valid."""
    if index > limit or 8 * index + 8 > 4 * len(table.words):
        return 0, None
    entry = table.read64(8 * index)
    if not entry >> ENTRY_VALID & 1:
        return 0, None
    return entry, pages.get(entry & ADDRESS_BITS)


def _named(
    vmcb: Vmcb, pages: Mapping[int, Page], page: Page, dest: int, logical: bool
) -> tuple[list[tuple[int, int]], int]:
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
    table = pages.get(vmcb.get(VMCB_LOGICAL_TABLE) & ADDRESS_BITS)
    targets = []
    for index in indices:
        entry = 0 if table is None or index >= 1024 else table.words[index]
        if not entry >> LOGICAL_VALID & 1:
            return [], index
        targets.append((entry & 0xFF, index))
    return targets, -1


def _everybody(pages: Mapping[int, Page], table: Page, limit: int, but: int) -> list[tuple[int, int]]:
    """The valid entries of the physical table, perhaps but for the sender's."""
    return [(i, i) for i in table.entries() if i <= limit and i != but and _target(pages, table, i, limit)[0]]


def send(
    vmcb: Vmcb,
    pages: Mapping[int, Page],
    page: Page,
    own: int,
    low: int,
    high: int,
    freedom: Config,
    stale: set[tuple[int, int]],
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
        if freedom.busy_sticky and identifier in (IPI_INVALID_TYPE, IPI_INVALID_TARGET):
            page.set(APIC_ICR >> 2, low | 1 << ICR_BUSY)
            return Ipi([], (EXIT_INCOMPLETE_IPI, info1 | 1 << ICR_BUSY, identifier << 32 | index))
        return Ipi([], (EXIT_INCOMPLETE_IPI, info1, identifier << 32 | index))

    if low >> 8 & 7 or low >> 15 & 1:
        return gives_up(IPI_INVALID_TARGET if freedom.nonfixed_is_invalid_target else IPI_INVALID_TYPE)
    if vector < 16:
        return gives_up(IPI_INVALID_VECTOR)
    if shorthand == SELF:
        return Ipi([-1] if _accepts(page, vector, freedom) else [])
    field_ = vmcb.get(VMCB_PHYSICAL_TABLE)
    limit = field_ & 0xFFF
    table = pages.get(field_ & ADDRESS_BITS)
    if table is None:
        return gives_up(IPI_INVALID_TARGET)
    x2 = vmcb.is_x2avic
    dest = high if x2 else high >> 24
    if shorthand or dest == (X2_BROADCAST if x2 else BROADCAST):
        targets = _everybody(pages, table, limit, but=own if shorthand == OTHERS else -1)
    else:
        targets, invalid = _named(vmcb, pages, page, dest, low >> 11 & 1 == 1)
        if invalid >= 0:
            return gives_up(IPI_INVALID_TARGET, invalid)
    found = []
    for index, reported in targets:
        entry, hit = _target(pages, table, index, limit)
        if not entry:
            return gives_up(IPI_INVALID_TARGET, reported)
        if hit is None:
            return gives_up(IPI_INVALID_PAGE, reported)
        found.append((entry, hit, reported, index))
    return _hit(table, found, vector, freedom, stale, info1)


def _accepts(page: Page, vector: int, freedom: Config) -> bool:
    """Set the IRR bit of a target; False where hardware skips it."""
    if freedom.checks_spiv and not page.words[APIC_SPIV >> 2] >> SPIV_ENABLE & 1:
        return False
    change(page, APIC_IRR, vector, True)
    if freedom.clears_tmr:
        change(page, APIC_TMR, vector, False)
    return True


def _hit(
    table: Page,
    found: list[tuple[int, Page, int, int]],
    vector: int,
    freedom: Config,
    stale: set[tuple[int, int]],
    info1: int,
) -> Ipi:
    """Set the IRR bits, ring, and exit if somebody does not run."""
    doorbells = []
    absent = []
    for entry, hit, reported, index in found:
        if not _accepts(hit, vector, freedom):
            continue
        if entry >> ENTRY_RUNNING & 1 or (freedom.stale_running and (table.address, index) in stale):
            doorbells.append(entry & 0xFFF)
        else:
            absent.append(reported)
    if absent:
        index = absent[-1 if freedom.last_index else 0]
        return Ipi(doorbells, (EXIT_INCOMPLETE_IPI, info1, IPI_NOT_RUNNING << 32 | index))
    return Ipi(doorbells)
