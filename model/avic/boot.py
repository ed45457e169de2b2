"""How the vCPUs of a configuration are brought about, and the state that they are then in."""

from __future__ import annotations

from functools import cache
from typing import Any

from conformance.model.avic import operations as s
from conformance.model.avic.operations import Answers, Config
from conformance.model.avic.setup import detected
from conformance.model.avic.state import State
from conformance.model.avic.step import step
from conformance.model.step import each
from conformance.specs.avic import Profile
from conformance.specs.avic.constants import APIC_BASE, BASE_AE, BASE_EXTD


def boot(config: Config, profile: Profile) -> tuple[Any, ...]:
    """Operations that bring about the vCPUs of a configuration, but for those whose creation may be refused."""
    if not config.vcpus:
        return ()
    host, _ = detected(setup_of(config), profile)
    free = profile.inhibits_big_ids or not host.avic or not config.irqchip
    ids = [i for i in config.vcpus if free or i <= host.max_id]
    ops: list[Any] = [s.VmCreate(0, config.irqchip, config.max_vcpu_ids)]
    ops += [s.VcpuCreate(i) for i in ids]
    if len({i & 0xFF for i in ids}) < len(ids):
        ops.append(s.VcpuReset(ids[0]))  # an alias may be noticed only now
    if config.x2apic:
        ops += [s.SetApicBase(i, APIC_BASE | 1 << BASE_AE | 1 << BASE_EXTD, host=True) for i in ids]
    if config.enabled:
        ops += [s.SetLapic(i, ldr=1 << n if n < 8 else 0) for n, i in enumerate(ids)]
    if config.running:
        ops += [s.Load(i, 0x20 + n) for n, i in enumerate(ids)]
        ops += [s.VmRun(i) for i in ids]
    return tuple(ops)


@cache
def initial(config: Config, profile: Profile) -> State:
    """The module is loaded on the configured host, and the configured vCPUs are there.

    Kept, because every walk and replay begins with it: a dozen steps for each vCPU.
    """
    host, _ = detected(setup_of(config), profile)
    state = State(config, host)
    for op in boot(config, profile):
        outcomes = step(state, op, Answers(), profile)
        state = each(outcomes)[0].state
    return state


def setup_of(config: Config) -> s.HwSetup:
    """The setup that a configuration stands for."""
    return s.HwSetup(
        edx=config.edx,
        ecx=config.ecx,
        npt=config.npt,
        family=config.family,
        zen4=config.zen4,
        snp=config.snp,
        hv_inuse_wr=config.hv_inuse_wr,
        avic=config.avic,
        force=config.force,
        ipiv=config.ipiv,
    )
