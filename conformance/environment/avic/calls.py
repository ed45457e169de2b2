"""What a driver may call: the host kernel's side of the port."""

from __future__ import annotations

from typing import Any

from conformance.environment.avic.hardware import CACHED, Cpu, Knobs, Vmcb
from conformance.environment.avic.memory import Memory, Page
from conformance.environment.door import Environment
from conformance.model import avic as model
from conformance.model.avic.boot import setup_of
from conformance.model.avic.setup import detected
from conformance.model.avic.state import Host
from conformance.specs.avic import Profile
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_ISR,
    DOORBELL_MSR,
    EEXIST,
    ENOMEM,
    ENTRY_RUNNING,
    ENTRY_VALID,
    INT_CTL_AVIC,
    INT_CTL_X2AVIC,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_PHYSICAL_TABLE,
)
from conformance.verdict import Violation

BITMAPS_END = 0x280
"""ISR, TMR and IRR lie between 0x100 and here."""
SPINLOCKS = ("ir_list", "ga_hash")
RESETTING = ("VcpuCreate", "VcpuReset", "SetLapic", "SetApicBase")
"""Operations during which nothing else can reach the vCPU's bitmaps."""


LOGGING = ("IommuPost", "GaLogNotify")
"""Operations that report log entries."""


class Guest:
    """One VM as the host sees it."""

    __slots__ = ("closed", "dying", "irqchip", "ran")

    def __init__(self, irqchip: bool) -> None:
        self.irqchip = irqchip
        self.ran = False
        """Some vCPU was run, so hardware may walk its tables."""
        self.closed = False
        """No thread of its vCPUs exists any more."""
        self.dying = False


class Irte:
    """One interrupt remapping entry."""

    __slots__ = ("cpu", "log", "page", "posted", "returned", "tag", "vector")

    def __init__(self) -> None:
        self.posted = False
        self.returned = False
        """It was posted since it was routed, and is in host mode now."""
        self.page = self.vector = self.tag = 0
        self.cpu = -1
        self.log = 0


