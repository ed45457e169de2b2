"""VMCSs, and what VM entry and exit do with their CET fields."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from conformance.environment.cet.registers import FIELDS, SSP, SWITCHED, TABLE, S
from conformance.environment.cet.vcpus import PerVcpu
from conformance.specs.cet import clauses as c
from conformance.specs.cet import constants as k
from conformance.verdict import Crash

if TYPE_CHECKING:
    from conformance.environment.cet.platform import Platform
    from conformance.environment.cet.processors import Processors
    from conformance.environment.cet.threads import Thread
    from conformance.environment.door import Environment


class Structures:
    """vmcs01 and vmcs02 of a vCPU."""

    __slots__ = ("fields", "level")

    def __init__(self) -> None:
        self.fields: tuple[dict[int, int], dict[int, int]] = ({}, {})
        """By level; a field that was never written is 0."""
        self.level = 0
        """Which one is current: 0 for L1, 1 for L2."""


class Vmcs(PerVcpu[Structures]):
    """VMX: a current VMCS per vCPU, the two load-CET controls, and the switch of S_CET, SSP and the table.

    Fields and checks that do not concern CET are not modelled, nor is VMCLEAR.
    """

    CLAUSES = (c.VMX_PREREQUISITES,)

    def __init__(self, door: Environment, platform: Platform, processors: Processors) -> None:
        super().__init__(door)
        self.platform = platform
        self.files = processors.files

    def add(self, vcpu: int) -> None:
        """Two new VMCSs."""
        self.parts[vcpu] = Structures()

    def digest(self) -> Hashable:
        """What the guest areas of both hold: a candidate may go on by mistake with L1's or L2's state of long ago."""
        return tuple(
            tuple(fields.get(field, 0) for fields in part.fields for field in FIELDS) for part in self.parts.values()
        )

    def level(self, vcpu: int) -> int:
        """Which one is current: 0 for L1, 1 for L2."""
        return self.parts[vcpu].level

    def enter(self, thread: Thread) -> None:
        """VM entry: the guest's three registers are loaded, where the control says so."""
        part = self.parts[thread.number]
        fields = part.fields[part.level]
        if fields.get(k.VM_ENTRY_CONTROLS, 0) >> k.VM_ENTRY_LOAD_CET & 1:
            regs = self.files[thread.cpu]
            for place, field in zip(SWITCHED, FIELDS, strict=True):
                regs[place] = fields.get(field, 0)

    def leave(self, thread: Thread) -> None:
        """VM exit: they are saved where the processor has the controls, the host's are loaded where one says so."""
        host = self.platform.host
        if not (host.load_cet_entry and host.load_cet_exit):
            return
        part, regs = self.parts[thread.number], self.files[thread.cpu]
        fields = part.fields[part.level]
        fields[k.GUEST_S_CET], fields[k.GUEST_SSP] = regs[S], regs[SSP]
        fields[k.GUEST_INTR_SSP_TABLE] = regs[TABLE]
        if fields.get(k.VM_EXIT_CONTROLS, 0) >> k.VM_EXIT_LOAD_CET & 1:
            regs[S], regs[SSP] = fields.get(k.HOST_S_CET, 0), fields.get(k.HOST_SSP, 0)
            regs[TABLE] = fields.get(k.HOST_INTR_SSP_TABLE, 0)

    def _part(self, vcpu: int, level: int | None = None) -> Structures:
        if self.platform.amd or level not in (None, 1, 2):
            raise Crash(f"no such control structure on this host (level {level})", "type")
        return self.of(vcpu)

    def vmcs_read(self, vcpu: int, field: int) -> int:
        """VMREAD."""
        part = self._part(vcpu)
        return part.fields[part.level].get(field, 0)

    def vmcs_write(self, vcpu: int, field: int, value: int) -> None:
        """VMWRITE; a control the processor lacks would fail the next entry."""
        part, host = self._part(vcpu), self.platform.host
        if field == k.VM_ENTRY_CONTROLS and value >> k.VM_ENTRY_LOAD_CET & 1:
            self.door.require(c.VMX_PREREQUISITES, host.load_cet_entry, "the host has no load-CET entry control")
        if field == k.VM_EXIT_CONTROLS and value >> k.VM_EXIT_LOAD_CET & 1:
            self.door.require(c.VMX_PREREQUISITES, host.load_cet_exit, "the host has no load-CET exit control")
        part.fields[part.level][field] = value

    def vmcs_load(self, vcpu: int, level: int) -> None:
        """VMPTRLD."""
        self._part(vcpu, level).level = level - 1
