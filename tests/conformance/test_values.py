"""How values look to people, and what a recorded run keeps of the operations that happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pytest

from conformance.lockstep import run_trace
from conformance.model.matchers import ERRNO, Such
from conformance.model.step import Fault, Step
from conformance.reports import values
from conformance.subsystem import NAMES, subsystem
from tests.toy import TOY, Clear, Parallel, Put, Shelf, Take, trace


@dataclass(frozen=True)
class Entry:
    """A record with a default, as operations and configurations have."""

    gpa: int
    size: int = 4096
    owner: bytes = b""


class Pair(NamedTuple):
    """A tuple whose fields have names."""

    s_cet: int
    n: int


@dataclass(frozen=True)
class Table:
    """A view with one long field."""

    rows: tuple[Entry, ...]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-16, "-EBUSY"),
        (-95, "-EOPNOTSUPP"),
        (-524, "-ENOTSUPP"),
        (-(2**31), "-0x80000000"),
        (4095, "4095"),
        (Pair(12, 12), "Pair(s_cet=0xc, n=12)"),
        (0xFFFF_F000, "0xfffff000"),
        (True, "True"),
        ((-22, 7), "(-EINVAL, 7)"),
        (b"\x01\x02", "0102"),
        (bytes(64), "64 zero bytes"),
        ((ERRNO, None), "(a negative errno, None)"),
        (Such("an even number", lambda n: n % 2 == 0), "an even number"),
    ],
)
def test_results_use_the_kernels_words(value: object, text: str) -> None:
    """Negative errno by name, large integers in hex, counts in decimal."""
    assert values.result(value) == text


def test_runs_of_integers_are_drawn_together() -> None:
    """Sixty-four vectors are one thing to read."""
    assert values.value(tuple(range(64))) == "(0..63)"
    assert values.value((0, 1, 2)) == "(0, 1, 2)"


def test_arguments_are_not_taken_for_errno() -> None:
    """A file descriptor of -1 is not -EPERM."""
    assert values.value(-1, "fd") == "-1"


def test_operations_are_written_like_calls() -> None:
    """In snake case, addresses in hex; a long one leaves out the fields at their default."""
    assert values.operation(Entry(0x40)) == "entry(gpa=0x40, size=0x1000, owner=no bytes)"
    assert values.operation(Entry(1, 2**64, b"\xff" * 99)) == (
        "entry(gpa=1, size=0x10000000000000000, owner=ffffffffffffffffffffffffffffffff… (99 bytes))"
    )
    assert [values.snake(n) for n in ("IrqSet", "VMRun", "_Start", "SetMSR")] == [
        "irq_set",
        "vm_run",
        "start",
        "set_msr",
    ]


def test_a_long_field_shows_the_entry_that_differs() -> None:
    """One wrong row of a table does not hide among its neighbours."""
    rows = tuple(Entry(i) for i in range(20))
    wrong = (*rows[:7], Entry(7, owner=b"\x01"), *rows[8:])

    assert values.differences(Table(rows), Table(wrong), ["rows"]) == (
        "rows[7] = Entry(gpa=7)",
        "rows[7] = Entry(gpa=7, owner=01)",
    )


def test_collections_of_different_length_show_what_only_one_has() -> None:
    """A missing member is named, not the whole collection."""
    want = frozenset(range(0x10000, 0x10020))

    assert values.difference(want, want - {0x10007}, "held") == (
        ["held has 0x10007"],
        ["held has none of the other's"],
    )


def test_a_recorded_step_keeps_the_order_of_calls_across_operations() -> None:
    """What happens in the middle stands between the calls it happened between."""
    report = run_trace(TOY, trace(Step(Put(5), during=((2, Step(Clear())),))), Shelf, record=True)

    step = report.steps[0]
    assert [type(done.step.op) for done in step.done] == [Put, Clear]
    assert [(of, name) for of, (name, _, _) in step.calls] == [
        (0, "lock"),
        (1, "show"),
        (0, "alloc"),
        (0, "show"),
        (0, "unlock"),
    ]


def test_two_threads_keep_one_order_of_calls() -> None:
    """The recorded order shows where the threads switched."""

    class Unlocked(Shelf):
        def put(self, value: int) -> int:
            return self._put(value)

    report = run_trace(TOY, trace(Step(Parallel(Step(Put(0)), Step(Put(1)), (1,)))), Unlocked, record=True)

    assert [of for of, _ in report.steps[0].calls] == [0, 1, 1, 0]
    assert [done.result for done in report.steps[0].done] == [0, 0]


def test_a_failing_step_with_company_is_recorded() -> None:
    """Its results are there to be printed, and the results that would have been right."""

    class Deaf(Shelf):
        def take(self) -> int:
            self.port.show(())
            return 9

    failing = Step(Take(), during=((0, Step(Put(3))),))
    report = run_trace(TOY, trace(failing), Deaf, record=True)

    assert report.failure is not None
    assert report.failure.got == "take() -> 9 and put(value=3) -> 0"
    assert report.failure.expected == "take() -> -ENOENT and put(value=3) -> 0 or take() -> 3 and put(value=3) -> 0"
    assert [done.result for done in report.steps[-1].done] == [9, 0]


def test_a_refusal_that_was_met_is_kept_with_its_operation() -> None:
    """The report of a step says which planned refusals the candidate met."""
    report = run_trace(TOY, trace(Step(Put(), (Fault("alloc", -12),))), Shelf, record=True)

    assert report.steps[0].done[0].frame.given == {"alloc": -12}


def test_what_is_labelled_is_called_by_its_name() -> None:
    """Down to the part that differs; a part that is there on one side alone is told with the names of its own parts."""
    labels = {"rows": ("vCPU {}", ("core", "asleep"))}
    rows = ((0, False), (1, False))

    assert values.differences(Table(rows), Table(((0, False), (1, True))), ["rows"], labels) == (
        "rows, vCPU 1, asleep = False",
        "rows, vCPU 1, asleep = True",
    )
    assert values.differences(Table(rows), Table((None, (1, False))), ["rows"], labels) == (
        "rows, vCPU 0 = (core: 0, asleep: False)",
        "rows, vCPU 0 = None",
    )


@pytest.mark.parametrize("name", NAMES)
def test_labels_fit_what_they_label(name: str) -> None:
    """Each is a field of the view, and has as many names as there are parts."""
    of = subsystem(name)
    for config in of.configs:
        view = of.view(of.initial(config, of.profiles[of.default_profile]))
        for field, labels in of.view_labels.items():
            parts = [getattr(view, field)]
            for level in labels:
                assert isinstance(level, str) or all(len(part) == len(level) for part in parts if part is not None)
                parts = [inner for part in parts if part is not None for inner in part]
