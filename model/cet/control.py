"""CR0 and CR4, reset, and the CPUID that follows XSS."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.cet.nesting import stored_by_exit
from conformance.model.cet.operations import (
    Answers,
    CpuidSize,
    GetMpState,
    Init,
    MovCr0,
    MovCr4,
    Reset,
    SetSregs,
)
from conformance.model.cet.state import RESET, TOGGLED, UNTOUCHED, XSS, ZEROS, State, Vcpu, put, vcpu_of, with_vcpu
from conformance.model.cet.values import xsaves_size
from conformance.model.freedom import End, Freedom, Part
from conformance.model.step import Outcome, Outcomes
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import EINVAL


def mov_cr(state: State, op: MovCr0 | MovCr4, _env: Answers, _profile: Profile) -> Outcome:
    """The guest changes CR0.WP or CR4.CET. 0, or 1 for #GP with nothing changed."""
    v = vcpu_of(state, op.vcpu)
    wp = op.wp if isinstance(op, MovCr0) else v.wp
    cet = op.cet if isinstance(op, MovCr4) else v.cet
    if cet and not (v.shstk or v.ibt):
        return Outcome(state, 1, because=c.CR4_CET_RESERVED, effect=c.CR4_CET_RESERVED)
    if cet and not wp:
        clause = c.WP_HELD_BY_CET if isinstance(op, MovCr0) else c.CET_NEEDS_WP
        return Outcome(state, 1, because=clause, effect=clause)
    since = TOGGLED if cet != v.cet else v.since
    clause = c.WP_HELD_BY_CET if isinstance(op, MovCr0) else c.CET_NEEDS_WP
    also = (c.CR4_CET_RESERVED,) if isinstance(op, MovCr4) else ()
    new = replace(v, wp=wp, cet=cet, since=since)
    return Outcome(with_vcpu(state, op.vcpu, new), 0, because=clause, effect=clause, also=also)


def set_sregs(state: State, op: SetSregs, _env: Answers, _profile: Profile) -> Outcomes:
    """KVM_SET_SREGS. 0, or -EINVAL, before or after CR0 was taken; CR4 then was not."""
    v = vcpu_of(state, op.vcpu)
    taken = Part("CR0", lambda s: with_vcpu(s, op.vcpu, replace(v, wp=op.wp)))
    if op.cet and not (v.shstk or v.ibt):
        return Freedom(state, (taken,), (End(-EINVAL, because=c.CR4_CET_RESERVED, effect=c.CR4_CET_RESERVED),))
    new = replace(v, wp=op.wp, cet=op.cet, since=TOGGLED if op.cet != v.cet else v.since)
    stored = Outcome(with_vcpu(state, op.vcpu, new), 0, because=c.SREGS_PAIR)
    if op.cet and not op.wp:
        return Freedom(
            state,
            (taken, Part("CR4", lambda s: stored.state, after=("CR0",))),
            (End(-EINVAL, because=c.SREGS_PAIR, before=("CR4",)), End(0, because=c.SREGS_PAIR, complete=True)),
        )
    return replace(stored, because=c.CR4_CET_RESERVED)


def reset(state: State, op: Init | Reset | GetMpState, _env: Answers, _profile: Profile) -> Outcomes:
    """INIT and RESET clear everything; INIT keeps XSS.

    An INIT that KVM_GET_MP_STATE leaves pending is processed by a KVM_RUN, which freezes the CPUID.
    """
    v = vcpu_of(state, op.vcpu)
    result = 0 if isinstance(op, GetMpState) else None
    if isinstance(op, GetMpState) and not op.init:
        return Outcome(state, result, because=c.INIT_ANYWHERE)
    xss = 0 if isinstance(op, Reset) else v.regs[XSS]
    new = replace(
        v,
        regs=put(ZEROS, XSS, xss),
        wp=False,
        cet=False,
        origin=RESET,
        over=any(v.regs),
        since=UNTOUCHED,
        dead=False,
    )
    because = c.RESET_CLEARS if isinstance(op, Reset) else c.INIT_ANYWHERE
    if v.smm is not None or v.l2 is not None:
        return _reset_in_mode(state, op.vcpu, v, new)
    also = (c.RESET_CLEARS_CRS,) if v.cet or v.wp else ()
    done = Outcome(with_vcpu(state, op.vcpu, new), result, because=because, effect=c.RESET_CLEARS, also=also)
    if isinstance(op, GetMpState) and not v.ran:
        return (done, replace(done, state=with_vcpu(state, op.vcpu, replace(new, ran=True))))
    return done


def _reset_in_mode(state: State, slot: int, v: Vcpu, new: Vcpu) -> Outcomes:
    """RESET of a vCPU in SMM or L2 leaves both; who leaves L2 by an exit has stored its values, with nobody to read."""
    left = replace(new, smm=None, l2=None, refused=True)
    done = Outcome(with_vcpu(state, slot, left), None, because=c.RESET_LEAVES_MODES, effect=c.RESET_LEAVES_MODES)
    if v.l2 is None:
        return done
    stored = with_vcpu(state, slot, replace(left, area=stored_by_exit(v)))
    return (done, replace(done, state=stored))


def cpuid_size(state: State, op: CpuidSize, _env: Answers, _profile: Profile) -> Outcome:
    """CPUID.(0xD,1):EBX follows XSS."""
    return Outcome(state, xsaves_size(vcpu_of(state, op.vcpu).regs[XSS]), because=c.XSS_WRITE)
