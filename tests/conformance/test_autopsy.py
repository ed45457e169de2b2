"""What is left of a process that ended: the trace it was in, and what it had said."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from conformance.engines.minimise import minimise
from conformance.lockstep import Lockstep, run_trace
from conformance.model.step import Parallel, Step
from conformance.runs.autopsy import Journal, apart, death, judged, tell_death, with_switches
from tests.toy import TOY, Clear, Put, Shelf, Take, context, trace


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (lambda: os._exit(0), "its process ended with exit code 0"),
        (lambda: os._exit(7), "its process ended with exit code 7"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "its process was killed by SIGKILL"),
        (lambda: time.sleep(60), "its process did not end in 0.2 s"),
    ],
)
def test_how_a_process_ended_and_what_it_said_before(end: Callable[[], None], how: str) -> None:
    """An orderly end without an answer is an end like any other."""
    heard: list[Any] = []

    def dies(say: Callable[[Any], None]) -> None:
        say("one")
        end()

    assert apart(dies, heard.append, 0.2 if "did not" in how else 30.0) == how
    assert heard == ["one"]


def test_what_a_process_returns() -> None:
    """However large; an exception is no answer, and no end either."""
    assert apart(lambda _say: b"x" * 1_000_000) == b"x" * 1_000_000
    assert apart(lambda _say: 1 // 0) is None


def test_a_journal_knows_the_trace_that_was_taken_last() -> None:
    """With all its steps, also where another one was begun in between."""
    journal = Journal()
    assert journal.read() is None

    first = journal.begin(trace())
    first.append(Step(Put(1)))
    second = journal.begin(trace())
    second.append(Step(Clear()))
    first.append(Step(Take()))

    assert journal.read() == trace(Put(1), Take())
    assert journal.read() is None


def test_a_trace_that_was_begun_has_no_steps_yet() -> None:
    """The candidate was being created."""
    journal = Journal()

    journal.begin(trace(Put()))

    assert journal.read() == trace()


class Racing(Shelf):
    """Ends its process when somebody else is putting, too; it has no lock that could keep it from that."""

    busy = False

    def put(self, value: int) -> int:
        """Dangerous in company."""
        if self.busy:
            os._exit(0)
        self.busy = True
        result = self._put(value)
        self.busy = False
        return result


def test_switches_that_nobody_wrote_down_are_found_again() -> None:
    """Random priorities switch two threads as they go, so that the journal has no schedule."""
    journal = Journal()
    given = replace(context(Racing), judge=partial(judged, journal))
    drawn = trace(Put(0), Parallel(Step(Put(1)), Step(Put(2))))

    told = with_switches(given, drawn)
    smallest = minimise(given, death(TOY, told, "gone"))

    assert told.steps[-1].op.schedule
    assert not smallest.flaky
    assert smallest.operation == "Put|Put"
    assert with_switches(given, trace(Put(0))) == trace(Put(0))


class Dying(Shelf):
    """Ends its process when two lie on the shelf."""

    def take(self) -> int:
        """Gone."""
        if len(self.items) == 2:
            os._exit(0)
        return super().take()


def test_the_step_that_ends_the_process_is_in_the_journal() -> None:
    """It is written down before it is taken, and told as one that did not end."""
    journal = Journal()

    def run(_say: Callable[[Any], None]) -> None:
        Lockstep.keep = journal.begin
        run_trace(TOY, trace(Put(1), Put(2), Take(), Clear()), Dying)

    how = apart(run)
    reached = journal.read()
    assert reached is not None
    found = tell_death(death(TOY, reached, how), TOY, Dying)

    assert Lockstep.keep is None
    assert (found.signature, found.step, found.trace) == ("TOY-008:Take:crash", 2, trace(Put(1), Put(2), Take()))
    assert [told.acts[0].ended for told in found.story.steps] == [True, True, False]
    assert found.detail == "its process ended with exit code 0"
