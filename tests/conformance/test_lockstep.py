"""The judge: what it accepts, what it names, and what it counts."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from conformance import recording
from conformance.lockstep import run_trace
from conformance.model.step import Fault, Parallel, Step
from tests import toy
from tests.toy import CLEARED, NO_LEAK, TOY, Clear, Put, Shelf, Take, World, trace


def judge(candidate: Any, *steps: Any) -> str | None:
    """The signature of what these steps show on a candidate."""
    failure = run_trace(TOY, trace(*steps), candidate).failure
    return failure.signature if failure else None


def test_a_correct_candidate_passes_and_its_clauses_are_counted() -> None:
    """Branches, changes of the view, environment calls and checks each add to their clause."""
    report = run_trace(TOY, trace(Put(1), Put(2), Put(3), Take(), Clear()), Shelf)

    assert report.failure is None
    assert report.tally.clauses == {
        toy.STORED: 6,
        toy.NO_LEAK: 6,
        toy.FULL: 1,
        toy.ASK_FIRST: 1,
        toy.LAST_OUT: 1,
        toy.FREED_ONCE: 2,
        toy.CLEARED: 1,
        toy.TIDY: 1,
    }


def test_a_wrong_result_cites_the_branch() -> None:
    """The clause of the model's branch is named without a hand-written assertion."""

    class Wrong(Shelf):
        def take(self) -> int:
            return super().take() + 1

    failure = run_trace(TOY, trace(Put(4), Take()), Wrong).failure

    assert failure is not None
    assert (failure.signature, failure.step, failure.expected, failure.got) == ("TOY-004:Take:result", 1, "4", "5")


def test_a_wrong_view_cites_the_field_and_shows_only_the_difference() -> None:
    """Fields that agree are not part of the report."""

    class Leaky(Shelf):
        def put(self, value: int) -> int:
            self.port.alloc()
            return super().put(value)

    failure = run_trace(TOY, trace(Put(4)), Leaky).failure

    assert failure is not None
    assert failure.signature == "TOY-007:Put:view.held"
    assert (failure.expected, failure.got) == ("held = 1", "held = 2")


def test_a_planned_fault_that_is_never_met_did_not_happen() -> None:
    """A full shelf asks for no memory, so the planned refusal is not the model's business."""
    assert judge(Shelf, Put(), Put(), Step(Put(), (Fault("alloc", -12),))) is None


def test_a_fault_names_the_nth_call_of_its_kind() -> None:
    """The second allocation is refused, the first is not."""

    class Greedy(Shelf):
        def _put(self, value: int) -> int:
            spare = self.port.alloc()
            result = super()._put(value)
            self.port.free(spare)
            return result

    second = Step(Put(), (Fault("alloc", -12, nth=2),))
    report = run_trace(TOY, trace(second), Greedy, record=True)

    assert report.failure is None
    assert report.steps[0].result == -12


def test_a_violation_that_the_candidate_swallows_is_still_reported() -> None:
    """`except BaseException` in a candidate does not hide a protocol breach."""

    class Swallowing(Shelf):
        def take(self) -> int:
            try:
                self.port.free(99)
            except BaseException:  # the point of the test
                return 0
            return 0

    assert judge(Swallowing, Take()) == "TOY-006:Take:protocol"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (lambda self: 1 / 0, "crash", "ZeroDivisionError"),
        (lambda self: None, "type", "returned None (NoneType), expected int"),
        (lambda self: True, "type", "expected int"),
        (lambda self: 2**64, "type", "an int of 65 bits"),
        (lambda self: self.port.free(10**5000), "type", "an int of 16610 bits"),
        (lambda self: sys.exit(0), "crash", "SystemExit"),
        (lambda self: self.port.free("x"), "type", "expected int"),
        (lambda self: self.port.free(), "type", "missing a required argument"),
        (lambda self: self.port.nonsense(), "crash", "nonsense"),
    ],
)
def test_what_a_candidate_does_wrong_by_itself_cites_robustness(body: Any, kind: str, words: str) -> None:
    """Exceptions and values of a wrong type are observations, not errors of ours."""
    wrong = type("Wrong", (Shelf,), {"take": body})

    failure = run_trace(TOY, trace(Take()), wrong).failure

    assert failure is not None
    assert failure.signature == f"TOY-008:Take:{kind}"
    assert words in failure.detail


