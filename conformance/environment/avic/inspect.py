"""Invariants of what the driver's bytes say, examined when a step is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conformance.environment.avic.hardware import CACHED, Cpu, Vmcb
from conformance.environment.avic.memory import Page
from conformance.model.avic.apic import mode_of
from conformance.model.avic.logical_ids import logical_index
from conformance.model.avic.routing import X2APIC, XAPIC
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_BASE,
    APIC_DFR,
    APIC_ID,
    APIC_LDR,
    BROADCAST,
    ENTRY_RUNNING,
    ENTRY_VALID,
    LOGICAL_VALID,
    VMCB_BACKING_PAGE,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
)
from conformance.specs.clause import Clause
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.calls import Calls

ACCESS_PAGE = (APIC_BASE >> 12, 1)
"""Guest frame and length of the memslot that an AVIC driver may keep for the life of a VM."""


def resources(env: Calls) -> tuple[Any, ...]:
    """What a failed creation must leave as it was; see `world._difference` for the names."""
    memory = env.memory
    slots = {key: value[:2] for key, value in memory.slots.items() if value[:2] != ACCESS_PAGE}
    pages = {address for address, page in memory.pages.items() if not page.guest}
    held = [(p.address, p.references, p.maps) for p in memory.pages.values() if p.references or p.maps]
    vmcbs = {cpu.handle: _pointed(cpu.vmcb) for cpu in env.cpus.values() if cpu.vmcb is not None}
    named = [memory.pages[a] for a in env.tables if a in memory.pages]
    tables = {page.address: {i: page.words[i] for i in page.live} for page in named if page.live}
    return pages, set(env.handles), slots, sorted(held), vmcbs, tables


def _pointed(vmcb: Vmcb) -> tuple[int, ...]:
    """What a VMCB points at: whether AVIC is active may change with the inhibits."""
    return tuple(vmcb.get(offset) & ADDRESS_BITS for offset in CACHED)


def logical_table(env: Calls, vm: int) -> Page | None:
    """The logical table of a VM, None while no VMCB names one."""
    for cpu in env.listed.values():
        if cpu.vm == vm and cpu.vmcb is not None:
            return env.memory.pages.get(cpu.vmcb.get(VMCB_LOGICAL_TABLE) & ADDRESS_BITS)
    return None


def inspect(env: Calls) -> None:
    """Examine every VM that has AVIC's structures."""
    if not env.known_host.avic:
        return
    seen: dict[int, int] = {}
    for vm, guest in env.vms.items():
        if not guest.irqchip:
            continue
        cpus = [cpu for cpu in env.listed.values() if cpu.vm == vm and cpu.vmcb is not None]
        if not cpus:
            continue
        _pointers(env, cpus, seen, vm)
        if guest.ran:
            table = _physical(env, cpus)
            if table is not None:
                _physical_entries(env, cpus, table)
            _logical(env, cpus)
        _access_page(env, cpus, vm)


