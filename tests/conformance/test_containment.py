"""Whatever a candidate does to its process is a finding, and nothing else of the run is lost."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conformance.engines import campaign, explore, machine
from conformance.engines.context import Context
from conformance.engines.minimise import minimiser
from conformance.environment.scheduler import Priorities
from conformance.lockstep import Lockstep, Report, run_trace
from conformance.model.step import Parallel, Step
from conformance.processes import children
from conformance.runs import checkpoint, containment, watchdog
from conformance.runs.checkpoint import Runner
from conformance.runs.containment import contained, may_die
from conformance.runs.watchdog import watching
from conformance.runs.workers import Died
from conformance.verdict import Failure, HarnessError
from tests.toy import TOY, Clear, Put, Shelf, Take, context, trace

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking with threads, which do nothing here

TOLD = tuple[list[Failure], dict[str, int]]
LIBC = ctypes.CDLL(None)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No process and no descriptor outlives the work."""
    before = children(), descriptors()
    yield
    assert (children(), descriptors()) == before


def descriptors() -> int:
    """How many this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def judge(*arguments: Any, **options: Any) -> Report:
    """As a unit's own: what is looked into is never taken for granted."""
    assert Runner.now is not None
    with Runner.now.looking_into():
        return run_trace(*arguments, **options)


def search(engine: Callable[[Context], None], candidate: type, **options: Any) -> TOLD:
    """What an engine finds on a candidate that may die, and what it gave up."""

    def work(_tell: Any) -> TOLD:
        given = context(candidate, judge=judge, **options)
        with watching():
            engine(given)
        assert Runner.now is not None
        return given.failures, Runner.now.given_up()

    told: TOLD = contained(work, lambda *_: None)
    return told


def try_out(given: Context) -> None:
    """An engine for whom each death is dear: two traces, and what they show made minimal."""
    for tried in (trace(Put(1), Put(0), Take(), Clear()), trace(Put(), Clear(), Take())):
        failure = run_trace(TOY, tried, given.candidate.factory).failure
        if failure is not None:
            given.note_failure(failure, minimiser(given))


def of(end: Callable[[], object]) -> type:
    """A shelf that does this when it takes one of two, and that clears wrongly."""

    class Dying(Shelf):
        def take(self) -> int:
            if len(self.items) == 2:
                end()
            return super().take()

        def clear(self) -> int:
            super().clear()
            return 1

    return Dying


def say(text: str, then: Callable[[], object]) -> Callable[[], object]:
    """Write on standard error first."""

    def act() -> None:
        os.write(2, text.encode())
        then()

    return act


def flood(stream: int) -> None:
    """Write for ever."""
    while True:
        os.write(stream, b"glub\n" * 1000)


def loop() -> None:
    """In Python, where an exception can be raised."""
    while True:
        pass


def stubborn_loop() -> None:
    """In Python, and nothing gets out of it."""
    while True:
        with suppress(BaseException):
            loop()


def bomb() -> None:
    """Take memory as long as there is any."""
    taken = []
    while True:
        taken.append(bytearray(4 << 20))


DEATHS: dict[str, tuple[Callable[[], object], str, str]] = {
    "segfault": (lambda: os.kill(os.getpid(), signal.SIGSEGV), "crash", "its process was killed by SIGSEGV, at"),
    "null": (lambda: ctypes.string_at(0), "crash", "its process was killed by SIGSEGV, at"),
    "abort": (os.abort, "crash", "its process was killed by SIGABRT, at"),
    "exit": (lambda: os._exit(0), "crash", "its process ended with exit code 0"),
    "exit with words": (say("bye\n", lambda: os._exit(7)), "crash", "its process ended with exit code 7\n| bye"),
    "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), "crash", "its process was killed by SIGKILL"),
    "kill the group": (lambda: os.killpg(0, signal.SIGKILL), "crash", "its process was killed by SIGKILL"),
    "sanitizer": (
        say(
            "==7==ERROR: AddressSanitizer: x\nSUMMARY: AddressSanitizer: double-free a.c:3 in f\n", lambda: os._exit(1)
        ),
        "crash",
        "its process ended with exit code 1: AddressSanitizer: double-free a.c:3 in f",
    ),
    "memory bomb": (bomb, "crash", "take raised MemoryError"),
    "flood on stdout": (lambda: flood(1), "crash", "wrote more than 16 MiB to its output\n| glub"),
    "flood on stderr": (lambda: flood(2), "crash", "wrote more than 16 MiB to its output\n| glub"),
    "loop in Python": (loop, "hang", "did not return within"),
    "stubborn loop in Python": (stubborn_loop, "hang", "did not return within"),
    "loop in C": (lambda: sum(itertools.repeat(0)), "hang", "did not return within"),
    "blocking call": (LIBC.pause, "hang", "did not return within"),
    "blocking call in Python": (lambda: time.sleep(600), "hang", "did not return within"),
    "blocking call without signals": (lambda: LIBC.sigsuspend(b"\xff" * 128), "hang", "did not return within"),
}


