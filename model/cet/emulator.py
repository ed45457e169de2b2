"""The instruction emulator, which must not get round CET."""

from __future__ import annotations

from conformance.model.cet.operations import Answers, Emulate
from conformance.model.cet.state import SSP, S, State, U, vcpu_of
from conformance.model.step import Outcome, Outcomes
from conformance.specs.cet import Profile
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import EMULATED, EMULATED_GP, ENDBR_EN, SH_STK_EN, UNHANDLEABLE


def emulate(state: State, op: Emulate, _env: Answers, _profile: Profile) -> Outcomes:
    """The emulator refuses what active CET affects, and does the rest."""
    v = vcpu_of(state, op.vcpu)
    done = Outcome(state, EMULATED, because=c.EMULATOR_REFUSES)
    refused = Outcome(state, UNHANDLEABLE, because=c.EMULATOR_REFUSES)
    here, there = (v.regs[U], v.regs[S]) if op.user else (v.regs[S], v.regs[U])
    shstk, ibt = v.cet and here >> SH_STK_EN & 1, v.cet and here >> ENDBR_EN & 1
    elsewhere = v.cet and (there >> SH_STK_EN | there >> ENDBR_EN) & 1
    match op.instruction:
        case "ret":
            return refused if shstk else done
        case "indirect_jmp":
            return refused if ibt else done
        case "indirect_call":
            return refused if shstk or ibt else done
        case "task_switch":
            if shstk or ibt:
                return refused
            return (done, refused) if elsewhere else done
        case "far_jmp":
            if shstk and v.regs[SSP] >> 32:
                done = Outcome(state, EMULATED_GP, because=c.EMULATOR_REFUSES)
            return (done, refused) if ibt else done
        case _:
            return done
