"""Steps that fit the state, and those with which a walk begins."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from conformance.model.avic import Config, State
from conformance.model.avic import operations as s
from conformance.model.avic.routing import DISABLED, X2APIC
from conformance.model.step import Parallel, Step
from conformance.specs.avic import Profile
from conformance.specs.avic.constants import APIC_DFR, APIC_ID, APIC_LDR, BASE_EXTD, NO_SHORTHAND
from conformance.strategies.avic.domains import (
    APICS,
    HOST_IDS,
    NEW_IDS,
    VECTORS,
    WRITES,
    random_apics,
    random_message,
)


def suggest(state: State, random: Random) -> Step | None:
    """Something that gets a vCPU going, or an access with a value that means something to its register."""
    if random.random() < 0.08:
        return _routed(random)
    mine = [v for v in state.vcpus if v.vm == 0]
    if state.vms[0] is not None and len(mine) < 3 and random.random() < (0.05 if mine else 0.5):
        return _created(random)
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
        away = [other for other in mine if other.asleep or other.core < 0]
        other = random.choice(away if away and random.random() < 0.5 else mine)
        if random.random() < 0.1:
            dest = random.choice((0xFF, 0xFFFFFFFF, 0xFFFF0001))
            return Step(s.GuestIpi(v.id, dest, logical=random.random() < 0.7, vector=VECTORS.sample(random)))
        if random.random() < 0.5:
            return Step(s.GuestIpi(v.id, other.id, vector=VECTORS.sample(random), defer=random.random() < 0.1))
        ldr = other.regs[0x0D]
        dest = ldr if other.base >> BASE_EXTD & 1 else ldr >> 24 or 3
        return Step(s.GuestIpi(v.id, dest, logical=True, vector=VECTORS.sample(random)))
    return Step(s.GuestEoi(v.id))


def _routed(random: Random) -> Step:
    """A message that names one of its APICs, mostly."""
    apics = random_apics(random) if random.random() < 0.7 else random.choice(APICS)
    message = replace(random_message(random, len(apics)), shorthand=NO_SHORTHAND)
    apic = random.choice([apic for apic in apics if apic.mode != DISABLED] or apics)
    logical = random.random() < 0.7
    if apic.mode == X2APIC:
        dest = apic.ldr if logical else apic.id
    else:
        dest = apic.ldr >> 24 if logical else apic.eight_bit_id
    if logical and random.random() < 0.2:
        dest |= 1 << random.randrange(4)
    return Step(s.Route(apics, replace(message, dest=dest, logical=logical)))


def _created(random: Random) -> Step:
    """A vCPU, and now and then another at the same time."""
    one, other = (Step(s.VcpuCreate(NEW_IDS.sample(random))) for _ in range(2))
    if random.random() < 0.6:
        return one
    return Step(Parallel(one, other, tuple(sorted(random.sample(range(80), random.randrange(4))))))


def opening(config: Config, _profile: Profile) -> tuple[Step, ...]:
    """A VM with two vCPUs, where the configuration brings none."""
    if config.vcpus:
        return ()
    return (Step(s.VmCreate()), Step(s.VcpuCreate(0)), Step(s.VcpuCreate(1)))
