"""Drivers that are wrong in one way each: the mistakes of the posting, and of upstream and its siblings."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream import (
    ACCESS_SLOT,
    DERIVED,
    GA_LOG_INTR,
    HOST_ID,
    TAG_MASK,
    TAG_SHIFT,
    Kvm,
    Upstream,
    Vcpu,
)
from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ID,
    APIC_ISR,
    APIC_LDR,
    APIC_LVT0,
    APIC_RRR,
    APIC_SPIV,
    APIC_TMICT,
    APIC_TMR,
    EEXIST,
    EFAULT,
    EINVAL,
    EIO,
    ENTRY_RUNNING,
    ENTRY_VALID,
    FLAT,
    ICR_BUSY,
    INHIBIT_LOGICAL_ID_ALIASED,
    INHIBIT_PHYSICAL_ID_ALIASED,
    INHIBIT_PIT_REINJ,
    LVT0_EXTINT,
    NO_METADATA,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
)

# -- as posted


class WrongMask(Upstream):
    """Addresses are masked with the complement of 1."""

    def hpa_field(self, address: int) -> int:
        return address & ~1


class FlatIndexIsValue(Upstream):
    """In flat mode the logical id itself is the index."""

    def logical_index(self, ldr: int, dfr: int) -> int:
        if dfr >> 28 == 0xF:
            return ldr if ldr <= 7 else -1
        return super().logical_index(ldr, dfr)


class ClusterAlwaysZero(Upstream):
    """The cluster nibble is shifted out."""

    def logical_index(self, ldr: int, dfr: int) -> int:
        return super().logical_index(ldr if dfr >> 28 == 0xF else ldr & 0xF, dfr)


class MemberIsValue(Upstream):
    """The member nibble is used as an index, up to and with 4."""

    def logical_index(self, ldr: int, dfr: int) -> int:
        if dfr >> 28 == 0xF:
            return super().logical_index(ldr, dfr)
        member = ldr & 0xF
        return -1 if member > 4 or ldr >> 4 == 0xF else (ldr >> 4 << 2) + member


class ClusterFifteen(Upstream):
    """Cluster 15 has entries like any other."""

    def logical_index(self, ldr: int, dfr: int) -> int:
        if dfr >> 28 != 0xF and ldr >> 4 == 0xF and ldr & 0xF in (1, 2, 4, 8):
            return 60 + (ldr & 0xF).bit_length() - 1
        return super().logical_index(ldr, dfr)


class OldEntryStays(Upstream):
    """A new logical entry is installed beside the old one."""

    def _invalidate_logical(self, v: Vcpu) -> None:
        pass


class MemslotBacked(Upstream):
    """Not wrong: backing pages come from private memslots far from the APIC window, with a reference held."""

    first_gpa = 0xFFFB_C000_0000
    pinned = True
    reported = True

    def _alloc_regs(self, v: Vcpu) -> int:
        port = self.port
        gpa = self.first_gpa + (v.id << 12)
        port.lock("slots", v.kvm.vm)
        error: int = port.set_memory_region(v.kvm.vm, 1000 + v.id, gpa, 4096)
        port.unlock("slots", v.kvm.vm)
        if error:
            return error
        v.regs = port.gfn_to_page(v.kvm.vm, gpa >> 12)
        if not v.regs:
            port.set_memory_region(v.kvm.vm, 1000 + v.id, 0, 0)
            return -EFAULT if self.reported else 0
        if not self.pinned:
            port.put_page(v.regs)
        port.clear_page(v.regs)
        return 0

    def _free_regs(self, v: Vcpu) -> None:
        if self.pinned:
            self.port.put_page(v.regs)
        self.port.set_memory_region(v.kvm.vm, 1000 + v.id, 0, 0)


class BackingErrorIgnored(MemslotBacked):
    """A page that cannot be had is no reason to fail."""

    reported = False


class CountNotSymmetric(Upstream):
    """A failed creation drops a count that it never took, and with the last count the tables go."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        kvm = self.vms[vm]
        error = super().vcpu_create(vm, vcpu, apic_id)
        if error not in (0, -EEXIST, -EINVAL) and len(kvm.vcpus) == 1 and kvm.phys_table:
            self.port.free_page(kvm.phys_table)
            self.port.free_page(kvm.logical_table)
            kvm.phys_table = kvm.logical_table = 0
        return error


