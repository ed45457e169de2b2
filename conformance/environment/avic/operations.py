"""Operations as the harness performs them: on the candidate, and in the world around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import errorcode
from struct import Struct
from typing import TYPE_CHECKING, Any

from conformance.environment.avic.bitmaps import change, has, highest
from conformance.environment.avic.functions import helper, irqfds, route
from conformance.environment.avic.invariants import difference, resources, without_tables
from conformance.environment.avic.vcpus import Guest
from conformance.environment.avic.view import LVT_SEEN, registers
from conformance.model.avic import operations as s
from conformance.model.avic.apic import default_base, mode_of
from conformance.model.avic.ipi import icr_low
from conformance.model.avic.routing import X2APIC
from conformance.model.avic.setup import features
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_EOI,
    APIC_ICR,
    APIC_ICR2,
    APIC_ID,
    APIC_IRR,
    APIC_ISR,
    APIC_LDR,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_SELF_IPI,
    APIC_SPIV,
    APIC_TMR,
    APIC_TPR,
    BASE_AE,
    CLUSTER,
    EEXIST,
    EXIT_NOACCEL,
    FAULT_READS,
    FLAT,
    IPI_INVALID_PAGE,
    IPI_INVALID_VECTOR,
    LVT_MASKED,
    TRAP_WRITES,
    X2_ICR_RESERVED,
)
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.memory import Page
    from conformance.environment.avic.vcpus import Cpu
    from conformance.environment.avic.world import Avic

LAPIC_STATE = Struct("<256I")
"""Registers as KVM_SET_LAPIC takes them: one every 16 bytes, little endian."""
VISITING_CORE = 0x40
"""Core of the first vCPU that `Enter` loads for a short visit."""

# -- setup and lifecycle


def load_module(world: Avic, op: s.HwSetup) -> int:
    """Load the module; what it says it found must be what is there."""
    because = world.host.load(op)
    got = world.enter_int(
        world.driver.hw_setup,
        op.edx,
        op.ecx,
        int(op.npt),
        op.family,
        int(op.zen4),
        int(op.snp),
        int(op.hv_inuse_wr),
        op.avic,
        int(op.force),
        int(op.ipiv),
        world.config.next_tag,
    )
    wanted = features(world.host.found)
    for mask, clause in (
        (1, because),
        (2, c.X2AVIC_ALONE_IS_NOTHING),
        (4, c.NO_IPI_VIRTUALIZATION_ON_OLD_FAMILIES),
    ):
        world.require(clause, not (got ^ wanted) & mask, _told(got, wanted))
    world.require(c.HIGHEST_APIC_ID, got == wanted, _told(got, wanted))
    return got


def _told(got: int, wanted: int) -> str:
    """What hw_setup said, which is no error, and what is there, in words."""
    return f"hw_setup returned {_named(got)}, expected {_named(wanted)}"


def _named(value: int) -> str:
    if value < 0:
        return f"-{errorcode.get(-value, -value)}"
    names = [name for bit, name in enumerate(("AVIC", "x2AVIC", "IPI virtualization")) if value >> bit & 1]
    return f"{value:#x} ({', '.join(names)}, highest id {value >> 16})" if names else f"{value:#x} (no AVIC)"


def hw_setup(world: Avic, op: s.HwSetup) -> int:
    """Unload the module and load it on another host."""
    world.enter(world.driver.hw_unsetup)
    return load_module(world, op)


def hw_unsetup(world: Avic, _op: s.HwUnsetup) -> int:
    """Unload and load: no notifier may stay in between."""
    world.enter(world.driver.hw_unsetup)
    world.require(
        c.DESTROY_LEAVES_GALOG_FIRST, world.iommu.notifiers == 0, "a notifier is registered after module exit"
    )
    return load_module(world, world.host.loaded)


def vm_create(world: Avic, op: s.VmCreate) -> int:
    """Create a VM; when something later fails it is destroyed at once."""
    before = resources(world)
    result = world.enter_int(world.driver.vm_create, op.vm, int(op.irqchip), op.max_vcpu_ids)
    if result == 0 and not op.abandoned:
        guest = world.vcpus.vms[op.vm] = Guest(op.irqchip)
        if not world.host.found.avic or resources(world)[0] != before[0]:
            guest.room = [0, 0]
        if not world.host.found.avic:
            fresh = world.scheduler is not None or resources(world)[0] == before[0]
            world.require(c.OFF_MEANS_UNTOUCHED, fresh, "a page was allocated with AVIC off")
        return 0
    if result == 0:
        world.enter(world.driver.vm_destroy, op.vm)
    if world.scheduler is None:
        after = resources(world)
        world.require(c.FAILED_VM_LEAVES_NOTHING, before == after, f"left behind: {difference(before, after)}")
    return result


def vm_destroy(world: Avic, op: s.VmDestroy) -> int:
    """Destroy a VM and its vCPUs."""
    guest = world.vcpus.vms[op.vm]
    mine = world.vcpus.of(op.vm)
    world.wait_until("the vCPUs", lambda: not any(cpu.busy for cpu in mine))
    guest.closed = True
    world.enter(world.driver.vm_pre_destroy, op.vm)
    world.wait_until("deliveries", lambda: not world.iommu.delivering)
    guest.dying = True
    for cpu in world.vcpus.of(op.vm):
        if cpu.core >= 0:
            world.threads.leave_core(cpu)
        _free(world, cpu)
    world.enter(world.driver.vm_destroy, op.vm)
    del world.vcpus.vms[op.vm]
    if op.vm == 0:
        world.iommu.irtes.clear()
    if not world.vcpus.vms and world.threads.depth == 1:
        left = len(world.memory.pages) + len(world.memory.handles) + len(world.slots.slots)
        pages = [hex(address) for address in world.memory.pages]
        world.require(
            c.TABLES_FREED_ONCE,
            left == 0,
            f"left: pages {pages}, {len(world.memory.handles)} objects, {len(world.slots.slots)} memslots",
        )
    return 0


def _free(world: Avic, cpu: Cpu) -> None:
    cpu.leaving = True
    world.enter(world.driver.vcpu_free, cpu.handle)
    world.require(c.TABLES_FREED_ONCE, cpu.vmcb is None, f"vCPU {cpu.id} was freed without its VMCB")
    world.vcpus.delist(cpu)
    world.tables.forget(cpu)


def vm_tag(world: Avic, op: s.VmTag) -> int:
    """0 for a good tag, 1 for none though there are vCPUs, 2 for one that another VM has."""
    tags = {vm: world.enter_int(world.driver.vm_tag, vm) for vm in world.vcpus.vms}
    own = tags[op.vm]
    if own == 0:
        return int(world.host.found.avic and world.vcpus.vms[op.vm].irqchip and bool(world.vcpus.of(op.vm)))
    return 2 if any(vm != op.vm and tag == own for vm, tag in tags.items()) else 0


def vcpu_create(world: Avic, op: s.VcpuCreate) -> int:
    """Create a vCPU, with the VM's lock around the first half, and RESET it."""
    driver = world.driver
    vcpus = world.vcpus
    result = _precreate(world, op.vm)
    if result:
        return result
    cpu = vcpus.make(op.vm, op.id, default_base(op.id))
    before, regs = resources(world), _all_registers(world)
    result = world.enter_int(driver.vcpu_create, op.vm, cpu.handle, op.id)
    if result:
        cpu.alive = False
        if result == -EEXIST and world.scheduler is None and not world.frame.given:
            found = (op.vm, op.id) in vcpus.listed
            world.require(c.DUPLICATE_ID_REFUSED, found, f"id {op.id} was refused, which no vCPU of VM {op.vm} has")
        _require_unchanged(world, op, before)
        if world.scheduler is None:
            clause = c.DUPLICATE_ID_REFUSED if (op.vm, op.id) in vcpus.listed else c.OTHER_VCPUS_KEEP_REGISTERS
            world.require(clause, regs == _all_registers(world), "a creation that failed changed registers")
        return result
    other = vcpus.listed.get((op.vm, op.id))
    world.require(c.DUPLICATE_ID_REFUSED, other is None or other.leaving, f"vCPU {op.id} was created a second time")
    if other is None or other.leaving:
        vcpus.enlist(cpu)
    world.watch.changed = True
    cpu.busy += 1
    world.enter(driver.vcpu_reset, cpu.handle, 0)
    cpu.busy -= 1
    if op.abandoned:
        _free(world, cpu)
        _require_unchanged(world, op, before)
    vcpus.vms[op.vm].room = [0, 0]
    return result


