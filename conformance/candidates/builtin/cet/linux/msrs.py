"""x86.c: MSRs, from the vendor-neutral checks to the ioctls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from conformance.candidates.builtin.cet.linux.state import FILTERED, UNSUPPORTED, Caps, Vcpu, is_noncanonical
from conformance.specs.cet import constants as k

if TYPE_CHECKING:
    from conformance.candidates.builtin.cet.linux.svm import Svm
    from conformance.candidates.builtin.cet.linux.vmx import Vmx

ONE_REG_SIZE = 16
"""struct kvm_one_reg."""
ENTRY_SIZE = 16
"""struct kvm_msr_entry."""
REG_ARCH_X86 = 0x20
REG_SIZE_U64 = 3
REG_TYPE_MSR = 2
REG_TYPE_KVM = 3


class Msrs:
    """MSR access of a guest, of userspace, and of KVM itself."""

    CHECKS_BITMAP_BASE = True
    """Released Linux does not look whether the legacy bitmap's base is canonical."""
    READS_TABLE_WITHOUT_LM = False
    """Released Linux tests for long mode when INT_SSP_TAB is written, not when it is read."""

    port: Any
    caps: Caps
    ops: Vmx | Svm
    vcpus: dict[int, Vcpu]

    # -- values

    def kvm_is_valid_u_s_cet(self, vcpu: Vcpu, data: int) -> bool:
        """The rules on U_CET and S_CET that do not depend on who writes."""
        if data >> 6 & 0xF:
            return False
        if not vcpu.shstk and data & 3:
            return False
        if not vcpu.ibt and (data >> 2 & 0xF or data >> 10):
            return False
        if not self.is_bitmap_aligned(data):
            return False
        return not (data >> 10 & 1 and data >> 11 & 1)

    def is_bitmap_aligned(self, data: int) -> bool:
        """The number of the legacy bitmap's first page is a multiple of four."""
        return not data >> 12 & 3

    def is_noncanonical_msr_address(self, address: int) -> bool:
        """By the host's widest linear address, whatever the guest's CR4.LA57."""
        return is_noncanonical(address, self.caps.width)

    # -- __kvm_set_msr, __kvm_get_msr and what they call

    def __kvm_set_msr(self, vcpu: Vcpu, index: int, data: int, host: bool) -> int:
        if index in k.CONTROL_MSRS:
            if not vcpu.has_cet():
                return UNSUPPORTED
            if not self.kvm_is_valid_u_s_cet(vcpu, data):
                return 1
            if self.CHECKS_BITMAP_BASE and self.is_noncanonical_msr_address(data & ~0xFFF):
                return 1
        elif index == k.INTERNAL_GUEST_SSP or k.PL0_SSP <= index <= k.INT_SSP_TAB:
            if index == k.INTERNAL_GUEST_SSP and not host:
                return 1
            if not vcpu.shstk:
                return UNSUPPORTED
            if index == k.INT_SSP_TAB and not vcpu.lm:
                return UNSUPPORTED
            if self.is_noncanonical_msr_address(data):
                return 1
            if index != k.INT_SSP_TAB and data & 3:
                return 1
        return self.ops.set_msr(vcpu, index, data, host)

    def __kvm_get_msr(self, vcpu: Vcpu, index: int, host: bool) -> tuple[int, int]:
        if index in k.CONTROL_MSRS:
            if not vcpu.has_cet():
                return UNSUPPORTED, 0
        elif index == k.INTERNAL_GUEST_SSP or k.PL0_SSP <= index <= k.INT_SSP_TAB:
            if index == k.INTERNAL_GUEST_SSP and not host:
                return 1, 0
            if not vcpu.shstk:
                return UNSUPPORTED, 0
            if index == k.INT_SSP_TAB and not vcpu.lm and not self.READS_TABLE_WITHOUT_LM:
                return UNSUPPORTED, 0
        return self.ops.get_msr(vcpu, index, host)

    def kvm_set_msr_common(self, vcpu: Vcpu, index: int, data: int, _host: bool) -> int:
        """MSRs that no vendor code keeps."""
        if index == k.XSS:
            if not vcpu.xsaves:
                return UNSUPPORTED
            if data & ~vcpu.supported_xss:
                return 1
            vcpu.xss = data
            return 0
        if index == k.U_CET or k.PL0_SSP <= index <= k.PL3_SSP:
            self.port.fpu_get()
            self.port.wrmsr(index, data)
            self.port.fpu_put()
            return 0
        return UNSUPPORTED

    def kvm_get_msr_common(self, vcpu: Vcpu, index: int, host: bool) -> tuple[int, int]:
        """MSRs that no vendor code keeps."""
        if index == k.XSS:
            if not host and not vcpu.xsaves:
                return 1, 0
            return 0, vcpu.xss
        if index == k.U_CET or k.PL0_SSP <= index <= k.PL3_SSP:
            self.port.fpu_get()
            data = self.port.rdmsr(index)
            self.port.fpu_put()
            return 0, data
        return UNSUPPORTED, 0

    def kvm_do_msr_access(
        self, index: int, data: int, host: bool, access: Callable[[], tuple[int, int]]
    ) -> tuple[int, int]:
        """Forgive an unsupported access where userspace was told of the MSR, or by ignore_msrs."""
        result, value = access()
        if result != UNSUPPORTED:
            return result, value
        if host and not data and index in self.msrs_to_save():
            return 0, 0
        return (0, 0) if self.port.host_cap("ignore_msrs") else (result, 0)

    def set_msr(self, vcpu: Vcpu, index: int, data: int, host: bool) -> int:
        """kvm_set_msr_ignored_check."""
        return self.kvm_do_msr_access(index, data, host, lambda: (self.__kvm_set_msr(vcpu, index, data, host), 0))[0]

    def get_msr(self, vcpu: Vcpu, index: int, host: bool) -> tuple[int, int]:
        """kvm_get_msr_ignored_check."""
        result, data = self.kvm_do_msr_access(index, 0, host, lambda: self.__kvm_get_msr(vcpu, index, host))
        return result, 0 if result else data

    def msrs_to_save(self) -> tuple[int, ...]:
        """kvm_init_msr_lists."""
        caps = self.caps
        found = [k.XSS] if caps.supported_xss else []
        if caps.shstk or caps.ibt:
            found += k.CONTROL_MSRS
        if caps.shstk:
            found += k.POINTER_MSRS
            if caps.lm:
                found.append(k.INT_SSP_TAB)
        return tuple(found)

    # -- the guest

    def kvm_msr_allowed(self, vcpu: Vcpu, index: int) -> bool:
        """Userspace's filter."""
        return index not in vcpu.denied

    def kvm_emulate_msr_write(self, vcpu: Vcpu, index: int, data: int) -> int:
        """WRMSR, past the filter."""
        return self.set_msr(vcpu, index, data, False) if self.kvm_msr_allowed(vcpu, index) else FILTERED

    def kvm_emulate_msr_read(self, vcpu: Vcpu, index: int) -> tuple[int, int]:
        """RDMSR, past the filter."""
        return self.get_msr(vcpu, index, False) if self.kvm_msr_allowed(vcpu, index) else (FILTERED, 0)

    def guest_wrmsr(self, vcpu: int, msr: int, value: int) -> int:
        """kvm_emulate_wrmsr: whatever fails is #GP."""
        return 1 if self.kvm_emulate_msr_write(self.vcpus[vcpu], msr, value) else 0

    def guest_rdmsr(self, vcpu: int, msr: int) -> tuple[int, int]:
        """kvm_emulate_rdmsr: whatever fails is #GP."""
        result, value = self.kvm_emulate_msr_read(self.vcpus[vcpu], msr)
        return (1, 0) if result else (0, value)

    # -- userspace

    def get_msr_index_list(self) -> tuple[int, ...]:
        """KVM_GET_MSR_INDEX_LIST."""
        return self.msrs_to_save()

    def is_xstate_managed_msr(self, vcpu: Vcpu, index: int) -> bool:
        """Whether the value is in the guest's FPU registers."""
        if index == k.U_CET:
            return vcpu.has_cet()
        return k.PL0_SSP <= index <= k.PL3_SSP and vcpu.shstk

    def msr_io_refusal(self, count: int) -> int:
        """msr_io: the header, the limit, the entries."""
        if self.port.copy_from_user(8):
            return -k.EFAULT
        if count >= k.MAX_MSR_ENTRIES:
            return -k.E2BIG
        if count and self.port.copy_from_user(count * ENTRY_SIZE):
            return -k.EFAULT
        return 0

    def __msr_io(self, vcpu: Vcpu, indices: tuple[int, ...], do_msr: Callable[[int], int]) -> int:
        """How many were done before the first failure; the FPU is loaded when the first MSR needs it."""
        done, fpu_loaded = 0, False
        for position, index in enumerate(indices):
            if not fpu_loaded and self.is_xstate_managed_msr(vcpu, index):
                self.port.load_guest_fpu(vcpu.number)
                fpu_loaded = True
            if do_msr(position):
                break
            done += 1
        if fpu_loaded:
            self.port.put_guest_fpu(vcpu.number)
        return done

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        """KVM_SET_MSRS."""
        refusal = self.msr_io_refusal(len(entries))
        if refusal:
            return refusal
        part = self.vcpus[vcpu]
        return self.__msr_io(
            part, tuple(index for index, _ in entries), lambda i: self.set_msr(part, *entries[i], True)
        )

    def get_msrs(self, vcpu: int, indices: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """KVM_GET_MSRS: the whole array goes back."""
        refusal = self.msr_io_refusal(len(indices))
        if refusal:
            return refusal, ()
        part, values = self.vcpus[vcpu], []

        def do_get_msr(position: int) -> int:
            result, data = self.get_msr(part, indices[position], True)
            if not result:
                values.append(data)
            return result

        done = self.__msr_io(part, indices, do_get_msr)
        if indices and self.port.copy_to_user(len(indices) * ENTRY_SIZE):
            return -k.EFAULT, ()
        return done, tuple(values)

    def kvm_translate_reg(self, vcpu: Vcpu, reg: int) -> int:
        """The MSR that a register id names, or -EINVAL."""
        index, kind = reg & 0xFFFF_FFFF, reg >> 32 & 0xFF
        if reg >> 56 != REG_ARCH_X86:
            return -k.EINVAL
        if reg >> 40 & 0xFF or reg >> 48 & 0xF:
            return -k.EINVAL
        if kind == REG_TYPE_KVM:
            if index or not vcpu.shstk:
                return -k.EINVAL
            kind, index = REG_TYPE_MSR, k.INTERNAL_GUEST_SSP
        if kind != REG_TYPE_MSR:
            return -k.EINVAL
        if reg >> 52 & 0xF != REG_SIZE_U64:
            return -k.EINVAL
        return index

    def set_one_reg(self, vcpu: int, reg: int, value: int) -> int:
        """KVM_SET_ONE_REG: struct kvm_one_reg is copied before anything of it is looked at, the value last."""
        if self.port.copy_from_user(ONE_REG_SIZE):
            return -k.EFAULT
        part = self.vcpus[vcpu]
        index = self.kvm_translate_reg(part, reg)
        if index < 0:
            return index
        load_fpu = self.is_xstate_managed_msr(part, index)
        if load_fpu:
            self.port.load_guest_fpu(vcpu)
        result = self.kvm_set_one_msr(part, index, value)
        if load_fpu:
            self.port.put_guest_fpu(vcpu)
        return result

    def kvm_set_one_msr(self, vcpu: Vcpu, index: int, value: int) -> int:
        """The user's value, and a host-initiated write."""
        if self.port.copy_from_user(8):
            return -k.EFAULT
        return -k.EINVAL if self.set_msr(vcpu, index, value, True) else 0

    def get_one_reg(self, vcpu: int, reg: int) -> tuple[int, int]:
        """KVM_GET_ONE_REG, likewise."""
        if self.port.copy_from_user(ONE_REG_SIZE):
            return -k.EFAULT, 0
        part = self.vcpus[vcpu]
        index = self.kvm_translate_reg(part, reg)
        if index < 0:
            return index, 0
        load_fpu = self.is_xstate_managed_msr(part, index)
        if load_fpu:
            self.port.load_guest_fpu(vcpu)
        result = self.kvm_get_one_msr(part, index)
        if load_fpu:
            self.port.put_guest_fpu(vcpu)
        return result

    def kvm_get_one_msr(self, vcpu: Vcpu, index: int) -> tuple[int, int]:
        """A host-initiated read, and the user's pointer."""
        result, value = self.get_msr(vcpu, index, True)
        if result:
            return -k.EINVAL, 0
        return (-k.EFAULT, 0) if self.port.copy_to_user(8) else (0, value)

    def get_reg_list(self, vcpu: int, n: int) -> tuple[int, int, tuple[int, ...]]:
        """KVM_GET_REG_LIST: the count goes back before it is compared."""
        nr_regs = 1 if self.vcpus[vcpu].shstk else 0
        if self.port.copy_from_user(8) or self.port.copy_to_user(8):
            return -k.EFAULT, 0, ()
        if n < nr_regs:
            return -k.E2BIG, nr_regs, ()
        if nr_regs and self.port.copy_to_user(8):
            return -k.EFAULT, 0, ()
        return 0, nr_regs, (k.ONE_REG_GUEST_SSP,) * nr_regs