class Growing(Upstream):
    """The private memslot is deleted and made anew for each further vCPU."""

    def _init_backing_page(self, v: Vcpu) -> int:
        self.port.lock("slots", v.kvm.vm)
        error = self._grow(v.kvm) if v.kvm.access_page else 0
        self.port.unlock("slots", v.kvm.vm)
        return error or super()._init_backing_page(v)

    def _grow(self, kvm: Kvm) -> int:
        port = self.port
        error: int = port.set_memory_region(kvm.vm, ACCESS_SLOT, 0, 0)
        if error:
            return error
        error = port.set_memory_region(kvm.vm, ACCESS_SLOT, APIC_BASE, 4096)
        kvm.access_page = not error
        return error


class GrowthFailsDangling(Growing):
    """When the slot cannot be made anew, the pages that went with the old one stay in use."""

    def _grow(self, kvm: Kvm) -> int:
        error = super()._grow(kvm)
        for other in kvm.vcpus.values() if error else ():
            self.port.free_page(other.regs)
        return error


class DeleteResultIgnored(Growing):
    """The old slot is taken to be gone whatever the deletion says."""

    def _grow(self, kvm: Kvm) -> int:
        port = self.port
        port.set_memory_region(kvm.vm, ACCESS_SLOT, 0, 0)
        error: int = port.set_memory_region(kvm.vm, ACCESS_SLOT, APIC_BASE, 4096)
        return error


class GrowthWipes(Upstream):
    """A vCPU with a higher id than any before reinitialises the others' pages."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        kvm = self.vms[vm]
        others = [v for v in kvm.vcpus.values() if v.regs]
        error = super().vcpu_create(vm, vcpu, apic_id)
        for other in others if not error else ():
            self._lapic_reset(other, init=True)
        return error


class GrowthMovesPages(Upstream):
    """A new vCPU moves the others' pages, and the VMCBs follow without a kick or a cleared clean bit."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        port, kvm = self.port, self.vms[vm]
        others = [v for v in kvm.vcpus.values() if v.regs]
        error = super().vcpu_create(vm, vcpu, apic_id)
        for v in others if not error and self.avic else ():
            new = port.alloc_page(0)
            if not new:
                continue
            port.clear_page(new)
            for offset in range(0, 0x400, 16):
                port.write32(new, offset, port.read32(v.regs, offset))
            port.free_page(v.regs)
            v.regs = new
            v.entry = v.entry & ~0x000FFFFFFFFFF000 | self.hpa_field(new)
            port.vmcb_write(v.handle, VMCB_BACKING_PAGE, self.hpa_field(new))
            self._publish(v)
        return error