class Calls(Environment):
    """State of the simulated host, and the environment calls that work on it."""

    def __init__(self, config: model.Config, profile: Profile) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        self.memory = Memory(config.tagged)
        self.handles: set[int] = set()
        self.next_handle = 1
        self.cpus: dict[int, Cpu] = {}
        """By the handle that the driver knows."""
        self.listed: dict[tuple[int, int], Cpu] = {}
        """Created vCPUs, in the order of VM and id."""
        self.vms: dict[int, Guest] = {}
        self.irtes: dict[int, Irte] = {}
        self.logged: dict[int, int] = {}
        """Tag that each IRTE was last posted with: the log may hold it for a while after."""
        self.locks: dict[tuple[str, int], object] = {}
        self.notifiers = 0
        self.changed = False
        """Something an invariant speaks of may have changed since they were last examined."""
        self.stale: set[tuple[int, int]] = set()
        """(table, index) whose entry once said that its vCPU runs."""
        self.tables: set[int] = set()
        """Frames of physical tables that some VMCB names."""
        self.backing: dict[int, Cpu] = {}
        """Frames of backing pages that some VMCB names."""
        self.last = ""
        """Name of the outermost operation that just ended."""
        self.known_host: Host = detected(setup_of(config), profile)[0]
        self.knobs = Knobs(
            config.busy_sticky,
            config.checks_spiv,
            config.clears_tmr,
            config.stale_running,
            config.last_index,
            config.nonfixed_is_invalid_target,
        )

    # -- helpers

    def applies(self, clause: Any) -> bool:
        """Whether the profile holds candidates to this clause."""
        return not clause.profiles or self.profile.name in clause.profiles

    def cpu(self, vcpu: int) -> Cpu:
        """The vCPU a driver names."""
        cpu = self.cpus.get(vcpu)
        if cpu is None:
            raise Violation(c.ENTRY_POINTS_RETURN, f"there is no vCPU {vcpu!r}")
        return cpu

    def vmcb(self, vcpu: int) -> Vmcb:
        """The VMCB of a vCPU."""
        vmcb = self.cpu(vcpu).vmcb
        if vmcb is None:
            raise Violation(c.ACQUISITIONS_BALANCE, f"vCPU {vcpu:#x} has no VMCB")
        return vmcb

    def may_sleep(self, call: str) -> None:
        """Refuse calls that may sleep while a spinlock is held."""
        if self.atomic:
            raise Violation(c.NO_SLEEPING_WHILE_ATOMIC, f"{call} with a spinlock held")
        self.hold(c.NO_SLEEPING_WHILE_ATOMIC)

    def backing_page(self, cpu: Cpu) -> Page | None:
        """The page that the VMCB names as the vCPU's registers."""
        vmcb = cpu.vmcb
        if vmcb is None:
            return None
        address = vmcb.fields.get(VMCB_BACKING_PAGE, 0) & ADDRESS_BITS
        return self.memory.pages.get(address) if address else None

    # -- memory

    def alloc_page(self, order: int) -> int:
        """2**order pages with undefined content."""
        self.may_sleep("alloc_page")
        if self.refused("alloc_page"):
            return 0
        self.changed = True
        return self.memory.name(self.memory.allocate(order))

    def free_page(self, address: int) -> None:
        """Give pages back; twice is a violation."""
        page = self.memory.find(address)
        if page.guest:
            raise Violation(c.ACQUISITIONS_BALANCE, f"free_page({address:#x}): it belongs to a memslot")
        self.changed = True
        self.memory.free(page)

    def clear_page(self, address: int) -> None:
        """Fill with zeros."""
        self.memory.find(address).clear()
        self.changed = True

    def kzalloc(self, size: int) -> int:
        """Zeroed kernel memory."""
        self.may_sleep("kzalloc")
        if self.refused("kzalloc"):
            return 0
        handle = self.next_handle
        self.next_handle += 1
        self.handles.add(handle)
        return handle

    def kfree(self, handle: int) -> None:
        """Give kernel memory back; twice is a violation."""
        if handle not in self.handles:
            raise Violation(c.TABLES_FREED_ONCE, f"kfree({handle}): not allocated")
        self.handles.discard(handle)

    def alloc_vmcb(self, vcpu: int) -> int:
        """A zeroed VMCB."""
        self.may_sleep("alloc_vmcb")
        cpu = self.cpu(vcpu)
        if self.refused("alloc_vmcb"):
            return -ENOMEM
        cpu.vmcb = Vmcb()
        return 0

    def free_vmcb(self, vcpu: int) -> None:
        """Give the VMCB back."""
        self.vmcb(vcpu)
        cpu = self.cpu(vcpu)
        self.backing = {frame: owner for frame, owner in self.backing.items() if owner is not cpu}
        cpu.vmcb = None
        self.changed = True

    def set_memory_region(self, vm: int, slot: int, gpa: int, size: int) -> int:
        """Create or delete a private memslot."""
        self.may_sleep("set_memory_region")
        key = (vm, slot)
        if size and key in self.memory.slots:
            return -EEXIST
        refusal = self.refused("set_memory_region")
        if refusal:
            return refusal
        self.changed = True
        if size:
            self.memory.slots[key] = (gpa >> 12, size >> 12, {})
        elif key in self.memory.slots:
            self.memory.delete_slot(key)
        return 0

    def gfn_to_page(self, vm: int, gfn: int) -> int:
        """The page behind a guest frame, with a reference."""
        self.may_sleep("gfn_to_page")
        if self.refused("gfn_to_page"):
            return 0
        page = self.memory.guest_page(vm, gfn)
        if page is None:
            return 0
        page.references += 1
        return self.memory.name(page)

    def put_page(self, address: int) -> None:
        """Drop a reference."""
        page = self.memory.find(address)
        if page.references == 0:
            raise Violation(c.ACQUISITIONS_BALANCE, f"put_page({address:#x}): no reference is held")
        page.references -= 1

    def kmap(self, address: int) -> int:
        """Map a page."""
        self.memory.find(address).maps += 1
        return address

    def kunmap(self, address: int) -> None:
        """Undo kmap."""
        page = self.memory.find(address)
        if page.maps == 0:
            raise Violation(c.ACQUISITIONS_BALANCE, f"kunmap({address:#x}): not mapped")
        page.maps -= 1

    def _word(self, address: int, offset: int, width: int) -> Page:
        page = self.memory.find(address)
        if offset < 0 or offset + width > 4 * len(page.words):
            raise Violation(c.ANY_EXITINFO_TOLERATED, f"access at {offset:#x}, outside the page at {address:#x}")
        if offset % width:
            raise Violation(c.ENTRY_STORES_ARE_ATOMIC, f"access at {offset:#x} is not aligned to {width} bytes")
        return page

    def read32(self, address: int, offset: int) -> int:
        """One 32-bit load."""
        return self._word(address, offset, 4).words[offset >> 2]

    def read64(self, address: int, offset: int) -> int:
        """One 64-bit load."""
        return self._word(address, offset, 8).read64(offset)

    def write32(self, address: int, offset: int, value: int) -> None:
        """One 32-bit store; not on half a physical entry, nor on a live bitmap."""
        page = self._word(address, offset, 4)
        if page.address in self.tables:
            raise Violation(c.ENTRY_STORES_ARE_ATOMIC, f"32-bit store to half the physical entry {offset >> 3}")
        if APIC_ISR <= offset < BITMAPS_END and page.address in self.backing:
            self._plain_bitmap_store(page, offset)
        self.changed = True
        page.set(offset >> 2, value & 0xFFFFFFFF)

    def write64(self, address: int, offset: int, value: int) -> None:
        """One 64-bit store."""
        page = self._word(address, offset, 8)
        if page.address in self.tables:
            self._entry_store(page, offset >> 3, value)
        elif APIC_ISR <= offset < BITMAPS_END and page.address in self.backing:
            self._plain_bitmap_store(page, offset)
        self.changed = True
        page.write64(offset, value)

    def _plain_bitmap_store(self, page: Page, offset: int) -> None:
        """Hardware and the IOMMU set bits in these words at any time, but while the vCPU is being reset."""
        if self.frame.actor not in RESETTING:
            raise Violation(
                c.BITMAPS_CHANGE_ATOMICALLY, f"plain store to the bitmap word at {offset:#x} of {page.address:#x}"
            )

    def _entry_store(self, page: Page, index: int, value: int) -> None:
        """Hardware must never see IsRunning with a host id that is not the vCPU's core, nor a live entry gone."""
        old = page.read64(8 * index)
        if old >> ENTRY_VALID & 1 and not value >> ENTRY_VALID & 1:
            self._entry_gone(old & ADDRESS_BITS, index)
        if not value >> ENTRY_RUNNING & 1:
            return
        self.stale.add((page.address, index))
        owner = self.backing.get(value & ADDRESS_BITS)
        if owner is None or owner.core < 0:
            return
        host_id = value & 0xFFF
        if owner.core > 0xFFF:
            raise Violation(
                c.WIDE_HOST_ID_CHANGES_NOTHING, f"entry {index} says running on {host_id:#x}, not {owner.core:#x}"
            )
        if host_id == owner.core:
            self.hold(c.ENTRY_STORES_ARE_ATOMIC)
        elif host_id == owner.last_core & 0xFFF or host_id == 0:
            raise Violation(
                c.ENTRY_STORES_ARE_ATOMIC,
                f"entry {index} says running on core {host_id:#x}, but the vCPU is on {owner.core:#x}",
            )

    def _entry_gone(self, frame: int, index: int) -> None:
        """An invalid entry loses what is sent to everybody, so nobody may run then, unless its vCPU goes."""
        owner = self.backing.get(frame)
        if owner is None or owner.leaving or self.listed.get((owner.vm, owner.id)) is not owner:
            return
        walking = [cpu.id for cpu in self.listed.values() if cpu.vm == owner.vm and cpu.in_guest]
        if any(vmcb.is_avic for cpu in self.listed.values() if cpu.id in walking and (vmcb := cpu.vmcb) is not None):
            raise Violation(
                c.ENTRY_STORES_ARE_ATOMIC, f"entry {index} is invalid for a while, with vCPUs {walking} in the guest"
            )

    def or32(self, address: int, offset: int, bits: int) -> int:
        """Locked OR."""
        page = self._word(address, offset, 4)
        index = offset >> 2
        old = page.words[index]
        page.set(index, old | bits)
        if APIC_ISR <= offset < BITMAPS_END:
            self.hold(c.BITMAPS_CHANGE_ATOMICALLY)
        else:
            self.changed = True
        return old

    def and32(self, address: int, offset: int, bits: int) -> int:
        """Locked AND."""
        page = self._word(address, offset, 4)
        index = offset >> 2
        old = page.words[index]
        page.set(index, old & bits)
        if APIC_ISR <= offset < BITMAPS_END:
            self.hold(c.BITMAPS_CHANGE_ATOMICALLY)
        else:
            self.changed = True
        return old

    # -- VMCB

    def vmcb_read(self, vcpu: int, offset: int) -> int:
        """A field of the control area."""
        return self.vmcb(vcpu).get(offset)

    def vmcb_write(self, vcpu: int, offset: int, value: int) -> None:
        """Set a field; not while the vCPU is in guest mode, and no AVIC field with AVIC off."""
        vmcb = self.vmcb(vcpu)
        cpu = self.cpu(vcpu)
        self._out_of_guest(vcpu, f"VMCB {offset:#x}")
        if vmcb.cached is not None:
            self.hold(c.VMCB_OF_RUNNING_VCPU_UNTOUCHED)
        if not self.known_host.avic:
            bits = 1 << INT_CTL_AVIC | 1 << INT_CTL_X2AVIC
            if (offset in CACHED and value) or (offset == VMCB_INT_CTL and value & bits):
                raise Violation(c.OFF_MEANS_UNTOUCHED, f"VMCB {offset:#x} := {value:#x} with AVIC off")
        vmcb.fields[offset] = value
        self.changed = True
        if offset == VMCB_PHYSICAL_TABLE and value & ADDRESS_BITS:
            self.tables.add(value & ADDRESS_BITS)
        elif offset == VMCB_BACKING_PAGE and value & ADDRESS_BITS:
            self.backing.setdefault(value & ADDRESS_BITS, cpu)

    def _out_of_guest(self, vcpu: int, what: str) -> None:
        cpu = self.cpu(vcpu)
        if cpu.in_guest:
            raise Violation(c.VMCB_OF_RUNNING_VCPU_UNTOUCHED, f"{what} of vCPU {cpu.id} written in guest mode")

    def mark_vmcb_dirty(self, vcpu: int, bits: int) -> None:
        """Clear clean bits."""
        self.vmcb(vcpu).clean &= ~bits

    def set_msr_intercept(self, vcpu: int, msr: int, read: int, write: int) -> None:
        """Intercept or pass through an MSR."""
        self._out_of_guest(vcpu, f"intercept of MSR {msr:#x}")
        opened = self.vmcb(vcpu).opened
        for kind, intercept in enumerate((read, write)):
            if intercept:
                opened.discard((msr, kind))
            else:
                opened.add((msr, kind))

    def set_cr8_intercept(self, vcpu: int, on: int) -> None:
        """Intercept CR8 writes or not."""
        self._out_of_guest(vcpu, "CR8 intercept")
        self.vmcb(vcpu).cr8 = bool(on)

    def tlb_flush(self, vcpu: int) -> None:
        """Request a flush before the next VMRUN."""
        self.vmcb(vcpu).flush = True

    # -- processors

    def smp_mb(self) -> None:
        """A full barrier: calls happen in the order in which they are made, so nothing is left to do."""

    def vcpu_mode(self, vcpu: int) -> int:
        """1 in guest mode."""
        return int(self.cpu(vcpu).in_guest)

    def vcpu_cpu(self, vcpu: int) -> int:
        """Core that the vCPU is loaded on."""
        return self.cpu(vcpu).core

    def wrmsr(self, msr: int, value: int) -> None:
        """Ring a doorbell."""
        if msr != DOORBELL_MSR:
            raise Violation(c.DOORBELL_NAMES_THE_CORE, f"wrmsr({msr:#x}): no such MSR here")
        if not 0 <= value <= 0xFFF:
            raise Violation(c.DOORBELL_NAMES_THE_CORE, f"doorbell {value:#x}: reserved bits are set")
        self.hold(c.DOORBELL_NAMES_THE_CORE)
        self.doorbell(value)

    def doorbell(self, host_id: int) -> None:
        """A vCPU in guest mode on that core looks at its IRR; otherwise nothing happens."""
        raise NotImplementedError

    def wake(self, vcpu: int) -> None:
        """Wake a sleeper."""
        cpu = self.cpu(vcpu)
        if not cpu.alive:
            raise Violation(c.DESTROY_LEAVES_GALOG_FIRST, f"wake of vCPU {cpu.id}, which was freed")
        if self.frame.actor in LOGGING and cpu.vm in self.vms and self.vms[cpu.vm].dying:
            raise Violation(c.DESTROY_LEAVES_GALOG_FIRST, f"wake of vCPU {cpu.id}, whose VM is being destroyed")
        if cpu.asleep or cpu.blocking:
            cpu.woken = True

    def kick(self, vcpu: int) -> None:
        """Take it out of the guest, or wake it."""
        cpu = self.cpu(vcpu)
        if cpu.in_guest or cpu.entering:
            cpu.in_guest = False
            cpu.kicked = True
        elif cpu.asleep or cpu.blocking:
            cpu.woken = True

    def request_refresh(self, vcpu: int) -> None:
        """The vCPU refreshes before it enters the guest again."""
        self.cpu(vcpu).refresh = True

    def inject(self, vcpu: int, vector: int) -> None:
        """Inject at the coming VMRUN."""
        cpu = self.cpu(vcpu)
        if cpu.injected >= 0:
            raise Violation(c.INHIBIT_KICKS_AND_LOSES_NOTHING, f"inject({vector:#x}) over {cpu.injected:#x}")
        cpu.injected = vector

    def signal(self, vcpu: int, mode: int, vector: int) -> None:
        """SMI, NMI, INIT or STARTUP become pending, and wake."""
        cpu = self.cpu(vcpu)
        cpu.events |= 1 << mode
        if cpu.asleep or cpu.blocking:
            cpu.woken = cpu.signalled = True

    def emulate_instruction(self, vcpu: int) -> int:
        """Emulate the faulting access."""
        self.cpu(vcpu)
        return 1

    def ioapic_eoi(self, vm: int, vector: int) -> None:
        """Broadcast a level EOI; a check counts."""

    def warn(self, text: str) -> None:
        """Log; a check says where a guest must not cause it."""

    # -- locks

    def lock(self, name: str, of: int) -> None:
        """Take a lock; wait for it while there is another thread."""
        key = (name, of)
        if name not in SPINLOCKS:
            self.may_sleep(f"lock {name}")
        if key in self.locks:
            if self.scheduler is None:
                raise Violation(c.ACQUISITIONS_BALANCE, f"deadlock: {name} of {of:#x} is held already")
            self.scheduler.block(name, lambda: key not in self.locks)
        self.locks[key] = self.frame
        if name in SPINLOCKS:
            self.atomic += 1

    def unlock(self, name: str, of: int) -> None:
        """Release a lock that is held."""
        if self.locks.pop((name, of), None) is None:
            raise Violation(c.ACQUISITIONS_BALANCE, f"unlock of {name} of {of:#x}, which is not held")
        self.hold(c.ACQUISITIONS_BALANCE)
        if name in SPINLOCKS:
            self.atomic -= 1

    # -- IOMMU

    def register_ga_notifier(self) -> None:
        """Log entries are reported from now on."""
        self.notifiers += 1

    def unregister_ga_notifier(self) -> None:
        """They no longer are."""
        if self.notifiers == 0:
            raise Violation(c.DESTROY_LEAVES_GALOG_FIRST, "no notifier is registered")
        self.notifiers -= 1

    def set_vcpu_affinity(self, irq: int, page: int, vector: int, tag: int) -> int:
        """Post an IRTE, or return it to host mode."""
        refusal = self.refused("set_vcpu_affinity") if page else 0
        if refusal < 0:
            return refusal
        irte = self.irtes.setdefault(irq, Irte())
        if page and (page & ADDRESS_BITS) not in self.backing:
            raise Violation(c.IRTE_FOLLOWS_VCPU, f"irq {irq} posted to {page:#x}, which is no backing page")
        irte.returned = (irte.posted or irte.returned) and not page and self.frame.actor != "UpdateIrte"
        irte.posted = bool(page)
        if page:
            self.logged[irq] = tag
        irte.page, irte.vector, irte.tag, irte.cpu, irte.log = page & ADDRESS_BITS, vector, tag, -1, 0
        return refusal

    def iommu_update_ga(self, irq: int, cpu: int, ga_log_intr: int) -> int:
        """Tell a posted IRTE where its vCPU runs."""
        irte = self.irtes.get(irq)
        if irte is None or not irte.posted:
            raise Violation(c.OLD_VCPU_FORGETS_IRTE, f"iommu_update_ga of irq {irq}, which is not posted")
        irte.cpu, irte.log = cpu, ga_log_intr
        return 0
