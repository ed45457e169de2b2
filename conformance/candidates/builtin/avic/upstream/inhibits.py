"""Activation: the reasons that keep AVIC off, and the vCPUs that follow them."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream.posted import Posted
from conformance.candidates.builtin.avic.upstream.vm import Kvm, Vcpu
from conformance.specs.avic.constants import (
    APIC_DFR,
    APIC_ID,
    APIC_LDR,
    FLAT,
    INHIBIT_APIC_ID_MODIFIED,
    INHIBIT_LOGICAL_ID_ALIASED,
    INHIBIT_PHYSICAL_ID_ALIASED,
)

DERIVED = 1 << INHIBIT_PHYSICAL_ID_ALIASED | 1 << INHIBIT_APIC_ID_MODIFIED | 1 << INHIBIT_LOGICAL_ID_ALIASED
"""Reasons that are recomputed from the APICs."""


class Inhibits(Posted):
    """AVIC is active for a vCPU while nothing forbids it."""

    def inhibit(self, vm: int, reason: int, on: int) -> None:
        """Set or clear a reason."""
        self._set_inhibit(self.vms[vm], reason, bool(on))

    def _set_inhibit(self, kvm: Kvm, reason: int, on: bool) -> None:
        self._set_inhibits(kvm, 1 << reason, int(on) << reason)

    def _set_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        """Change these reasons."""
        self.port.lock("inhibit", kvm.vm)
        self._change_inhibits(kvm, reasons, value)
        self.port.unlock("inhibit", kvm.vm)

    def _change_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        """With the lock held: everybody leaves the guest before the new mask is in force."""
        port = self.port
        mask = kvm.inhibits & ~reasons | value
        if bool(mask) != bool(kvm.inhibits):
            for v in list(kvm.vcpus.values()):
                port.request_refresh(v.handle)
                port.kick(v.handle)
        kvm.inhibits = mask

    def refresh(self, vcpu: int) -> None:
        """KVM_REQ_APICV_UPDATE."""
        self._update_apicv(self.vcpus[vcpu])

    def _update_apicv(self, v: Vcpu) -> None:
        """Follow the reasons; whoever changes them holds the lock until they are in force."""
        self.port.lock("inhibit", v.kvm.vm)
        active = self.avic and v.kvm.irqchip and v.enabled and not v.kvm.inhibits and v.addressable
        if active != v.apicv_active:
            v.apicv_active = active
            self._refresh_exec_ctrl(v)
        self.port.unlock("inhibit", v.kvm.vm)

    def _refresh_exec_ctrl(self, v: Vcpu) -> None:
        self._refresh_virtual_apic_mode(v)
        cpu = self.port.vcpu_cpu(v.handle)
        if v.apicv_active:
            self._set_irte_mode(v, posted=True)
            if cpu >= 0 and not v.blocking:
                self._load(v, cpu)
        else:
            self._put(v, log=False)
            self._set_irte_mode(v, posted=False)

    def _refresh_virtual_apic_mode(self, v: Vcpu) -> None:
        if not self.avic or not v.regs:
            return
        if v.apicv_active:
            self._post_state_restore(v)
            self._activate_vmcb(v)
        else:
            self._deactivate_vmcb(v)

    def _recalculate_map(self, kvm: Kvm) -> None:
        """Recompute the inhibits that follow from ids and logical ids; the last to look sees what all have written."""
        if not self.avic:
            return
        self.port.lock("inhibit", kvm.vm)
        self._change_inhibits(kvm, DERIVED, self._derived(kvm))
        self.port.unlock("inhibit", kvm.vm)

    def _derived(self, kvm: Kvm) -> int:
        mask = 0
        ids: set[int] = set()
        slots: set[int] = set()
        kind = ""
        aliased = False
        for v in list(kvm.vcpus.values()):
            if not v.enabled:
                continue
            if not v.x2:
                xid = self._reg(v, APIC_ID) >> 24
                if xid in ids:
                    mask |= 1 << INHIBIT_PHYSICAL_ID_ALIASED
                ids.add(xid)
                if xid != v.id & 0xFF:
                    mask |= 1 << INHIBIT_APIC_ID_MODIFIED
            ldr = self._reg(v, APIC_LDR)
            if not self._sw_enabled(v) or not ldr or aliased:
                continue
            own = "x2" if v.x2 else "flat" if self._reg(v, APIC_DFR) == FLAT else "cluster"
            if kind and kind != own:
                aliased = True
                continue
            kind = own
            if own != "x2":
                aliased = not self._take_slot(slots, ldr >> 24, own)
        if aliased:
            mask |= 1 << INHIBIT_LOGICAL_ID_ALIASED
        return mask

    @staticmethod
    def _take_slot(slots: set[int], ldr: int, kind: str) -> bool:
        bits = ldr if kind == "flat" else ldr & 0xF
        if not bits:
            return True
        slot = ldr if kind == "flat" else ldr | 0x100
        if bits & bits - 1 or slot in slots:
            return False
        slots.add(slot)
        return True
