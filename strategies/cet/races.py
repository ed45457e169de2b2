"""Two vCPUs on two physical CPUs at once."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.cet import operations as m
from conformance.model.step import Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import A0, A1, CARRIED, EXCHANGED
from conformance.strategies.domain import Race

_TWO = m.Config(vcpus=(m.Cpuid(), m.Cpuid()))
_BOTH_IN_GUEST = (Step(m.Run(0, 0)), Step(m.Run(1, 1)))
STARTS: tuple[tuple[m.Config, tuple[Step, ...]], ...] = (
    (_TWO, _BOTH_IN_GUEST),
    (_TWO, (*_BOTH_IN_GUEST, Step(m.Wrmsr(0, k.PL0_SSP, A0)), Step(m.Wrmsr(1, k.PL0_SSP, A1)))),
    (_TWO, (Step(m.Run(0, 0)),)),
    (_TWO, ()),
)
"""Where two vCPUs on two physical CPUs meet: both in the guest, one, or neither."""


def _races() -> dict[str, Race]:
    """Two vCPUs on two physical CPUs, each doing what touches registers that they could share by mistake."""
    steps = {
        "wrmsr": Step(m.Wrmsr(0, k.PL0_SSP, A0)),
        "emulated": Step(m.Wrmsr(0, k.PL0_SSP, A0, emulated=True)),
        "rdmsr": Step(m.Rdmsr(0, k.PL0_SSP, emulated=True)),
        "leave": Step(m.Leave(0)),
        "exit": Step(m.Exit(0)),
    }
    others = {
        "wrmsr": Step(m.Wrmsr(1, k.PL0_SSP, A1, emulated=True)),
        "leave": Step(m.Leave(1)),
        "exit": Step(m.Exit(1)),
    }
    races = {
        f"{name}-{other}": Race(_TWO, _BOTH_IN_GUEST, left, right)
        for name, left in steps.items()
        for other, right in others.items()
    }
    sets = Step(m.SetMsrs(0, ((k.PL0_SSP, A0),), 0)), Step(m.SetMsrs(1, ((k.PL0_SSP, A1),), 1))
    gets = Step(m.GetMsrs(0, (k.PL0_SSP, k.U_CET), 0)), Step(m.GetMsrs(1, (k.PL0_SSP, k.U_CET), 1))
    races["run-run"] = Race(_TWO, (), Step(m.Run(0, 0)), Step(m.Run(1, 1)))
    races["run-set"] = Race(_TWO, (), Step(m.Run(0, 0)), sets[1])
    races["set-set"] = Race(_TWO, (), *sets)
    races["set-get"] = Race(_TWO, (), sets[0], gets[1])
    races["get-wrmsr"] = Race(_TWO, (_BOTH_IN_GUEST[1],), gets[0], others["wrmsr"])
    races["get-leave"] = Race(_TWO, (_BOTH_IN_GUEST[1],), gets[0], others["leave"])
    pl0, table = k.ONE_REG_MSR | k.PL0_SSP, k.ONE_REG_MSR | k.INT_SSP_TAB
    stored = (Step(m.SetMsrs(0, ((k.PL0_SSP, A0),), 0)), Step(m.SetMsrs(1, ((k.PL0_SSP, A1),), 1)))
    set_regs = Step(m.SetOneReg(0, pl0, A0, 0)), Step(m.SetOneReg(1, table, A1, 1))
    get_regs = Step(m.GetOneReg(0, pl0, 0)), Step(m.GetOneReg(1, pl0, 1))
    races["set-reg-set-reg"] = Race(_TWO, (), *set_regs, switches=1)
    races["get-get"] = Race(_TWO, stored, *gets, switches=1)
    races["get-reg-get-reg"] = Race(_TWO, stored, *get_regs)
    races["get-reg-wrmsr"] = Race(_TWO, (*stored, _BOTH_IN_GUEST[1]), get_regs[0], others["wrmsr"], switches=1)
    both = (*stored, *_BOTH_IN_GUEST)
    races["init-wrmsr"] = Race(_TWO, both, Step(m.Init(0)), others["wrmsr"], switches=1)
    races["init-leave"] = Race(_TWO, both, Step(m.Init(0)), others["leave"], switches=1)
    enabled = (*both, Step(m.Wrmsr(0, k.XSS, 0x1000)), Step(m.Wrmsr(1, k.XSS, 0x800)))
    races["xss-xss"] = Race(_TWO, enabled, steps["exit"], others["exit"])
    races["xss-wrmsr"] = Race(_TWO, enabled, Step(m.Wrmsr(0, k.XSS, 0x1800)), others["exit"])
    wide = (*_BOTH_IN_GUEST, Step(m.MovCr0(1, True)), Step(m.MovCr4(1, True)))
    races["smi-smi"] = Race(_TWO, wide, Step(m.Smi(0)), Step(m.Smi(1)), switches=1)
    in_smm = (*wide, Step(m.Smi(0)), Step(m.Smi(1)))
    races["rsm-rsm"] = Race(_TWO, in_smm, Step(m.Rsm(0)), Step(m.Rsm(1)), switches=1)
    areas = replace(CARRIED, s_cet=2), replace(EXCHANGED, intercepts=(k.PL0_SSP,))
    entries = Step(m.NestedEnter(0, areas[0])), Step(m.NestedEnter(1, areas[1]))
    races["enter-enter"] = Race(_TWO, both, *entries, switches=1)
    in_l2 = (*both, *entries)
    races["exit-l2-exit-l2"] = Race(_TWO, in_l2, Step(m.NestedExit(0)), Step(m.NestedExit(1)), switches=1)
    return races


RACES = _races()
"""Pairs whose schedules of up to two switches are all tried, in both orders of starting."""

AFTERWARDS = (
    *(Step(m.Run(vcpu, vcpu)) for vcpu in (0, 1)),
    *(Step(m.Rdmsr(vcpu, msr)) for vcpu in (0, 1) for msr in k.MSRS),
    *(Step(m.ReadSsp(vcpu)) for vcpu in (0, 1)),
)
"""What the guests read once both run again."""
