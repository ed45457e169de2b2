"""The design of the 2016 posting: backing pages in a guest memslot, tables hung off the first vCPU."""

from __future__ import annotations

from typing import Any

from conformance.specs.avic.constants import (
    APIC_BASE,
    APIC_DFR,
    APIC_ESR,
    APIC_ICR,
    APIC_ICR2,
    APIC_ID,
    APIC_IRR,
    APIC_ISR,
    APIC_LDR,
    APIC_LVR,
    APIC_LVT0,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_SPIV,
    APIC_TDCR,
    APIC_TMICT,
    APIC_TMR,
    APIC_TPR,
    EEXIST,
    EFAULT,
    ENOMEM,
    FLAT,
    INT_CTL_AVIC,
    INT_CTL_INTR_MASKING,
    LVT0_EXTINT,
    LVT_MASKED,
    SPIV_RESET,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_NESTED_CTL,
    VMCB_PHYSICAL_TABLE,
)

PAGE_SIZE = 4096
APIC_ACCESS_SLOT = 509
HPA_MASK = 0xFFFFFFFFFFFFFFFE
"""The posted macro joined its halves with a logical or, so only bit 0 is masked."""
PHY_APIC_ID_MAX = 0xFF
APIC_BAR_MASK = 0x000FFFFFFFFFF000
LVR = 0x00050014


