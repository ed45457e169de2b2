"""The physical CPUs, with a register file each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.registers import COUNT, SSP, TABLE, XSS, S
from conformance.environment.simulator import Simulator
from conformance.model.cet.operations import Host
from conformance.model.cet.state import CPUS
from conformance.model.cet.values import base_of, control_refusal, is_canonical, pointer_refusal
from conformance.specs.cet import clauses as c
from conformance.specs.cet import constants as k
from conformance.specs.clause import Clause
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.cet.platform import Platform
    from conformance.environment.door import Environment


class Processors(Simulator):
    """Two physical CPUs: the CET MSRs, XSS and SSP of each, and what a write must hold to not fault.

    Whose values they are is nobody's business here. Shadow stacks themselves are not modelled, nor is what U_CET
    and S_CET do to instructions.
    """

    CLAUSES = (
        c.SSP_CANONICAL,
        c.SSP_NEEDS_SHSTK,
        c.XSS_NEVER_FAULTS,
        c.S_CET_IS_THE_HOSTS,
        c.SSP_IS_THE_HOSTS,
        c.XSS_IS_THE_HOSTS,
    )

    def __init__(self, door: Environment, platform: Platform) -> None:
        self.door = door
        self.platform = platform
        self.files = [[0] * COUNT for _ in range(CPUS)]
        """The registers of each physical CPU, by place."""
        self.boot()

    def boot(self) -> None:
        """All registers as after power-up, S_CET and XSS as the host sets them."""
        host = self.platform.host
        for regs in self.files:
            regs[:] = [0] * COUNT
            regs[S], regs[XSS] = host.s_cet, host.own_xss if host.xsaves else 0

    def fault(self, msr: int, value: int | None) -> Clause | None:
        """Why the processor raises #GP for RDMSR (no value) or WRMSR, by the *host's* features."""
        host = self.platform.host
        if msr in k.CONTROL_MSRS:
            return _control_fault(host, value)
        if msr == k.XSS:
            return c.XSS_NEVER_FAULTS if not host.xsaves or (value or 0) & ~host.xss else None
        if not host.shstk:
            return c.SSP_NEEDS_SHSTK
        if value is None:
            return None
        if msr == k.INT_SSP_TAB:
            return None if is_canonical(value, host.width) else c.SSP_CANONICAL
        return pointer_refusal(value, host.width)

    def is_enabled(self, cpu: int, component: int) -> bool:
        """Whether XSAVES and XRSTORS take the component: XSS decides."""
        return bool(self.files[cpu][XSS] >> component & 1)

    def after_exit(self, cpu: int) -> None:
        """Whatever the guest did, S_CET, SSP and the table are the host's again."""
        found, own = self.files[cpu][S], self.platform.host.s_cet
        if found != own:
            raise Violation(c.S_CET_IS_THE_HOSTS, f"S_CET is {found:#x} after a VM exit, the host's is {own:#x}")
        ssp, table = self.files[cpu][SSP], self.files[cpu][TABLE]
        if ssp or table:
            left = f"SSP is {ssp:#x} and the interrupt SSP table {table:#x} after a VM exit"
            raise Violation(c.SSP_IS_THE_HOSTS, f"{left}, the host's are 0")

    def out_of_hands(self, cpu: int) -> None:
        """The vCPU's thread leaves this physical CPU or returns to userspace: XSS is the host's by then."""
        host = self.platform.host
        found, own = self.files[cpu][XSS], host.own_xss if host.xsaves else 0
        if found != own:
            raise Violation(c.XSS_IS_THE_HOSTS, f"XSS is {found:#x} outside the guest, the host's {own:#x}")
        self.door.hold(c.XSS_IS_THE_HOSTS)
        self.door.hold(c.SSP_IS_THE_HOSTS)  # at every exit until now


def _control_fault(host: Host, value: int | None) -> Clause | None:
    if not (host.shstk or host.ibt):
        return c.CET_NEITHER_FEATURE
    if value is None:
        return None
    refusal = control_refusal(value, host.shstk, host.ibt, False)
    return refusal or (None if is_canonical(base_of(value), host.width) else c.CET_BASE_CANONICAL)
