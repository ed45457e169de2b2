"""Steps that fit the state."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from conformance.model.cet import State, legal
from conformance.model.cet import operations as m
from conformance.model.cet.state import XSS, Vcpu
from conformance.model.step import Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import AREAS, IBT_ONLY, NEITHER, SHSTK_ONLY, SSP, tag

LESS = (SHSTK_ONLY, IBT_ONLY, NEITHER)
"""CPUIDs that take something away."""
TRIES = 8
"""Areas looked at for one that L1 can have written here."""


def suggest(state: State, random: Random) -> Step | None:
    """Tagged writes, reads, swaps and preemption windows of the vCPUs there are."""
    present = [slot for slot, v in enumerate(state.vcpus) if v is not None and not v.dead]
    if not present:
        return None
    slot = random.choice(present)
    v = state.vcpus[slot]
    assert v is not None
    cpu = int(random.random() < 0.25)
    if not v.live:
        if random.random() < 0.08:
            return _suggest_setting(state, v, slot, random) or _suggest_idle(slot, cpu, random)
        return _suggest_idle(slot, cpu, random)
    if random.random() < 0.15:
        return _suggest_modes(state, v, slot, random) or _suggest_live(v, slot, cpu, random)
    return _suggest_live(v, slot, cpu, random)


def _suggest_modes(state: State, v: Vcpu, slot: int, random: Random) -> Step | None:
    """CET switched on, then what meets it: SMM, the emulator, and nested guests, of which each may be entered again."""
    if v.smm is not None:
        return Step(m.Rsm(slot, None)) if random.random() < 0.8 else None
    if v.l2 is not None:
        return Step(m.NestedExit(slot) if random.random() < 0.7 else m.Wrmsr(slot, k.S_CET, 1))
    if not v.cet and random.random() < 0.5:
        return Step(m.MovCr4(slot, True, False) if v.wp else m.MovCr0(slot, True))
    if v.cet and v.asked.lm and random.random() < 0.15:
        return Step(m.Smi(slot))
    if v.cet and random.random() < 0.6:
        if v.shstk and random.random() < 0.3:
            return Step(m.WriteSsp(slot, SSP.sample(random)))
        return Step(m.Emulate(slot, random.choice(m.TRANSFERS), random.random() < 0.5))
    for _ in range(TRIES):
        entry = m.NestedEnter(slot, _area(state, v, random))
        if legal(state, entry):
            return Step(entry)
    return None


def _area(state: State, v: Vcpu, random: Random) -> m.Area:
    """An area as it comes; on SVM as often another vmcb12, or one that L1 says it has not written since."""
    area = random.choice(AREAS)
    if state.host.vendor != "amd" or random.random() < 0.4:
        return area
    address = random.randrange(2)
    held = v.area if address == v.address else v.other
    if held is None or random.random() < 0.4:
        return replace(area, address=address, clean=False)
    return m.Area(*held, address=address, clean=True, cet=False)


def _suggest_setting(state: State, v: Vcpu, slot: int, random: Random) -> Step | None:
    """What a VMM sets up before it runs a vCPU: less than it had, CR0.WP, L2."""
    if not v.ran:
        bereft = m.SetCpuid(slot, random.choice(LESS))
        return Step(bereft) if legal(state, bereft) else None
    if not v.wp:
        return Step(m.SetSregs(slot, True, False))
    into = m.SetNestedState(slot, replace(random.choice(AREAS), cet=v.cet, wp=True))
    return Step(into) if legal(state, into) else None


def _suggest_idle(slot: int, cpu: int, random: Random) -> Step:
    during = _preempted(slot, cpu, random, 10)
    msr = random.choice(k.POINTER_MSRS)
    chance = random.random()
    if chance < 0.5:
        return Step(m.Run(slot, cpu), during=during)
    if chance < 0.7:
        value = 0 if random.random() < 0.25 else tag(slot, msr, random.randrange(1, 4))
        return Step(m.SetMsrs(slot, ((msr, value),), cpu), during=during)
    indices = (msr,) if chance < 0.85 else k.MSRS
    return Step(m.GetMsrs(slot, indices, cpu), during=during)


def _suggest_live(v: Vcpu, slot: int, cpu: int, random: Random) -> Step:
    msr = random.choice((*k.POINTER_MSRS, k.S_CET, k.U_CET, k.INT_SSP_TAB))
    emulated = random.random() < 0.3
    chance = random.random()
    if chance < 0.1:
        return Step(m.Leave(slot), during=_preempted(slot, cpu, random, 12))
    if chance < 0.18:
        return Step(m.Preempt(slot, cpu))
    if chance < 0.5:
        value = tag(slot, msr, random.randrange(1, 4))
        if msr in k.CONTROL_MSRS:
            value = random.choice((1, 3, 5, 0x4001))
        return Step(m.Wrmsr(slot, msr, 0 if random.random() < 0.2 else value, emulated))
    if chance < 0.6 and v.xss:
        if not v.regs[XSS]:
            return Step(m.Wrmsr(slot, k.XSS, v.xss))
        words = tuple(tag(slot, pointer, random.randrange(4, 7)) for pointer in k.POINTER_MSRS[:3])
        return Step(m.Xrstors(slot, k.CET_S, words if random.random() < 0.8 else ()))
    if chance < 0.65:
        return Step(m.WriteSsp(slot, tag(slot, 0xF, random.randrange(1, 4)))) if v.shstk else Step(m.Exit(slot))
    if chance < 0.7 and v.shstk:
        return Step(m.ReadSsp(slot))
    return Step(m.Rdmsr(slot, msr, emulated))


def _preempted(slot: int, cpu: int, random: Random, points: int) -> tuple[tuple[int, Step], ...]:
    """Now and then a preemption of the vCPU itself, somewhere in the middle."""
    if random.random() < 0.6:
        return ()
    return ((random.randrange(points), Step(m.Window(slot, cpu))),)
