"""VMs of KVM in a guest, and what their VMCBs, tables and backing pages say in its memory."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

from conformance.environment.avic.view import LVT_SEEN, UNSEEN
from conformance.model.avic import Config, View
from conformance.model.avic.logical_ids import logical_index
from conformance.model.avic.operations import (
    Deliver,
    Enter,
    GetLapic,
    Load,
    Put,
    SetLapic,
    VcpuCreate,
    VmCreate,
    VmDestroy,
)
from conformance.real import kvm_requests as r
from conformance.real.guest.channel import call
from conformance.real.guest.kvm import Kvm, Vcpu, started
from conformance.real.guest.packages import Kernel
from conformance.real.guest.world import GuestWorld
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ADDRESS_BITS,
    APIC_BASE,
    APIC_DFR,
    APIC_ICR2,
    APIC_ID,
    APIC_LDR,
    APIC_LVT0,
    APIC_LVTERR,
    APIC_LVTT,
    APIC_SPIV,
    APIC_TPR,
    CLUSTER,
    ENTRY_RUNNING,
    ENTRY_VALID,
    FLAT,
    LOGICAL_VALID,
    LVT_MASKED,
    VMCB_APIC_BAR,
    VMCB_BACKING_PAGE,
    VMCB_INT_CTL,
    VMCB_LOGICAL_TABLE,
    VMCB_PHYSICAL_TABLE,
)
from conformance.verdict import Violation

_IRR, _ISR, _TMR = 0x200, 0x100, 0x180
_ACTIVE = 31
_ON = 0b10
"""Bits 31:30 of int_ctl: AVIC, and not x2AVIC."""
_MAX_INDEX = 0xFFF
PROCESSORS = 3
"""The helper's, and two on which vCPUs spin."""
_GLANCES = 200
"""How often a core is looked at that the host may have taken from a vCPU for a moment."""


def processor(host_id: int) -> int:
    """The emulated processor that stands for a core; 0 is the helper's."""
    return 1 + host_id % 2


