"""Accesses to registers: who has which, what is refused, and the clause by which a value is still there."""

from __future__ import annotations

from conformance.model.cet.state import (
    CLEAN,
    EMULATED_WRITE,
    FAILED,
    GUEST,
    HOST,
    NESTED,
    ORIGINS,
    PL0,
    PL1,
    PL2,
    PL3,
    PLACE,
    RESET,
    SSP,
    SURVIVED,
    TABLE,
    UNTOUCHED,
    VMRUN,
    XRSTORS,
    XSS,
    S,
    State,
    Vcpu,
    written,
)
from conformance.model.cet.values import base_of, control_refusal, is_canonical, pointer_refusal
from conformance.specs.cet import clauses as c
from conformance.specs.cet import constants as k
from conformance.specs.clause import Clause


def advertised(state: State) -> tuple[int, ...]:
    """The CET MSRs in the index list, by number."""
    listed: tuple[int, ...] = ()
    if state.shstk or state.ibt:
        listed += k.CONTROL_MSRS
    if state.shstk:
        listed += k.POINTER_MSRS
        if state.host.lm:
            listed += (k.INT_SSP_TAB,)
    if state.xss:
        listed += (k.XSS,)
    return listed


def lacking(state: State, v: Vcpu, msr: int) -> Clause | None:
    """The clause by which this vCPU does not have the MSR; None if it has it."""
    if msr in k.CONTROL_MSRS:
        return None if v.shstk or v.ibt else c.CET_NEITHER_FEATURE
    if msr in k.POINTER_MSRS or msr == k.INTERNAL_GUEST_SSP:
        return None if v.shstk else c.SSP_NEEDS_SHSTK
    if msr == k.INT_SSP_TAB:
        if not v.shstk:
            return c.SSP_NEEDS_SHSTK
        return None if v.asked.lm and state.host.lm else c.TABLE_NEEDS_LM
    if msr == k.XSS:
        return None if v.asked.xsaves and state.host.xsaves else c.XSS_WRITE
    return c.FAILED_READ_GIVES_ZERO


def refusal_of(state: State, v: Vcpu, msr: int, value: int, base_aligned: bool) -> Clause | None:
    """The clause by which KVM refuses this value for an MSR the vCPU has; None if none does."""
    if msr in k.CONTROL_MSRS:
        return control_refusal(value, v.shstk, v.ibt, base_aligned)
    if msr == k.INT_SSP_TAB:
        return None if is_canonical(value, state.host.width) else c.SSP_CANONICAL
    if msr == k.XSS:
        return c.XSS_WRITE if value & ~v.xss else None
    return pointer_refusal(value, state.host.width)


def breaks_several(state: State, msr: int, value: int) -> bool:
    """Whether more than one rule refuses this value, so that none of them is the reason."""
    width = state.host.width
    if msr in k.CONTROL_MSRS:
        reserved, both = value >> 6 & 0xF, value >> 10 & 3 == 3
        return bool(reserved) + both + (not is_canonical(base_of(value), width)) > 1
    pointer = msr in k.POINTER_MSRS or msr == k.INTERNAL_GUEST_SSP
    return pointer and value & 3 != 0 and not is_canonical(value, width)


def oddity(msr: int, value: int) -> Clause | None:
    """The clause by which a value out of the ordinary is a value like others; None for a plain one."""
    if msr == k.XSS:
        return c.XSS_WRITE
    if msr in k.CONTROL_MSRS:
        if value >> 10 & 3:
            return c.CET_SUPPRESS_OR_TRACKER
        if value >> 2:
            return c.CET_IBT_BITS_NEED_IBT
        return c.CET_SHSTK_BITS_NEED_SHSTK if value >> 1 else None
    if value >> 47:
        return c.SSP_CANONICAL
    if msr == k.INT_SSP_TAB:
        return c.TABLE_UNALIGNED if value & 7 else None
    return c.SSP_ALIGNED if value & 4 else None