class VmData:
    """Per-VM data, once the first vCPU made it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.count = 0
        self.max_vcpu_id = 0
        self.tag = 0
        self.log_page = 0
        self.phy_page = 0


class Kvm:
    """One VM."""

    def __init__(self, vm: int, irqchip: int) -> None:
        self.vm = vm
        self.irqchip = irqchip
        self.arch_data: VmData | None = None
        self.vcpus: dict[int, Vcpu] = {}
        self.access_page_done = False


class Vcpu:
    """One vCPU."""

    def __init__(self, kvm: Kvm, handle: int, vcpu_id: int) -> None:
        self.kvm = kvm
        self.handle = handle
        self.id = vcpu_id
        self.bk_page = 0
        self.has_vmcb = False
        self.apic = dict.fromkeys(range(0, 1024, 16), 0)
        """The software APIC, which nothing keeps in step with the backing page."""


class AsPosted:
    """The posted patch alone; exit handlers and scheduling belonged to other patches of the series."""

    profile = "as-posted"
    capabilities = frozenset({"layer-t", "helpers"})

    def __init__(self, port: Any) -> None:
        self.port = port
        self.avic = 0
        self.tag_gen = 1
        self.vms: dict[int, Kvm] = {}
        self.vcpus: dict[int, Vcpu] = {}

    # -- module and VMs

    def hw_setup(
        self,
        edx: int,
        ecx: int,
        npt: int,
        family: int,
        zen4: int,
        snp: int,
        hv_inuse_wr: int,
        avic: int,
        force: int,
        ipiv: int,
        next_tag: int,
    ) -> int:
        """Opt-in, if the CPU has the bit and nested paging is on."""
        self.tag_gen = next_tag
        self.avic = avic
        if avic and (not npt or not edx >> 13 & 1):
            self.avic = 0
        return 1 | 254 << 16 if self.avic else 0

    def hw_unsetup(self) -> None:
        """Nothing was registered."""

    def vm_create(self, vm: int, irqchip: int, max_vcpu_ids: int) -> int:
        """Nothing is allocated before the first vCPU."""
        self.vms[vm] = Kvm(vm, irqchip)
        return 0

    def vm_precreate(self, vm: int) -> int:
        """Nothing to do."""
        return 0

    def vm_pre_destroy(self, vm: int) -> None:
        """Nothing to do."""

    def vm_destroy(self, vm: int) -> None:
        """The common code deletes the private memslot."""
        kvm = self.vms.pop(vm)
        if kvm.access_page_done:
            self.port.set_memory_region(vm, APIC_ACCESS_SLOT, 0, 0)

    def vm_tag(self, vm: int) -> int:
        """The tag, once there is a vCPU."""
        data = self.vms[vm].arch_data
        return data.tag if data is not None else 0

    # -- vCPUs

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        """svm_create_vcpu, then the common code's check for duplicates."""
        kvm = self.vms[vm]
        v = Vcpu(kvm, vcpu, apic_id)
        self._lapic_reset(v)
        error: int = self.port.alloc_vmcb(vcpu)
        if error:
            return error
        if self.avic:
            error = self._avic_vcpu_init(v)
            if error:
                self.port.free_vmcb(vcpu)
                return error
        v.has_vmcb = True
        self.vcpus[vcpu] = v
        self._init_vmcb(v)
        if apic_id in kvm.vcpus:
            self.vcpu_free(vcpu)
            return -EEXIST
        kvm.vcpus[apic_id] = v
        return 0

    def _avic_vcpu_init(self, v: Vcpu) -> int:
        if v.kvm.arch_data is None:
            error = self._avic_vm_init(v.kvm)
            if error:
                return error
        error = self._alloc_bk_page(v)
        if error:
            self._avic_vcpu_uninit(v)
            return error
        data = v.kvm.arch_data
        assert data is not None
        data.count += 1
        return 0

    def _avic_vm_init(self, kvm: Kvm) -> int:
        port = self.port
        handle = port.kzalloc(32)
        if not handle:
            return -ENOMEM
        data = VmData(handle)
        kvm.arch_data = data
        data.phy_page = port.alloc_page(0)
        if not data.phy_page:
            self._avic_vm_uninit(kvm)
            return -ENOMEM
        port.clear_page(data.phy_page)
        data.log_page = port.alloc_page(0)
        if not data.log_page:
            self._avic_vm_uninit(kvm)
            return -ENOMEM
        port.clear_page(data.log_page)
        data.tag = self._next_tag()
        return 0

    def _next_tag(self) -> int:
        tag = self.tag_gen
        self.port.smp_mb()
        self.tag_gen = self.tag_gen + 1 & 0xFFFFFFFF
        return tag

    def _avic_vm_uninit(self, kvm: Kvm) -> None:
        data = kvm.arch_data
        if data is None:
            return
        if data.log_page:
            self.port.free_page(data.log_page)
        if data.phy_page:
            self.port.free_page(data.phy_page)
        self.port.kfree(data.handle)
        kvm.arch_data = None

    def _alloc_bk_page(self, v: Vcpu) -> int:
        port, kvm = self.port, v.kvm
        data = kvm.arch_data
        assert data is not None
        realloc = False
        port.lock("slots", kvm.vm)
        if kvm.access_page_done and v.id > data.max_vcpu_id:
            for other in kvm.vcpus.values():
                self._unalloc_bk_page(other)
            port.set_memory_region(kvm.vm, APIC_ACCESS_SLOT, 0, 0)
            realloc = True
            data.max_vcpu_id = 0
        if v.id >= data.max_vcpu_id:
            error: int = port.set_memory_region(kvm.vm, APIC_ACCESS_SLOT, APIC_BASE, PAGE_SIZE * (v.id + 1))
            if error:
                port.unlock("slots", kvm.vm)
                return error
            data.max_vcpu_id = v.id
        if realloc:
            for other in kvm.vcpus.values():
                self._init_bk_page(other)
        self._init_bk_page(v)
        kvm.access_page_done = True
        port.unlock("slots", kvm.vm)
        return 0

    def _init_bk_page(self, v: Vcpu) -> int:
        port = self.port
        if not v.kvm.irqchip:
            port.read32(0, APIC_ID)  # the software APIC is a NULL pointer
        page = port.gfn_to_page(v.kvm.vm, (APIC_BASE + v.id * PAGE_SIZE) >> 12)
        if not page:
            return -EFAULT
        port.put_page(page)
        v.bk_page = page
        port.clear_page(port.kmap(page))
        for offset in (APIC_ID, APIC_LVR, APIC_LDR):
            port.write32(page, offset, v.apic[offset])
        for offset in range(APIC_LVTT, APIC_LVTERR + 16, 16):
            port.write32(page, offset, LVT_MASKED)
        port.write32(page, APIC_LVT0, LVT0_EXTINT)
        port.write32(page, APIC_DFR, FLAT)
        port.write32(page, APIC_SPIV, SPIV_RESET)
        for offset in (APIC_TPR, APIC_ESR, APIC_ICR, APIC_ICR2, APIC_TDCR, APIC_TMICT):
            port.write32(page, offset, 0)
        for n in range(8):
            for base in (APIC_IRR, APIC_ISR, APIC_TMR):
                port.write32(page, base + 16 * n, 0)
        self._avic_init_vmcb(v)
        return 0

    def _unalloc_bk_page(self, v: Vcpu) -> None:
        if v.bk_page:
            self.port.kunmap(v.bk_page)

    def _avic_vcpu_uninit(self, v: Vcpu) -> None:
        data = v.kvm.arch_data
        self._unalloc_bk_page(v)
        if data is None:
            return
        if data.count == 0:
            self._avic_vm_uninit(v.kvm)
            return
        data.count -= 1
        if data.count == 0:
            self._avic_vm_uninit(v.kvm)

    def vcpu_free(self, vcpu: int) -> None:
        """svm_free_vcpu."""
        v = self.vcpus.pop(vcpu)
        if v.kvm.vcpus.get(v.id) is v:
            del v.kvm.vcpus[v.id]
        self.port.free_vmcb(vcpu)
        self._avic_vcpu_uninit(v)

    def vcpu_reset(self, vcpu: int, init: int) -> None:
        """svm_vcpu_reset: the software APIC and the VMCB, but not the backing page."""
        v = self.vcpus[vcpu]
        self._lapic_reset(v)
        self._init_vmcb(v)
        if self.avic and not init:
            self.port.vmcb_write(vcpu, VMCB_APIC_BAR, APIC_BASE & APIC_BAR_MASK)

    def _lapic_reset(self, v: Vcpu) -> None:
        for offset in v.apic:
            v.apic[offset] = 0
        for offset in range(APIC_LVTT, APIC_LVTERR + 16, 16):
            v.apic[offset] = LVT_MASKED
        v.apic[APIC_ID] = (v.id & 0xFF) << 24
        v.apic[APIC_LVR] = LVR
        v.apic[APIC_SPIV] = SPIV_RESET
        v.apic[APIC_DFR] = FLAT

    def vmcb_reinit(self, vcpu: int) -> None:
        """init_vmcb."""
        self._init_vmcb(self.vcpus[vcpu])

    def _init_vmcb(self, v: Vcpu) -> None:
        port = self.port
        port.vmcb_write(v.handle, VMCB_INT_CTL, 1 << INT_CTL_INTR_MASKING)
        port.vmcb_write(v.handle, VMCB_NESTED_CTL, 1)
        port.mark_vmcb_dirty(v.handle, 0xFFFFFFFF)
        if self.avic:
            self._avic_init_vmcb(v)

    def _avic_init_vmcb(self, v: Vcpu) -> None:
        port = self.port
        data = v.kvm.arch_data
        assert data is not None
        bpa, lpa, ppa = v.bk_page, data.log_page, data.phy_page
        if not v.has_vmcb:
            return
        control = port.vmcb_read(v.handle, VMCB_INT_CTL)
        port.vmcb_write(v.handle, VMCB_INT_CTL, control | 1 << INT_CTL_AVIC)
        port.vmcb_write(v.handle, VMCB_BACKING_PAGE, bpa & HPA_MASK)
        port.vmcb_write(v.handle, VMCB_LOGICAL_TABLE, lpa & HPA_MASK)
        port.vmcb_write(v.handle, VMCB_PHYSICAL_TABLE, ppa & HPA_MASK | PHY_APIC_ID_MAX)

    def prepare_guest(self, vcpu: int) -> None:
        """Nothing of AVIC is done before VMRUN; V_TPR follows the page that the guest sees."""
        v = self.vcpus[vcpu]
        if v.bk_page:
            tpr = self.port.read32(v.bk_page, APIC_TPR) >> 4 & 0xF
            control = self.port.vmcb_read(vcpu, VMCB_INT_CTL)
            self.port.vmcb_write(vcpu, VMCB_INT_CTL, control & ~0xF | tpr)

    def hwapic_irr_update(self, vcpu: int, max_irr: int) -> None:
        """Returns at once."""

    def hwapic_isr_update(self, vcpu: int, max_isr: int) -> None:
        """Returns at once."""

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        """Into the software APIC alone."""
        v = self.vcpus[vcpu]
        for offset in v.apic:
            v.apic[offset] = int.from_bytes(registers[offset : offset + 4], "little")
        return 0

    def get_lapic(self, vcpu: int) -> bytes:
        """From the software APIC alone."""
        v = self.vcpus[vcpu]
        image = bytearray(1024)
        for offset, value in v.apic.items():
            image[offset : offset + 4] = value.to_bytes(4, "little")
        return bytes(image)

    # -- helpers of the patch, called by nobody in it

    def hpa_field(self, address: int) -> int:
        """AVIC_HPA_MASK."""
        return address & HPA_MASK

    def logical_index(self, ldr: int, dfr: int) -> int:
        """avic_get_log_ait_entry."""
        if dfr >> 28 & 0xF == 0xF:
            return -1 if ldr > 7 else ldr
        apic_id = ldr & 0xF
        cluster_id = (ldr & 0xF0) >> 8
        if apic_id > 4 or cluster_id >= 0xF:
            return -1
        return (cluster_id << 2) + apic_id

    def phys_index(self, index: int) -> int:
        """avic_get_phy_ait_entry, with a signed index."""
        if index >= 0xFF:
            return -1
        return 8 * index

    def tag_round_trip(self, vm_tag: int, index: int) -> tuple[int, int]:
        """The posted tag names a VM; the vCPU was to be added by a later patch."""
        return vm_tag, index

    def x2_ldr(self, apic_id: int) -> int:
        """The common code's."""
        return apic_id >> 4 << 16 | 1 << (apic_id & 0xF)

    def ppr(self, tpr: int, isrv: int) -> int:
        """The common code's."""
        return tpr if tpr & 0xF0 >= isrv & 0xF0 else isrv & 0xF0
