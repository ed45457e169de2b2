"""Steps that fit the state, and those with which a walk begins."""

from __future__ import annotations

from random import Random

from conformance.model.avic import Config, State
from conformance.model.avic import operations as s
from conformance.model.step import Step
from conformance.specs.avic import Profile
from conformance.specs.avic.constants import APIC_DFR, APIC_ID, APIC_LDR, BASE_EXTD
from conformance.strategies.avic.domains import HOST_IDS, VECTORS, WRITES


def suggest(state: State, random: Random) -> Step | None:
    """Something that gets a vCPU going, or an access with a value that means something to its register."""
    mine = [v for v in state.vcpus if v.vm == 0]
    if not mine:
        return None
    v = random.choice(mine)
    if v.pending:
        return Step(s.HandleExit(v.id))
    if v.core < 0:
        return Step(s.Load(v.id, HOST_IDS.sample(random)))
    if v.asleep:
        return Step(s.Unblock(v.id)) if random.random() < 0.2 else Step(s.Deliver(v.id))
    draw = random.random()
    if not v.in_guest:
        return Step(s.VmRun(v.id) if draw < 0.7 else s.Block(v.id))
    if draw < 0.45:
        offset = random.choice(tuple(WRITES)[:5]) if random.random() < 0.7 else random.choice(tuple(WRITES))
        value = random.choice(WRITES[offset])
        if random.random() < 0.15:  # the high byte alone means something to ID, LDR and DFR
            high = offset in (APIC_ID, APIC_LDR, APIC_DFR)
            value = random.randrange(256) << 24 if high else random.randrange(1 << 12)
        return Step(s.GuestWrite(v.id, offset, value))
    if draw < 0.7:
        other = random.choice(mine)
        if random.random() < 0.5:
            return Step(s.GuestIpi(v.id, other.id, vector=VECTORS.sample(random), defer=random.random() < 0.1))
        ldr = other.regs[0x0D]
        dest = ldr if other.base >> BASE_EXTD & 1 else ldr >> 24 or 3
        return Step(s.GuestIpi(v.id, dest, logical=True, vector=VECTORS.sample(random)))
    return Step(s.GuestEoi(v.id))


def opening(config: Config, _profile: Profile) -> tuple[Step, ...]:
    """A VM with two vCPUs, where the configuration brings none."""
    if config.vcpus:
        return ()
    return (Step(s.VmCreate()), Step(s.VcpuCreate(0)), Step(s.VcpuCreate(1)))
