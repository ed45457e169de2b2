"""Layer R on real local APICs: a fresh VM for each set of APICs, asked by ioctls and, of xAPICs, by guest code."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from conformance.model.avic.operations import Irqfds, Route, SignalMsi
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, Apic, Message
from conformance.real import kvm_requests as r
from conformance.real.adapter import RealWorld
from conformance.real.kvm_lapic.irqfds import Done, Eventfds
from conformance.real.kvm_lapic.machine import APIC_DFR, APIC_ID, APIC_IRR, APIC_LDR, APIC_SPIV, OUT, Vcpu, Vm, has
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import APIC_BASE, FIXED, LOWEST
from conformance.verdict import Violation

BASE = {DISABLED: APIC_BASE, XAPIC: APIC_BASE | 1 << 11, X2APIC: APIC_BASE | 3 << 10}
BSP = 1 << 8
GSI = 5
"""The one that messages of devices are routed through."""
EPERM_RETURN = -1
FAULTED = -1
MSI_LEVEL, MSI_ASSERT = 15, 14


def address_of(message: Message) -> int:
    """The address of an MSI, 64 bits."""
    low = APIC_BASE | (message.dest & 0xFF) << 12 | int(message.hint) << 3 | int(message.logical) << 2
    return (message.dest & 0xFFFFFF00) << 32 | low


def data_of(message: Message) -> int:
    """The data of an MSI: trigger mode, level, delivery mode, vector."""
    shape = int(message.level) << MSI_LEVEL | int(message.asserted) << MSI_ASSERT
    return shape | message.mode << 8 | message.vector


def icr_of(message: Message) -> int:
    """The low half of ICR."""
    return data_of(message) | int(message.logical) << 11 | message.shorthand << 18 | message.reserved


class KvmWorld(RealWorld):
    """One VM at a time; while messages have the same APICs, these are put back into their state after each."""

    def __init__(self, hidden: Callable[[], Any]) -> None:
        super().__init__()
        self.hidden = hidden
        self.vm: Vm | None = None
        self.made: tuple[tuple[Apic, ...], int] | None = None
        """APICs and X2APIC_API of the VM that is there."""
        self.images: list[bytearray] = []
        """The local APICs of it as they were before any message."""

    def view(self) -> Any:
        """Nothing of the view: the result says who accepted."""
        return self.hidden()

    def close(self) -> None:
        """Give the VM back."""
        if self.vm is not None:
            self.vm.close()
            self.vm = None
        self.made = None

    # -- making a VM

    def fresh(self, apics: tuple[Apic, ...], message: Message) -> Vm:
        """A VM with these APICs, in which nothing is pending."""
        api = int(message.wide) * r.USE_32BIT_IDS | int(message.no_quirk) * r.DISABLE_BROADCAST_QUIRK
        if self.vm is not None and self.made == (apics, api):
            return self.vm
        self.close()
        self.vm = vm = Vm(api)
        for apic in apics:
            self.set_up(vm.create_vcpu(apic.id), apic)
        self.made, self.images = (apics, api), [vcpu.get_lapic() for vcpu in vm.vcpus]
        return vm

    def set_up(self, vcpu: Vcpu, apic: Apic) -> None:
        """Bring a local APIC into its state; LDR and ID of an x2APIC follow from its id."""
        base = BASE[apic.mode] | (BSP if apic.id == 0 else 0)
        if apic.mode == X2APIC:
            vcpu.set_cpuid()
        if apic.mode != XAPIC:
            accepted = vcpu.set_msr(r.MSR_APIC_BASE, base)
            assert accepted == 1, f"APIC_BASE {base:#x} refused"
        values = {APIC_SPIV: apic.spiv}
        if apic.mode != X2APIC:
            values |= {APIC_LDR: apic.ldr, APIC_DFR: apic.dfr}
        if apic.xid >= 0:
            values[APIC_ID] = apic.xid << 24
        vcpu.set_registers(values)

    # -- sending

    def send_ipi(self, vm: Vm, apics: tuple[Apic, ...], message: Message) -> bool:
        """An IPI by the sender's ICR; whether it was taken."""
        sender, icr = vm.vcpus[message.sender], icr_of(message)
        if apics[message.sender].mode == X2APIC:
            return sender.set_msr(r.MSR_X2APIC_ICR, message.dest << 32 | icr) == 1
        stores = (
            b"\x66\xc7\x06" + struct.pack("<HI", offset, value)
            for offset, value in ((0x310, message.dest << 24 & 0xFFFFFFFF), (0x300, icr))
        )
        sender.run_real_mode(b"".join(stores) + OUT, APIC_BASE)
        return True

    def send_msi_by_irqfd(self, vm: Vm, message: Message) -> None:
        """An MSI through a routing table and an eventfd; it has arrived when this returns."""
        vm.set_routing([(GSI, address_of(message), data_of(message))])
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            vm.irqfd(fd, GSI)
            os.eventfd_write(fd, 1)
            vm.irqfd(fd, GSI, deassign=True)
        finally:
            os.close(fd)

    def route(self, op: Route) -> int:
        """Send it, by ICR or by an irqfd, and see whose IRR has the vector."""
        vm, message = self.fresh(op.apics, op.message), op.message
        if message.sender < 0:
            self.send_msi_by_irqfd(vm, message)
        elif not self.send_ipi(vm, op.apics, message):
            return FAULTED
        mask = self.accepted(vm, message.vector)
        if message.mode not in (FIXED, LOWEST):
            self.close()  # what an NMI or an INIT leaves behind is not seen in the local APIC
        return mask

    def accepted(self, vm: Vm, vector: int) -> int:
        """Mask of those whose IRR has the vector, which are then as they were before."""
        mask = 0
        for n, vcpu in enumerate(vm.vcpus):
            if has(vcpu.get_lapic(), APIC_IRR, vector):
                mask |= 1 << n
                vcpu.set_lapic(self.images[n])
        return mask

    def signal_msi(self, op: SignalMsi) -> int:
        """The return value of the ioctl."""
        vm = self.fresh(op.apics, op.message)
        try:
            count = vm.signal_msi(address_of(op.message), data_of(op.message))
        except PermissionError:
            count = EPERM_RETURN
        accepted = self.accepted(vm, op.message.vector).bit_count()
        if accepted != max(count, 0):
            raise Violation(
                c.KVM_ACCEPTED_COUNT, f"KVM_SIGNAL_MSI returned {count}, and {accepted} IRRs have the vector"
            )
        return count

    def irqfds(self, op: Irqfds) -> tuple[Done, ...]:
        """In a VM of its own."""
        made = Eventfds()
        try:
            return tuple(made.act(act) for act in op.acts)
        finally:
            made.close()

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        Route: route,
        SignalMsi: signal_msi,
        Irqfds: irqfds,
    }