class DuplicateWipes(Upstream):
    """The check for a duplicate id comes after the page was set up."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        error = super().vcpu_create(vm, vcpu, apic_id)
        existing = self.vms[vm].vcpus.get(apic_id)
        if error == -EEXIST and existing is not None and existing.regs:
            self._lapic_reset(existing, init=False)
        return error


class NotPinned(MemslotBacked):
    """The reference to the backing page is dropped at once."""

    pinned = False


class GuestReachable(MemslotBacked):
    """Backing pages lie in guest memory, after the APIC window."""

    first_gpa = 0xFEE0_1000


class UserReachable(MemslotBacked):
    """The backing page of the boot vCPU is user memory at the APIC window."""

    first_gpa = APIC_BASE

    def _init_backing_page(self, v: Vcpu) -> int:
        v.kvm.access_page_gone = True
        return super()._init_backing_page(v)


class TwoCopies(Upstream):
    """get_lapic and set_lapic work on a copy that the guest never sees."""

    def vcpu_reset(self, vcpu: int, init: int) -> None:
        super().vcpu_reset(vcpu, init)
        if self.vcpus[vcpu].regs:
            self.__dict__.setdefault("copies", {})[vcpu] = super().get_lapic(vcpu)

    def get_lapic(self, vcpu: int) -> bytes:
        copy: bytes = self.__dict__["copies"][vcpu]
        return copy

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        self.__dict__["copies"][vcpu] = registers
        return 0


class ResetKeepsPage(Upstream):
    """RESET and INIT leave the backing page as it is."""

    def _lapic_reset(self, v: Vcpu, init: bool) -> None:
        if self._reg(v, APIC_SPIV) == 0:
            super()._lapic_reset(v, init)


class BarLost(Upstream):
    """APIC_BAR is written by RESET only, and not when the VMCB is rebuilt."""

    def _avic_init_vmcb(self, v: Vcpu) -> None:
        kept = self.port.vmcb_read(v.handle, VMCB_APIC_BAR)
        super()._avic_init_vmcb(v)
        self.port.vmcb_write(v.handle, VMCB_APIC_BAR, kept)

    def vcpu_reset(self, vcpu: int, init: int) -> None:
        super().vcpu_reset(vcpu, init)
        if not init and self.avic and self.vcpus[vcpu].regs:
            self.port.vmcb_write(vcpu, VMCB_APIC_BAR, APIC_BASE)


class Lvt0Unmasked(Upstream):
    """Every vCPU starts with LVT0 as an unmasked ExtINT."""

    def _lapic_reset(self, v: Vcpu, init: bool) -> None:
        super()._lapic_reset(v, init)
        self.port.write32(v.regs, APIC_LVT0, LVT0_EXTINT)


class NoIrqchipCheck(Upstream):
    """The software APIC is read, whether or not there is one."""

    def _vcpu_init(self, v: Vcpu) -> int:
        error = super()._vcpu_init(v)
        if not error and self.avic:
            self.port.read32(v.regs, APIC_ID)
        return error


class LazyTables(Upstream):
    """The first vCPU allocates the tables, with nothing to keep a second one from doing so too."""

    def vm_create(self, vm: int, irqchip: int, max_vcpu_ids: int) -> int:
        self.vms[vm] = Kvm(vm, irqchip, max_vcpu_ids)
        return 0

    def _vcpu_init(self, v: Vcpu) -> int:
        if self.avic and v.kvm.irqchip and not v.kvm.phys_table:
            error = self._vm_init(v.kvm)
            if error:
                self._drop_tables(v.kvm)
                return error
        return super()._vcpu_init(v)

    def _drop_tables(self, kvm: Kvm) -> None:
        for page in (kvm.logical_table, kvm.phys_table):
            if page:
                self.port.free_page(page)
        kvm.logical_table = kvm.phys_table = 0


class UninitRaces(LazyTables):
    """The last vCPU frees the tables; who is last is found by a test and a decrement, in two steps."""

    def vcpu_free(self, vcpu: int) -> None:
        kvm = self.vcpus[vcpu].kvm
        super().vcpu_free(vcpu)
        last = not kvm.vcpus
        self.port.smp_mb()
        if last:
            for page in (kvm.logical_table, kvm.phys_table):
                if page:
                    self.port.free_page(page)
            kvm.logical_table = kvm.phys_table = 0


class TagsRace(Upstream):
    """The tag is the counter's value, read and advanced in two steps, with no look at who has it."""

    def _vm_init(self, kvm: Kvm) -> int:
        error = super()._vm_init(kvm)
        if not error:
            del self.hash[kvm.vm_id]
            generator: int = self.__dict__.setdefault("generator", self.next_vm_id)
            self.port.smp_mb()
            self.__dict__["generator"] = generator + 1
            kvm.vm_id = generator & TAG_MASK
            self.hash[kvm.vm_id] = kvm
        return error


class IdsUnchecked(Upstream):
    """Any id gets a page and an entry."""

    def _init_backing_page(self, v: Vcpu) -> int:
        kept, self.max_phys = self.max_phys, 0xFFFF
        error = super()._init_backing_page(v)
        self.max_phys = kept
        return error


class EntryNeverWritten(Upstream):
    """The physical table stays as it was allocated."""

    def _init_backing_page(self, v: Vcpu) -> int:
        error = super()._init_backing_page(v)
        if not error and v.entry:
            v.entry = 0
            self.port.write64(v.kvm.phys_table, 8 * v.id, 0)
        return error

    def _load(self, v: Vcpu, cpu: int) -> None:
        pass


class HostIdTruncated(Upstream):
    """Only eight bits of the core's id are stored."""

    def _load(self, v: Vcpu, cpu: int) -> None:
        super()._load(v, cpu & 0xFF if cpu <= HOST_ID else cpu)


class SignedIndex(Upstream):
    """Only the upper bound of an index is tested."""

    def phys_index(self, index: int) -> int:
        return 8 * index if index < 0xFF else -1


class PointerKept(Upstream):
    """A failed creation frees its page, keeps the pointer, and the VM's destruction frees it again."""

    def _free_regs(self, v: Vcpu) -> None:
        super()._free_regs(v)
        if v.handle not in self.vcpus and v.id not in v.kvm.vcpus and not v.apic_base:
            self.__dict__.setdefault("left", []).append(v.regs)

    def vm_destroy(self, vm: int) -> None:
        for page in self.__dict__.pop("left", []):
            self.port.free_page(page)
        super().vm_destroy(vm)