class AvicWorld(GuestWorld):
    """The VMs of one trace. A vCPU that is loaded spins in its guest, on the processor that its host id stands for."""

    def __init__(self, kernel: Kernel, config: Config, *, leave_out_lapic: bool = False) -> None:
        super().__init__(partial(started, kernel, PROCESSORS))
        self.config = config
        self.leave_out_lapic = leave_out_lapic
        """For tests: KVM_SET_LAPIC is not made."""

    def set_up(self) -> None:
        """The VM that the configuration asks for."""
        config = self.config
        self.kvm = Kvm(self.guest)
        self.vms: dict[int, int] = {}
        self.vcpus: dict[tuple[int, int], Vcpu] = {}
        self.cores: dict[tuple[int, int], int] = {}
        if config.vcpus:
            self.vm_create(VmCreate())
            for n, id_ in enumerate(config.vcpus):
                self.vcpu_create(VcpuCreate(id_))
                if config.enabled:
                    self.set_lapic(SetLapic(id_, ldr=1 << n))

    # -- lifecycle

    def vm_create(self, op: VmCreate) -> int:
        """A VM."""
        self.vms[op.vm] = self.kvm.create_vm(irqchip=op.irqchip)
        return 0

    def vm_destroy(self, op: VmDestroy) -> int:
        """Its vCPUs, then the VM."""
        lines = []
        for key in [key for key in self.vcpus if key[0] == op.vm]:
            vcpu = self.vcpus.pop(key)
            vcpu.stop()
            lines += vcpu.closing()
            self.cores.pop(key, None)
        return self.channel.ask([*lines, call("close", self.vms.pop(op.vm))])[-1].value

    def vcpu_create(self, op: VcpuCreate) -> int:
        """A vCPU, or the errno."""
        vcpu = Vcpu(self.kvm, self.vms[op.vm], op.id)
        result = vcpu.create()
        if result == 0:
            self.vcpus[op.vm, op.id] = vcpu
        return result

    # -- registers

    def set_lapic(self, op: SetLapic) -> int:
        """The registers after RESET, but for those named."""
        image = bytearray(self.vcpus[0, op.id].apic)
        values = {
            APIC_TPR: op.tpr,
            APIC_SPIV: op.spiv,
            APIC_LDR: op.ldr << 24,
            APIC_DFR: CLUSTER if op.cluster else FLAT,
        }
        if op.xid >= 0:
            values[APIC_ID] = op.xid << 24
        for offset, value in values.items():
            struct.pack_into("<I", image, offset, value)
        for vector, banks in ((op.irr, (_IRR,)), (op.isr, (_ISR, _TMR) if op.level else (_ISR,))):
            for bank in banks if vector >= 16 else ():
                image[bank + 16 * (vector // 32) + vector % 32 // 8] |= 1 << vector % 8
        if self.leave_out_lapic:
            return 0
        return self.vcpus[0, op.id].ask(r.SET_LAPIC, bytes(image)).value

    def get_lapic(self, op: GetLapic) -> int:
        """One register."""
        answer = self.vcpus[0, op.id].ask(r.GET_LAPIC, bytes(1024))
        return int(struct.unpack_from("<I", answer.data[0], op.offset)[0]) if answer.value == 0 else answer.value

    def deliver(self, op: Deliver) -> int:
        """An MSI to the vCPU's id; KVM must say that one accepted it."""
        address, data = APIC_BASE | op.id << 12, op.vector | (3 << 14 if op.level else 0)
        argument = r.MSI.pack(address & 0xFFFFFFFF, 0, data, 0, 0)
        return self.channel.one(call("ioctl", self.vms[0], r.SIGNAL_MSI, argument)).value - 1

    # -- running

    def visit(self, op: Enter) -> int:
        """Run one instruction; whether AVIC was on."""
        vcpu = self.vcpus[op.vm, op.id]
        result = vcpu.visit()
        return vcpu.read(VMCB_INT_CTL, "<I") >> _ACTIVE & 1 if result == 0 else result

    def load(self, op: Load) -> int:
        """The vCPU spins in its guest."""
        self.vcpus[0, op.id].start(processor(op.host_id))
        self.cores[0, op.id] = op.host_id
        return 0

    def put(self, op: Put) -> int:
        """Its thread ends."""
        del self.cores[0, op.id]
        self.vcpus[0, op.id].stop()
        return 0

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        VmCreate: vm_create,
        VmDestroy: vm_destroy,
        VcpuCreate: vcpu_create,
        SetLapic: set_lapic,
        GetLapic: get_lapic,
        Deliver: deliver,
        Enter: visit,
        Load: load,
        Put: put,
    }

    def finish(self, op: Any) -> None:
        """Look at what the tables say then, and the VMCBs of vCPUs that are or were in a guest."""
        self.hold(c.ENTRY_POINTS_RETURN)
        for key in (*self.cores, *([(op.vm, op.id)] if isinstance(op, Enter) else [])):
            self._controls(self.vcpus[key])
        for vm in self.vms:
            self._inspect([vcpu for key, vcpu in sorted(self.vcpus.items()) if key[0] == vm], op)

    # -- looking

    def look(self) -> Any:
        """VMCBs, entries and backing pages, by VM and id."""
        order = sorted(self.vcpus)
        return View(
            None, None, None,  # type: ignore[arg-type]  # hidden
            tuple([self._running(key) for key in order]),
            tuple([self.vcpus[key].read(VMCB_APIC_BAR) for key in order]),
            tuple([self._registers(self.vcpus[key]) for key in order]),
            None,  # type: ignore[arg-type]  # hidden
        )  # fmt: skip

    def _running(self, key: tuple[int, int]) -> int:
        """The host id, while IsRunning is set.

        The host's own threads need the core now and then; the bit of a vCPU that is loaded is awaited.
        """
        vcpu, core = self.vcpus[key], self.cores.get(key, -1)
        table = vcpu.read(VMCB_PHYSICAL_TABLE) & ADDRESS_BITS
        if not table or vcpu.id > 511:
            return -1
        is_on = core >= 0 and vcpu.read(VMCB_INT_CTL, "<I") >> _ACTIVE & 1
        for _ in range(_GLANCES if is_on else 1):
            (entry,) = struct.unpack_from("<Q", self.guest.ram, table + 8 * vcpu.id)
            if entry >> ENTRY_RUNNING & 1:
                return core if core >= 0 and entry & 0xFFF == processor(core) else int(entry & 0xFFF)
            if is_on:
                time.sleep(0.005)
        return -1

    def _words(self, vcpu: Vcpu) -> list[int]:
        """All 64 registers of the backing page."""
        page = vcpu.read(VMCB_BACKING_PAGE) & ADDRESS_BITS
        return list(struct.unpack_from("<256I", self.guest.ram, page)[::4])

    def _registers(self, vcpu: Vcpu) -> tuple[int, ...]:
        """Those that clauses speak of, as the suite's other worlds show them."""
        words = self._words(vcpu)
        for n in UNSEEN:
            words[n] = 0
        for n in range(APIC_LVTT >> 4, (APIC_LVTERR >> 4) + 1):
            words[n] &= LVT_SEEN if n != APIC_LVT0 >> 4 else LVT_SEEN | 0x700
        if vcpu.id == 0 and words[APIC_LVT0 >> 4] & 0x7FF == 0x700:
            words[APIC_LVT0 >> 4] = LVT_MASKED
        words[APIC_ICR2 >> 4] &= 0xFF000000
        return tuple(words)

    def _inspect(self, vcpus: list[Vcpu], op: Any) -> None:
        """What the tables of one VM must say, while AVIC is on for all of its vCPUs."""
        for vcpu in vcpus:
            self._physical(vcpu, op)
        if not vcpus or not all(vcpu.read(VMCB_INT_CTL, "<I") >> _ACTIVE & 1 for vcpu in vcpus):
            return
        table = vcpus[0].read(VMCB_LOGICAL_TABLE) & ADDRESS_BITS
        entries = struct.unpack_from("<1024I", self.guest.ram, table)
        wanted: dict[int, list[int]] = {}
        for vcpu in vcpus:
            words = self._words(vcpu)
            index = logical_index(words[APIC_LDR >> 4] >> 24, words[APIC_DFR >> 4])
            if index >= 0:
                wanted.setdefault(index, []).append(vcpu.id)
        for index, entry in enumerate(entries):
            if entry >> 8 & 0x7FFFFF:
                raise Violation(c.LOGICAL_RESERVED_BITS_ZERO, f"logical entry {index} is {entry:#010x}")
            if entry >> LOGICAL_VALID & 1 and entry & 0xFF not in wanted.get(index, []):
                raise Violation(c.NO_STALE_LOGICAL_ENTRY, f"logical entry {index} is {entry:#010x}")
            if index in wanted and not entry >> LOGICAL_VALID & 1:
                raise Violation(
                    c.LOGICAL_ENTRIES_COMPLETE, f"vCPU {wanted[index][0]}: logical entry {index} is {entry:#010x}"
                )
        for clause in (c.LOGICAL_RESERVED_BITS_ZERO, c.NO_STALE_LOGICAL_ENTRY, c.LOGICAL_ENTRIES_COMPLETE):
            self.hold(clause)

    def _controls(self, vcpu: Vcpu) -> None:
        """AVIC is on or off as a whole at a VMRUN; the intercepts are left to KVM's own judgement of TPR."""
        mode, index = vcpu.read(VMCB_INT_CTL, "<I") >> 30, vcpu.read(VMCB_PHYSICAL_TABLE) & _MAX_INDEX
        is_whole = mode == _ON or (mode == 0 and index == 0)
        told = f"vCPU {vcpu.id}: bits 31:30 of int_ctl are {mode:#04b}, the maximum index is {index}"
        self.require(c.ACTIVATION_SETS_CONTROLS_AND_INTERCEPTS, is_whole, told)

    def _physical(self, vcpu: Vcpu, op: Any) -> None:
        """The entry of a vCPU whose id has one is valid from its creation on, and names its backing page."""
        table = vcpu.read(VMCB_PHYSICAL_TABLE) & ADDRESS_BITS
        if vcpu.id > 254 or not table:
            return
        (entry,) = struct.unpack_from("<Q", self.guest.ram, table + 8 * vcpu.id)
        own = vcpu.read(VMCB_BACKING_PAGE) & ADDRESS_BITS
        is_right = entry >> ENTRY_VALID & 1 == 1 and entry & ADDRESS_BITS == own
        is_twin = isinstance(op, VcpuCreate) and op.id == vcpu.id
        clause = c.DUPLICATE_ID_REFUSED if is_twin else c.ENTRY_NAMES_BACKING_PAGE
        whose = "own" if entry & ADDRESS_BITS == own else "another"  # addresses differ from guest to guest
        told = f"entry {vcpu.id} is {entry & ~ADDRESS_BITS:#018x} and {whose} page"
        self.require(clause, is_right, told)
        self.require(c.ENTRY_RESERVED_BITS_ZERO, not entry >> 52 & 0x3FF, told)

    def clean(self) -> None:
        """All VMs and their vCPUs."""
        for vm in list(self.vms):
            self.vm_destroy(VmDestroy(vm))
        self.channel.ask(self.kvm.closing())
