"""What the host's KVM can be asked, probed feature by feature and never by its version."""

from __future__ import annotations

import os
from typing import Any

from conformance.model.avic import View
from conformance.model.avic.operations import Irqfds, Route, SignalMsi
from conformance.model.avic.routing import Apic, Message
from conformance.real import kvm_requests as r
from conformance.real.adapter import Adapter, Rate, rate
from conformance.real.kvm_lapic.bench import KvmBench
from conformance.real.kvm_lapic.irqfds import is_settled
from conformance.real.kvm_lapic.machine import APIC_ISR, Kvm, Vm, has
from conformance.real.kvm_lapic.world import KvmWorld, address_of, data_of
from conformance.specs.avic.constants import FIXED, LOWEST
from conformance.verdict import UsageError

NEEDED = {
    r.CAP_IRQFD: "KVM_IRQFD",
    r.CAP_SIGNAL_MSI: "KVM_SIGNAL_MSI",
    r.CAP_SPLIT_IRQCHIP: "KVM_CAP_SPLIT_IRQCHIP",
    r.CAP_X2APIC_API: "KVM_CAP_X2APIC_API",
}


NO_ISR = "ISR and PPR stay 0 while a handler runs (finding KVM-1): nothing is compared that would come of them"


class KvmLapic(Adapter):
    """Layer R: MSIs by ioctl and by irqfd, IPIs by ICR of xAPICs and x2APICs."""

    profile = "kvm-lapic"
    capabilities = frozenset({"layer-r", "kvm-return", "irqfd"})
    operations = frozenset({Route, SignalMsi, Irqfds})
    scripts = "kvm_lapic"
    clauses = frozenset(f"AVIC-{n}" for n in (109, 110, 111, 119, 120, 121, 122, 123))

    def __init__(self) -> None:
        probe()
        if not shows_in_service():
            self.absent = {NO_ISR: frozenset()}
        self.version = f"KVM of Linux {os.uname().release}"

    def environment(self, config: Any, profile: Any) -> KvmWorld:
        """Nothing yet: a VM is made for the first message."""
        del config, profile
        return KvmWorld(self.hidden)

    def bench(self) -> KvmBench:
        """A VM, once one is asked for."""
        return KvmBench()

    def hidden(self) -> Any:
        """The view, all of it out of sight."""
        fields: dict[str, Any] = dict.fromkeys(View._fields)
        return View(**fields)

    def legal(self, state: Any, op: Any) -> bool:
        """Of IPIs those that set IRR, as others stop their sender; what can be said with the fields of a message."""
        del state
        if isinstance(op, Irqfds):
            return is_settled(op.acts)
        message = op.message
        fits = message.sender >= 0 or message.wide or message.dest >> 8 == 0
        is_plain = message.mode in (FIXED, LOWEST) and not (message.level and not message.asserted)
        return fits and (is_plain or (message.sender < 0 and isinstance(op, Route)))

    def rates(self) -> tuple[Rate, ...]:
        """As the facts have them."""
        apics = tuple(Apic(n, ldr=1 << 24 + n) for n in range(8))
        message = Message(1)
        world = KvmWorld(self.hidden)
        vm = world.fresh(apics, message)
        address, data = address_of(message), data_of(message)
        vcpu, fd = vm.vcpus[0], os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        image = vcpu.get_lapic()
        table = [(gsi, address, data) for gsi in range(256)]

        def sent() -> None:
            vm.signal_msi(address, data)
            for looked in vm.vcpus:
                looked.get_lapic()

        def wired() -> None:
            vm.irqfd(fd, 5)
            vm.irqfd(fd, 5, deassign=True)

        told = (
            rate("KVM_SIGNAL_MSI", 450_000, lambda: vm.signal_msi(address, data)),
            rate("KVM_GET_LAPIC", 125_000, vcpu.get_lapic),
            rate("KVM_SET_LAPIC", 83_000, lambda: vcpu.set_lapic(image)),
            rate("MSI and 8 KVM_GET_LAPIC", 13_900, sent),
            rate("KVM_SET_GSI_ROUTING", 111_000, lambda: vm.set_routing(table[:1])),
            rate("KVM_SET_GSI_ROUTING of 256", 11_100, lambda: vm.set_routing(table)),
            rate("KVM_IRQFD, assigned and deassigned", 71_000, wired),
            rate("VM with 4 vCPUs, made and closed", 1_500, _vm_of_four),
        )
        os.close(fd)
        world.close()
        return told


def probe() -> None:
    """UsageError, with the one sentence that says what is missing."""
    try:
        device = Kvm()
    except OSError as error:
        raise UsageError(f"real:kvm-lapic needs /dev/kvm: {error.strerror}") from None
    try:
        if device.version != 12:
            raise UsageError(f"real:kvm-lapic needs version 12 of KVM's API, here it is {device.version}")
        missing = [name for cap, name in NEEDED.items() if not device.has(cap)]
        if missing:
            raise UsageError(f"real:kvm-lapic needs {' and '.join(missing)}, which KVM does not have here")
    finally:
        device.close()
    try:
        _deliver_one()
    except OSError as error:
        raise UsageError(f"real:kvm-lapic: a VM with a split irqchip cannot be had here: {error.strerror}") from None


def shows_in_service() -> bool:
    """Whether KVM_GET_LAPIC has a vector in ISR while its handler runs."""
    vm = Vm()
    try:
        vcpu = vm.create_vcpu(0)
        vcpu.set_registers({0xF0: 0x1FF})
        vm.signal_msi(0xFEE00000, 0x51)
        return has(vcpu.enter_handler(0x51), APIC_ISR, 0x51)
    finally:
        vm.close()


def _deliver_one() -> None:
    vm = Vm()
    try:
        vcpu = vm.create_vcpu(0)
        vcpu.set_registers({0xF0: 0x1FF})
        vm.signal_msi(0xFEE00000, 0x41)
        if not vcpu.pending(0x41):
            raise UsageError("real:kvm-lapic: an MSI does not reach IRR here")
    finally:
        vm.close()


def _vm_of_four() -> None:
    vm = Vm()
    for n in range(4):
        vm.create_vcpu(n)
    vm.close()
