"""Scripts of eventfds: the freedom that a build has, what a failing one is reduced to, and how it reads."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.avic.kvm_lapic import KvmLapic
from conformance.candidates.load import Candidate
from conformance.engines.context import Context
from conformance.engines.minimise import minimise
from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.reports import values
from tests.conformance.avic.judging import AVIC, cited, judged

ROUTED = s.Act("route", table=((0, 0x41),))
ASSIGN, WRITE, READ = s.Act("assign"), s.Act("write", 0, 1), s.Act("read")


def route(*gsis: int) -> s.Act:
    """A table with these gsis."""
    return s.Act("route", table=tuple((gsi, 0x42 + n) for n, gsi in enumerate(gsis)))


def routing(limit: int, told: int | None) -> type[KvmLapic]:
    """A router whose tables end at `limit`, and that tells another number or none."""

    class Ends(KvmLapic):
        irq_routing: Any = told

        def _route(self, _fd: int, _n: int, table: tuple[tuple[int, int], ...]) -> tuple[int, tuple[int, ...]]:
            if any(gsi >= limit for gsi, _ in table):
                return -22, ()
            self.table = dict(table)
            return 0, ()

    return Ends


SCRIPT = (route(1023), route(5, 1024), ASSIGN, route(4095), route(4096), route(0), WRITE, route(2**31))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("limit", [1024, 2048, 4096, 65536, 2**31])
def test_how_many_gsis_can_be_routed_is_the_builds_choice(limit: int, told: bool) -> None:
    """Refusal of what is not below KVM_CAP_IRQ_ROUTING, whatever that is."""
    candidate = routing(limit, limit if told else None)

    assert cited(judged(candidate, Config(), s.Irqfds(SCRIPT), profile="kvm-lapic")) == ""


@pytest.mark.parametrize(
    ("limit", "told"), [(1023, None), (2**31 + 1, None), (4097, 4096), (4095, 4096), (1024, 4096), (2**32, None)]
)
def test_a_router_keeps_to_what_it_tells(limit: int, told: int | None) -> None:
    """And to what any build has, where it tells nothing."""
    script = (*SCRIPT, route(2**32 - 1))

    assert cited(judged(routing(limit, told), Config(), s.Irqfds(script), profile="kvm-lapic")) == "AVIC-123"
    tells = type("Tells", (routing(limit, None),), {"irq_routing": lambda _self: told})
    assert cited(judged(tells, Config(), s.Irqfds(script), profile="kvm-lapic")) == "AVIC-123"


def test_one_limit_holds_for_a_whole_script() -> None:
    """What was refused once is not accepted later."""

    class Wavers(KvmLapic):
        irq_routing: Any = None
        asked = 0

        def _route(self, fd: int, n: int, table: tuple[tuple[int, int], ...]) -> tuple[int, tuple[int, ...]]:
            self.asked += 1
            return (-22, ()) if self.asked == 1 else super()._route(fd, n, table)

    script = s.Irqfds((route(2048), route(2048)))

    assert cited(judged(Wavers, Config(), script, profile="kvm-lapic")) == "AVIC-123"


def test_a_script_is_made_smaller_act_by_act_and_reads_so() -> None:
    """Four acts of twelve are left, the plainest, and the one that went wrong is shown alone."""

    class TakenFromAny(KvmLapic):
        def _deassign(self, fd: int, gsi: int, table: object) -> tuple[int, tuple[int, ...]]:
            return super()._deassign(fd, self.gsi_of.get(fd, gsi), table)

    script = (
        *(s.Act("route", table=((5, 0x50), (0, 0x41), (1, 0x42))), s.Act("assign", 1, 5), s.Act("write", 2, 5)),
        *(s.Act("assign", 3), s.Act("deassign", 1, 23), s.Act("read", 2), s.Act("assign", 2, 1)),
        *(s.Act("write", 1, 2**31), READ, s.Act("deassign", 4), s.Act("route"), s.Act("read", 1)),
    )
    context = Context(
        subsystem=AVIC,
        candidate=Candidate("here", TakenFromAny, "kvm-lapic", KvmLapic.capabilities),
        profile="kvm-lapic",
    )
    failure = judged(TakenFromAny, Config(), s.Irqfds(script), profile="kvm-lapic").failure
    assert failure is not None

    smallest = minimise(context, failure)

    assert smallest.trace is not None
    assert values.operation(smallest.trace.steps[0].op) == (
        "irqfds(acts=(route(gsi 0: vector 0x50), assign(fd=0, gsi=0), deassign(fd=0, gsi=1), write(fd=0, count=1)))"
    )
    assert smallest.expected == "part 4, write(fd=0, count=1) -> (0, (80,))"
    assert smallest.got == "part 4, write(fd=0, count=1) -> (0, ())"