@pytest.mark.parametrize("name", DEATHS)
def test_each_end_is_a_finding_with_a_minimal_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the clause on robustness; what else is wrong with the candidate is found as well."""
    end, kind, how = DEATHS[name]
    monkeypatch.setattr(checkpoint, "MEMORY", 64 << 20)
    if kind == "hang":  # what does not hang must not be taken for it on a busy machine
        monkeypatch.setattr(watchdog, "PATIENCE", 0.4)
        monkeypatch.setattr(watchdog, "IMPATIENCE", 0.2)
        monkeypatch.setattr(containment, "GRACE", 0.2)
        monkeypatch.setattr(containment, "TICK", 0.05)

    failures, _ = search(try_out, of(end))

    found = {failure.signature: failure for failure in failures}
    assert set(found) == {f"TOY-008:Take:{kind}", "TOY-012:Clear:result"}
    death = found[f"TOY-008:Take:{kind}"]
    assert death.detail.startswith(how)
    assert death.trace == trace(Put(), Put(), Take())
    assert not death.flaky


def to_devnull() -> None:
    """Put another file in the place of the harness's."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3, 400):
        with suppress(OSError):
            os.fstat(fd)
            os.dup2(null, fd)


@pytest.mark.parametrize("close", [lambda: os.closerange(0, 400), lambda: os.closerange(3, 400), to_devnull])
def test_closing_what_is_the_harness_s_is_a_finding(close: Callable[[], object]) -> None:
    """Once the trace is over; nothing else is lost, for the descriptors are had again."""

    def engine(given: Context) -> None:
        failure = run_trace(TOY, trace(Put(1), Put(0), Take()), given.candidate.factory).failure
        assert failure is not None
        given.note_failure(failure, minimiser(given))
        try_out(given)

    failures, _ = search(engine, of(close))

    found = {failure.signature: failure for failure in failures}
    assert set(found) == {"TOY-008:End:crash", "TOY-012:Clear:result"}
    death = found["TOY-008:End:crash"]
    assert death.detail.startswith("closed or replaced descriptors that are not its own: ")
    assert death.trace == trace(Put(), Put(), Take())


