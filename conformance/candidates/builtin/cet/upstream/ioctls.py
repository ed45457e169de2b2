"""Userspace's batches, registers by id, and XSAVE images."""

from __future__ import annotations

from conformance.candidates.builtin.cet.upstream.msrs import Msrs
from conformance.candidates.builtin.cet.upstream.vcpu import Vcpu
from conformance.specs.cet.constants import (
    E2BIG,
    EFAULT,
    EINVAL,
    INTERNAL_GUEST_SSP,
    MAX_MSR_ENTRIES,
    ONE_REG_GUEST_SSP,
)


class Ioctls(Msrs):
    """The ioctls of x86.c."""

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        """Load the guest FPU at the first MSR that needs it."""
        v = self.vcpus[vcpu]
        if self.port.copy_from_user(8):
            return -EFAULT
        if len(entries) >= MAX_MSR_ENTRIES:
            return -E2BIG
        if self.port.copy_from_user(16 * len(entries)):
            return -EFAULT
        loaded = False
        done = 0
        for msr, value in entries:
            if not loaded and self.is_xstate_msr(v, msr):
                self.port.load_guest_fpu(vcpu)
                loaded = True
            if self.do_set_msr(v, msr, value, True):
                break
            done += 1
        if loaded:
            self.port.put_guest_fpu(vcpu)
        return done

    def get_msrs(self, vcpu: int, indices: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        """Load the guest FPU at the first MSR that needs it."""
        v = self.vcpus[vcpu]
        if self.port.copy_from_user(8):
            return -EFAULT, ()
        if len(indices) >= MAX_MSR_ENTRIES:
            return -E2BIG, ()
        if self.port.copy_from_user(16 * len(indices)):
            return -EFAULT, ()
        loaded = False
        values: list[int] = []
        for msr in indices:
            if not loaded and self.is_xstate_msr(v, msr):
                self.port.load_guest_fpu(vcpu)
                loaded = True
            result, value = self.do_get_msr(v, msr, True)
            if result:
                break
            values.append(value)
        if loaded:
            self.port.put_guest_fpu(vcpu)
        if self.port.copy_to_user(16 * len(indices)):
            return -EFAULT, ()
        return len(values), tuple(values)

    def resolve_reg(self, v: Vcpu, reg: int) -> int | None:
        """The MSR behind a register id, GUEST_SSP's internal number included."""
        index, kind = reg & 0xFFFF_FFFF, reg >> 32 & 0xFF
        if reg >> 56 != 0x20 or reg & 0x000F_FF00_0000_0000:
            return None
        if kind == 3:
            if index != 0 or not v.shstk:
                return None
            kind, index = 2, INTERNAL_GUEST_SSP
        if kind != 2 or reg & 0x00F0_0000_0000_0000 != 0x0030_0000_0000_0000:
            return None
        return index

    def one_reg_needs_fpu(self, v: Vcpu, msr: int) -> bool:
        """Whether an access by id must load the guest FPU."""
        return self.is_xstate_msr(v, msr)

    def set_one_reg(self, vcpu: int, reg: int, value: int) -> int:
        """Resolve the id, then set as userspace."""
        v = self.vcpus[vcpu]
        msr = self.resolve_reg(v, reg)
        if msr is None:
            return -EINVAL
        if self.port.copy_from_user(8):
            return -EFAULT
        loaded = self.one_reg_needs_fpu(v, msr)
        if loaded:
            self.port.load_guest_fpu(vcpu)
        result = self.do_set_msr(v, msr, value, True)
        if loaded:
            self.port.put_guest_fpu(vcpu)
        return -EINVAL if result else 0

    def get_one_reg(self, vcpu: int, reg: int) -> tuple[int, int]:
        """Resolve the id, then get as userspace."""
        v = self.vcpus[vcpu]
        msr = self.resolve_reg(v, reg)
        if msr is None:
            return -EINVAL, 0
        loaded = self.one_reg_needs_fpu(v, msr)
        if loaded:
            self.port.load_guest_fpu(vcpu)
        result, value = self.do_get_msr(v, msr, True)
        if loaded:
            self.port.put_guest_fpu(vcpu)
        if result:
            return -EINVAL, 0
        if self.port.copy_to_user(8):
            return -EFAULT, 0
        return 0, value

    def get_reg_list(self, vcpu: int, n: int) -> tuple[int, int, tuple[int, ...]]:
        """GUEST_SSP, if the vCPU has SHSTK."""
        ids = (ONE_REG_GUEST_SSP,) if self.vcpus[vcpu].shstk else ()
        if self.port.copy_from_user(8):
            return -EFAULT, 0, ()
        if self.port.copy_to_user(8):
            return -EFAULT, 0, ()
        if n < len(ids):
            return -E2BIG, len(ids), ()
        if ids and self.port.copy_to_user(8 * len(ids)):
            return -EFAULT, 0, ()
        return 0, len(ids), ids

    def get_xsave(self, vcpu: int) -> tuple[int, ...]:
        """AVX stands for all user components."""
        return (2,)

    def set_xsave(self, vcpu: int, component: int, words: tuple[int, ...]) -> int:
        """The FPU code sorts out what userspace may set."""
        return self.port.copy_uabi_to_fpstate(vcpu, component, words)
