"""SMM, and SSP in its save area."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.cet.operations import Answers, Rsm, Smi
from conformance.model.cet.state import SMM, SSP, UNTOUCHED, State, put, vcpu_of, with_vcpu
from conformance.model.cet.values import pointer_refusal
from conformance.model.step import Outcome, Outcomes
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c


def smi(state: State, op: Smi, _env: Answers, _profile: Profile) -> Outcomes:
    """Enter SMM: SSP goes to SMRAM if the vCPU has one, CR4.CET is cleared.

    Without SHSTK nothing is stored, but who fills the whole map at once leaves a zero there.
    """
    v = vcpu_of(state, op.vcpu)
    smram = v.regs[SSP] if v.shstk else v.smram
    new = replace(v, smm=(v.wp, v.cet), smram=smram, cet=False, origin=SMM, since=UNTOUCHED)
    done = Outcome(with_vcpu(state, op.vcpu, new), None, because=c.SSP_THROUGH_SMRAM, also=(c.SMM_CLEARS_CR4,))
    if v.shstk or not v.smram:
        return done
    return (done, replace(done, state=with_vcpu(state, op.vcpu, replace(new, smram=0))))


def rsm(state: State, op: Rsm, _env: Answers, _profile: Profile) -> Outcome:
    """Leave SMM: SSP and the control registers come back. 0, or 1 to shut down on a bad SSP."""
    v = vcpu_of(state, op.vcpu)
    assert v.smm is not None
    slot = v.smram if op.ssp is None else op.ssp
    wp, cet = v.smm
    if v.shstk and pointer_refusal(slot, state.host.width):
        dead = replace(v, smm=None, smram=slot, dead=True)
        return Outcome(with_vcpu(state, op.vcpu, dead), 1, because=c.SSP_THROUGH_SMRAM)
    regs = put(v.regs, SSP, slot) if v.shstk else v.regs
    new = replace(v, regs=regs, smm=None, smram=slot, wp=wp, cet=cet, origin=SMM, since=UNTOUCHED)
    because = c.SMM_CLEARS_CR4 if cet and not v.wp else c.SSP_THROUGH_SMRAM
    return Outcome(with_vcpu(state, op.vcpu, new), 0, because=because, effect=c.SMM_CLEARS_CR4)