class MixedModesAccepted(Upstream):
    """Flat and cluster are judged per vCPU, and a mix inhibits nothing."""

    def _derived(self, kvm: Kvm) -> int:
        kinds = {
            self._reg(v, 0xE0) == FLAT for v in kvm.vcpus.values() if self._sw_enabled(v) and self._reg(v, APIC_LDR)
        }
        mask = super()._derived(kvm)
        return mask & ~(1 << INHIBIT_LOGICAL_ID_ALIASED) if len(kinds) > 1 else mask


class X2ApicNotExcluded(Upstream):
    """A vCPU in x2APIC mode keeps the redirected APIC window."""

    def _enter_x2(self, v: Vcpu) -> None:
        v.kvm.access_page, kept = False, v.kvm.access_page
        super()._enter_x2(v)
        v.kvm.access_page = kept


# -- upstream and siblings


class HostIdRefused(Upstream):
    """Cores with ids above 255 are taken not to exist."""

    def _load(self, v: Vcpu, cpu: int) -> None:
        if cpu <= 0xFF:
            super()._load(v, cpu)


class SentAgain(Upstream):
    """An IPI to a vCPU that does not run is sent anew."""

    def _kick_targets(self, v: Vcpu, low: int, high: int, index: int) -> None:
        self._send(v, low, high)


class InvalidTargetDropped(Upstream):
    """An IPI with an invalid target goes to nobody."""

    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        if info2 >> 32 == 2:
            return 1
        return super().incomplete_ipi_exit(vcpu, info1, info2)


class WarnsOnInvalidTarget(Upstream):
    """A guest's IPI to nowhere makes the host warn."""

    def incomplete_ipi_exit(self, vcpu: int, info1: int, info2: int) -> int:
        if info2 >> 32 == 2:
            self.port.warn("AVIC: invalid IPI target")
        return super().incomplete_ipi_exit(vcpu, info1, info2)


class BusyLeftSet(Upstream):
    """The IPI is sent and busy stays as hardware left it."""

    def _emulate_ipi(self, v: Vcpu, low: int, high: int) -> None:
        self._send(v, low & ~(1 << ICR_BUSY), high)


class LowestBitOnly(Upstream):
    """Of several LDR bits the lowest counts."""

    def logical_index(self, ldr: int, dfr: int) -> int:
        if dfr >> 28 == 0xF:
            return super().logical_index(ldr & -ldr, dfr)
        return super().logical_index(ldr & 0xF0 | (ldr & 0xF & -(ldr & 0xF)), dfr)


class BadLdrForgotten(Upstream):
    """An LDR without an index is not remembered, so the entry before it is invalidated once more later."""

    def _handle_ldr_update(self, v: Vcpu) -> None:
        ldr = self._reg(v, APIC_LDR) >> 24
        old = self._logical_entry(v, v.ldr, v.dfr)
        if ldr == v.ldr or v.x2:
            return
        if old >= 0:
            self.port.write32(v.kvm.logical_table, old, 0)
        if self.logical_index(ldr, v.dfr) >= 0:
            v.ldr = ldr
            self._install_logical(v)


class BadLdrExits(Upstream):
    """An LDR without an index is not applied to the software APIC, and ends in user space."""

    def noaccel_exit(self, vcpu: int, info1: int, info2: int) -> int:
        v = self.vcpus[vcpu]
        if info1 & 0xFF0 == APIC_LDR and self.logical_index(self._reg(v, APIC_LDR) >> 24, v.dfr) < 0:
            self._invalidate_logical(v)
            return 0
        return super().noaccel_exit(vcpu, info1, info2)


class OneTargetKicked(Upstream):
    """Only the target that the exit names is woken."""

    def _kick_targets(self, v: Vcpu, low: int, high: int, index: int) -> None:
        if not low >> 18 & 3 and low >> 11 & 1 and not v.x2:
            index = self.port.read32(v.kvm.logical_table, 4 * index) & 0xFF
        target = v.kvm.vcpus.get(index)
        if target is not None:
            self._complete_delivery(target)


class X2LogicalMisread(Upstream):
    """In x2APIC mode the members of a logical destination are taken for ids in cluster 0."""

    def _kick_targets(self, v: Vcpu, low: int, high: int, index: int) -> None:
        if not v.x2 or not low >> 11 & 1 or low >> 18 & 3:
            super()._kick_targets(v, low, high, index)
            return
        for b in range(16):
            target = v.kvm.vcpus.get(b) if high >> b & 1 else None
            if target is not None:
                self._complete_delivery(target)


