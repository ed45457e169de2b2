"""Software-disabled APICs, LDRs that are no logical ids, and inhibits that end: what is left open, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.avic.upstream import Kvm, Upstream, Vcpu
from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.model.step import Parallel, Step
from conformance.specs.avic.constants import APIC_BASE, APIC_LDR, APIC_SPIV, INHIBIT_LOGICAL_ID_ALIASED
from tests.conformance.avic.judging import cited, judged

TWO = Config(vcpus=(0, 1), running=True, enabled=True)
DISABLED = Config(vcpus=(0, 1), running=True)
X2 = Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True)
PENDING = (s.Deliver(0), s.Deliver(0), s.GuestWrite(0, APIC_SPIV, 0), s.Inhibit(3))
"""Vector 0x41 in service and pending, the APIC software-disabled since, and AVIC inactive."""


class Holds(Upstream):
    """A software-disabled APIC has nothing to give, whatever its IRR holds; as Xen and QEMU see it."""

    def _has_interrupt(self, v: Vcpu) -> int:
        return super()._has_interrupt(v) if self._sw_enabled(v) else -1


class Loses(Upstream):
    """Software disabling an APIC takes from it what it had accepted."""

    def _has_interrupt(self, v: Vcpu) -> int:
        vector = super()._has_interrupt(v)
        if vector >= 0 and not self._sw_enabled(v):
            self._clear_vector(v, 0x200, vector)
            return -1
        return vector


class NeverAgain(Holds):
    """What was held once is never given."""

    held: frozenset[int] = frozenset()

    def _has_interrupt(self, v: Vcpu) -> int:
        if not self._sw_enabled(v):
            self.held |= {v.handle}
        return -1 if v.handle in self.held else super()._has_interrupt(v)


class LiftsQuietly(Upstream):
    """Kicks where an inhibit begins; where it ends, the next exit will do."""

    asks = True

    def _change_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        mask = kvm.inhibits & ~reasons | value
        if mask or not kvm.inhibits:
            super()._change_inhibits(kvm, reasons, value)
            return
        kvm.inhibits = mask
        for v in list(kvm.vcpus.values()) if self.asks else ():
            self.port.request_refresh(v.handle)


class HoldsAndLiftsQuietly(Holds, LiftsQuietly):
    """Both: a sleeper that holds something sleeps on where hardware takes what another held."""


class LiftsNothing(LiftsQuietly):
    """Nobody hears of an inhibit that ends."""

    asks = False


class BeginsQuietly(Upstream):
    """Where an inhibit begins, the next exit will do."""

    def _change_inhibits(self, kvm: Kvm, reasons: int, value: int) -> None:
        mask = kvm.inhibits & ~reasons | value
        if kvm.inhibits or not mask:
            super()._change_inhibits(kvm, reasons, value)
            return
        kvm.inhibits = mask
        for v in list(kvm.vcpus.values()):
            self.port.request_refresh(v.handle)


class CountsIds(Upstream):
    """An xAPIC whose LDR has nothing in bits 31:24 is not in the logical map."""

    def _derived(self, kvm: Kvm) -> int:
        mask = super()._derived(kvm)
        vcpus = list(kvm.vcpus.values())
        named = [v.x2 for v in vcpus if v.x2 or self._reg(v, APIC_LDR) >> 24]
        return mask & ~(1 << INHIBIT_LOGICAL_ID_ALIASED) if all(named) else mask


class MixesModes(Upstream):
    """Modes may be mixed as one likes."""

    def _derived(self, kvm: Kvm) -> int:
        return super()._derived(kvm) & ~(1 << INHIBIT_LOGICAL_ID_ALIASED)


@pytest.mark.parametrize("candidate", [Upstream, Holds, HoldsAndLiftsQuietly])
@pytest.mark.parametrize(
    "ops",
    [
        (*PENDING, s.GuestEoi(0), s.GuestWrite(0, APIC_SPIV, 0x1FF), s.GuestEoi(0)),
        (*PENDING, s.GuestEoi(0), s.Inhibit(3, on=False)),
        (*PENDING, s.GuestEoi(0), s.Exit(0), s.Block(0), s.GuestIpi(1, 0, mode=4), s.Deliver(1)),
        (
            s.Exit(0),
            s.Deliver(0),
            s.GuestWrite(1, APIC_SPIV, 0),
            s.Put(1),
            s.GuestIpi(0, 0, shorthand=2),
            s.Load(1, 33),
        ),
        (*PENDING, Step(Parallel(Step(s.GuestEoi(0)), Step(s.Deliver(1)), (1,))), s.GuestEoi(1)),
        (*PENDING, s.GuestEoi(0), s.Exit(0), s.Block(0), s.VcpuCreate(255), s.SetLapic(0, spiv=0x1FF)),
        (
            *(s.VcpuCreate(2), s.VcpuCreate(17), s.GuestIpi(0, shorthand=2), s.Inhibit(3), s.Load(2, 34), s.Block(2)),
            *(s.Load(17, 291), s.VmRun(17), s.Inhibit(3, on=False)),
        ),
        *[
            (s.Inhibit(3), Step(Parallel(Step(s.GuestWrite(0, APIC_SPIV, 0)), Step(s.Deliver(0)), at)), s.GuestEoi(0))
            for at in ((), (1,), (3,))
        ],
    ],
)
def test_what_a_disabled_apic_accepted_before_may_be_held(candidate: type, ops: tuple[Any, ...]) -> None:
    """Until it is enabled again, or hardware takes it."""
    assert cited(judged(candidate, TWO, *ops)) == ""


@pytest.mark.parametrize("candidate", [Upstream, Holds])
@pytest.mark.parametrize("config", [TWO, DISABLED])
def test_a_sleeper_that_hardware_gave_a_vector_is_woken(candidate: type, config: Config) -> None:
    """Whether its APIC is enabled or not: hardware exits for it."""
    trace = s.GuestWrite(1, APIC_SPIV, 0), s.Exit(1), s.Block(1), s.GuestIpi(0, 1, shorthand=2), s.GuestEoi(0)

    assert cited(judged(candidate, config, *trace)) == ""


@pytest.mark.parametrize(
    ("candidate", "ops", "clause"),
    [
        (Loses, (*PENDING, s.GuestEoi(0)), "AVIC-054"),
        (NeverAgain, (*PENDING, s.GuestEoi(0), s.GuestWrite(0, APIC_SPIV, 0x1FF)), "AVIC-077"),
        (LiftsNothing, (s.Inhibit(3), s.Inhibit(3, on=False)), "AVIC-087"),
        (BeginsQuietly, (s.Inhibit(3),), "AVIC-086"),
    ],
)
def test_it_is_not_lost(candidate: type, ops: tuple[Any, ...], clause: str) -> None:
    """Nor forgotten; and who begins to inhibit takes everybody out."""
    assert cited(judged(candidate, TWO, *ops)) == clause


def test_an_inhibit_that_ends_may_wait_for_the_next_exit() -> None:
    """A guest without AVIC is as right as one with it, only slower."""
    trace = s.Inhibit(3), s.Inhibit(3, on=False), s.GuestIpi(0, 1), s.GuestWrite(1, APIC_LDR, 1 << 24), s.Deliver(0)

    assert cited(judged(LiftsQuietly, TWO, *trace)) == ""


def test_an_ldr_without_a_logical_id_may_count_or_not() -> None:
    """What an x2APIC leaves in LDR when the host makes it an xAPIC."""
    left, named = s.SetApicBase(0, APIC_BASE | 0x800, host=True), s.GuestWrite(0, APIC_LDR, 1 << 24)

    assert [cited(judged(design, X2, s.Exit(0), left)) for design in (Upstream, CountsIds)] == ["", ""]
    assert cited(judged(CountsIds, X2, s.Exit(0), left, s.VmRun(0), named)) == ""
    assert cited(judged(MixesModes, X2, s.Exit(0), left, s.VmRun(0), named)) == "AVIC-086"
