"""Schedules of two operations: which are tried, in which order, and that rare pairs are not left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from conformance.candidates.builtin.tdp_mirror.upstream import Upstream
from conformance.candidates.load import load
from conformance.engines import interleave
from conformance.engines.context import Context
from conformance.environment.scheduler import Priorities
from conformance.lockstep import run_trace
from conformance.model.step import Parallel, Step
from conformance.model.tdp_mirror import operations as ops
from conformance.subsystem import subsystem

OF = subsystem("tdp_mirror")


class LooksBeforeItLocks(Upstream):
    """Looks for a root before it takes the lock of the list, and does not look again."""

    def alloc_root(self, vcpu: int, mirror: bool) -> None:
        """Two vCPUs may both find none."""
        self.port.read_lock()
        root = self.find_root(mirror)
        if root is None:
            self.port.pages_lock()
            root = self.new_root(vcpu, mirror)
            self.port.pages_unlock()
        self.install_root(vcpu, root)
        self.port.read_unlock()


def context(factory: Any = Upstream, **options: Any) -> Context:
    """A context over a TDP MMU."""
    correct = load("builtin:upstream", OF)
    candidate = replace(correct, factory=factory)
    return Context(subsystem=OF, candidate=candidate, profile="upstream", **options)


def test_pairs_whose_order_matters_are_tried_in_both_orders() -> None:
    """A vCPU is in one of them only."""
    search = interleave._Search(context())

    pairs = [(left, right) for _, left, right in search._pairs()]

    assert pairs
    assert all((right, left) in pairs for left, right in pairs[:200])
    assert not any(getattr(left.op, "vcpu", -1) == getattr(right.op, "vcpu", -2) for left, right in pairs)


RACES: dict[tuple[str, str], dict[str, int]] = {
    ("uio_msi", "builtin:upstream"): {
        "set-raise": 20, "replace-raise": 58, "unset-raise": 34, "set-set": 194, "replace-unset": 200,
        "set-release": 102, "open-release": 20, "open-open": 30, "open-open-refused": 28, "open-set": 132,
        "release-raise": 28, "remove-set": 200, "remove-open": 160, "remove-release": 130, "remove-raise": 44,
        "close-fd-set": 14, "reuse-fd-set": 14, "set-intx": 32, "replace-intx": 148, "unset-intx": 94,
        "release-intx": 70, "remove-intx": 86, "write-intx": 68, "raise-raise": 14, "compat-set": 258,
        "set-other-vector": 222, "refused-raise": 56, "replace-other": 84, "write-replace": 194, "write-write": 26,
        "config-set": 172, "config-unset": 106, "config-intx": 8, "config-open": 12, "open-intx": 12,
        "write-unset": 156, "old-open-open": 206, "old-open-open-refused": 198, "old-open-release": 124,
        "old-release-release": 50, "old-remove-set": 410, "old-remove-open": 370, "old-remove-release": 370,
        "old-write-release": 74, "old-write-remove": 360,
    },
    ("cet", "builtin:upstream"): {
        "wrmsr-wrmsr": 8, "wrmsr-leave": 6, "wrmsr-exit": 2, "emulated-wrmsr": 86, "emulated-leave": 60,
        "emulated-exit": 8, "rdmsr-wrmsr": 86, "rdmsr-leave": 60, "rdmsr-exit": 8, "leave-wrmsr": 60,
        "leave-leave": 42, "leave-exit": 6, "exit-wrmsr": 8, "exit-leave": 6, "exit-exit": 2, "run-run": 42,
        "run-set": 150, "set-set": 546, "set-get": 810, "get-wrmsr": 320, "get-leave": 222, "set-reg-set-reg": 22,
        "get-get": 50, "get-reg-get-reg": 422, "get-reg-wrmsr": 22, "init-wrmsr": 32, "init-leave": 30, "xss-xss": 146,
        "xss-wrmsr": 78, "smi-smi": 30, "rsm-rsm": 34, "enter-enter": 158, "exit-l2-exit-l2": 70,
    },
    ("snp_guest_request", "builtin:upstream"): {
        "request-request": 4578, "one-response-page": 98, "request-extended": 102, "exit-request": 82,
        "two-vms": 98, "request-slot": 50, "request-refused": 96, "extended-refused": 100, "continue-request": 78,
        "continue-extended": 62, "request-close": 50,
    },
    ("snp_guest_request", "builtin:guest"): {
        "report-report": 294, "busy-report-key": 324, "refused-report-key": 230, "extended-extended": 324,
        "extended-pages": 70, "refused-key-report": 54, "refused-report-extended": 58,
    },
}  # fmt: skip
"""By subsystem and correct candidate: the schedules that each race has."""


@pytest.mark.parametrize(("name", "spec"), RACES)
def test_races_are_tried_without_gaps_and_hold(name: str, spec: str) -> None:
    """Every schedule of up to two switches, in both orders; a count that changes is news."""
    of = subsystem(name)
    candidate = load(spec, of)
    here = Context(subsystem=of, candidate=candidate, profile=candidate.profile)
    search = interleave._Search(here)

    deque(search.races(), maxlen=0)

    assert search.raced == RACES[name, spec]
    assert here.failures == []


def test_schedules_extend_those_that_ran() -> None:
    """By points passed later at which the other thread can go on; none twice, none left out."""
    pair = (interleave.Start(OF.configs[0]), Step(ops.MmuReload(0)), Step(ops.MmuReload(1)))
    tree = interleave.Schedules(pair, 2)

    tried = []
    while tree.depths():
        schedule = tree.next(tree.depths()[0])
        tried.append(schedule)
        after = schedule[-1] if schedule else -1
        tree.extend(schedule, [point for point in (2, 1, 0) if point > after])

    assert sorted(tried) == [(), (0,), (0, 1), (0, 2), (1,), (1, 2), (2,)]


def test_priorities_become_a_schedule_that_repeats_them() -> None:
    """What priorities switched is in the trace as points, so that it replays and shrinks."""
    here = context(LooksBeforeItLocks)
    search = interleave._Search(here)
    start = interleave.Start(OF.configs[0], (Step(ops.VcpuCreate(0)), Step(ops.VcpuCreate(1))))
    left, right = Step(ops.MmuReload(0)), Step(ops.MmuReload(1))

    tries = [search._try(start, left, right, (), Priorities(frozenset({point}))) for point in range(40)]

    assert not all(tries)
    failure = here.failures[0]
    assert failure.trace is not None
    assert failure.trace.steps[-1].op.schedule
    assert run_trace(OF, failure.trace, LooksBeforeItLocks).failure is not None


def test_two_loads_that_both_find_no_root_are_caught() -> None:
    """The race of TDP-023, with the schedule in its trace."""
    here = context(LooksBeforeItLocks)
    search = interleave._Search(here)
    start = interleave.Start(OF.configs[0], (Step(ops.VcpuCreate(0)), Step(ops.VcpuCreate(1))))
    left, right = Step(ops.MmuReload(0)), Step(ops.MmuReload(1))

    assert search._try(start, left, right, ())
    survived = [search._try(start, left, right, (point,)) for point in search._further(())]

    assert not all(survived)
    failure = next(f for f in here.failures if f.clause.id == "TDP-023")
    assert failure.trace is not None
    assert isinstance(failure.trace.steps[-1].op, Parallel)
    assert len(failure.trace.steps[-1].op.schedule) == 1


def test_the_hunt_goes_on_with_random_pairs() -> None:
    """Until the time is up; a correct candidate stays silent."""
    here = context(hunting=True, seed=2)
    search = interleave._Search(here)

    deque(islice(search.wander(), 60), maxlen=0)

    assert search.schedules > 5
    assert here.failures == []


def test_sources_of_the_hunt_take_turns() -> None:
    """A long one does not keep the others from their turn; a short one ends."""
    seen: list[str] = []

    def source(name: str, count: int) -> Iterator[None]:
        for _ in range(count):
            seen.append(name)
            yield

    deque(interleave._turns(source("a", 100), source("b", 3), source("c", 50)), maxlen=0)

    assert (seen.count("a"), seen.count("b"), seen.count("c")) == (100, 3, 50)
    assert seen.index("c") < interleave.TURN + 10
