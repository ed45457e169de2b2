"""Scripts of eventfds: what a failing one is reduced to, and how it reads."""

from __future__ import annotations

from conformance.candidates.builtin.avic.kvm_lapic import KvmLapic
from conformance.candidates.load import Candidate
from conformance.engines.context import Context
from conformance.engines.minimise import minimise
from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.reports import values
from tests.conformance.avic.judging import AVIC, judged

READ = s.Act("read")


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