def _precreate(world: Avic, vm: int) -> int:
    """The half of a creation that holds the VM's lock."""
    pages = len(world.memory.pages)
    world.locks.take_kvm(vm)
    try:
        return world.enter_int(world.driver.vm_precreate, vm)
    finally:
        world.locks.drop_kvm(vm)
        if len(world.memory.pages) != pages:
            world.vcpus.vms[vm].room = [0, 0]


def vcpu_free(world: Avic, op: s.VcpuFree) -> int:
    """Free one vCPU of a VM that lives on."""
    cpu = world.vcpus.named(op.id, op.vm)
    world.watch.changed = True
    _free(world, cpu)
    left = [irq for irq, irte in world.iommu.irtes.items() if irte.posted and irte.page not in world.tables.backing]
    world.require(c.OLD_VCPU_FORGETS_IRTE, not left, f"irqs {left} are posted to a vCPU that was freed")
    for irq in [irq for irq, (apic_id, _) in world.iommu.routes.items() if (op.vm, apic_id) == (0, op.id)]:
        world.iommu.routes[irq] = (-1, 0)
    return 0


def tags_pass(world: Avic, op: s.TagsPass) -> int:
    """Move the generator of tags, where the driver lets us."""
    move = world.threads.member("tags_pass")
    if move is not None:
        world.enter(move, op.next)
    return 0


