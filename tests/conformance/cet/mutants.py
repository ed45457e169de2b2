"""Hypervisors that break one clause each, in a line or two; the table of `test_clauses` says which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.candidates.builtin.cet.repaired import Repaired
from conformance.candidates.builtin.cet.upstream import Upstream
from conformance.candidates.builtin.cet.upstream.vcpu import SUPERVISOR_POINTERS
from conformance.specs.cet import constants as k
from tests.conformance.peers.cet import LazySwap


def bent(base: type, **methods: Callable[..., Any]) -> type:
    """The candidate with other methods."""
    return type("Bent" + "".join(sorted(methods)), (base,), methods)


def giving(value: Any) -> Callable[..., Any]:
    """A method that returns this, whatever it is asked."""
    return lambda self, *args: value


def first(method: str, act: Callable[..., Any], base: type = Upstream) -> type:
    """The candidate that does something before one of its methods."""

    def bending(self: Any, *args: Any) -> Any:
        act(self, *args)
        return getattr(base, method)(self, *args)

    return bent(base, **{method: bending})


def then(method: str, act: Callable[..., Any], base: type = Upstream) -> type:
    """The candidate that does something after one of its methods; what that returns, unless None, is the result."""

    def bending(self: Any, *args: Any) -> Any:
        result = getattr(base, method)(self, *args)
        other = act(self, *args)
        return result if other is None else other

    return bent(base, **{method: bending})


class AnyPointer(Upstream):
    """Takes every value of the registers that a VMCS holds."""

    def noncanonical(self, value: int) -> bool:
        """Nothing is."""
        return False

    def set_msr(self, v: Any, msr: int, value: int, host: bool) -> int:
        """Only what the vCPU has counts."""
        if msr == k.INTERNAL_GUEST_SSP and host and v.shstk:
            self.field_write(v, k.GUEST_SSP, value)
            return 0
        return super().set_msr(v, msr, value, host)


class AlignedTable(Upstream):
    """Wants INT_SSP_TAB aligned."""

    def set_msr(self, v: Any, msr: int, value: int, host: bool) -> int:
        """As the seed's v4 did."""
        return 1 if msr == k.INT_SSP_TAB and value & 3 else super().set_msr(v, msr, value, host)


class ReadsAnything(Upstream):
    """Reads every CET MSR, whatever the vCPU has."""

    def get_msr(self, v: Any, msr: int, host: bool) -> tuple[int, int]:
        """Zero, where it has none."""
        result, value = super().get_msr(v, msr, host)
        return (0, 0) if result else (result, value)


class IgnoresZero(Upstream):
    """A zero is no value."""

    def store_msr(self, v: Any, msr: int, value: int, host: bool) -> None:
        """Only what is not zero."""
        if value:
            super().store_msr(v, msr, value, host)


class WritesTwo(Upstream):
    """PL0_SSP takes PL1_SSP with it."""

    def store_msr(self, v: Any, msr: int, value: int, host: bool) -> None:
        """Both."""
        super().store_msr(v, msr, value, host)
        if msr == k.PL0_SSP:
            super().store_msr(v, k.PL1_SSP, value, host)


class EnabledFirst(Upstream):
    """Takes no pointer before shadow stacks are on."""

    def set_msr(self, v: Any, msr: int, value: int, host: bool) -> int:
        """S_CET decides."""
        late = msr in k.POINTER_MSRS and not self.field_read(v, k.GUEST_S_CET) & 1
        return 1 if late else super().set_msr(v, msr, value, host)


class ZeroRefused(Upstream):
    """Userspace cannot write zero to an MSR the vCPU lacks."""

    def do_set_msr(self, v: Any, msr: int, value: int, host: bool) -> int:
        """Whether it is advertised or not."""
        return 1 if self.set_msr(v, msr, value, host) else 0


class GoesOn(Upstream):
    """Processes a batch to its end."""

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        """Whatever failed."""
        return max(len(entries), super().set_msrs(vcpu, entries))


class NoLimit(Upstream):
    """Takes a batch of any size."""

    def set_msrs(self, vcpu: int, entries: tuple[tuple[int, int], ...]) -> int:
        """One after the other."""
        return sum(super(NoLimit, self).set_msrs(vcpu, (entry,)) for entry in entries)


class HostWriteLost(Upstream):
    """What userspace writes goes nowhere."""

    def store_msr(self, v: Any, msr: int, value: int, host: bool) -> None:
        """Only the guest's."""
        if not host:
            super().store_msr(v, msr, value, host)


class HostReadsZero(Upstream):
    """Userspace reads zeros."""

    def get_msr(self, v: Any, msr: int, host: bool) -> tuple[int, int]:
        """Whatever there is."""
        result, value = super().get_msr(v, msr, host)
        return result, 0 if host else value


class LosesAtSwitch(Repaired):
    """Forgets the registers when the thread leaves its physical CPU."""

    def sched_out(self, vcpu: int) -> None:
        """Cleared, not saved."""
        v = self.vcpus[vcpu]
        before = list(v.ssp)
        super().sched_out(vcpu)
        v.ssp = before


class LosesOnTheWay(Repaired):
    """Forgets the registers when the thread comes to another physical CPU."""

    def sched_in(self, vcpu: int, cpu: int) -> None:
        """As if the other one had them."""
        v = self.vcpus[vcpu]
        if cpu != v.cpu:
            v.ssp = [0, 0, 0]
        super().sched_in(vcpu, cpu)


class NeverLoads(Repaired):
    """Passes the pointers through, and loads nothing."""

    def swap_in(self, v: Any) -> None:
        """Hardware has what it has."""


class NeverClears(Repaired):
    """Leaves the registers as they are after a save."""

    def swap_out(self, v: Any) -> None:
        """Only read."""
        if v.in_hardware:
            v.ssp = [self.port.rdmsr(msr) for msr in SUPERVISOR_POINTERS]
            v.in_hardware = False


class TornSave(LazySwap):
    """Saves with preemption on, and remembers only afterwards that it did."""

    def put(self, v: Any) -> None:
        """Read, cleared one by one."""
        if v.in_hardware:
            for index, msr in enumerate(SUPERVISOR_POINTERS):
                v.ssp[index] = self.port.rdmsr(msr)
                self.port.wrmsr(msr, 0)
            v.in_hardware = False


class NeverReloads(LazySwap):
    """Takes for granted that what it once loaded is still there."""

    def put(self, v: Any) -> None:
        """Saved, and thought to be in hardware still."""
        loaded = v.in_hardware
        super().put(v)
        v.in_hardware = loaded


class StoresLate(Upstream):
    """Writes a VMCB and leaves it clean."""

    def field_write(self, v: Any, field: int, value: int) -> None:
        """Memory alone."""
        if self.svm:
            offset = {k.GUEST_S_CET: k.VMCB_S_CET, k.GUEST_SSP: k.VMCB_SSP}.get(field, k.VMCB_ISST_ADDR)
            self.port.vmcb_write(v.number, 2 if v.l2 else 1, offset, value)
        else:
            super().field_write(v, field, value)