def test_a_candidate_that_calls_for_ever_hangs() -> None:
    """The budget of environment calls ends it without a clock."""

    class Endless(Shelf):
        def take(self) -> int:
            while True:
                self.port.show(())

    assert judge(Endless, Take()) == "TOY-008:Take:hang"


def test_a_candidate_that_cannot_be_created_is_reported() -> None:
    """Its constructor is the candidate's code too."""

    class Unborn(Shelf):
        def __init__(self, port: Any) -> None:
            raise RuntimeError("no")

    assert judge(Unborn, Take()) == "TOY-008:Start:crash"


def test_a_tolerated_outcome_is_reported_and_the_run_goes_on() -> None:
    """A SHOULD that is broken warns; the model follows what happened."""

    class Keeps(Shelf):
        def clear(self) -> int:
            while len(self.items) > 1:
                self.port.free(self.items.pop()[1])
            self._show()
            return 0

    report = run_trace(TOY, trace(Put(1), Put(2), Clear(), Take()), Keeps)

    assert report.failure is None
    assert [w.signature for w in report.warnings] == ["TOY-009:Clear:should"]


def test_a_check_sees_the_calls_of_the_step() -> None:
    """What neither result nor view shows: memory asked for in vain and given back."""

    class Eager(Shelf):
        def _put(self, value: int) -> int:
            self.port.free(self.port.alloc())
            return super()._put(value)

    assert judge(Eager, Put(), Put(), Put()) == "TOY-010:Put:check"


def test_a_step_during_another_happens_at_its_point() -> None:
    """Point 3 lies after alloc's effect: nothing is shown yet, so clearing finds an empty shelf."""
    report = run_trace(TOY, trace(Step(Put(5), during=((3, Step(Clear())),))), Shelf, record=True)

    assert report.failure is None
    assert [type(d.step.op) for d in report.steps[0].inner] == [Clear]


def test_a_step_whose_point_is_never_reached_does_not_happen() -> None:
    """The rest of the trace is judged without it."""
    report = run_trace(TOY, trace(Step(Put(5), during=((99, Step(Clear())),)), Take()), Shelf, record=True)

    assert report.failure is None
    assert report.steps[0].inner == ()


def test_an_interruption_that_no_order_explains_fails() -> None:
    """Clearing between the store and the showing leaks the memory of what was about to be stored."""

    class Slow(Shelf):
        def _put(self, value: int) -> int:
            token = int(self.port.alloc())
            self.port.show((*[v for v, _ in self.items], value))
            self.items.append((value, token))
            return 0

    failure = run_trace(TOY, trace(Put(1), Step(Put(2), during=((5, Step(Clear())),))), Slow).failure

    assert failure is not None
    assert failure.kind == "during.view.held"


@pytest.mark.parametrize("schedule", [(), (0,), (1,), (2, 5), (3,), (4, 9), (0, 1, 2, 3)])
def test_two_threads_with_a_lock_are_explained_by_an_order(schedule: tuple[int, ...]) -> None:
    """Whatever the schedule, a locked shelf behaves as if one put came first."""
    assert judge(Shelf, Step(Parallel(Step(Put(1)), Step(Put(2)), schedule)), Take()) is None


def test_two_threads_without_a_lock_are_caught() -> None:
    """Both see one free slot, and both take it."""

    class Unlocked(Shelf):
        def put(self, value: int) -> int:
            return self._put(value)

    steps = (Put(0), Step(Parallel(Step(Put(1)), Step(Put(2)), (0,))))

    assert judge(Shelf, *steps) is None
    assert judge(Unlocked, *steps) == "TOY-002:Put|Put:result"


def test_a_deadlock_is_found_without_a_clock() -> None:
    """A thread that never gives the lock back blocks the other one for ever."""

    class Forgetful(Shelf):
        def put(self, value: int) -> int:
            self.port.lock()
            return self._put(value)

    failure = run_trace(TOY, trace(Step(Parallel(Step(Put(1)), Step(Put(2))))), Forgetful).failure

    assert failure is not None
    assert failure.kind == "hang"
    assert "waits for the lock" in failure.detail


