"""The posted design repaired, and with single defects of it put back: those that others hide in the posting."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.avic.as_posted import PAGE_SIZE, AsPosted, Kvm, Vcpu, VmData
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_BASE,
    APIC_DFR,
    APIC_ID,
    APIC_IRR,
    APIC_ISR,
    APIC_LDR,
    APIC_LVR,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_SPIV,
    APIC_TPR,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOMEM,
    ENTRY_VALID,
    FLAT,
    INT_CTL_AVIC,
    INT_CTL_INTR_MASKING,
    LVT_MASKED,
    MAX_XAVIC,
    SPIV_RESET,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
)


class Repaired(AsPosted):
    """Not wrong: the posting's structure, with one pinned memslot for each vCPU where no guest reaches it."""

    first_gpa = 0xFFFB_C000_0000
    pinned = True

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.limits: dict[int, int] = {}
        self.taken: set[tuple[int, int]] = set()

    # -- VMs

    def vm_create(self, vm: int, irqchip: int, max_vcpu_ids: int) -> int:
        """Remember the limit of ids too."""
        self.limits[vm] = max_vcpu_ids
        return super().vm_create(vm, irqchip, max_vcpu_ids)

    def vm_precreate(self, vm: int) -> int:
        """The tables, under the VM's lock, and published when they are complete."""
        kvm = self.vms[vm]
        if not self.avic or not kvm.irqchip or kvm.arch_data is not None:
            return 0
        port = self.port
        data = VmData(port.kzalloc(32))
        if not data.handle:
            return -ENOMEM
        data.phy_page = port.alloc_page(0)
        data.log_page = port.alloc_page(0) if data.phy_page else 0
        if not data.log_page:
            if data.phy_page:
                port.free_page(data.phy_page)
            port.kfree(data.handle)
            return -ENOMEM
        port.clear_page(data.phy_page)
        port.clear_page(data.log_page)
        data.tag = self._next_tag()
        kvm.arch_data = data
        return 0

    def _next_tag(self) -> int:
        live = {kvm.arch_data.tag for kvm in self.vms.values() if kvm.arch_data is not None}
        tag = self.tag_gen
        while tag == 0 or tag in live:
            tag = tag + 1 & 0xFFFFFFFF
        self.tag_gen = tag + 1 & 0xFFFFFFFF
        return tag

    def vm_destroy(self, vm: int) -> None:
        """The tables go with the VM."""
        self._avic_vm_uninit(self.vms.pop(vm))

    # -- vCPUs

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        """Ids are checked first, and each failure undoes what came before it."""
        kvm = self.vms[vm]
        limit = MAX_XAVIC if self.avic and kvm.irqchip else 4095
        if apic_id > limit or apic_id >= self.limits[vm]:
            return -EINVAL
        if (vm, apic_id) in self.taken:
            return -EEXIST
        self.taken.add((vm, apic_id))
        v = Vcpu(kvm, vcpu, apic_id)
        error: int = self.port.alloc_vmcb(vcpu)
        if not error and self.avic and kvm.irqchip:
            error = self._get_page(v)
            if error:
                self.port.free_vmcb(vcpu)
        if error:
            self.taken.discard((vm, apic_id))
            return error
        v.has_vmcb = True
        self.vcpus[vcpu] = v
        kvm.vcpus[apic_id] = v
        self._publish(v)
        self._init_vmcb(v)
        return 0

    def _slot(self, v: Vcpu) -> int:
        return 1000 + v.id

    def _get_page(self, v: Vcpu) -> int:
        port, gpa = self.port, self.first_gpa + (v.id << 12)
        port.lock("slots", v.kvm.vm)
        error: int = port.set_memory_region(v.kvm.vm, self._slot(v), gpa, PAGE_SIZE)
        if not error:
            v.bk_page = port.gfn_to_page(v.kvm.vm, gpa >> 12)
            if not v.bk_page:
                port.set_memory_region(v.kvm.vm, self._slot(v), 0, 0)
                error = -EFAULT
            elif not self.pinned:
                port.put_page(v.bk_page)
        port.unlock("slots", v.kvm.vm)
        return error

    def _put_page(self, v: Vcpu) -> None:
        self.port.lock("slots", v.kvm.vm)
        if self.pinned:
            self.port.put_page(v.bk_page)
        self.port.set_memory_region(v.kvm.vm, self._slot(v), 0, 0)
        self.port.unlock("slots", v.kvm.vm)

    def _publish(self, v: Vcpu) -> None:
        data = v.kvm.arch_data
        if data is not None and v.bk_page:
            self.port.write64(data.phy_page, 8 * v.id, self.hpa_field(v.bk_page) | 1 << ENTRY_VALID)

    def vcpu_free(self, vcpu: int) -> None:
        """In the reverse order."""
        v = self.vcpus.pop(vcpu)
        del v.kvm.vcpus[v.id]
        if v.bk_page and v.kvm.arch_data is not None:
            self.port.write64(v.kvm.arch_data.phy_page, 8 * v.id, 0)
        self.port.free_vmcb(vcpu)
        if v.bk_page:
            self._put_page(v)
        self.taken.discard((v.kvm.vm, v.id))

    # -- one copy of the registers

    def vcpu_reset(self, vcpu: int, init: int) -> None:
        """The page is what is reset."""
        v = self.vcpus[vcpu]
        if v.bk_page:
            self.port.clear_page(v.bk_page)
            self._reset_page(v)
        self._init_vmcb(v)

    def _reset_page(self, v: Vcpu) -> None:
        write = self.port.write32
        write(v.bk_page, APIC_ID, v.id << 24)
        write(v.bk_page, APIC_LVR, 0x00050014)
        write(v.bk_page, APIC_DFR, FLAT)
        write(v.bk_page, APIC_SPIV, SPIV_RESET)
        for offset in range(APIC_LVTT, APIC_LVTERR + 16, 16):
            write(v.bk_page, offset, LVT_MASKED)

    def set_lapic(self, vcpu: int, registers: bytes) -> int:
        """Into the page."""
        page = self.vcpus[vcpu].bk_page
        self.port.clear_page(page)
        for offset in range(0, 1024, 16):
            value = int.from_bytes(registers[offset : offset + 4], "little")
            if value:
                self.port.write32(page, offset, value)
        return 0

    def get_lapic(self, vcpu: int) -> bytes:
        """From the page."""
        page, image = self.vcpus[vcpu].bk_page, bytearray(1024)
        for offset in range(0, 1024, 16):
            image[offset : offset + 4] = self.port.read32(page, offset).to_bytes(4, "little")
        return bytes(image)

    def apic_access(self, vcpu: int, offset: int, value: int) -> int:
        """A write while AVIC is inactive; TPR is the only one in this design's part."""
        if offset == APIC_TPR:
            self.port.write32(self.vcpus[vcpu].bk_page, APIC_TPR, value & 0xFF)
        return 0

    # -- VMCB

    def _avic_init_vmcb(self, v: Vcpu) -> None:
        data, write = v.kvm.arch_data, self.port.vmcb_write
        if data is None or not v.bk_page:
            return
        write(v.handle, VMCB_BACKING_PAGE, self.hpa_field(v.bk_page))
        write(v.handle, VMCB_LOGICAL_TABLE, self.hpa_field(data.log_page))
        write(v.handle, VMCB_PHYSICAL_TABLE, self.hpa_field(data.phy_page) | MAX_XAVIC)
        write(v.handle, VMCB_APIC_BAR, APIC_BASE)

    def prepare_guest(self, vcpu: int) -> None:
        """AVIC is active unless logical ids forbid it; then software injects."""
        v, port = self.vcpus[vcpu], self.port
        if not v.bk_page:
            return
        active = not self._is_aliased(v.kvm)
        tpr = port.read32(v.bk_page, APIC_TPR) >> 4 & 0xF
        port.vmcb_write(vcpu, VMCB_INT_CTL, 1 << INT_CTL_INTR_MASKING | (1 << INT_CTL_AVIC if active else 0) | tpr)
        port.set_cr8_intercept(vcpu, int(not active))
        port.tlb_flush(vcpu)
        if not active:
            self._inject(v, tpr)

    def _inject(self, v: Vcpu, tpr: int) -> None:
        pending, serving = self._highest(v, APIC_IRR), self._highest(v, APIC_ISR)
        if pending >= 0 and pending >> 4 > max(tpr, serving >> 4):
            word, bit = 16 * (pending >> 5), 1 << (pending & 31)
            self.port.and32(v.bk_page, APIC_IRR + word, 0xFFFFFFFF ^ bit)
            self.port.or32(v.bk_page, APIC_ISR + word, bit)
            self.port.inject(v.handle, pending)

    def _highest(self, v: Vcpu, base: int) -> int:
        for n in range(7, -1, -1):
            word: int = self.port.read32(v.bk_page, base + 16 * n)
            if word:
                return 32 * n + word.bit_length() - 1
        return -1

    def _is_aliased(self, kvm: Kvm) -> bool:
        """Whether logical ids of enabled APICs do not map one to one."""
        seen: set[int] = set()
        models = set()
        for v in list(kvm.vcpus.values()):
            ldr = self.port.read32(v.bk_page, APIC_LDR) >> 24
            if not ldr or not self.port.read32(v.bk_page, APIC_SPIV) >> 8 & 1:
                continue
            flat = self.port.read32(v.bk_page, APIC_DFR) == FLAT
            models.add(flat)
            member = ldr if flat else ldr & 0xF
            if len(models) > 1 or (member and (member & member - 1 or ldr in seen)):
                return True
            if member:
                seen.add(ldr)
        return False

    # -- helpers

    def hpa_field(self, address: int) -> int:
        """Bits 51:12."""
        return address & ADDRESS_BITS

    def logical_index(self, ldr: int, dfr: int) -> int:
        """Powers of two."""
        cluster, member = (0, ldr) if dfr | 0x0FFFFFFF == FLAT else (ldr >> 4, ldr & 0xF)
        if not member or member & member - 1 or cluster == 0xF:
            return -1
        return 4 * cluster + member.bit_length() - 1

    def phys_index(self, index: int) -> int:
        """Both bounds."""
        return 8 * index if 0 <= index <= MAX_XAVIC else -1