class IdMovesEntry(Upstream):
    """A new APIC id takes the vCPU's physical entry along."""

    def _trap_write(self, v: Vcpu, offset: int, vector: int) -> None:
        new = self._reg(v, APIC_ID) >> 24
        if offset == APIC_ID and new != v.id:
            self.port.write64(v.kvm.phys_table, 8 * new, v.entry & ~GA_LOG_INTR)
            self.port.write64(v.kvm.phys_table, 8 * v.id, 0)
        super()._trap_write(v, offset, vector)


class AliasesNotInhibited(Upstream):
    """Two vCPUs with one physical or logical id go on with AVIC."""

    def _derived(self, kvm: Kvm) -> int:
        return super()._derived(kvm) & ~(1 << INHIBIT_PHYSICAL_ID_ALIASED | 1 << INHIBIT_LOGICAL_ID_ALIASED)


class StaleActive(Upstream):
    """Whether AVIC is active for the target, and whether it is in the guest, is read before its IRR bit is set."""

    def _deliver(self, v: Vcpu, vector: int, level: int) -> None:
        self.seen = v.apicv_active, self.port.vcpu_mode(v.handle)
        super()._deliver(v, vector, level)

    def _complete_delivery(self, v: Vcpu) -> None:
        active, in_guest = self.__dict__.pop("seen", (v.apicv_active, self.port.vcpu_mode(v.handle)))
        if not active:
            self.port.kick(v.handle)
        elif in_guest:
            self._ring_doorbell(v)
        else:
            self.port.wake(v.handle)


class RunningWhileInhibited(Upstream):
    """Deactivation leaves IsRunning as it was."""

    def _refresh_exec_ctrl(self, v: Vcpu) -> None:
        entry = v.entry
        super()._refresh_exec_ctrl(v)
        if not v.apicv_active and entry >> ENTRY_RUNNING & 1:
            v.entry = entry
            self._publish(v)


class RunsWhileBlocking(Upstream):
    """Whoever gets a core runs, whether it sleeps or not."""

    def vcpu_load(self, vcpu: int, host_id: int) -> None:
        v = self.vcpus[vcpu]
        if v.apicv_active:
            self._load(v, host_id)


class ErratumIgnored(Upstream):
    """IPI virtualization is used on family 0x17 and 0x18 too."""

    def hw_setup(self, edx: int, ecx: int, npt: int, family: int, *rest: int) -> int:
        return super().hw_setup(edx, ecx, npt, 0x19 if family in (0x17, 0x18) else family, *rest)


class VTprNotSynced(Upstream):
    """V_TPR is left to hardware, which does not know of writes by software."""

    def prepare_guest(self, vcpu: int) -> None:
        kept = self.port.vmcb_read(vcpu, VMCB_INT_CTL)
        super().prepare_guest(vcpu)
        if self.vcpus[vcpu].apicv_active:
            control = self.port.vmcb_read(vcpu, VMCB_INT_CTL)
            self.port.vmcb_write(vcpu, VMCB_INT_CTL, control & ~0xF | kept & 0xF)


class InterceptsByMode(Upstream):
    """Intercepts are left alone unless the vCPU is in x2APIC mode, also when it has just left that mode."""

    def _intercept_x2apic(self, v: Vcpu, intercept: bool) -> None:
        if v.x2:
            super()._intercept_x2apic(v, intercept)


class AccessPageStays(X2ApicNotExcluded):
    """Without x2AVIC the access page stays when a vCPU enters x2APIC mode."""


class IndexTruncated(Upstream):
    """Eight bits of the exit's index name the target."""

    def _kick_targets(self, v: Vcpu, low: int, high: int, index: int) -> None:
        if low >> 18 & 3 or low >> 11 & 1:
            super()._kick_targets(v, low, high, index)
            return
        target = v.kvm.vcpus.get(index & 0xFF)
        if target is not None:
            self._complete_delivery(target)


