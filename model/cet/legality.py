"""What a guest that runs can do, and what userspace can ask of a vCPU that is in no ioctl."""

from __future__ import annotations

from conformance.model.cet import operations as m
from conformance.model.cet.access import lacking, refusal_of
from conformance.model.cet.nesting import entry_refusal
from conformance.model.cet.state import COMPONENTS, PLACE, ZEROS, S, State, U, Vcpu, Words, new_vcpu
from conformance.model.cet.values import (
    base_of,
    hardware_takes,
    is_canonical,
    one_reg_msr,
    pointer_refusal,
)
from conformance.specs.cet.constants import (
    CET_U,
    INTERNAL_GUEST_SSP,
    ONE_REG_GUEST_SSP,
    ONE_REG_MSR,
    VMCS12_FIELDS,
    XSS,
)


def legal_live(state: State, v: Vcpu, op: m.Operation) -> bool:
    """What a guest that runs can do or meet."""
    host, plain = state.host, v.l2 is None and v.smm is None
    match op:
        case m.Wrmsr(_, msr, value):
            return 0 <= value < 1 << 64 and not _stopped_by_l1(v, msr) and _fits(v, msr, value)
        case m.Rdmsr(_, msr):
            return not _stopped_by_l1(v, msr)
        case m.Xrstors(_, component, words):
            return v.asked.xsaves and host.xsaves and _loadable(host, v, component, words)
        case m.Xsaves(_, component):
            return v.asked.xsaves and host.xsaves and component in COMPONENTS
        case m.WriteSsp(_, value):
            return v.shstk and v.smm is None and value % 4 == 0 and is_canonical(value, host.width) and _low(v, value)
        case m.ReadSsp():
            return v.shstk and v.smm is None
        case m.CpuidSize():
            return v.asked.xsaves and host.xsaves
        case m.MovCr0():
            return v.l2 is None
        case m.MovCr4(_, _, owned):
            return v.l2 is None and (not owned or (host.vendor == "intel" and (v.shstk or v.ibt)))
        case m.Emulate(_, instruction):
            return plain and v.asked.lm and instruction in m.EMULATED
        case m.Smi():
            return plain and v.asked.lm
        case m.Rsm(_, ssp):
            return v.smm is not None and (ssp is None or 0 <= ssp < 1 << 64)
        case m.NestedEnter(_, area):
            return plain and _plausible(state, v, area)
        case m.NestedExit():
            return v.l2 is not None
        case m.Vmread(_, field):
            return plain and host.vendor == "intel" and field in VMCS12_FIELDS
        case m.Init():
            return plain
        case _:
            return True


def legal_idle(state: State, v: Vcpu, op: m.Operation) -> bool:
    """What userspace can ask of a vCPU that is in no ioctl."""
    plain = v.l2 is None and v.smm is None
    match op:
        case m.Run():
            return v.wp or not v.cet
        case m.SetCpuid(_, cpuid):
            return plain and not v.cet and (v.ran or v.regs == ZEROS or cpuid == v.asked or _outlives(state, v, cpuid))
        case m.SetMsrs(_, entries):
            return all(_nameable(state, v, msr) and 0 <= x < 1 << 64 and _fits(v, msr, x) for msr, x in entries)
        case m.GetMsrs(_, indices):
            return all(_nameable(state, v, msr) for msr in indices)
        case m.SetOneReg(_, reg, value):
            msr = one_reg_msr(reg)
            return reg != _ALIAS and 0 <= value < 1 << 64 and _settled(v, reg) and (not msr or _fits(v, msr, value))
        case m.GetOneReg(_, reg):
            return reg != _ALIAS and _settled(v, reg)
        case m.GetRegList(_, n):
            return 0 <= n < 1 << 64
        case m.SetSregs():
            return plain
        case m.Reset():
            return True
        case m.GetMpState(_, init):
            return plain or not init
        case m.SetXsave(_, component, words):
            return component == 2 or len(words) == len(COMPONENTS.get(component, (0,) * 99))
        case m.SetNestedState(_, area):
            return (
                plain
                and state.host.vendor == "intel"
                and _plausible(state, v, area)
                and area.wp
                and area.cet == v.cet
                and v.wp
                and entry_refusal(state, v, area, True) is None
            )
        case m.Migrate():
            return plain and _restorable(state, v)
        case _:
            return True