def _all_registers(world: Avic) -> list[tuple[int, ...] | None]:
    return [registers(world, cpu) for cpu in world.vcpus.order]


def _require_unchanged(world: Avic, op: s.VcpuCreate, before: tuple[Any, ...]) -> None:
    """What a creation that came to nothing leaves; another thread's work is not told apart."""
    if world.scheduler is not None:
        return
    after = resources(world)
    after = without_tables(before, after, world.vcpus.vms[op.vm].room)
    clause = c.FAILED_CREATE_LEAVES_NOTHING
    if not op.abandoned and (op.vm, op.id) in world.vcpus.listed:
        clause = c.DUPLICATE_ID_REFUSED
    world.require(clause, before == after, f"changed by a creation that failed: {difference(before, after)}")


def vcpu_reset(world: Avic, op: s.VcpuReset) -> int:
    """RESET or INIT."""
    cpu = world.vcpus.named(op.id)
    if not op.init:
        cpu.base = default_base(op.id)
    cpu.events = 0
    world.watch.changed = True
    world.enter(world.driver.vcpu_reset, cpu.handle, int(op.init))
    return 0


def vmcb_reinit(world: Avic, op: s.VmcbReinit) -> int:
    """The VMCB's content is lost; the driver rebuilds it."""
    cpu = world.vcpus.named(op.id)
    vmcb = cpu.vmcb
    assert vmcb is not None
    vmcb.fields.clear()
    vmcb.clean = 0
    vmcb.cr8, vmcb.rebuilt = True, vmcb.cached is not None
    world.enter(world.driver.vmcb_reinit, cpu.handle)
    world.watch.changed = True
    return 0