class BigIdRefused(Upstream):
    """An id above the hardware's maximum fails the creation."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        kvm = self.vms[vm]
        if self.avic and kvm.irqchip and self.max_phys < apic_id < kvm.max_vcpu_ids and apic_id not in kvm.taken:
            return -EINVAL
        return super().vcpu_create(vm, vcpu, apic_id)


class PointersOnlyWhenActive(Upstream):
    """The AVIC fields of a VMCB made during an inhibit stay empty."""

    def _avic_init_vmcb(self, v: Vcpu) -> None:
        if not v.kvm.inhibits:
            super()._avic_init_vmcb(v)


class FailedVmLeaks(Upstream):
    """Tables are freed with the vCPUs, of which a VM that failed had none."""

    def vm_destroy(self, vm: int) -> None:
        if self.vms[vm].__dict__.get("had_vcpus"):
            super().vm_destroy(vm)
        else:
            self._leave_hash(self.vms.pop(vm))

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        self.vms[vm].__dict__["had_vcpus"] = True
        return super().vcpu_create(vm, vcpu, apic_id)


class DanglingIrte(Upstream):
    """A route that cannot be posted is refused before the old vCPU forgets the IRTE."""

    def update_irte(self, irq: int, vcpu: int, vector: int) -> int:
        v = self.vcpus.get(vcpu)
        if v is None or not v.apicv_active:
            self.port.set_vcpu_affinity(irq, 0, 0, 0)
            return 0
        return super().update_irte(irq, vcpu, vector)


class SleepsAtomically(Upstream):
    """The list entry of an IRTE is allocated with the list's spinlock held."""

    def update_irte(self, irq: int, vcpu: int, vector: int) -> int:
        v = self.vcpus.get(vcpu)
        if v is not None and v.apicv_active:
            self.port.lock("ir_list", v.handle)
            entry = self.port.kzalloc(16)
            self.port.kfree(entry)
            self.port.unlock("ir_list", v.handle)
        return super().update_irte(irq, vcpu, vector)


class NotifierStays(Upstream):
    """Module exit leaves the GALog notifier registered."""

    def hw_unsetup(self) -> None:
        pass


class GaLogFindsDyingVm(Upstream):
    """The VM leaves the GALog lookup only when it is gone, after its vCPUs."""

    def vm_pre_destroy(self, vm: int) -> None:
        pass

    def ga_log_notify(self, tag: int) -> int:
        for kvm in self.hash.values():
            if kvm.vm_id == tag >> 12:
                self.port.wake(kvm.vm << 16 | tag & 0xFFF)
        return 0


class RemoteReadApplied(Upstream):
    """A write of the remote read register is re-applied like any other."""

    def _trap_write(self, v: Vcpu, offset: int, vector: int) -> None:
        if offset == APIC_RRR:
            self._reg_write(v, offset, self._reg(v, offset))
        super()._trap_write(v, offset, vector)

    def _unknown_write(self, v: Vcpu, offset: int) -> None:
        if offset == APIC_RRR:
            self.port.warn(f"apic write to read-only reg {offset:#x}")


class DfrNeverReinstalls(Upstream):
    """A DFR change leaves no entry, and an identical LDR makes none."""

    def _handle_dfr_update(self, v: Vcpu) -> None:
        dfr = self._reg(v, 0xE0) | 0x0FFFFFFF
        if not v.x2 and v.enabled and dfr != v.dfr:
            self._invalidate_logical(v)
            v.dfr = dfr

    def _handle_ldr_update(self, v: Vcpu) -> None:
        if self._reg(v, APIC_LDR) >> 24 != v.ldr:
            super()._handle_ldr_update(v)


class PitRunsWithAvic(Upstream):
    """PIT reinjection does not inhibit AVIC."""

    def inhibit(self, vm: int, reason: int, on: int) -> None:
        if reason != INHIBIT_PIT_REINJ:
            super().inhibit(vm, reason, on)


class SnpIgnored(Upstream):
    """AVIC is offered on SNP hosts without HvInUseWrAllowed."""

    def _want_avic(self, edx: int, npt: int, family: int, zen4: int, snp: int, *rest: int) -> bool:
        return super()._want_avic(edx, npt, family, zen4, 0, *rest)


class WrongFieldCarriesIndex(Upstream):
    """The maximum index lands in the pointer to the logical table."""

    def _activate_vmcb(self, v: Vcpu) -> None:
        super()._activate_vmcb(v)
        port, h = self.port, v.handle
        table = port.vmcb_read(h, VMCB_PHYSICAL_TABLE)
        port.vmcb_write(h, VMCB_LOGICAL_TABLE, port.vmcb_read(h, VMCB_LOGICAL_TABLE) | table & 0xFFF)


# -- wrong only when two of their operations meet


class RefreshesEarly(Upstream):
    """A vCPU does not wait until the reasons it is to follow are in force."""

    def _update_apicv(self, v: Vcpu) -> None:
        active = self.avic and v.kvm.irqchip and v.enabled and not v.kvm.inhibits and v.addressable
        if active != v.apicv_active:
            v.apicv_active = active
            self._refresh_exec_ctrl(v)