class GrowthWipesPosted(Repaired):
    """A vCPU with a higher id than any before has every page initialised anew."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        others = [v for v in self.vms[vm].vcpus.values() if v.bk_page]
        error = super().vcpu_create(vm, vcpu, apic_id)
        for v in others if not error and all(v.id < apic_id for v in others) else ():
            self.port.clear_page(v.bk_page)
            self._reset_page(v)
        return error


class InsideTheWindow(Repaired):
    """The pages lie at the APIC window, one after the other, so that those after the first are guest memory."""

    first_gpa = APIC_BASE


class DoneAfterFailure(Repaired):
    """The memslot stays, and counts as done, when its page could not be had."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.done: set[tuple[int, int]] = set()

    def _get_page(self, v: Vcpu) -> int:
        port, gpa = self.port, self.first_gpa + (v.id << 12)
        error: int = 0
        if (v.kvm.vm, v.id) not in self.done:
            error = port.set_memory_region(v.kvm.vm, self._slot(v), gpa, PAGE_SIZE)
        if not error:
            self.done.add((v.kvm.vm, v.id))
            v.bk_page = port.gfn_to_page(v.kvm.vm, gpa >> 12)
            error = 0 if v.bk_page else -EFAULT
        return error

    def _put_page(self, v: Vcpu) -> None:
        super()._put_page(v)
        self.done.discard((v.kvm.vm, v.id))


