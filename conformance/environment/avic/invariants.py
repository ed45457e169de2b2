"""Invariants: what the driver's bytes say at the end of a step, whichever it was; and what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from conformance.environment.avic.memory import Page
from conformance.environment.avic.vcpus import Cpu
from conformance.environment.avic.vmcbs import CACHED, Vmcb
from conformance.model.avic.apic import mode_of
from conformance.model.avic.logical_ids import logical_index
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC
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
    from conformance.environment.avic.world import Avic

ACCESS_PAGE = (APIC_BASE >> 12, 1)
"""Guest frame and length of the memslot that an AVIC driver may keep for the life of a VM."""


def resources(world: Avic) -> tuple[Any, ...]:
    """What a failed creation must leave as it was; see `difference` for the names."""
    memory = world.memory
    slots = {key: value[:2] for key, value in world.slots.slots.items() if value[:2] != ACCESS_PAGE}
    pages = {address for address, page in memory.pages.items() if not page.guest}
    held = [(p.address, p.references, p.maps) for p in memory.pages.values() if p.references or p.maps]
    vmcbs = {cpu.handle: _pointed(cpu.vmcb) for cpu in world.vcpus.cpus.values() if cpu.vmcb is not None}
    named = [memory.pages[a] for a in world.tables.physical if a in memory.pages]
    tables = {page.address: {i: page.words[i] for i in page.live} for page in named if page.live}
    return pages, set(world.memory.handles), slots, sorted(held), vmcbs, tables


def without_tables(before: tuple[Any, ...], after: tuple[Any, ...], room: list[int]) -> tuple[Any, ...]:
    """`after` without what there is room for: a VM's tables, which a creation that fails may leave to the next."""
    kept = list(after)
    for n in (0, 1):
        more = after[n] - before[n]
        if len(more) <= room[n]:
            room[n] -= len(more)
            kept[n] = after[n] - more
    return tuple(kept)


def difference(before: tuple[Any, ...], after: tuple[Any, ...]) -> str:
    """Names of the resources that differ."""
    names = ("pages", "objects", "memslots", "references and mappings", "VMCBs", "table entries")
    return ", ".join(n for n, a, b in zip(names, before, after, strict=True) if a != b) or "nothing"


def _pointed(vmcb: Vmcb) -> tuple[int, ...]:
    """What a VMCB points at: whether AVIC is active may change with the inhibits."""
    return tuple(vmcb.get(offset) & ADDRESS_BITS for offset in CACHED)


def inspect(world: Avic) -> None:
    """Examine every VM that has AVIC's structures."""
    if not world.host.found.avic:
        return
    seen: dict[int, int] = {}
    for vm, guest in world.vcpus.vms.items():
        if not guest.irqchip:
            continue
        cpus = [cpu for cpu in world.vcpus.order if cpu.vm == vm and cpu.vmcb is not None]
        if not cpus:
            continue
        _pointers(world, cpus, seen, vm)
        if guest.ran:
            table = _physical(world, cpus)
            if table is not None:
                _physical_entries(world, cpus, table)
            _logical(world, cpus)
        _access_page(world, cpus, vm)


def _pointers(world: Avic, cpus: list[Cpu], seen: dict[int, int], vm: int) -> None:
    """VMCB pointers: only address bits, live pages, one set of tables, one page each."""
    pages = world.memory.pages
    first: tuple[int, ...] | None = None
    for cpu in cpus:
        vmcb = cpu.vmcb
        assert vmcb is not None
        fields = (vmcb.get(VMCB_BACKING_PAGE), vmcb.get(VMCB_LOGICAL_TABLE), vmcb.get(VMCB_PHYSICAL_TABLE))
        if not any(f & ADDRESS_BITS for f in fields) and not vmcb.is_avic:
            if world.host.applies(c.POINTERS_VALID_WHILE_INHIBITED):
                raise Violation(c.POINTERS_VALID_WHILE_INHIBITED, f"vCPU {cpu.id}: the VMCB holds no AVIC pointers")
            continue
        limit = fields[2] & 0xFFF
        if fields[0] & ~ADDRESS_BITS or fields[1] & ~ADDRESS_BITS or fields[2] & ~0xFFF & ~ADDRESS_BITS:
            raise Violation(c.ONLY_ADDRESS_BITS_STORED, f"vCPU {cpu.id}: VMCB pointers {[hex(f) for f in fields]}")
        world.hold(c.ONLY_ADDRESS_BITS_STORED)
        if vmcb.is_avic:
            world.hold(c.POINTERS_VALID_WHILE_INHIBITED)
        for f, clause in zip(fields, (c.BACKING_PAGE_STAYS, c.TABLES_FREED_ONCE, c.TABLES_FREED_ONCE), strict=True):
            frame = f & ADDRESS_BITS
            if frame not in pages:
                gone = frame in world.memory.freed
                raise Violation(
                    clause if gone else c.ONLY_ADDRESS_BITS_STORED,
                    f"vCPU {cpu.id}: VMCB names {frame:#x}, {'which was freed or moved' if gone else 'no page'}",
                )
            if pages[frame].is_poisoned():
                raise Violation(c.TABLES_START_ZEROED, f"page {frame:#x} was never cleared")
            world.hold(c.TABLES_START_ZEROED)
        world.hold(c.TABLES_FREED_ONCE)
        tables = (fields[1] & ADDRESS_BITS, fields[2] & ADDRESS_BITS)
        first = first or tables
        world.require(c.TABLES_BELONG_TO_ONE_VM, tables == first, f"vCPU {cpu.id} has other tables than its VM")
        own = fields[0] & ADDRESS_BITS
        owner = seen.setdefault(own, vm << 16 | cpu.id)
        world.require(c.BACKING_PAGE_STAYS, owner == vm << 16 | cpu.id, f"vCPU {cpu.id} shares its backing page")
        for frame in tables:
            owner = seen.setdefault(frame, -1 - vm)
            world.require(c.TABLES_BELONG_TO_ONE_VM, owner == -1 - vm, f"page {frame:#x} serves two VMs or two uses")
        if world.host.applies(c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS) and cpu.in_guest:
            world.require(
                c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS,
                vmcb.is_avic or limit == 0,
                f"vCPU {cpu.id}: AVIC inactive with maximum index {limit}",
            )