def visit(world: Avic, op: s.Enter) -> int:
    """Load where there is something to load, VMRUN, write TPR, exit, put."""
    cpu = world.vcpus.named(op.id, op.vm)
    load, put = world.threads.member("vcpu_load"), world.threads.member("vcpu_put")
    cpu.core = VISITING_CORE + world.vcpus.order.index(cpu)
    if load is not None:
        world.threads.arrive(cpu)
    cpu.events = 0
    world.threads.reenter(cpu)
    vmcb = cpu.vmcb
    assert vmcb is not None
    active = int(vmcb.is_avic)
    page = world.tables.backing_page(cpu)
    if op.tpr >= 0 and page is not None and cpu.base >> BASE_AE & 1:
        _write_tpr(world, cpu, page, op.tpr)
    cpu.in_guest = False
    if put is not None:
        world.enter(put, cpu.handle)
    cpu.last_core, cpu.core = cpu.core, -1
    return active


def _write_tpr(world: Avic, cpu: Cpu, page: Page, value: int) -> None:
    if world.processor.is_open(cpu, APIC_TPR) or world.threads.member("apic_access") is None:
        world.processor.write_tpr(cpu, page, value)
    else:
        world.threads.access(cpu, (APIC_TPR, value))


# -- user space and memory


def set_lapic(world: Avic, op: s.SetLapic) -> int:
    """KVM_SET_LAPIC."""
    cpu = world.vcpus.named(op.id)
    x2 = mode_of(cpu.base) == X2APIC
    words = [0] * 256
    words[APIC_ID >> 2] = (op.id if x2 or op.xid < 0 else op.xid) << 24 & 0xFFFFFFFF
    words[APIC_TPR >> 2] = op.tpr & 0xFF
    words[APIC_LDR >> 2] = (op.ldr & 0xFF) << 24
    words[APIC_DFR >> 2] = CLUSTER if op.cluster else FLAT
    words[APIC_SPIV >> 2] = op.spiv
    for offset in range(APIC_LVTT, APIC_LVTERR + 16, 16):
        words[offset >> 2] = LVT_MASKED
    for offset, value in s.RESTORED.items() if op.rest else ():
        words[offset >> 2] = value
    if op.irr >= 16:
        words[(APIC_IRR >> 2) + 4 * (op.irr >> 5)] |= 1 << (op.irr & 31)
    if op.isr >= 16:
        for bank in (APIC_ISR, APIC_TMR) if op.level else (APIC_ISR,):
            words[(bank >> 2) + 4 * (op.isr >> 5)] |= 1 << (op.isr & 31)
    world.watch.changed = True
    result = world.enter_int(world.driver.set_lapic, cpu.handle, LAPIC_STATE.pack(*words))
    if world.threads.deliverable(cpu):
        cpu.woken = True
    return result


def get_lapic(world: Avic, op: s.GetLapic) -> int:
    """KVM_GET_LAPIC, one register of it."""
    cpu = world.vcpus.named(op.id)
    image = world.enter(world.driver.get_lapic, cpu.handle)
    if not isinstance(image, bytes) or len(image) != 1024:
        raise Violation(
            c.ENTRY_POINTS_RETURN, f"get_lapic returned {world.text_of(image)}, expected 1024 bytes", "type"
        )
    value = int.from_bytes(image[op.offset : op.offset + 4], "little")
    return value & LVT_SEEN if APIC_LVTT <= op.offset <= APIC_LVTERR else value


def hwapic_update(world: Avic, op: s.HwapicUpdate) -> int:
    """The common code's reports."""
    cpu = world.vcpus.named(op.id)
    world.enter(world.driver.hwapic_irr_update, cpu.handle, op.irr)
    world.enter(world.driver.hwapic_isr_update, cpu.handle, op.isr)
    return 0


def memory_pressure(world: Avic, _op: s.MemoryPressure) -> int:
    """Unreferenced guest pages move."""
    world.slots.move_unreferenced()
    return 0


def store(world: Avic, op: s.GuestStore | s.UserStore) -> int:
    """Scribble over the memory behind a guest frame, if there is any."""
    page = world.slots.guest_page(0, (APIC_BASE >> 12) + op.page)
    if page is not None:
        page.set(APIC_TPR >> 2, 0xA5)
    return 0