def _outlives(state: State, v: Vcpu, cpuid: m.Cpuid) -> bool:
    """Whether somebody says what becomes of every value with another CPUID.

    It may be had still, or it goes out of sight. What has gone does not come back: nobody says whether it survives.
    """
    new = new_vcpu(state, cpuid)
    for msr, place in PLACE.items():
        value = v.regs[place]
        if not value:
            continue
        gone, absent = lacking(state, v, msr) is not None, lacking(state, new, msr) is not None
        if (gone and not absent) or (absent and msr == XSS):
            return False
        if not absent and (refusal_of(state, new, msr, value, True) or not _fits(new, msr, value)):
            return False
    return True


_ALIAS = ONE_REG_MSR | INTERNAL_GUEST_SSP
"""GUEST_SSP's internal number as an MSR: what that does is not specified."""


def _nameable(state: State, v: Vcpu, msr: int) -> bool:
    """Whether a batch may name it: what GUEST_SSP's internal number gives is specified only where there is no SSP."""
    return msr != INTERNAL_GUEST_SSP or not (v.shstk or state.ignore_msrs)


def _settled(v: Vcpu, reg: int) -> bool:
    """SSP in SMM is nobody's business: only what RSM restores counts."""
    return v.smm is None or reg != ONE_REG_GUEST_SSP


def _low(v: Vcpu, value: int) -> bool:
    """Without LM nobody says what becomes of bits 63:32 (CET-015)."""
    return v.asked.lm or not value >> 32


def _fits(v: Vcpu, msr: int, value: int) -> bool:
    return msr == XSS or _low(v, value)


def _stopped_by_l1(v: Vcpu, msr: int) -> bool:
    return v.l2 is not None and msr in v.l2.intercepts


def _loadable(host: m.Host, v: Vcpu, component: int, words: tuple[int, ...]) -> bool:
    """Whether XRSTORS can be asked this: images that hold an invalid value are nobody's test."""
    if component not in COMPONENTS:
        return False
    if not words:
        return True
    if len(words) != len(COMPONENTS[component]) or not all(0 <= x < 1 << 64 and _low(v, x) for x in words):
        return False
    pointers = words[1:] if component == CET_U else words
    if component == CET_U and not hardware_takes(host, words[0]):
        return False
    return all(pointer_refusal(x, host.width) is None for x in pointers)


def _plausible(state: State, v: Vcpu, area: m.Area) -> bool:
    """Whether L1 can have written this: controls that exist, 64-bit fields, a truthful clean bit."""
    words = (area.s_cet, area.ssp, area.table, area.host_s_cet, area.host_ssp, area.host_table)
    if not all(0 <= x < 1 << 64 for x in words) or not v.asked.lm:
        return False
    has = v.shstk or v.ibt
    if not has and (area.load or area.load_host or area.cet or area.host_cet):
        return False
    if state.host.vendor == "amd":
        return v.shstk and area.address in (0, 1) and (not area.clean or words[:3] == _unchanged(v, area.address))
    return not (area.clean or area.address)


def _unchanged(v: Vcpu, address: int) -> Words | None:
    """What a vmcb12 held when VMRUN was last tried; None if it never was, or nobody knows what is left of it."""
    if address != v.address:
        return v.other
    return None if v.refused and v.taken in (None, address) else v.area


def _restorable(state: State, v: Vcpu) -> bool:
    """Whether every value is one that userspace can read and write back, and CR0 and CR4 fit."""
    if v.cet and not v.wp:
        return False
    for msr, place in PLACE.items():
        value = v.regs[place]
        if value and (lacking(state, v, msr) is not None or refusal_of(state, v, msr, value, True)):
            return False
        if value and place in (U, S) and not is_canonical(base_of(value), state.host.width):
            return False
    return True
