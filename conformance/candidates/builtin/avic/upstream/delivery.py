"""Interrupts that software sends: routing in the kernel, acceptance, doorbell, kick and wake."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream.registers import Registers
from conformance.candidates.builtin.avic.upstream.vm import HOST_ID, Kvm, Vcpu
from conformance.specs.avic.constants import APIC_DFR, APIC_ID, APIC_IRR, APIC_LDR, APIC_SPIV, APIC_TMR, DOORBELL_MSR


class Delivery(Registers):
    """An interrupt is accepted, and its target made to look."""

    def _as_apics(self, kvm: Kvm) -> tuple[list[Vcpu], list[tuple[int, int, int, int, int]]]:
        vcpus = sorted(kvm.vcpus.values(), key=lambda v: v.id)
        apics = []
        for v in vcpus:
            mode = 0 if not v.enabled else 2 if v.x2 else 1
            ident = v.id | (self._reg(v, APIC_ID) >> 24 << 32 | 1 << 40 if mode == 1 else 0)
            apics.append((ident, mode, self._reg(v, APIC_SPIV), self._reg(v, APIC_LDR), self._reg(v, APIC_DFR)))
        return vcpus, apics

    def _send(self, v: Vcpu, low: int, high: int) -> None:
        """kvm_apic_send_ipi."""
        vcpus, apics = self._as_apics(v.kvm)
        dest = high if v.x2 else high >> 24
        level, asserted = low >> 15 & 1, low >> 14 & 1
        mode, vector = low >> 8 & 7, low & 0xFF
        message = (vcpus.index(v), dest, low >> 11 & 1, low >> 18 & 3, mode, vector, level, asserted, 0, 0)
        hit = self.route(tuple(apics), message)
        for n, target in enumerate(vcpus):
            if hit >> n & 1:
                self._accept(target, mode, vector, level)

    def _accept(self, v: Vcpu, mode: int, vector: int, level: int) -> None:
        """__apic_accept_irq."""
        if mode in (0, 1):
            self._deliver(v, vector, level)
        else:
            self.port.signal(v.handle, mode, vector)

    def deliver(self, vcpu: int, vector: int, level: int) -> None:
        """An interrupt from the host."""
        self._deliver(self.vcpus[vcpu], vector, level)

    def _deliver(self, v: Vcpu, vector: int, level: int) -> None:
        if level:
            self._set_vector(v, APIC_TMR, vector)
        else:
            self._clear_vector(v, APIC_TMR, vector)
        self._set_vector(v, APIC_IRR, vector)
        self.port.smp_mb()
        self._complete_delivery(v)

    def _complete_delivery(self, v: Vcpu) -> None:
        port = self.port
        in_guest = port.vcpu_mode(v.handle)
        if not v.apicv_active:
            port.kick(v.handle)
        elif in_guest:
            self._ring_doorbell(v)
        else:
            port.wake(v.handle)

    def _ring_doorbell(self, v: Vcpu) -> None:
        cpu = self.port.vcpu_cpu(v.handle)
        if cpu > HOST_ID:
            self.port.kick(v.handle)
        elif cpu >= 0:  # it may have left its core since it was looked at; then VMRUN will see IRR
            self.port.wrmsr(DOORBELL_MSR, cpu)