class KickedBeforeAsked(Upstream):
    """A vCPU leaves the guest, and may be back before it is asked to look at the reasons."""

    def _change_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        mask = kvm.inhibits & ~reasons | value
        if bool(mask) != bool(kvm.inhibits):
            for v in list(kvm.vcpus.values()):
                self.port.kick(v.handle)
                self.port.request_refresh(v.handle)
        kvm.inhibits = mask


class LastLookLost(Upstream):
    """Inhibits that follow from the registers are computed before the lock is taken, so an older look may win."""

    def _recalculate_map(self, kvm: Kvm) -> None:
        if self.avic:
            self._set_inhibits(kvm, DERIVED, self._derived(kvm))


class IrteToldUnlocked(Upstream):
    """An IRTE is told where its vCPU ran when last looked, with the list unlocked in between."""

    def _post(self, v: Vcpu, irq: int, vector: int) -> int:
        port = self.port
        if not v.apicv_active:
            port.set_vcpu_affinity(irq, 0, 0, 0)
            return 0
        entry = v.entry
        port.unlock("ir_list", v.handle)
        result: int = port.set_vcpu_affinity(irq, self.hpa_field(v.regs), vector, self.vcpu_tag(v.handle))
        port.lock("ir_list", v.handle)
        if result == NO_METADATA:
            port.set_vcpu_affinity(irq, 0, 0, 0)
            return -EIO
        v.irqs[irq] = vector
        v.posting = True
        running = entry >> ENTRY_RUNNING & 1
        port.iommu_update_ga(irq, entry & HOST_ID if running else -1, int(not running and bool(entry & GA_LOG_INTR)))
        return 0


class WakesAfterUnlock(Upstream):
    """The vCPU that a tag names is woken when the lock that keeps it there is dropped."""

    def ga_log_notify(self, tag: int) -> int:
        port = self.port
        port.lock("ga_hash", 0)
        kvm = self.hash.get(tag >> TAG_SHIFT & TAG_MASK)
        v = None if kvm is None else kvm.vcpus.get(tag & 0xFFF)
        port.unlock("ga_hash", 0)
        if v is not None:
            port.wake(v.handle)
        return 0


class DuplicateSeenLate(Upstream):
    """An id counts as taken only when its vCPU is complete."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        kvm = self.vms[vm]
        if apic_id >= min(kvm.max_vcpu_ids, 4096):
            return -EINVAL
        if apic_id in kvm.vcpus:
            return -EEXIST
        v = Vcpu(kvm, vcpu, apic_id)
        error = self._vcpu_init(v)
        if not error:
            self.vcpus[vcpu] = kvm.vcpus[apic_id] = v
        return error


class SlotUnlocked(Upstream):
    """Whether the access page is there is looked up without the lock of the memslots."""

    def _init_backing_page(self, v: Vcpu) -> int:
        port, kvm = self.port, v.kvm
        if v.id > min(self.max_phys, kvm.max_vcpu_ids - 1) or kvm.inhibits:
            return super()._init_backing_page(v)
        if not kvm.access_page and not kvm.access_page_gone:
            error: int = port.set_memory_region(kvm.vm, ACCESS_SLOT, APIC_BASE, 4096)
            if error:
                return error
            kvm.access_page = True
        v.entry = self.hpa_field(v.regs) | 1 << ENTRY_VALID
        port.write64(kvm.phys_table, 8 * v.id, v.entry)
        return 0


class LocksInTwoOrders(Upstream):
    """Creation takes the memslots' lock and then that of the reasons; a change of the reasons the other way round."""

    def _init_backing_page(self, v: Vcpu) -> int:
        self.port.lock("slots", v.kvm.vm)
        self.port.lock("inhibit", v.kvm.vm)
        self.port.unlock("inhibit", v.kvm.vm)
        self.port.unlock("slots", v.kvm.vm)
        return super()._init_backing_page(v)

    def _change_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        self.port.lock("slots", kvm.vm)
        super()._change_inhibits(kvm, reasons, value)
        self.port.unlock("slots", kvm.vm)


# -- worlds beside the usual ones


class OpensEveryMsr(Upstream):
    """With x2AVIC every MSR from 0x800 to 0x83F passes, both ways."""

    def _intercept_x2apic(self, v: Vcpu, intercept: bool) -> None:
        for msr in range(0x800, 0x840):
            self.port.set_msr_intercept(v.handle, msr, int(intercept), int(intercept))