@pytest.mark.parametrize("engine", [explore.run, campaign.run, machine.run])
def test_every_engine_takes_a_death_for_an_observation(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypothesis too; the search goes on as if nothing had happened."""
    monkeypatch.setattr(checkpoint, "DEATHS", 10)
    failures, _ = search(engine, of(lambda: os._exit(3)), steps=2_000, examples=20)

    assert {(f.signature, f.flaky) for f in failures} == {
        ("TOY-008:Take:crash", False),
        ("TOY-012:Clear:result", False),
    }
    assert all(f.trace is not None and len(f.trace.steps) == (3 if f.kind == "crash" else 1) for f in failures)


def test_what_dies_at_its_start_is_told_once() -> None:
    """Without a step."""

    class Stillborn(Shelf):
        def __init__(self, port: Any) -> None:
            os._exit(4)

    (failure,), _ = search(try_out, Stillborn)

    assert failure.operation == "Start"
    assert failure.trace == trace()
    assert failure.detail == "its process ended with exit code 4"


def test_what_dies_all_the_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many ends the operation is not tried any more, and nothing is made of that."""
    monkeypatch.setattr(checkpoint, "DEATHS", 5)

    class Dying(Shelf):
        def put(self, value: int) -> int:
            os._exit(value & 7)

    failures, given_up = search(campaign.run, Dying, steps=3_000)

    assert [f.signature for f in failures] == ["TOY-008:Put:crash"]
    assert given_up == {"Put": 5}


def test_two_threads_die_as_they_were_switched() -> None:
    """Random priorities switch them as they go; the trace says where."""

    class Racing(Shelf):
        busy = False

        def put(self, value: int) -> int:
            if self.busy:
                os._exit(0)
            self.busy = True
            result = self._put(value)
            self.busy = False
            return result

    def races(given: Context) -> None:
        for change in range(1, 9):
            lockstep = Lockstep(TOY, trace(), given.candidate.factory)
            failure = lockstep.step(Step(Parallel(Step(Put(1)), Step(Put(0)))), Priorities(frozenset({change})))
            lockstep.close()
            if failure is not None:
                given.note_failure(failure, minimiser(given))

    failures, _ = search(races, Racing)

    (death,) = [f for f in failures if f.kind == "crash"]
    assert death.signature == "TOY-008:Put|Put:crash"
    assert not death.flaky
    assert death.trace is not None
    assert death.trace.steps[-1].op.schedule


def test_what_dies_once_only_is_no_finding_of_its_own(tmp_path: Path) -> None:
    """Its trace passes the next time, so it proves nothing."""
    mark = tmp_path / "died"

    def once() -> None:
        if not mark.exists():
            mark.touch()
            os._exit(1)

    failures, _ = search(try_out, of(once))

    assert {(f.signature, f.flaky) for f in failures} == {
        ("TOY-008:Take:crash", True),
        ("TOY-012:Clear:result", False),
    }


def test_a_global_source_of_randomness_goes_on_in_the_copy() -> None:
    """Otherwise what is done once more would not be the same."""
    import random

    class Rolling(Shelf):
        def put(self, value: int) -> int:
            self.drawn = random.random()  # the point is that nobody has seeded it for us
            return super().put(value)

        def take(self) -> int:
            if self.drawn < 0.1:
                os._exit(1)
            return super().take()

    def rolls(given: Context) -> None:
        random.seed(3)
        for _ in range(60):
            assert Runner.now is not None
            Runner.now.due = float("inf") if Runner.now.copy else 0.0  # one copy, from which all is done once more
            failure = run_trace(TOY, trace(Put(), Take()), given.candidate.factory).failure
            if failure is not None:
                given.failures.append(failure)

    failures, _ = search(rolls, Rolling)

    assert failures
    assert {f.signature for f in failures} == {"TOY-008:Take:crash"}


def test_the_calls_before_the_end_are_told() -> None:
    """With their results."""

    class Dying(Shelf):
        def _show(self) -> None:
            if self.items:
                os._exit(1)

    def work(_tell: Any) -> tuple[Any, Any]:
        report = run_trace(TOY, trace(Take(), Put()), Dying, record=True)
        return report.failure, report.steps[-1].calls

    failure, calls = contained(work, lambda *_: None)

    assert failure.signature == "TOY-008:Put:crash"
    assert [(who, name) for who, (name, _, _) in calls] == [(0, "lock"), (0, "alloc")]
    assert calls[1][1][2] > 0


def test_what_happened_behind_the_deadline_happens_there_again() -> None:
    """The clock of work that is done once more says what it said before."""

    def work(_tell: Any) -> list[Any]:
        runner, seen = Runner.now, []
        assert runner is not None
        runner.deadline = time.monotonic() + 0.1
        given = context(of(lambda: os._exit(1)))
        run_trace(TOY, trace(), Shelf)
        runner.due = math.inf  # all is done once more from here
        while runner.clock() < runner.deadline:
            run_trace(TOY, trace(Put()), Shelf)
        for _ in range(2):
            failure = run_trace(TOY, trace(Put(), Put(), Take()), given.candidate.factory).failure
            seen.append(None if failure is None else (failure.signature, failure.step))
        return seen

    assert contained(work, lambda *_: None) == [("TOY-008:Take:crash", 2)] * 2


def test_a_process_that_ends_before_its_first_trace_cannot_be_told_of() -> None:
    """There is no operation that it could be held against."""
    assert contained(lambda _tell: os._exit(9), lambda *_: None) == Died("its process ended with exit code 9")


def test_an_object_may_die_in_its_own_end() -> None:
    """It is told as what happened after the last operation."""

    class Fragile(Shelf):
        def __del__(self) -> None:
            if len(self.items) == 2:
                os._exit(6)

    def work(_tell: Any) -> Failure | None:
        failure = run_trace(TOY, trace(Put(), Put()), Fragile).failure
        gc.collect()
        return failure

    failure = contained(work, lambda *_: None)

    assert (failure.signature, failure.step) == ("TOY-008:End:crash", 1)


def test_an_end_that_nothing_prevents_is_given_up() -> None:
    """It comes again, though the step is not taken: nobody can say of what."""

    class Cursed(Shelf):
        pass

    def work(given: Context) -> None:
        run_trace(TOY, trace(Put()), given.candidate.factory)
        os._exit(5)

    def contained_work(_tell: Any) -> None:
        work(context(Cursed))

    assert contained(contained_work, lambda *_: None) == Died("its process ended with exit code 5")


def test_what_is_done_and_raised_in_there_is_heard_out_here() -> None:
    """Results of any size, progress, and errors."""
    heard: list[tuple[int, ...]] = []

    def work(tell: Any) -> bytes:
        tell(1, 2, 3)
        return b"x" * (1 << 20)

    def fail(_tell: Any) -> None:
        raise HarnessError("no")

    assert contained(work, lambda *told: heard.append(told)) == b"x" * (1 << 20)
    assert heard == [(1, 2, 3)]
    with pytest.raises(HarnessError, match=r"^no$"):
        contained(fail, lambda *_: None)


def test_it_stops_when_it_is_told() -> None:
    """Whoever hears how far it is may say that this is far enough."""

    def work(tell: Any) -> None:
        while True:
            tell(0, 0, 0)

    def enough(*_told: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        contained(work, enough)


def test_memory_that_is_spent_is_the_candidates_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is the harness that gets none any more."""
    monkeypatch.setattr(checkpoint, "MEMORY", 64 << 20)

    class Hoarding(Shelf):
        def put(self, value: int) -> int:
            hoard: list[Any] = []
            with suppress(MemoryError):
                while True:
                    hoard.append(bytearray(1 << 20))
            self.hoard = hoard
            return super().put(value)

        def take(self) -> int:
            raise HarnessError("no world is left") from MemoryError()

    def work(_tell: Any) -> list[Failure]:
        given = context(Hoarding)
        try:
            report = run_trace(TOY, trace(Put(), Take()), given.candidate.factory)
        except HarnessError as error:
            checkpoint.exit_if_spoilt(error)
            raise
        return [report.failure] if report.failure is not None else []

    (failure,) = contained(work, lambda *_: None)

    assert failure.signature in ("TOY-008:Take:crash", "TOY-008:Put:crash")
    assert "memory" in failure.detail.lower()


def test_many_deaths_leak_nothing() -> None:
    """Neither in the process that goes on, nor around it, nor in files."""

    def work(_tell: Any) -> list[int]:
        given, seen = context(of(lambda: os._exit(1))), []
        for _ in range(40):
            failure = run_trace(TOY, trace(Put(), Put(), Take()), given.candidate.factory).failure
            assert failure is not None
            seen.append(descriptors())
            assert len(children()) <= 4
        return seen

    seen = contained(work, lambda *_: None)

    assert len(seen) == 40
    assert len(set(seen)) == 1


def test_what_a_candidate_has_forked_dies_with_it() -> None:
    """However it calls its group, and whether it comes back to us or not."""

    def fork() -> None:
        if os.fork() == 0:
            os.setpgid(0, 0)
            signal.pause()
        if os.fork() == 0:
            return
        os._exit(1)

    failures, _ = search(try_out, of(fork))

    assert {(f.signature, f.flaky) for f in failures} == {
        ("TOY-008:Take:crash", False),
        ("TOY-012:Clear:result", False),
    }


def test_who_is_contained() -> None:
    """Strangers in our own process."""
    assert [may_die(spec) for spec in ("builtin:upstream", "mine.py:Mine", "lib:x.so", "cmd:./x", "real:x")] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_output_is_shown_and_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    """What a candidate prints is for people; only so much of it."""

    class Chatty(Shelf):
        def put(self, value: int) -> int:
            os.write(2, b"putting\n")
            os.write(1, b"z" * 5000 + b"\n")
            return super().put(value)

    def work(given: Context) -> None:
        for _ in range(40):
            run_trace(TOY, trace(Put()), given.candidate.factory)

    search(work, Chatty)
    out, err = capfd.readouterr()

    assert out == ""
    assert "zzzz" in err
    assert len(err) < 2 * checkpoint.SHOWN
    assert err.endswith("[the candidate writes more than is shown]\n")


MANY = """
import ctypes, os, sys
from conformance.candidates.builtin.uio_msi.upstream import Upstream


class Mine(Upstream):
    opened = 0

    def open(self):
        self.opened += 1
        if self.opened == 2:
            print("opening again", file=sys.stderr, flush=True)
            ctypes.string_at(0)
        return super().open()

    def ioctl(self, cmd, arg):
        while True:
            os.write(1, b"glub" * 1000)

    def release(self):
        os.abort()

    def remove(self):
        pass
"""


def test_a_run_survives_it_all(tmp_path: Path) -> None:
    """Every one of several ways to die is told with its trace, beside a plain mistake; the exit code says so."""
    (tmp_path / "mine.py").write_text(MANY)

    done = subprocess.run(
        [sys.executable, "-m", "conformance", "run", "uio_msi", "--candidate", "mine.py:Mine", "--engine", "corpus"]
        + ["--report", "json:report"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )

    found = {}
    for line in map(json.loads, (tmp_path / "report").read_text().splitlines()):
        if line["kind"] == "failure":
            found[line["signature"]] = len(line["trace"]["steps"]), line["detail"]
    assert done.returncode == 1, done.stderr
    assert found["UIO-078:Open:crash"] == (
        3,
        "its process was killed by SIGSEGV, at mine.py:13 in open\n| opening again",
    )
    assert found["UIO-078:IrqSet:crash"][0] == 3
    assert found["UIO-078:IrqSet:crash"][1].startswith("wrote more than 16 MiB to its output\n| glub")
    assert found["UIO-078:Close:crash"] == (3, "its process was killed by SIGABRT, at mine.py:21 in release")
    assert any(":Remove:view." in signature for signature in found)
    assert done.stderr.count("opening again") <= 3, "what is done once more is not shown again"
