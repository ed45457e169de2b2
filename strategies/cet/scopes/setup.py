"""Steps for small worlds: control registers, SMM, the emulator, CPUID and the filter."""

from __future__ import annotations

from itertools import product

from conformance.model.cet import operations as m
from conformance.model.step import Fault, Step
from conformance.specs.cet import constants as k
from conformance.strategies.cet.domains import (
    A0,
    A1,
    A2,
    CPUID,
    DENIED,
    IBT_ONLY,
    NEITHER,
    SHSTK_ONLY,
    UNLIKE,
    UNLIKE_SVM,
)
from conformance.strategies.cet.scopes.nesting import VMREADS


def control() -> tuple[Step, ...]:
    """CR0.WP and CR4.CET by every way there is."""
    return (
        Step(m.Run(0)),
        Step(m.Leave(0)),
        *(Step(m.MovCr0(0, wp)) for wp in (True, False)),
        *(Step(m.MovCr4(0, cet, owned)) for cet, owned in product((True, False), repeat=2)),
        *(Step(m.SetSregs(0, wp, cet)) for wp, cet in product((True, False), repeat=2)),
        Step(m.WriteSsp(0, A0)),
        Step(m.Wrmsr(0, k.S_CET, 1)),
        Step(m.Rdmsr(0, k.S_CET)),
        Step(m.ReadSsp(0)),
        Step(m.Reset(0)),
        Step(m.Init(0)),
        Step(m.GetMpState(0, True)),
    )


def smm() -> tuple[Step, ...]:
    """SMM, with what the handler may do to the save area and to CR0.WP."""
    return (
        Step(m.Run(0)),
        *(Step(m.MovCr0(0, wp)) for wp in (True, False)),
        Step(m.MovCr4(0, True)),
        Step(m.WriteSsp(0, A0)),
        Step(m.ReadSsp(0)),
        Step(m.Smi(0)),
        *(Step(m.Rsm(0, ssp)) for ssp in (None, A1, 1, 2, 0xFFFF_8000_0000_0004, 0xAAAA_AAAA_AAAA_AAA8)),
        Step(m.Rdmsr(0, k.INTERNAL_GUEST_SSP)),
        Step(m.Wrmsr(0, k.S_CET, 1)),
        Step(m.Rdmsr(0, k.S_CET)),
    )


def emulator() -> tuple[Step, ...]:
    """Every instruction under every combination of what makes CET active."""
    return (
        *(Step(m.Emulate(0, name, user)) for name, user in product(m.EMULATED, (False, True))),
        Step(m.SetSregs(0, True, True)),
        Step(m.Run(0)),
        Step(m.WriteSsp(0, 1 << 32)),
        Step(m.WriteSsp(0, 0xFFFF_FFFC)),
        *(Step(m.Wrmsr(0, k.S_CET, value)) for value in (1, 4, 5, 0)),
        *(Step(m.Wrmsr(0, k.U_CET, value)) for value in (1, 4)),
    )


def setting_up() -> tuple[Step, ...]:
    """CPUID, the filter, creation and destruction, and what the guest sees of them."""
    return (
        *map(Step, VMREADS),
        Step(m.CpuidSize(0)),
        Step(m.Run(0)),
        *(Step(m.Wrmsr(0, k.XSS, value)) for value in (0x1800, 0x800, 0x1000)),
        *(Step(m.Rdmsr(0, msr)) for msr in k.MSRS),
        Step(m.Leave(0)),
        *(Step(m.SetCpuid(0, cpuid)) for cpuid in CPUID.values),
        *(Step(m.SetFilter(0, denied)) for denied in DENIED.values),
        Step(m.Destroy(0)),
        Step(m.Create(0)),
        Step(m.Create(0), (Fault("alloc_guest_fpstate", -k.ENOMEM),)),
    )


def filtered() -> tuple[Step, ...]:
    """What follows the filter, and what follows a CPUID, in every order."""
    return (
        Step(m.SetFilter(0, (k.PL0_SSP, k.S_CET))),
        Step(m.SetCpuid(0, SHSTK_ONLY)),
        Step(m.Reset(0)),
        Step(m.Run(0)),
        Step(m.Rdmsr(0, k.PL0_SSP)),
    )


def reloaded() -> tuple[Step, ...]:
    """The module loaded anew on a host unlike the first, and a vCPU that meets what is the host's own."""
    wide = 1 << 50
    return (
        *(Step(m.VendorInit(host)) for host in (UNLIKE, UNLIKE_SVM)),
        Step(m.Create(0)),
        Step(m.SetMsrs(0, ((k.PL0_SSP, wide), (k.INT_SSP_TAB, wide)))),
        Step(m.Run(0)),
        Step(m.Wrmsr(0, k.XSS, 0x1000)),
        Step(m.Xsaves(0, k.CET_S)),
        Step(m.Rdmsr(0, k.INT_SSP_TAB)),
        Step(m.NestedEnter(0, m.Area(s_cet=1, ssp=wide, table=wide, host_ssp=wide, host_table=wide, cet=False))),
        Step(m.NestedExit(0)),
        Step(m.Leave(0)),
    )


def bereft() -> tuple[Step, ...]:
    """Registers that userspace has set, then a CPUID that takes some away before the vCPU first runs."""
    return (
        Step(m.SetMsrs(0, ((k.PL1_SSP, A1), (k.PL3_SSP, A0), (k.INT_SSP_TAB, A2), (k.XSS, 0x1800)))),
        *(Step(m.SetMsrs(0, ((k.U_CET, value),))) for value in (1, 4)),
        Step(m.SetOneReg(0, k.ONE_REG_GUEST_SSP, A0)),
        *(Step(m.SetCpuid(0, cpuid)) for cpuid in (SHSTK_ONLY, IBT_ONLY, NEITHER)),
        Step(m.GetMsrs(0, k.MSRS)),
        Step(m.GetOneReg(0, k.ONE_REG_GUEST_SSP)),
        Step(m.SetMsrs(0, ((k.PL1_SSP, 0),))),
        Step(m.SetMsrs(0, ((k.PL1_SSP, A0),))),
        Step(m.Run(0)),
        Step(m.Rdmsr(0, k.PL1_SSP)),
        Step(m.Rdmsr(0, k.U_CET)),
        *(Step(m.Xsaves(0, component)) for component in (k.CET_U, k.CET_S)),
    )