def _physical(world: Avic, cpus: list[Cpu]) -> Page | None:
    vmcb = cpus[0].vmcb
    assert vmcb is not None
    return world.memory.pages.get(vmcb.get(VMCB_PHYSICAL_TABLE) & ADDRESS_BITS)


def _physical_entries(world: Avic, cpus: list[Cpu], table: Page) -> None:
    """One valid entry for each addressable vCPU, and nothing else (AVIC-026 to AVIC-028)."""
    by_id = {cpu.id: cpu for cpu in cpus}
    entries = table.entries()
    for index in entries:
        entry = table.read64(8 * index)
        if entry >> 52 & 0x3FF:
            raise Violation(c.ENTRY_RESERVED_BITS_ZERO, f"entry {index} is {entry:#018x}")
        if index >= BROADCAST and not world.host.found.x2avic:
            raise Violation(c.RESERVED_ENTRIES_ZERO, f"entry {index} is {entry:#018x}")
        cpu = by_id.get(index)
        own = 0 if cpu is None else _vmcb(cpu).get(VMCB_BACKING_PAGE) & ADDRESS_BITS
        if cpu is None or not entry >> ENTRY_VALID & 1 or entry & ADDRESS_BITS != own:
            clause = c.ENTRY_NAMES_BACKING_PAGE
            raise Violation(clause, f"entry {index} is {entry:#018x}, the vCPU's backing page {own:#x}")
        if entry >> ENTRY_RUNNING & 1 and not world.host.found.ipiv:
            clause = c.NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES
            if not world.host.applies(clause):
                clause = c.IS_RUNNING_TELLS_THE_TRUTH
            raise Violation(clause, f"entry {index} says running without IPI virtualization")
    for clause in (c.ENTRY_RESERVED_BITS_ZERO, c.RESERVED_ENTRIES_ZERO, c.ENTRY_NAMES_BACKING_PAGE):
        world.hold(clause)
    if not world.host.found.ipiv:
        world.hold(c.NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES)
    _completeness(world, cpus, table, set(entries))


def _completeness(world: Avic, cpus: list[Cpu], table: Page, valid: set[int]) -> None:
    limit = world.host.found.max_id
    for cpu in cpus:
        if cpu.id <= limit and cpu.id not in valid:
            raise Violation(c.ENTRY_NAMES_BACKING_PAGE, f"vCPU {cpu.id} has no entry in the physical table")
        vmcb = _vmcb(cpu)
        if not vmcb.is_avic:
            continue
        reach = vmcb.get(VMCB_PHYSICAL_TABLE) & 0xFFF
        room = 4 * len(table.words) // 8
        world.require(
            c.MAX_INDEX_IN_RANGE, reach < room, f"vCPU {cpu.id}: maximum index {reach} in a table of {room} entries"
        )
        most = limit if vmcb.is_x2avic else BROADCAST - 1
        largest = max((i for i in valid if i <= most), default=0)
        world.require(
            c.MAX_INDEX_IN_RANGE, reach >= largest, f"vCPU {cpu.id}: maximum index {reach} hides entry {largest}"
        )
        world.hold(c.HIGHEST_APIC_ID)