def _pointers(env: Calls, cpus: list[Cpu], seen: dict[int, int], vm: int) -> None:
    """VMCB pointers: only address bits, live pages, one set of tables, one page each."""
    pages = env.memory.pages
    first: tuple[int, ...] | None = None
    for cpu in cpus:
        vmcb = cpu.vmcb
        assert vmcb is not None
        fields = (vmcb.get(VMCB_BACKING_PAGE), vmcb.get(VMCB_LOGICAL_TABLE), vmcb.get(VMCB_PHYSICAL_TABLE))
        if not any(f & ADDRESS_BITS for f in fields) and not vmcb.is_avic:
            if env.applies(c.POINTERS_VALID_WHILE_INHIBITED):
                raise Violation(c.POINTERS_VALID_WHILE_INHIBITED, f"vCPU {cpu.id}: the VMCB holds no AVIC pointers")
            continue
        limit = fields[2] & 0xFFF
        stray = [f & ~ADDRESS_BITS for f in (*fields[:2], fields[2] & ~0xFFF)]
        env.require(
            c.ONLY_ADDRESS_BITS_STORED, not any(stray), f"vCPU {cpu.id}: VMCB pointers {[hex(f) for f in fields]}"
        )
        if vmcb.is_avic:
            env.hold(c.POINTERS_VALID_WHILE_INHIBITED)
        for f, clause in zip(fields, (c.BACKING_PAGE_STAYS, c.TABLES_FREED_ONCE, c.TABLES_FREED_ONCE), strict=True):
            frame = f & ADDRESS_BITS
            if frame not in pages:
                gone = frame in env.memory.freed
                raise Violation(
                    clause if gone else c.ONLY_ADDRESS_BITS_STORED,
                    f"vCPU {cpu.id}: VMCB names {frame:#x}, {'which was freed or moved' if gone else 'no page'}",
                )
            env.require(c.TABLES_START_ZEROED, not pages[frame].is_poisoned(), f"page {frame:#x} was never cleared")
        env.hold(c.TABLES_FREED_ONCE)
        tables = (fields[1] & ADDRESS_BITS, fields[2] & ADDRESS_BITS)
        first = first or tables
        env.require(c.TABLES_BELONG_TO_ONE_VM, tables == first, f"vCPU {cpu.id} has other tables than its VM")
        own = fields[0] & ADDRESS_BITS
        owner = seen.setdefault(own, vm << 16 | cpu.id)
        env.require(c.BACKING_PAGE_STAYS, owner == vm << 16 | cpu.id, f"vCPU {cpu.id} shares its backing page")
        for frame in tables:
            owner = seen.setdefault(frame, -1 - vm)
            env.require(c.TABLES_BELONG_TO_ONE_VM, owner == -1 - vm, f"page {frame:#x} serves two VMs or two uses")
        if env.applies(c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS) and cpu.core >= 0 and not cpu.asleep:
            env.require(
                c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS,
                vmcb.is_avic or limit == 0,
                f"vCPU {cpu.id}: AVIC inactive with maximum index {limit}",
            )


def _physical(env: Calls, cpus: list[Cpu]) -> Page | None:
    vmcb = cpus[0].vmcb
    assert vmcb is not None
    return env.memory.pages.get(vmcb.get(VMCB_PHYSICAL_TABLE) & ADDRESS_BITS)


def _physical_entries(env: Calls, cpus: list[Cpu], table: Page) -> None:
    """One valid entry for each addressable vCPU, and nothing else (AVIC-026 to AVIC-028)."""
    by_id = {cpu.id: cpu for cpu in cpus}
    entries = table.entries()
    for index in entries:
        entry = table.read64(8 * index)
        if entry >> 52 & 0x3FF:
            raise Violation(c.ENTRY_RESERVED_BITS_ZERO, f"entry {index} is {entry:#018x}")
        if index >= BROADCAST and not env.known_host.x2avic:
            raise Violation(c.RESERVED_ENTRIES_ZERO, f"entry {index} is {entry:#018x}")
        cpu = by_id.get(index)
        own = 0 if cpu is None else _vmcb(cpu).get(VMCB_BACKING_PAGE) & ADDRESS_BITS
        if cpu is None or not entry >> ENTRY_VALID & 1 or entry & ADDRESS_BITS != own:
            clause = c.ENTRY_NAMES_BACKING_PAGE
            raise Violation(clause, f"entry {index} is {entry:#018x}, the vCPU's backing page {own:#x}")
        if entry >> ENTRY_RUNNING & 1 and not env.known_host.ipiv:
            clause = c.NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES
            if not env.applies(clause):
                clause = c.IS_RUNNING_TELLS_THE_TRUTH
            raise Violation(clause, f"entry {index} says running without IPI virtualization")
    for clause in (c.ENTRY_RESERVED_BITS_ZERO, c.RESERVED_ENTRIES_ZERO, c.ENTRY_NAMES_BACKING_PAGE):
        env.hold(clause)
    if not env.known_host.ipiv:
        env.hold(c.NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES)
    _completeness(env, cpus, set(entries))