def set_apic_base(world: Avic, op: s.SetApicBase) -> int:
    """Write APIC_BASE."""
    cpu = world.vcpus.named(op.id)
    was_in = cpu.in_guest
    cpu.in_guest = False
    before = cpu.base
    cpu.base = op.value
    result = world.enter_int(world.driver.set_apic_base, cpu.handle, op.value, int(op.host))
    if result:
        cpu.base = before
    world.watch.changed = True
    if was_in:
        world.threads.resume(cpu)
    return result


# -- scheduling


def load(world: Avic, op: s.Load) -> int:
    """The scheduler gives the vCPU's thread a core."""
    cpu = world.vcpus.named(op.id)
    cpu.core = op.host_id
    world.threads.arrive(cpu)
    return 0


def put(world: Avic, op: s.Put) -> int:
    """The scheduler takes it away."""
    world.threads.leave_core(world.vcpus.named(op.id))
    return 0


def leave_guest(world: Avic, op: s.Exit) -> int:
    """Out of the guest."""
    world.vcpus.named(op.id).in_guest = False
    return 0


def block(world: Avic, op: s.Block) -> int:
    """The vCPU sleeps unless the driver finds an interrupt."""
    cpu = world.vcpus.named(op.id)
    cpu.blocking, cpu.woken = True, False
    result = world.enter_int(world.driver.vcpu_blocking, cpu.handle)
    cpu.blocking = False
    if result == 0:
        cpu.asleep = True
    else:
        cpu.woken = False
        world.enter(world.driver.vcpu_unblocking, cpu.handle)
    return result


def unblock(world: Avic, op: s.Unblock) -> int:
    """A sleeper wakes for a reason of its own."""
    cpu = world.vcpus.named(op.id)
    if not cpu.asleep:
        return 0  # somebody was quicker
    cpu.asleep = False
    world.enter(world.driver.vcpu_unblocking, cpu.handle)
    return 0


def vm_run(world: Avic, op: s.VmRun) -> int:
    """Into the guest."""
    cpu = world.vcpus.named(op.id)
    cpu.events = 0
    world.threads.reenter(cpu)
    return 0


# -- what a guest does


def guest_ipi(world: Avic, op: s.GuestIpi) -> int:
    """Write ICR: by hardware where it may, by the intercept otherwise."""
    cpu = world.vcpus.named(op.id)
    x2 = mode_of(cpu.base) == X2APIC
    low = icr_low(op)
    high = op.dest if x2 else (op.dest & 0xFF) << 24
    page = world.tables.backing_page(cpu)
    if page is None or not world.processor.is_open(cpu, APIC_ICR):
        if x2:
            return world.threads.access(cpu, (APIC_ICR, high << 32 | low))
        return world.threads.access(cpu, (APIC_ICR2, high), (APIC_ICR, low))
    if x2 and low & X2_ICR_RESERVED:
        return 1
    _send(world, cpu, page, low, high, op.defer)
    return 0


def _send(world: Avic, cpu: Cpu, page: Page, low: int, high: int, defer: bool) -> None:
    ipi = world.processor.send(cpu, page, low, high)
    if ipi.info is None:
        return
    if defer:
        cpu.in_guest = False
        cpu.exit = ipi.info
    else:
        world.threads.handle(cpu, ipi.info)


def handle_exit(world: Avic, op: s.HandleExit) -> int:
    """The deferred handler."""
    cpu = world.vcpus.named(op.id)
    exit_ = cpu.exit
    cpu.exit = None
    if exit_ is not None:
        world.threads.handle(cpu, exit_)
    else:  # hardware needed no help after all
        world.threads.resume(cpu)
    return 0