def survival(v: Vcpu, place: int, *, host: bool = False, emulated: bool = False) -> Clause:
    """The clause by which this register has its value now."""
    origin = v.origin
    if v.since != UNTOUCHED and origin != RESET:
        return c.BYPASSING_WRITES_ARE_SAVED if origin == XRSTORS else SURVIVED[v.since]
    if origin in (GUEST, EMULATED_WRITE, HOST):
        if place != v.place:
            return c.POINTERS_INDEPENDENT
        odd = _shown(v, place)
        if odd is not None:
            return odd
        if origin == HOST:
            return c.LAST_ACCEPTED_VALUE if host else c.HOST_WRITE_REACHES_GUEST
        if host:
            return c.HOST_READS_GUEST_VALUE if v.regs[place] else c.ZERO_IS_A_VALUE
        if emulated != (origin == EMULATED_WRITE):
            return c.INTERCEPTED_ACTS_ON_LIVE
        return c.LAST_ACCEPTED_VALUE if v.regs[place] else c.ZERO_IS_A_VALUE
    if origin == XRSTORS and host:
        return c.HOST_READS_GUEST_VALUE
    if origin in (NESTED, VMRUN, FAILED, CLEAN):
        return _nested_survival(v, place)
    return ORIGINS[origin]


def _shown(v: Vcpu, place: int) -> Clause | None:
    """The clause by which a register keeps every bit of the value last written to it; None for a plain value."""
    value = v.regs[place]
    if place in (PL0, PL1, PL2, PL3, SSP) and value & 4:
        return c.SSP_ALIGNED
    if place == TABLE and value & 7:
        return c.TABLE_UNALIGNED
    return c.ZERO_IS_A_VALUE if not value and v.over else None


def _nested_survival(v: Vcpu, place: int) -> Clause:
    if place not in (S, TABLE, SSP):
        return c.NESTING_KEEPS_USER_STATE
    if v.origin == VMRUN:
        return c.VMRUN_SWITCHES
    if v.origin == CLEAN:
        return c.CLEAN_VMCB12
    if v.origin == FAILED:
        return c.FAILED_ENTRY_IS_AN_EXIT
    return c.L1_RESUMES if v.l2 is None else c.L2_STARTS


def host_read(state: State, v: Vcpu, msr: int) -> tuple[bool, int, Clause]:
    """A host-initiated read: whether it succeeds, its value, and the clause that says so."""
    lacks = lacking(state, v, msr)
    if msr == k.XSS:
        return True, v.regs[XSS], survival(v, XSS, host=True) if v.regs[XSS] or v.origin == RESET else c.XSS_READ
    if lacks is None:
        place = PLACE[msr]
        return True, v.regs[place], survival(v, place, host=True)
    if msr in advertised(state):
        return True, 0, c.ADVERTISED_BUT_ABSENT
    if state.ignore_msrs:
        return True, 0, c.IGNORED_MSRS_HAVE_NO_STATE
    return False, 0, c.FAILED_READ_GIVES_ZERO


def host_write(state: State, v: Vcpu, msr: int, value: int, base_aligned: bool) -> tuple[Vcpu | None, Clause, bool]:
    """A host-initiated write: the vCPU afterwards or None, the clause, and whether it may be tolerated."""
    lacks = lacking(state, v, msr)
    if lacks is not None:
        if value == 0 and msr in advertised(state):
            return v, c.ADVERTISED_BUT_ABSENT, False
        if state.ignore_msrs:
            return v, c.IGNORED_MSRS_HAVE_NO_STATE, False
        return None, c.ADVERTISED_BUT_ABSENT if msr in advertised(state) else lacks, False
    refusal = refusal_of(state, v, msr, value, base_aligned)
    if refusal is not None:
        return None, c.HOST_VALUES_CHECKED if breaks_several(state, msr, value) else refusal, False
    new = written(v, PLACE[msr], value, HOST)
    bad_base = msr in k.CONTROL_MSRS and not is_canonical(base_of(value), state.host.width)
    clause = oddity(msr, value) or c.HOST_WRITE_REACHES_GUEST
    return new, c.CET_BASE_CANONICAL if bad_base else clause, bad_base
