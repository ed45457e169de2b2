"""The instruction emulator, which must not get round CET."""

from __future__ import annotations

from conformance.model.cet.operations import TRANSFERS, Answers, Emulate
from conformance.model.cet.state import SSP, S, State, U, vcpu_of
from conformance.model.step import Outcome, Outcomes
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import EMULATED, EMULATED_GP, ENDBR_EN, SH_STK_EN, UNHANDLEABLE


def emulate(state: State, op: Emulate, _env: Answers, _profile: Profile) -> Outcomes:
    """The emulator refuses what active CET affects; what it could do it may refuse too while CR4.CET is set.

    Whether a transfer is affected is known in full only to who follows it to its target, and for a far one to the
    other privilege level; so nobody is held to emulate one. Without CR4.CET nothing is affected, and all is done.
    """
    v = vcpu_of(state, op.vcpu)
    done = Outcome(state, EMULATED, because=c.EMULATOR_REFUSES)
    if not v.cet or op.instruction not in TRANSFERS:
        return done
    refused = Outcome(state, UNHANDLEABLE, because=c.EMULATOR_REFUSES)
    active = v.regs[U] if op.user else v.regs[S]
    shstk, ibt = active >> SH_STK_EN & 1, active >> ENDBR_EN & 1
    affected = {
        "ret": shstk,
        "indirect_jmp": ibt,
        "indirect_call": shstk | ibt,
        "task_switch": shstk | ibt,
        "far_jmp": ibt,
    }[op.instruction]
    if op.instruction == "far_jmp" and shstk and v.regs[SSP] >> 32:
        return (Outcome(state, EMULATED_GP, because=c.EMULATOR_REFUSES), refused)
    return refused if affected else (done, refused)