def guest_self_ipi(world: Avic, op: s.GuestSelfIpi) -> int:
    """SELF_IPI."""
    cpu = world.vcpus.named(op.id)
    page = world.tables.backing_page(cpu)
    if page is None or not world.processor.is_open(cpu, APIC_SELF_IPI):
        return world.threads.access(cpu, (APIC_SELF_IPI, op.value))
    if op.value >> 8:
        return 1
    kept = page.words[APIC_ICR >> 2], page.words[APIC_ICR2 >> 2]
    if op.value >= 16:
        _send(world, cpu, page, op.value | 1 << 18, 0, defer=False)
    page.set(APIC_ICR >> 2, kept[0])
    page.set(APIC_ICR2 >> 2, kept[1])
    return 0


def guest_write(world: Avic, op: s.GuestWrite) -> int:
    """A register write of any class (APM table 15-22)."""
    cpu = world.vcpus.named(op.id)
    page = world.tables.backing_page(cpu)
    world.tables.before = world.tables.logical_entries()
    if page is None or not world.processor.is_open(cpu, op.offset):
        return world.threads.access(cpu, (op.offset, op.value))
    if op.offset == APIC_TPR:
        _write_tpr(world, cpu, page, op.value)
        return 0
    if mode_of(cpu.base) == X2APIC:
        return world.threads.access(cpu, (op.offset, op.value))
    if op.offset in TRAP_WRITES:
        page.set(op.offset >> 2, op.value & 0xFFFFFFFF)
        world.watch.changed = True
    world.threads.handle(cpu, (EXIT_NOACCEL, 1 << 32 | op.offset & 0xFF0, 0))
    return 0


def guest_read(world: Avic, op: s.GuestRead) -> int:
    """A register read: from the page, or a fault."""
    cpu = world.vcpus.named(op.id)
    if world.processor.is_open(cpu, op.offset) and (op.offset in FAULT_READS or op.offset >= 0x400):
        world.threads.handle(cpu, (EXIT_NOACCEL, op.offset & 0xFF0, 0))
    return 0


def guest_eoi(world: Avic, op: s.GuestEoi) -> int:
    """EOI: accelerated for an edge, an exit for a level."""
    cpu = world.vcpus.named(op.id)
    page = world.tables.backing_page(cpu)
    if page is None or not world.processor.is_open(cpu, APIC_EOI):
        return world.threads.access(cpu, (APIC_EOI, 0))
    vector = highest(page, APIC_ISR)
    if vector < 0:
        return 0
    if not has(page, APIC_TMR, vector):
        change(page, APIC_ISR, vector, on=False)
        world.processor.look(cpu)
        return 0
    if world.config.eoi_cleared:
        change(page, APIC_ISR, vector, on=False)
    world.threads.handle(cpu, (EXIT_NOACCEL, 1 << 32 | APIC_EOI, vector))
    return 0


def raw_ipi_exit(world: Avic, op: s.RawIpiExit) -> int:
    """An IPI exit with any content."""
    identifier = op.info2 >> 32
    reported = identifier == IPI_INVALID_PAGE or identifier > IPI_INVALID_VECTOR  # no guest can cause it
    return _raw(world, op, world.driver.incomplete_ipi_exit, world.enter_int if reported else world.threads.quietly)


def raw_noaccel(world: Avic, op: s.RawNoaccel) -> int:
    """A NOACCEL exit with any content."""
    return _raw(world, op, world.driver.noaccel_exit, world.enter_int)


def _raw(world: Avic, op: s.RawIpiExit | s.RawNoaccel, handler: Callable[..., int], enter: Callable[..., int]) -> int:
    cpu = world.vcpus.named(op.id)
    cpu.in_guest = False
    result = enter(handler, cpu.handle, op.info1, op.info2)
    world.threads.resume(cpu)
    return result


# -- host and devices


def deliver(world: Avic, op: s.Deliver) -> int:
    """An interrupt from the host's side."""
    world.enter(world.driver.deliver, world.vcpus.named(op.id).handle, op.vector, int(op.level))
    return 0


def inhibit(world: Avic, op: s.Inhibit) -> int:
    """Somebody sets or clears a reason."""
    world.enter(world.driver.inhibit, 0, op.reason, int(op.on))
    return 0


