"""What Bochs' processors can be asked of CET: the architecture's rules alone, without a hypervisor."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from conformance.model.cet import operations as m
from conformance.model.cet.state import S
from conformance.real.adapter import Adapter, Rate, rate
from conformance.real.bochs_cet.bench import BochsBench
from conformance.real.bochs_cet.machine import CLEAN, LOAD, RDMSR, WRMSR, XSAVES, Bochs, machine, tools
from conformance.real.bochs_cet.world import XSTATE_BV, BochsWorld
from conformance.specs.cet import constants as k

XSAVES_LOSES = "XSAVES takes CET components that are in use for initial ones (finding BOCHS-1): it is not asked"
XSS_WITHOUT_CET = "XSS takes the bits of CET on a processor without CET (finding BOCHS-2): these are not written there"
WITH_CET, WITHOUT_CET = "tigerlake", "corei7_icelake_u"
"""Models of CPU, with shadow stacks and branch tracking, and with neither."""
SUPPRESS_OR_TRACKER = 3 << 10
JUDGED = (1, 4, 6, 7, 8, 9, 10, 11, 12, 13, 16, 17, 18, 30, 68, 69, 70, 71, 73)
"""Numbers of the clauses that are the architecture's, so that a processor alone can break them."""
FULL = m.Host()
BARE = m.Host(shstk=False, ibt=False, load_cet_entry=False, load_cet_exit=False, xss=0)


class BochsCet(Adapter):
    """Guest accesses to MSRs, CR0.WP, CR4.CET and the CET components of XSAVES."""

    profile = "hardware"
    capabilities = frozenset[str]()
    scripts = "bochs_cet"
    operations = frozenset({m.Run, m.Leave, m.Wrmsr, m.Rdmsr, m.MovCr0, m.MovCr4, m.Xsaves, m.Xrstors})
    view_fields = frozenset({"crs"})
    clauses = frozenset(f"CET-{n:03d}" for n in JUDGED)
    scopes = frozenset({"control", "registers-guest", "presence-host-no-cet", "guest-values-both"})
    gate_steps: ClassVar[int] = 400
    examples: ClassVar[int] = 210
    length: ClassVar[int] = 15

    def __init__(self) -> None:
        self.version = tools()
        self.absent: dict[str, frozenset[str]] = {}
        self.xss_without_cet = False
        """Whether a processor without CET has its bits of XSS: a quirk."""
        self._probe()

    def _probe(self) -> None:
        """What is wrong with this Bochs as `docs/findings.md` tells, so that it is kept out of everybody's way."""
        made = machine(WITH_CET)
        made.ask(CLEAN)
        made.ask(WRMSR, k.XSS, 1 << k.CET_U)
        made.ask(WRMSR, k.U_CET, 1)
        made.ask(XSAVES, 1 << k.CET_U)
        if not made.ask(LOAD, XSTATE_BV)[1][1] >> (k.CET_U - 8) & 1:
            self.operations -= {m.Xsaves}
            self.absent[XSAVES_LOSES] = frozenset()
        made = machine(WITHOUT_CET)
        made.ask(CLEAN)
        if made.ask(WRMSR, k.XSS, 1 << k.CET_U)[0] == 0:
            self.xss_without_cet = True
            self.absent[XSS_WITHOUT_CET] = frozenset()

    def environment(self, config: m.Config, profile: Any) -> BochsWorld:
        """A clean guest of the processor that the host's features name."""
        del profile
        return BochsWorld(partial(self.machine, config.host), self.visible)

    def machine(self, host: m.Host) -> Bochs:
        """The processor with these features."""
        return machine(WITH_CET if host.shstk else WITHOUT_CET)

    def bench(self) -> BochsBench:
        """A processor, once one is asked for."""
        return BochsBench()

    def builds(self, config: m.Config) -> bool:
        """One vCPU that has what the host has, of one of the two kinds."""
        return config.host in (FULL, BARE) and config.vcpus == (m.Cpuid(),) and not config.ignore_msrs

    def legal(self, state: Any, op: Any) -> bool:
        """The guest by itself; nothing that its own tracking of branches changes while we watch.

        While CET is on, TRACKER and SUPPRESS change at branches and at faults, and so they do in the ROM. This Bochs
        lets ENDBR64 change them without ENDBR_EN, too (finding BOCHS-3).
        """
        if op.vcpu != 0 or getattr(op, "emulated", False) or getattr(op, "owned", False):
            return False
        v = state.vcpus[0]
        match op:
            case m.Wrmsr(_, k.S_CET, value):
                return not (v.cet and _tracks(value))
            case m.Wrmsr(_, k.XSS, value) if self.xss_without_cet and state.host == BARE:
                return value & 3 << k.CET_U == 0
            case m.MovCr4(_, True):
                return not _tracks(v.regs[S])
        return True

    def rates(self) -> tuple[Rate, ...]:
        """As the facts have them."""
        made = self.machine(FULL)

        def come_up() -> None:
            Bochs(WITHOUT_CET).close()

        return (
            rate("requests of the ROM", 560, lambda: made.ask(RDMSR, k.S_CET)),
            rate("processors that come up", 11, come_up),
        )


def _tracks(value: int) -> bool:
    """Whether a value of S_CET has bits that branches change."""
    return bool(value & SUPPRESS_OR_TRACKER)