def _vmcb(cpu: Cpu) -> Vmcb:
    assert cpu.vmcb is not None
    return cpu.vmcb


def _logical(world: Avic, cpus: list[Cpu]) -> None:
    """Valid entries belong to who they say, while hardware may look (AVIC-038, AVIC-040).

    A vCPU whose APIC is disabled, or that will refresh before it enters, is inactive at its next VMRUN, whatever its
    VMCB says until then; and hardware looks only while some vCPU is in the guest. With a foreign id AVIC must not be
    active at all, which the controls show.
    """
    page = world.memory.pages.get(_vmcb(cpus[0]).get(VMCB_LOGICAL_TABLE) & ADDRESS_BITS)
    if page is None:
        return
    walked = any(cpu.in_guest for cpu in cpus)
    active = walked and not any(_is_foreign(world, cpu) for cpu in cpus)
    active = active and all(_vmcb(cpu).is_avic and mode_of(cpu.base) != DISABLED and not cpu.refresh for cpu in cpus)
    for index in sorted(page.live):
        entry = page.words[index]
        if entry >> 8 & 0x7FFFFF:
            raise Violation(c.LOGICAL_RESERVED_BITS_ZERO, f"logical entry {index} is {entry:#010x}")
        if active and entry >> LOGICAL_VALID & 1 and not _maps(world, cpus, entry & 0xFF, index):
            raise Violation(
                _stale_clause(world), f"logical entry {index} names vCPU {entry & 0xFF}, whose LDR is another"
            )
    world.hold(c.LOGICAL_RESERVED_BITS_ZERO)
    if active:
        world.hold(c.NO_STALE_LOGICAL_ENTRY)


def _is_foreign(world: Avic, cpu: Cpu) -> bool:
    """Whether the guest gave an xAPIC another id than its vCPU's."""
    page = world.tables.backing_page(cpu)
    return page is not None and mode_of(cpu.base) == XAPIC and page.words[APIC_ID >> 2] >> 24 != cpu.id & 0xFF


def _stale_clause(world: Avic) -> Clause:
    """What was just done says which rule about the table was forgotten."""
    return {
        "VcpuReset": c.RESET_REMOVES_LOGICAL_ENTRY,
        "SetLapic": c.RESTORE_SYNCS_LOGICAL_TABLE,
        "Inhibit": c.RESTORE_SYNCS_LOGICAL_TABLE,
    }.get(world.last, c.NO_STALE_LOGICAL_ENTRY)


def _maps(world: Avic, cpus: list[Cpu], apic_id: int, index: int) -> bool:
    """Whether the vCPU of that id is in xAPIC mode and its LDR and DFR have this index.

    An entry has no room for an id of more than eight bits; where nobody has the low eight bits for an id, they reach
    nobody, and the IPI exits.
    """
    own = [cpu for cpu in cpus if cpu.id == apic_id] or [cpu for cpu in cpus if cpu.id & 0xFF == apic_id]
    for cpu in own:
        page = world.tables.backing_page(cpu)
        if page is None or mode_of(cpu.base) != XAPIC or page.words[APIC_ID >> 2] >> 24 != apic_id:
            continue
        if logical_index(page.words[APIC_LDR >> 2] >> 24, page.words[APIC_DFR >> 2]) == index:
            return True
    return False


def _access_page(world: Avic, cpus: list[Cpu], vm: int) -> None:
    """MMIO must not reach a backing page of a vCPU in x2APIC mode without x2AVIC (AVIC-090)."""
    running = [cpu for cpu in cpus if cpu.in_guest and _vmcb(cpu).is_avic and not _vmcb(cpu).is_x2avic]
    hybrid = [cpu for cpu in running if mode_of(cpu.base) == X2APIC]  # outside the guest there is no MMIO
    if hybrid:
        mapped = world.slots.guest_page(vm, APIC_BASE >> 12) is not None
        world.require(c.X2APIC_REMOVES_ACCESS_PAGE, not mapped, f"vCPU {hybrid[0].id} is in x2APIC mode")


def tags_are_unique(world: Avic) -> None:
    """Each VM with vCPUs has a tag, and nobody else has it."""
    if not world.host.found.avic:
        return
    tags = {vm: world.enter_int(world.driver.vm_tag, vm) for vm, guest in world.vcpus.vms.items() if guest.irqchip}
    for vm, tag in tags.items():
        used = any(cpu.vm == vm for cpu in world.vcpus.order)
        detail = f"VM {vm} has tag {tag:#x}, the others {[hex(t) for v, t in tags.items() if v != vm]}"
        alone = all(other != tag for v, other in tags.items() if v != vm)
        world.require(c.VM_TAG_UNIQUE, (tag != 0 or not used) and (tag == 0 or alone), detail)