def update_irte(world: Avic, op: s.UpdateIrte) -> int:
    """Route a device interrupt."""
    handle = -1 if op.id < 0 else world.vcpus.named(op.id).handle
    world.iommu.routes[op.irq] = (op.id, op.vector)
    return world.enter_int(world.driver.update_irte, op.irq, handle, op.vector)


def iommu_post(world: Avic, op: s.IommuPost) -> int:
    """The device raises its interrupt."""
    irte = world.iommu.irtes.get(op.irq)
    world.iommu.was_posted = irte is not None and irte.posted
    if irte is None or not irte.posted:  # in host mode the host takes it and delivers it itself
        return _deliver_in_host_mode(world, op)
    page = world.memory.pages.get(irte.page)
    if page is None:
        raise Violation(c.BACKING_PAGE_STAYS, f"irq {op.irq} is posted to the freed page {irte.page:#x}")
    change(page, APIC_IRR, irte.vector, on=True)
    if irte.cpu >= 0:
        world.processor.doorbell(irte.cpu)
    elif irte.log and world.iommu.notifiers:
        world.enter_int(world.driver.ga_log_notify, irte.tag)
    return 0


def _deliver_in_host_mode(world: Avic, op: s.IommuPost) -> int:
    iommu, guest = world.iommu, world.vcpus.vms.get(0)
    apic_id, vector = iommu.routes.get(op.irq, (-1, 0))
    if guest is None or guest.closed:  # nobody takes it any more, but the log may still hold an entry of before
        if op.irq in iommu.logged and iommu.notifiers:
            world.enter_int(world.driver.ga_log_notify, iommu.logged[op.irq])
    elif apic_id >= 0:
        iommu.delivering += 1
        world.enter(world.driver.deliver, world.vcpus.named(apic_id).handle, vector, 0)
        iommu.delivering -= 1
    return 0


def ga_log(world: Avic, op: s.GaLogNotify) -> int:
    """A log entry with a tag that nobody has."""
    return world.enter_int(world.driver.ga_log_notify, op.tag)


OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    s.Route: route,
    s.SignalMsi: route,
    s.Irqfds: irqfds,
    s.HwSetup: hw_setup,
    s.HwUnsetup: hw_unsetup,
    s.VmCreate: vm_create,
    s.VmDestroy: vm_destroy,
    s.VmTag: vm_tag,
    s.VcpuCreate: vcpu_create,
    s.VcpuFree: vcpu_free,
    s.TagsPass: tags_pass,
    s.VcpuReset: vcpu_reset,
    s.VmcbReinit: vmcb_reinit,
    s.Enter: visit,
    s.SetLapic: set_lapic,
    s.GetLapic: get_lapic,
    s.HwapicUpdate: hwapic_update,
    s.MemoryPressure: memory_pressure,
    s.GuestStore: store,
    s.UserStore: store,
    s.SetApicBase: set_apic_base,
    s.Load: load,
    s.Put: put,
    s.Exit: leave_guest,
    s.Block: block,
    s.Unblock: unblock,
    s.VmRun: vm_run,
    s.GuestIpi: guest_ipi,
    s.GuestSelfIpi: guest_self_ipi,
    s.GuestWrite: guest_write,
    s.GuestRead: guest_read,
    s.GuestEoi: guest_eoi,
    s.HandleExit: handle_exit,
    s.RawIpiExit: raw_ipi_exit,
    s.RawNoaccel: raw_noaccel,
    s.Deliver: deliver,
    s.Inhibit: inhibit,
    s.UpdateIrte: update_irte,
    s.IommuPost: iommu_post,
    s.GaLogNotify: ga_log,
    s.HpaField: helper,
    s.LogicalIndex: helper,
    s.PhysIndex: helper,
    s.TagRoundTrip: helper,
    s.X2Ldr: helper,
    s.Ppr: helper,
}
"""What performs each operation."""