class TagOfEightBits(Upstream):
    """The vCPU that a tag is decoded to has eight bits."""

    def ga_log_notify(self, tag: int) -> int:
        return super().ga_log_notify(tag & ~0xF00)


class RouteNeedsAvic(Upstream):
    """An interrupt is routed by a vCPU's posted list, which it has with AVIC alone."""

    def update_irte(self, irq: int, vcpu: int, vector: int) -> int:
        lists = {v.handle: v.irqs for v in self.vcpus.values() if self.avic}
        if vcpu in self.vcpus:
            lists[vcpu].pop(irq, None)
        return super().update_irte(irq, vcpu, vector)


class OffAcceptsNothing(Upstream):
    """Delivery leaves everything to AVIC's page, also where there is none."""

    def _deliver(self, v: Vcpu, vector: int, level: int) -> None:
        if self.avic:
            super()._deliver(v, vector, level)


class RestoreDropsIsr(Upstream):
    """KVM_SET_LAPIC takes IRR alone."""

    dropped = (APIC_ISR,)

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        kept = bytearray(registers)
        for bank in self.dropped:
            kept[bank : bank + 0x80] = bytes(0x80)
        return super().set_lapic(vcpu, bytes(kept))


class RestoreDropsTmr(RestoreDropsIsr):
    """KVM_SET_LAPIC takes IRR and ISR, and no trigger modes."""

    dropped = (APIC_TMR,)


class RestoreForgetsTimer(Upstream):
    """KVM_SET_LAPIC leaves the timer's registers, the last in the page, as after RESET."""

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        return super().set_lapic(vcpu, registers[:APIC_TMICT] + bytes(len(registers) - APIC_TMICT))


class RestoreKeepsId(Upstream):
    """KVM_SET_LAPIC takes all registers but ID, which stays the vCPU's own."""

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        own = (self.vcpus[vcpu].id & 0xFF) << 24
        return super().set_lapic(vcpu, registers[:APIC_ID] + own.to_bytes(4, "little") + registers[APIC_ID + 4 :])


class Cr8NeverIntercepted(Upstream):
    """CR8 writes pass also while AVIC is inactive."""

    def _deactivate_vmcb(self, v: Vcpu) -> None:
        super()._deactivate_vmcb(v)
        self.port.set_cr8_intercept(v.handle, 0)


class WakesOwnModeOnly(Upstream):
    """For exit id 1 an x2APIC looks for targets among the x2APICs."""

    def _complete_delivery(self, v: Vcpu) -> None:
        if self.sender is None or v.x2 or not self.sender.x2:
            super()._complete_delivery(v)

    sender: Vcpu | None = None

    def _kick_targets(self, v: Vcpu, low: int, high: int, index: int) -> None:
        self.sender = v
        super()._kick_targets(v, low, high, index)
        self.sender = None


class NeverFlushesForAnother(Upstream):
    """A core that ran another vCPU of the VM goes on with its translations."""

    def prepare_guest(self, vcpu: int) -> None:
        self.last_on_core.clear()
        super().prepare_guest(vcpu)


class Cr8Remembered(Upstream):
    """The CR8 intercept is written where it changes, and thought to outlive a SHUTDOWN."""

    off: frozenset[int] = frozenset()

    def _intercept_cr8(self, v: Vcpu, on: int) -> None:
        if (v.handle in self.off) == bool(on):
            self.off ^= {v.handle}
            super()._intercept_cr8(v, on)


class TablePageMissing(Upstream):
    """A physical table for the VM's ids has no page for the last one, where that is the first of its page."""

    def _table_order(self, kvm: Kvm) -> int:
        pages = (min(self.max_phys + 1, kvm.max_vcpu_ids - 1) + 511) // 512
        return (pages - 1).bit_length()


class SpivRestoredUnseen(Upstream):
    """KVM_SET_LAPIC looks at the map only where ID, LDR or DFR changes."""

    still = False

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        v = self.vcpus[vcpu]
        named = {at: int.from_bytes(registers[at : at + 4], "little") for at in (APIC_ID, APIC_LDR, APIC_DFR)}
        self.still = bool(v.regs) and all(self._reg(v, at) == value for at, value in named.items())
        result = super().set_lapic(vcpu, registers)
        self.still = False
        return result

    def _recalculate_map(self, kvm: Kvm) -> None:
        if not self.still:
            super()._recalculate_map(kvm)