def _completeness(env: Calls, cpus: list[Cpu], valid: set[int]) -> None:
    limit = env.known_host.max_id
    for cpu in cpus:
        if cpu.id <= limit and cpu.id not in valid:
            raise Violation(c.ENTRY_NAMES_BACKING_PAGE, f"vCPU {cpu.id} has no entry in the physical table")
        vmcb = _vmcb(cpu)
        if not vmcb.is_avic:
            continue
        reach = vmcb.get(VMCB_PHYSICAL_TABLE) & 0xFFF
        most = limit if vmcb.is_x2avic else BROADCAST - 1
        largest = max((i for i in valid if i <= most), default=0)
        env.require(
            c.MAX_INDEX_IN_RANGE, reach >= largest, f"vCPU {cpu.id}: maximum index {reach} hides entry {largest}"
        )
        env.hold(c.HIGHEST_APIC_ID)


def _vmcb(cpu: Cpu) -> Vmcb:
    assert cpu.vmcb is not None
    return cpu.vmcb


def _logical(env: Calls, cpus: list[Cpu]) -> None:
    """Valid entries belong to who they say, while hardware may look (AVIC-038, AVIC-040)."""
    page = env.memory.pages.get(_vmcb(cpus[0]).get(VMCB_LOGICAL_TABLE) & ADDRESS_BITS)
    if page is None:
        return
    active = all(_vmcb(cpu).is_avic for cpu in cpus)
    for index in sorted(page.live):
        entry = page.words[index]
        if entry >> 8 & 0x7FFFFF:
            raise Violation(c.LOGICAL_RESERVED_BITS_ZERO, f"logical entry {index} is {entry:#010x}")
        if active and entry >> LOGICAL_VALID & 1 and not _maps(env, cpus, entry & 0xFF, index):
            raise Violation(
                _stale_clause(env), f"logical entry {index} names vCPU {entry & 0xFF}, whose LDR is another"
            )
    env.hold(c.LOGICAL_RESERVED_BITS_ZERO)
    if active:
        env.hold(c.NO_STALE_LOGICAL_ENTRY)


def _stale_clause(env: Calls) -> Clause:
    """What was just done says which rule about the table was forgotten."""
    return {
        "VcpuReset": c.RESET_REMOVES_LOGICAL_ENTRY,
        "SetLapic": c.RESTORE_SYNCS_LOGICAL_TABLE,
        "Inhibit": c.RESTORE_SYNCS_LOGICAL_TABLE,
    }.get(env.last, c.NO_STALE_LOGICAL_ENTRY)


def _maps(env: Calls, cpus: list[Cpu], apic_id: int, index: int) -> bool:
    """Whether the vCPU of that id is in xAPIC mode and its LDR and DFR have this index."""
    for cpu in cpus:
        page = env.backing_page(cpu)
        if cpu.id == apic_id and page is not None and mode_of(cpu.base) == XAPIC:
            words = page.words
            if words[APIC_ID >> 2] >> 24 != apic_id:
                return False
            return logical_index(words[APIC_LDR >> 2] >> 24, words[APIC_DFR >> 2]) == index
    return False


def _access_page(env: Calls, cpus: list[Cpu], vm: int) -> None:
    """MMIO must not reach a backing page of a vCPU in x2APIC mode without x2AVIC (AVIC-090)."""
    hybrid = [cpu for cpu in cpus if _vmcb(cpu).is_avic and not _vmcb(cpu).is_x2avic and mode_of(cpu.base) == X2APIC]
    if hybrid:
        mapped = env.memory.guest_page(vm, APIC_BASE >> 12) is not None
        env.require(c.X2APIC_REMOVES_ACCESS_PAGE, not mapped, f"vCPU {hybrid[0].id} is in x2APIC mode")
