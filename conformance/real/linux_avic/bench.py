"""The acts of scripts on the AVIC of a kernel in a guest: ioctls, and what VMCBs and tables then say."""

from __future__ import annotations

import re
import struct
import time

from conformance.model.avic import Config
from conformance.model.avic.operations import VcpuCreate, VmCreate
from conformance.real import kvm_requests as r
from conformance.real.guest.bench import GuestBench
from conformance.real.guest.channel import AT_FDCWD, Back, call, storing
from conformance.real.guest.kvm import Vcpu
from conformance.real.linux_avic.world import AvicWorld, processor
from conformance.real.scripts import act
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    ENTRY_RUNNING,
    ENTRY_VALID,
    LOGICAL_VALID,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
)

_FIELDS = {
    "avic_enable": (VMCB_INT_CTL, "<I", 31, 1),
    "v_intr_masking": (VMCB_INT_CTL, "<I", 24, 1),
    "nested_paging": (0x90, "<Q", 0, 1),
    "apic_bar": (VMCB_APIC_BAR, "<Q", 0, ADDRESS_BITS),
    "max_index": (VMCB_PHYSICAL_TABLE, "<Q", 0, 0xFF),
}
"""Fields of a VMCB: offset, form, shift and mask."""
_IRR = 0x200
_HALT_AT = 0x2800
_HALT = b"\xff\x04\xf4\xeb\xfd"
"""inc word [si]; 1: hlt; jmp 1b."""
_GLANCES, _GLANCE = 400, 0.005
_TRACING = "/sys/kernel/tracing"
_TRACE = f"{_TRACING}/trace"
_INHIBITS = f"{_TRACING}/events/kvm/kvm_apicv_inhibit_changed/enable"
_TOLD = r"kvm_apicv_inhibit_changed: \w+ reason=\d+, inhibits=(0x[0-9a-f]+|0)"
_TRUNCATED = 0o1001
"""O_WRONLY and O_TRUNC."""


class AvicBench(GuestBench):
    """One VM, and the memory of the machine that it is in."""

    world: AvicWorld

    @act
    def vm(self) -> int:
        """KVM_CREATE_VM, with a split irqchip."""
        return self.enter(AvicWorld(self.kernel, Config())).vm_create(VmCreate())

    def of(self, vcpu: int) -> Vcpu:
        """The vCPU of that id."""
        return self.world.vcpus[0, vcpu]

    def _word(self, at: int, form: str) -> int:
        return int(struct.unpack_from(form, self.world.guest.ram, at)[0])

    # -- ioctls

    @act
    def create_vcpu(self, vcpu: int) -> int:
        """KVM_CREATE_VCPU."""
        return self.world.vcpu_create(VcpuCreate(vcpu))

    @act
    def set_register(self, vcpu: int, offset: int, value: int) -> int:
        """KVM_SET_LAPIC with one register changed."""
        image = bytearray(self.of(vcpu).ask(r.GET_LAPIC, bytes(1024)).data[0])
        struct.pack_into("<I", image, offset, value)
        return self.of(vcpu).ask(r.SET_LAPIC, bytes(image)).value

    @act
    def signal_msi(self, address: int, data: int) -> int:
        """KVM_SIGNAL_MSI."""
        argument = r.MSI.pack(address, 0, data, 0, 0)
        return self.channel.one(call("ioctl", self.world.vms[0], r.SIGNAL_MSI, argument)).value

    @act
    def run(self, vcpu: int) -> int:
        """KVM_RUN of one instruction."""
        return self.of(vcpu).visit()

    @act
    def run_with_immediate_exit(self, vcpu: int) -> int:
        """KVM_RUN that ends before the guest is entered."""
        of = self.of(vcpu)
        lines = [f"p {of.run} 256", call("ioctl", of.fd, r.RUN, 0), f"p {of.run} 0"]
        return self.channel.ask(lines)[1].value

    @act
    def spin(self, vcpu: int, core: int) -> int:
        """KVM_RUN of an endless loop, on a thread of its own on that processor."""
        self.of(vcpu).start(processor(core))
        return 0

    @act
    def halt(self, vcpu: int, core: int) -> int:
        """KVM_RUN of a guest that halts, on a thread of its own."""
        self.channel.must(f"w {self.world.kvm.memory + _HALT_AT} {_HALT.hex()}")
        self.of(vcpu).start(processor(core), _HALT_AT)
        return 0

    @act
    def stop(self, vcpu: int) -> int:
        """Kick the thread: what KVM_RUN gives."""
        return self.of(vcpu).stop()

    # -- memory

    @act
    def vmcb(self, vcpu: int, field: str) -> int:
        """A field of the VMCB."""
        offset, form, shift, mask = _FIELDS[field]
        return self.of(vcpu).read(offset, form) >> shift & mask

    def _entry(self, vcpu: int) -> int:
        table = self.of(vcpu).read(VMCB_PHYSICAL_TABLE) & ADDRESS_BITS
        return self._word(table + 8 * vcpu, "<Q")

    @act
    def is_valid(self, vcpu: int) -> int:
        """Bit 63 of the vCPU's physical entry, where it names the vCPU's own backing page."""
        entry, page = self._entry(vcpu), self.of(vcpu).read(VMCB_BACKING_PAGE)
        return int(entry >> ENTRY_VALID & 1 and entry & ADDRESS_BITS == page & ADDRESS_BITS)

    @act
    def is_running(self, vcpu: int, until: int = -1) -> int:
        """Bit 62 of the physical entry; awaited for two seconds where it is said what it will be."""
        for _ in range(_GLANCES):
            running = self._entry(vcpu) >> ENTRY_RUNNING & 1
            if until in (-1, running):
                break
            time.sleep(_GLANCE)
        return running

    @act
    def host_id(self, vcpu: int) -> int:
        """The low bits of the physical entry."""
        return self._entry(vcpu) & 0xFF

    @act
    def logical_entry(self, vcpu: int, index: int) -> list[int]:
        """Bit 31 and the low byte of an entry of the logical table."""
        table = self.of(vcpu).read(VMCB_LOGICAL_TABLE) & ADDRESS_BITS
        entry = self._word(table + 4 * index, "<I")
        return [entry >> LOGICAL_VALID & 1, entry & 0xFF]

    @act
    def pending(self, vcpu: int) -> list[int]:
        """The vectors of IRR in the backing page."""
        page = self.of(vcpu).read(VMCB_BACKING_PAGE) & ADDRESS_BITS
        banks = [self._word(page + _IRR + 16 * n, "<I") for n in range(8)]
        return [32 * n + bit for n, bank in enumerate(banks) for bit in range(32) if bank >> bit & 1]

    # -- the tracepoint

    @act
    def trace_inhibits(self) -> int:
        """Enable the tracepoint of inhibits."""
        self.given.callback(self.channel.one, storing(_INHIBITS, b"0"))
        return min(self.channel.one(storing(_INHIBITS, b"1")).value, 0)

    @act
    def traced(self) -> int:
        """Whether an inhibit was left when the tracepoint told last, which is forgotten; -1 where it told nothing."""
        truncated = [call("openat", AT_FDCWD, _TRACE, _TRUNCATED, 0), call("close", Back(1))]
        told = self.channel.ask([f"c {_TRACE}", *truncated])[0].data
        found = re.findall(_TOLD, b"".join(told).decode(errors="replace"))
        return int(int(found[-1], 16) != 0) if found else -1