def test_a_flood_of_calls_is_not_looked_at_one_by_one() -> None:
    """What the first of them changed is told; to look after each of thousands takes as long as a run."""
    looked = []

    class Watched(World):
        def view(self) -> Any:
            looked.append(len(self.frame.log))
            return super().view()

    class Chatty(Shelf):
        def clear(self) -> int:
            for _ in range(5 * recording.LOOKED):
                self.port.show(())
            return super().clear()

    report = run_trace(TOY, trace(Put(1), Clear()), Chatty, environment=Watched, record=True)

    assert report.failure is None
    assert [name for name, _, _ in report.steps[1].wrote] == ["numbers"]
    assert len(looked) < 2 * recording.LOOKED


def test_of_several_operations_the_one_whose_result_is_wrong_is_cited() -> None:
    """Not the one around it, which returned what it must."""

    class Odd(Shelf):
        """Clears, and says that it did not."""

        def clear(self) -> int:
            """Return a wrong result."""
            super().clear()
            return 1

    for steps in (
        (Put(1), Step(Put(2), during=((2, Step(Clear())),))),
        (Put(1), Step(Parallel(Step(Put(2)), Step(Clear())))),
    ):
        failure = run_trace(TOY, trace(*steps), Odd).failure

        assert failure is not None
        assert failure.clause is CLEARED
        assert failure.kind == "result"


def test_of_several_orders_the_nearest_to_what_is_seen_is_expected() -> None:
    """The numbers lie as one order has them; only the memory is wrong."""

    class Reversed(Shelf):
        """Puts in front, and for the second number allocates twice."""

        def _put(self, value: int) -> int:
            result = super()._put(value)
            self.items.insert(0, self.items.pop())
            if len(self.items) == 2:
                self.port.alloc()
            self._show()
            return result

    failure = run_trace(TOY, trace(Step(Parallel(Step(Put(1)), Step(Put(2))))), Reversed).failure

    assert failure is not None
    assert (failure.clause, failure.kind) == (NO_LEAK, "parallel.view.held")


def test_of_several_outcomes_the_nearest_to_what_is_seen_is_expected() -> None:
    """One number may stay, with its memory and no other."""

    class Keeping(Shelf):
        """Clears all numbers but the first, and frees nothing."""

        def clear(self) -> int:
            del self.items[1:]
            self._show()
            return 0

    failure = run_trace(TOY, trace(Put(1), Put(2), Clear()), Keeping).failure

    assert failure is not None
    assert (failure.clause, failure.kind, failure.expected, failure.got) == (
        NO_LEAK,
        "view.held",
        "held = 1",
        "held = 2",
    )


def test_an_operation_may_take_effect_in_parts() -> None:
    """What happens during it, one after the other, may be explained the other way round."""

    class Splitting(Shelf):
        def _put(self, value: int) -> int:
            room = len(self.items) < self.size
            token = int(self.port.alloc())
            if not room:
                self.port.free(token)
                return -toy.ENOSPC
            self.items.append((value, token))
            self._show()
            return 0

    during = ((2, Step(Clear())), (2, Step(Clear())))
    steps = (Put(1), Put(2), Step(Put(3), during=during))

    assert judge(Splitting, *steps) is None


def test_what_happens_inside_decides_what_can_happen_next() -> None:
    """The second inner step is judged possible or not in the world that the first one left."""
    once = replace(TOY, legal=lambda state, op: type(op) is not Clear or bool(state.numbers))
    during = ((2, Step(Clear())), (2, Step(Clear())))

    report = run_trace(once, trace(Put(1), Step(Put(2), during=during)), Shelf, record=True)

    assert report.failure is None
    assert len(report.steps[1].inner) == 1


def test_what_had_begun_may_end_where_it_could_not_begin() -> None:
    """Both puts begin on an empty shelf; whichever comes second ends on one that is not."""
    both = trace(Step(Parallel(Step(Put(1)), Step(Put(2)))))
    empty = replace(TOY, legal=lambda state, op: not state.numbers)

    assert run_trace(empty, both, Shelf).failure is not None
    assert run_trace(replace(empty, legal_beside=TOY.legal), both, Shelf).failure is None