class PublishedEarly(Repaired):
    """The tables are hung off the VM before they exist, when the first vCPU is made, with no lock."""

    def vm_precreate(self, vm: int) -> int:
        return 0

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        kvm = self.vms[vm]
        if self.avic and kvm.irqchip and kvm.arch_data is None:
            error = self._avic_vm_init(kvm)
            if error:
                return error
        error = super().vcpu_create(vm, vcpu, apic_id)
        if error and not kvm.vcpus:
            self._avic_vm_uninit(kvm)
        return error

    def vcpu_free(self, vcpu: int) -> None:
        kvm = self.vcpus[vcpu].kvm
        super().vcpu_free(vcpu)
        if not kvm.vcpus:
            self._avic_vm_uninit(kvm)


class CountedInTwoSteps(PublishedEarly):
    """The last vCPU frees the tables; it is found by a test and a decrement, two atomics with others in between."""

    def vcpu_create(self, vm: int, vcpu: int, apic_id: int) -> int:
        error = super().vcpu_create(vm, vcpu, apic_id)
        data = self.vms[vm].arch_data
        if not error and data is not None:
            data.count += 1
        return error

    def vcpu_free(self, vcpu: int) -> None:
        kvm = self.vcpus[vcpu].kvm
        Repaired.vcpu_free(self, vcpu)
        data = kvm.arch_data
        if data is None:
            return
        if data.count > 0:
            self.port.smp_mb()
            data.count -= 1
        if data.count == 0:
            self._avic_vm_uninit(kvm)


class TagReadThenAdvanced(Repaired):
    """The tag generator is read and advanced in two steps, and nobody looks who has the tag."""

    def _next_tag(self) -> int:
        return AsPosted._next_tag(self)
