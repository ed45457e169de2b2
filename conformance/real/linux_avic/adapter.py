"""What of layer T can be asked of a driver whose hardware is absent, and seen in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from conformance.model.avic import Config
from conformance.model.avic.apic import TPR, deliverable, seen_by_routing
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
from conformance.model.avic.routing import logical_map_is_aliased
from conformance.model.avic.state import Vcpu, find, is_active
from conformance.real.adapter import Rate, rate
from conformance.real.guest.adapter import GuestAdapter, round_trips
from conformance.real.guest.world import outside
from conformance.real.linux_avic.bench import AvicBench
from conformance.real.linux_avic.world import AvicWorld
from conformance.specs.avic.constants import CLUSTER, EINVAL, FLAT

_PLAIN = {"edx", "vcpus", "enabled"}
ALIASES = "AVIC stays on where logical ids are ambiguous (finding LINUX-8): they are not made so"
BIG_IDS = "an id that AVIC has no entry for switches AVIC off, which is allowed: none is made"
_LARGEST = 300
"""Ids beyond this tell nothing new."""
_ADDRESSED = 254
_SUBCLASS = 0xF
"""Bits of TPR that are lost at exits (LINUX-2), of which a vCPU that spins has some whenever the host likes."""


class LinuxAvic(GuestAdapter):
    """kvm_amd of a Debian kernel with AVIC."""

    title = "kvm_amd with AVIC forced of Linux"
    world = AvicWorld
    scripts = "linux_avic"
    capabilities = frozenset({"layer-t", "exits"})
    operations = frozenset({VmCreate, VmDestroy, VcpuCreate, SetLapic, GetLapic, Deliver, Enter, Load, Put})
    view_fields = frozenset({"running", "bar", "regs"})
    clauses = frozenset(
        f"AVIC-{n:03}"
        for n in (
            11, 16, 17, 20, 24, 26, 27, 30, 31, 38, 39, 40, 45, 50, 51, 53, 60, 61, 82, 85, 104, 107, 108, 118,
        )
    )  # fmt: skip
    gate_steps = 600
    leave_out_lapic = False
    findings: Mapping[str, str] = MappingProxyType({
        "AVIC-061:VcpuCreate:protocol": "LINUX-1",
        "AVIC-024:Enter:view.regs": "LINUX-2",
        **{
            f"AVIC-039:{op.__name__}:protocol": "LINUX-3"
            for op in (VmCreate, VmDestroy, VcpuCreate, SetLapic, GetLapic, Deliver, Enter, Load, Put)
        },
    })  # fmt: skip
    """In 6.1 to 7.2, but LINUX-1 where the kernel looks for duplicates first."""

    @cached_property
    def profile(self) -> str:  # type: ignore[override]  # found by asking
        """Whether an id that hardware cannot name is refused, or inhibits AVIC."""
        with outside(AvicWorld(self.kernel, Config())) as world:
            world.perform(VmCreate())
            return "arch" if world.perform(VcpuCreate(255)) == -EINVAL else "upstream"

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.tells_aliases = self._tells_aliases()
        """Whether AVIC is off where hardware would mistake a logical id: LINUX-8."""

    def _tells_aliases(self) -> bool:
        with outside(AvicWorld(self.kernel, Config(vcpus=(0, 1)))) as world:
            for op in (SetLapic(0, ldr=1), SetLapic(1, ldr=1)):
                world.perform(op)
            return bool(world.perform(Enter(0)) == 0)

    @property
    def absent(self) -> Mapping[str, frozenset[str]]:  # type: ignore[override]  # nobody sets it
        """And aliases, where the kernel does not tell them, and ids that it takes, where they switch AVIC off."""
        lost = {} if self.tells_aliases else {ALIASES: frozenset({"AVIC-086"})}
        if self.profile != "arch":
            lost[BIG_IDS] = frozenset({"AVIC-011"})
        return {**lost, **super().absent}

    def environment(self, config: Config, profile: Any) -> AvicWorld:
        """The VM that the configuration asks for."""
        del profile
        return AvicWorld(self.kernel, config, leave_out_lapic=self.leave_out_lapic)

    def bench(self) -> AvicBench:
        """A VM, once one is asked for."""
        return AvicBench(self.kernel)

    def builds(self, config: Config) -> bool:
        """AVIC is on, x2AVIC is not there, nothing runs at the start."""
        usual = Config(vcpus=config.vcpus, enabled=config.enabled)
        return config == usual and all(id_ <= _ADDRESSED for id_ in config.vcpus)

    def legal(self, state: Any, op: Any) -> bool:
        """A vCPU that runs keeps others from its ioctls; nothing takes an interrupt where the hardware is absent.

        An interrupt for a guest that runs without AVIC, and never lets it in, would inhibit AVIC until it does. A vCPU
        that has a logical id keeps its xAPIC id (LINUX-9).
        """
        loaded = any(v.core >= 0 for v in state.vcpus)
        match op:
            case VmCreate():
                return bool(op.irqchip and op.max_vcpu_ids == 4096 and not op.abandoned)
            case VcpuCreate():
                seen = op.id <= _ADDRESSED or (op.id <= _LARGEST and self.profile == "arch")
                return bool(not op.abandoned and seen and not loaded and self._fits(state, op))
            case Deliver():
                target = find(state, op.id)
                opens_window = target is not None and target.core >= 0 and not is_active(state, target)
                return bool(op.id <= _ADDRESSED and not opens_window and _answer_to(state, op.id) == [op.id])
            case SetLapic():
                written = SetLapic(op.id, op.tpr, op.ldr, op.cluster, op.spiv, op.irr, op.isr, op.level, xid=op.xid)
                told = self.tells_aliases or not _is_aliased(state, op)
                told = told and (op.xid in (-1, op.id) or (self.tells_aliases and not op.ldr))
                usual = op.id <= _ADDRESSED and op.irr != 1 and op.isr != 1 and op == written
                return bool(not loaded and usual and told)
            case GetLapic():
                return _found(state, op.id).core < 0
            case Enter():
                return bool(op.tpr < 0 and not loaded and deliverable(_found(state, op.id, op.vm)) < 0)
            case Load():
                vcpu = _found(state, op.id)
                taken = {v.core % 2 for v in state.vcpus if v.core >= 0}
                fits = op.host_id < 0x40 and op.host_id % 2 not in taken
                return bool(fits and deliverable(vcpu) < 0 and not vcpu.regs[TPR] & _SUBCLASS)
            case VmDestroy():
                return not loaded
            case _:
                return True

    def _fits(self, state: Any, op: VcpuCreate) -> bool:
        """Few vCPUs are enough."""
        return len([v for v in state.vcpus if v.vm == op.vm]) < 6

    def rates(self) -> tuple[Rate, ...]:
        """Requests, registers set, messages sent and looked for, runs of a guest, VMs made."""
        with outside(AvicWorld(self.kernel, Config())) as world:
            made = rate("VM with 4 vCPUs, made and closed", 31, lambda: _vm_of_four(world))
            world.perform(VmCreate())
            world.perform(VcpuCreate(0))
            return (
                *round_trips(world.channel),
                rate("KVM_SET_LAPIC", 240, lambda: world.set_lapic(SetLapic(0))),
                rate("MSI and KVM_GET_LAPIC", 230, lambda: (world.deliver(Deliver(0)), world.get_lapic(GetLapic(0)))),
                rate("KVM_SET_REGS and KVM_RUN", 1000, lambda: world.visit(Enter(0))),
                made,
            )


def _found(state: Any, id_: int, vm: int = 0) -> Vcpu:
    """A vCPU that the model says is there."""
    vcpu = find(state, id_, vm)
    assert vcpu is not None
    return vcpu


def _answer_to(state: Any, xid: int) -> list[int]:
    """The ids of the vCPUs that have an xAPIC ID, by which messages are addressed."""
    return [v.id for v in state.vcpus if v.vm == 0 and seen_by_routing(v).eight_bit_id == xid]


def _is_aliased(state: Any, op: SetLapic) -> bool:
    """Whether the logical ids of the VM are then such that a map of them is ambiguous, enabled or not."""
    apics = [replace(seen_by_routing(v), spiv=0x1FF) for v in state.vcpus if v.vm == 0]
    written = {"ldr": op.ldr << 24, "dfr": CLUSTER if op.cluster else FLAT}
    return logical_map_is_aliased([replace(apic, **written) if apic.id == op.id else apic for apic in apics])


def _vm_of_four(world: AvicWorld) -> None:
    world.vm_create(VmCreate())
    for n in range(4):
        world.vcpu_create(VcpuCreate(n))
    world.vm_destroy(VmDestroy())
