"""What was refused and then granted at a further attempt: the operation may go on, in all five subsystems."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.load import from_class, load
from conformance.engines import campaign
from conformance.engines.context import Context
from conformance.model.step import Fault, Step
from conformance.model.uio_msi import operations as uio
from conformance.runs.watchdog import watching
from conformance.subsystem import NAMES, Subsystem, subsystem
from tests.conformance.uio_msi.driving import blamed, run

FINAL = {
    "snp_guest_request": {"snp_guest_request"},  # SNP-015: one command for one request
    "tdp_mirror": {"pt_cmpxchg", "pt_xchg", "ext_link", "resched"},  # another entry; an error for good; no refusal
    "uio_msi": {"pci_enable_msix"},  # a positive answer is no refusal
}
"""Calls that nobody makes again with the same arguments."""


def refusable(of: Subsystem) -> set[str]:
    """Calls that the generator has refused."""
    return {call for shape in of.shapes.values() for call, _ in shape.faults} - FINAL.get(of.name, set())


def stubborn(base: type, calls: set[str]) -> type:
    """A candidate that makes each of these calls once more where it was refused."""

    class Port:
        def __init__(self, port: Any) -> None:
            self.port = port

        def __getattr__(self, name: str) -> Any:
            call = getattr(self.port, name)
            if name not in calls:
                return call

            def twice(*args: Any) -> Any:
                answer, frame = call(*args), self.port._env.frame
                return call(*args) if (name, frame.made[name]) in frame.plan else answer

            return twice

    class Stubborn(base):
        def __init__(self, port: Any) -> None:
            super().__init__(Port(port))

    return Stubborn


@pytest.mark.parametrize("base", ["upstream", "linux"])
@pytest.mark.parametrize("name", NAMES)
def test_a_further_attempt_is_no_failure(name: str, base: str) -> None:
    """Nobody is held to an errno that is out of the world."""
    of = subsystem(name)
    known = load(f"builtin:{base}", of)
    candidate = from_class(stubborn(known.factory, refusable(of)), of, "stubborn.py:Stubborn")
    context = Context(candidate.part(of), candidate, known.profile, steps=3_000)

    with watching():
        campaign.run(context)

    assert context.failures == []


def test_there_are_calls_to_make_again() -> None:
    """In each of them."""
    assert all(refusable(subsystem(name)) for name in NAMES)


REFUSED = {
    "copy_from_user": Step(uio.IrqSet(), (Fault("copy_from_user", 8),)),
    "eventfd_ctx_fdget": Step(uio.IrqSet(), (Fault("eventfd_ctx_fdget", -12),)),
}


@pytest.mark.parametrize("call", REFUSED)
def test_who_makes_it_again_and_does_nothing_with_it_is_found(call: str) -> None:
    """A call that was granted in the end does not excuse a result of 0 without what it says."""
    right = stubborn(load("builtin:upstream", subsystem("uio_msi")).factory, {call})

    class Idle(right):  # type: ignore[misc,valid-type]  # a base that is known at run time
        def ioctl(self, cmd: int, arg: int) -> int:
            before = list(self.triggers)
            ret: int = super().ioctl(cmd, arg)
            self.triggers[:] = before
            return ret

    trace = (uio.Probe(), uio.Open(), REFUSED[call], uio.RaiseVector(0))
    assert blamed(run(Idle, *trace)) != ""
    assert run(right, *trace).failure is None
