"""What a candidate takes away from its own process ends in a finding or in nothing, never in a mistake of ours."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.environment.eventfd import FIRST_OWN_FD, FIRST_USER_FD
from conformance.lockstep import run_trace
from conformance.model.step import Step
from conformance.model.uio_msi.operations import IrqSet, Open, Probe
from conformance.runs.containment import contained
from conformance.trace import Trace
from conformance.verdict import Failure
from tests.wire import UIO

WIRED = Trace("uio_msi", "upstream", UIO.configs[0], (Step(Probe()), Step(Open()), Step(IrqSet(0, FIRST_USER_FD))))
"""A trace at whose end an eventfd is asked for."""

KEPT = FIRST_OWN_FD + 1
"""What the world looks at the first eventfd through."""

HELD: list[int] = []


def over(fd: int) -> Callable[[], None]:
    """Put another file in the place of a descriptor."""

    def act() -> None:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, fd)
        os.close(null)

    return act


def use_up() -> None:
    """Open files as long as there is a descriptor left."""
    try:
        while True:
            HELD.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return


def lower() -> None:
    """Leave no descriptor to be had."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def doing(act: Callable[[], object]) -> type:
    """A right driver that does this when it is opened."""

    class Taking(Upstream):
        def open(self) -> int:
            act()
            return super().open()

    return Taking


def on_real_eventfds(act: Callable[[], object]) -> Failure | None:
    """The failure of the trace, in a process that is gone then with all that was done to it."""

    def work(_tell: Any) -> Failure | None:
        return run_trace(UIO, WIRED, doing(act)).failure

    failure: Failure | None = contained(work, lambda *_: None)
    return failure


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("act", "said"),
    [
        (over(FIRST_USER_FD), None),
        (over(KEPT), "closed or replaced descriptors that are not its own: 513"),
        (lambda: os.close(FIRST_USER_FD), "closed or replaced descriptors that are not its own: 256"),
        (lambda: os.closerange(0, 1024), "closed or replaced descriptors that are not its own: 256, 257"),
        (use_up, "opened all"),
        (lower, "lowered the number of descriptors that its process may have to 8"),
    ],
)
def test_what_the_world_needs_is_taken_by_nobody_else(act: Callable[[], object], said: str | None) -> None:
    """The sentence says what was done; a descriptor that names something else now is what the driver was given."""
    failure = on_real_eventfds(act)

    assert failure is not None
    if said is None:
        assert failure.kind == "result"
    else:
        assert (failure.clause.id, failure.kind) == ("UIO-078", "crash")
        assert failure.detail.startswith(said)
