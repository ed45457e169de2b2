"""What a candidate takes away from its own process ends in a finding or in nothing, never in a mistake of ours."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.environment.eventfd import FIRST_OWN_FD, FIRST_USER_FD
from conformance.lockstep import run_trace
from conformance.model.step import Step
from conformance.model.uio_msi.operations import IrqSet, Open, Probe
from conformance.runs.checkpoint import exit_if_spoilt
from conformance.runs.containment import contained
from conformance.trace import Trace
from conformance.verdict import Failure, HarnessError
from tests.conformance.test_containment import search, try_out
from tests.toy import TOY, Put, Shelf, Take, trace
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


# -- what a whole piece of work makes of it


def leave_two() -> None:
    """Open files until hardly a descriptor is left."""
    use_up()
    os.close(HELD.pop())
    os.close(HELD.pop())


def on_toys(act: Callable[[], object]) -> dict[str, Failure]:
    """What is found on a shelf that does this in a trace, and that has a mistake besides."""

    class Taking(Shelf):
        def take(self) -> int:
            if len(self.items) == 2:
                act()
            return super().take()

        def clear(self) -> int:
            super().clear()
            return 1

    failures, _ = search(try_out, Taking)
    found = {failure.signature: failure for failure in failures}
    assert not found.pop("TOY-012:Clear:result").flaky
    assert not any(failure.flaky for failure in found.values())
    return found


def non_blocking() -> None:
    """Have reading and writing fail where they would wait."""
    for fd in range(400):
        with suppress(OSError):
            os.set_blocking(fd, False)


HARMLESS: dict[str, Callable[[], object]] = {
    "a lowered limit": lower,
    "no files": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1])),
    "no waiting": non_blocking,
    "another folder": lambda: os.chdir("/proc/self/task"),
    "no environment": os.environ.clear,
    "no output": lambda: setattr(sys, "stderr", None),
    "many calls": lambda: sys.setrecursionlimit(100_000),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", HARMLESS)
def test_what_can_be_had_again_is_harmless(name: str) -> None:
    """Once the trace is over; the candidate may have set it for itself."""
    assert on_toys(HARMLESS[name]) == {}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_cannot_be_had_again_is_held_against_the_step_that_took_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though only the end of its trace shows it: there each step is looked at the next time."""
    real = resource.setrlimit

    def never_higher(what: int, limits: tuple[int, int]) -> None:
        if limits[0] > resource.getrlimit(what)[0]:
            raise ValueError("not permitted")
        real(what, limits)

    def for_good() -> None:
        lower()
        monkeypatch.setattr(resource, "setrlimit", never_higher)

    for act, said in ((leave_two, "opened all"), (for_good, "set RLIMIT_NOFILE to 8 for good")):
        found = on_toys(act)

        assert list(found) == ["TOY-008:Take:crash"]
        assert found["TOY-008:Take:crash"].detail.startswith(said)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_mistake_of_ours_that_comes_of_it_is_a_finding() -> None:
    """It is told with what was done; without that it is ours."""

    class Shallow(Shelf):
        def take(self) -> int:
            sys.setrecursionlimit(sys.getrecursionlimit() + 1)
            raise HarnessError("too deep")

    class Honest(Shelf):
        def take(self) -> int:
            raise HarnessError("too deep")

    def engine(given: Any) -> None:
        try:
            try_out(given)
        except HarnessError as error:
            exit_if_spoilt(error)
            raise

    failures, _ = search(engine, Shallow)

    assert [failure.signature for failure in failures] == ["TOY-008:Take:crash"]
    assert failures[0].detail == "set the recursion limit to 1001: too deep"
    with pytest.raises(HarnessError, match="too deep"):
        search(engine, Honest)


def test_a_call_too_deep_in_the_candidate_is_the_candidates() -> None:
    """Wherever the interpreter notices it."""

    class Deep(Shelf):
        def take(self) -> int:
            self.port.lock()
            self.port.unlock()
            return self.take()

    failure = run_trace(TOY, trace(Put(), Take()), Deep).failure

    assert failure is not None
    assert failure.signature == "TOY-008:Take:crash"
