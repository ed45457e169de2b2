"""What the guest does by itself: MSRs, XRSTORS and XSAVES, SSP."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.cet.access import lacking, oddity, refusal_of, survival
from conformance.model.cet.operations import Answers, Rdmsr, ReadSsp, WriteSsp, Wrmsr, Xrstors, Xsaves
from conformance.model.cet.state import (
    COMPONENTS,
    EMULATED_WRITE,
    FRESH,
    GUEST,
    HOST,
    MIGRATED,
    ORIGINS,
    PLACE,
    RESET,
    SSP,
    UNTOUCHED,
    XRSTORS,
    XSS,
    S,
    State,
    Vcpu,
    crossed,
    put,
    vcpu_of,
    with_vcpu,
    written,
)
from conformance.model.cet.values import base_of, hardware_takes, is_canonical
from conformance.model.step import Outcome, Outcomes
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet import constants as k
from conformance.specs.clause import Clause


def rdmsr(state: State, op: Rdmsr, _env: Answers, _profile: Profile) -> Outcome:
    """The guest reads an MSR.

    Returns:
        (0, value)  the last value, however it was written and whatever happened since
        (1, 0)      #GP: absent, filtered, or KVM's own
    """
    v, msr = vcpu_of(state, op.vcpu), op.msr
    if msr == k.INTERNAL_GUEST_SSP:
        return Outcome(state, (1, 0), because=c.INTERNAL_MSR_HIDDEN)
    if msr in v.denied:
        return Outcome(state, (1, 0), because=c.FILTER_INTERCEPTS)
    lacks = lacking(state, v, msr)
    if lacks is not None:
        if msr == k.XSS:
            return Outcome(state, (1, 0), because=c.XSS_READ)
        if state.ignore_msrs:
            return Outcome(state, (0, 0), because=c.IGNORED_MSRS_HAVE_NO_STATE)
        return Outcome(state, (1, 0), because=lacks)
    place = PLACE[msr]
    because = survival(v, place, emulated=op.emulated)
    also = _CONTROL_READ if place < 2 else _READ
    return Outcome(state, (0, v.regs[place]), because=because, also=also)


_READ = (c.LAST_ACCEPTED_VALUE, c.PASSED_READS_ARE_LOADED)
_CONTROL_READ = (*_READ, c.CET_ONE_FEATURE)


def wrmsr(state: State, op: Wrmsr, _env: Answers, profile: Profile) -> Outcomes:
    """The guest writes an MSR. 0, or 1 for #GP, with nothing changed.

    A write that is passed through is judged by the processor with the host's features;
    the others by KVM with the vCPU's. Where interception is open, by the profile or in L2 (CET-088 says what must be
    stopped there, nothing what must pass), either may judge.
    """
    v, msr, value = vcpu_of(state, op.vcpu), op.msr, op.value
    if msr == k.INTERNAL_GUEST_SSP:
        return Outcome(state, 1, because=c.INTERNAL_MSR_HIDDEN)
    if msr in v.denied:
        return Outcome(state, 1, because=c.FILTER_INTERCEPTS)
    lacks = lacking(state, v, msr)
    if lacks is not None:
        if state.ignore_msrs:
            return Outcome(state, 0, because=c.IGNORED_MSRS_HAVE_NO_STATE)
        return Outcome(state, 1, because=lacks)
    refusal = refusal_of(state, v, msr, value, profile.base_aligned)
    new = with_vcpu(
        crossed(state, op.vcpu),
        op.vcpu,
        written(v, PLACE[msr], value, EMULATED_WRITE if op.emulated else GUEST),
    )
    stored = Outcome(new, 0, because=oddity(msr, value) or _STORED[msr], also=_enabling(v, msr))
    if msr not in k.CONTROL_MSRS:
        return stored if refusal is None else Outcome(state, 1, because=refusal)
    passed = stored if hardware_takes(state.host, value) else Outcome(state, 1, because=refusal or c.CET_BASE_CANONICAL)
    if state.exact and not op.emulated and v.l2 is None:
        return passed
    judged = _judged(state, stored, value, refusal)
    if op.emulated or judged == (passed,):
        return judged
    return (passed, *judged)


def _judged(state: State, stored: Outcome, value: int, refusal: Clause | None) -> tuple[Outcome, ...]:
    """What KVM's own check of U_CET or S_CET may say: a bad base should be refused, but need not be."""
    if refusal is not None:
        return (Outcome(state, 1, because=refusal),)
    if is_canonical(base_of(value), state.host.width):
        return (stored,)
    tolerated = replace(stored, breaches=(c.CET_BASE_CANONICAL,))
    return (Outcome(state, 1, because=c.CET_BASE_CANONICAL), tolerated)


_STORED = {
    **dict.fromkeys(k.CONTROL_MSRS, c.CET_ONE_FEATURE),
    **dict.fromkeys(k.POINTER_MSRS, c.NO_ORDER_WITH_ENABLE),
    k.INT_SSP_TAB: c.TABLE_UNALIGNED,
    k.XSS: c.XSS_WRITE,
}


def _enabling(v: Vcpu, msr: int) -> tuple[Clause, ...]:
    """Counts the two orders of writing pointers and enabling shadow stacks."""
    if (msr in k.POINTER_MSRS and v.regs[S] >> k.SH_STK_EN & 1) or msr == k.S_CET:
        return (c.NO_ORDER_WITH_ENABLE,)
    return (c.XSS_NEVER_FAULTS,) if msr == k.XSS else ()


def xrstors(state: State, op: Xrstors, _env: Answers, _profile: Profile) -> Outcome:
    """The guest restores a component, without an exit. 0, or 1 for #GP where XSS lacks the bit."""
    v = vcpu_of(state, op.vcpu)
    because = _enabled_by(v)
    if not v.regs[XSS] >> op.component & 1:
        return Outcome(state, 1, because=because)
    regs = v.regs
    places = COMPONENTS[op.component]
    for place, value in zip(places, op.words or (0,) * len(places), strict=True):
        regs = put(regs, place, value)
    new = with_vcpu(crossed(state, op.vcpu), op.vcpu, replace(v, regs=regs, origin=XRSTORS, since=UNTOUCHED))
    return Outcome(new, 0, because=because)


def _enabled_by(v: Vcpu) -> Clause:
    """The clause by which XSS enables a component or not."""
    return ORIGINS[v.origin] if v.origin in (RESET, MIGRATED) else c.XSS_WRITE


def xsaves(state: State, op: Xsaves, _env: Answers, _profile: Profile) -> Outcome:
    """The guest saves a component, without an exit."""
    v = vcpu_of(state, op.vcpu)
    if not v.regs[XSS] >> op.component & 1:
        return Outcome(state, None, because=_enabled_by(v))
    words = tuple(v.regs[place] for place in COMPONENTS[op.component])
    because = survival(v, COMPONENTS[op.component][0])
    if v.since == UNTOUCHED and v.origin in (FRESH, HOST, GUEST, MIGRATED):
        because = c.XSS_WRITE if v.place == XSS else c.PASSED_READS_ARE_LOADED
    return Outcome(state, words, because=because, also=_READ)


def ssp(state: State, op: WriteSsp | ReadSsp, _env: Answers, _profile: Profile) -> Outcome:
    """The guest moves or reads SSP, without an exit."""
    v = vcpu_of(state, op.vcpu)
    if isinstance(op, ReadSsp):
        return Outcome(state, v.regs[SSP], because=survival(v, SSP))
    new = written(v, SSP, op.value, GUEST)
    return Outcome(with_vcpu(state, op.vcpu, new), None, because=c.LAST_ACCEPTED_VALUE)
