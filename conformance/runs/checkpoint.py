"""A process that may die, and the copies of itself that it leaves behind: one of them goes on where it cannot.

From time to time, between two traces, the process forks a copy that waits. Each step is counted, in memory that is
shared, before it is taken. When the process dies, the copy is told at which count and how; it does the same work
again, and where the count is the same it does not take the step but has it end in what was seen: a `Crash`, or a
`Hang`. So engines, the minimiser and Hypothesis take a death for an observation like any other, and lose nothing.

`containment.py` is the other side: it watches, wakes copies, and says what a process died of.
"""

from __future__ import annotations

import ctypes
import faulthandler
import io
import math
import mmap
import os
import pickle
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from conformance.environment.door import Call, Environment
from conformance.environment.scheduler import Scheduler
from conformance.lockstep import Kept, Lockstep, ended, operation_name, started
from conformance.model.step import Parallel, Step
from conformance.processes import die_with
from conformance.recording import Recorder
from conformance.runs.belongings import Belongings
from conformance.trace import Trace
from conformance.verdict import NOT_TRIED, Breach, Crash, Hang, HarnessError, UsageError

DEATHS = 50
"""Deaths of one operation in one unit, beside those of minimising, after which the unit does without it."""
MEMORY = 1 << 30
"""Bytes that a candidate may have of its own, beside what the process had before it."""
OUTPUT = 16 << 20
"""Bytes that it may write in one trace, and to any file."""
SHOWN = 1 << 16
"""Of what it writes in one trace, the last bytes that are passed on."""
QUIET = 1.0
"""Seconds between two copies while nothing dies."""
RARELY = 200
"""How many times as long as a copy takes they are apart at least, while nothing dies."""
NOTES = 1 << 14
"""Bytes of the calls of one trace that are written down at most."""
SWITCHES = 4096
"""Switches of one step that are written down at most."""
NEVER = 1 << 62
"""A count that no step has."""
MARK = b"\0told\0"
"""Begins what a process tells its supervisor."""
LAST = 1
"""The exit code of a process that ends for want of memory outside of the candidate."""


class Shared:
    """The memory that outlives a process: a few numbers that it writes and its supervisor reads, and the reverse."""

    AT, COPY, ANSWERED, HANGS, STOP, ASKED, PATIENCE, SPENT, LATE, SWITCHED, NOTED, FIRST = range(12)
    """Step under way; the copy's id; answers to the supervisor; hangs; whether to stop; of which step the supervisor
    asks; milliseconds after which it does; whether memory is spent; which look at the clock was the first behind the
    deadline; how many switches the step has made; bytes of the notes of its calls; the first switch."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8 * (self.FIRST + SWITCHES))
        self.words = memoryview(self.memory).cast("Q")
        self.notes = mmap.mmap(-1, NOTES)

    def close(self) -> None:
        """Give the memory back."""
        self.words.release()
        self.memory.close()
        self.notes.close()

    def switches(self) -> tuple[int, ...]:
        """Those that the step under way has made."""
        count = min(self.words[self.SWITCHED], SWITCHES)
        return tuple(self.words[self.FIRST : self.FIRST + count])

    def note(self, place: int, call: Call) -> None:
        """Write down a call of the step under way, as long as there is room."""
        start = self.words[self.NOTED]
        text = pickle.dumps((self.words[self.AT], place, call))
        if start + len(text) <= NOTES:
            self.notes[start : start + len(text)] = text
            self.words[self.NOTED] = start + len(text)

    def calls(self) -> tuple[Call, ...]:
        """Those that were written down of the step under way, which may not have returned."""
        file, made = io.BytesIO(self.notes[: self.words[self.NOTED]]), dict[int, Call]()
        while file.tell() < self.words[self.NOTED]:
            at, place, call = pickle.load(file)  # noqa: S301 - from a process of ours
            if at == self.words[self.AT]:
                made[place] = call
        return tuple(made.values())


@dataclass(frozen=True, slots=True)
class Fate:
    """How a process ended."""

    at: int
    """The count of the step in which it did."""
    detail: str
    is_hang: bool = False
    switches: tuple[int, ...] = ()
    """Of two threads, those made by then."""
    calls: tuple[Call, ...] = ()
    """Of an operation without company, in a trace that is told: the environment calls made by then."""

    is_wary: bool = False
    """It was the end of nothing: from here to the end of its trace each step is looked at, for one cannot be mended."""

    def breach(self) -> Breach:
        """The same as an observation of the candidate."""
        return Hang(self.detail) if self.is_hang else Crash(self.detail)


@dataclass(frozen=True, slots=True)
class Ends:
    """What a process has of its supervisor's."""

    shared: Shared
    waker: int
    """What a waiting copy reads: a fate, or the end of the supervisor."""
    channel: int
    """Where to say what the supervisor is to hear."""
    output: int
    """Stands for standard output and error; forgotten at the start of each trace."""
    screen: int
    """The standard error that people read."""

    def kept(self, supervisor: int) -> dict[int, tuple[str, int]]:
        """Each of them, standard output and error too: by what path it is had again, and the flags of that."""
        there = f"/proc/{supervisor}/fd"
        output = f"{there}/{self.output}", os.O_RDWR | os.O_APPEND
        writing = {fd: (f"{there}/{fd}", os.O_WRONLY | os.O_APPEND) for fd in (self.channel, self.screen)}
        return {
            1: output,
            2: output,
            self.output: output,
            self.waker: (f"{there}/{self.waker}", os.O_RDONLY),
            **writing,
        }


class Runner:
    """This process, from its own point of view; there is one, which all its copies inherit."""

    now: ClassVar[Runner | None] = None
    """That one, in a process that may die."""

    def __init__(self, ends: Ends, fates: dict[int, Fate]) -> None:
        self.ends = ends
        self.words = ends.shared.words
        self.supervisor = os.getppid()
        self.pid = os.getpid()
        self.at = 0
        """Traces begun and steps taken so far."""
        self.fates = fates
        """What is known to happen, by the count of the step."""
        self.until = max(fates, default=0)
        """Up to this count, what is done was done before."""
        self.copy = 0
        self.replaced: list[int] = []
        """Copies that were killed, and not yet waited for."""
        self.due = 0.0
        """When the next copy is to be made."""
        self.died: float | None = None
        """When this process last heard of a death."""
        self.forked = time.monotonic()
        self.deadline = math.inf
        """Of the work, by the clock."""
        self.looks = 0
        """How often it has looked at it."""
        self.judging = 0
        """Above 0 while a trace is looked into, so that nothing is taken for granted."""
        self.deaths: Counter[str] = Counter()
        """By operation, beside those of minimising."""
        self.is_copying = False
        self.hung = -1
        """The step in which it was last stopped; who does not let himself be stopped gives no answer."""
        self.passed_on = 0
        """Bytes of the candidate's output that people have seen."""
        self.heard = 0
        """What a candidate in another process had asked for when the supervisor last asked."""
        self.look = self._next()
        """From this count on, each step may have something to be looked at."""
        self.began = 0
        """The count at which the trace under way began."""
        self.is_wary = False
        """Whether each step of it is looked at, for one of them does what cannot be mended."""

    # -- the trace under way

    def begin(self, trace: Trace) -> list[Step]:
        """A list for the steps of a trace, which counts what is appended: what `Lockstep.keep` wants."""
        del trace
        if os.getpid() != self.pid:  # the candidate has forked, and its child has come back to us
            os._exit(0)
        self._pass_on()
        self.look_after(self.at)
        self.words[Shared.NOTED] = 0
        if self.at >= self.until and time.monotonic() >= self.due:
            self.fork()
        self.at = self.began = self.words[Shared.AT] = self.at + 1
        self.is_wary = False
        if self.at >= self.look:
            self.foretell(None)
        return _Counted(self)

    def foretell(self, step: Step | None) -> None:
        """Say what will become of the step, where that is known; and look again at the next."""
        Environment.doom = None
        fate = self.fates.get(self.at)
        op = started if step is None else step.op
        if self.is_wary:
            self.look_after(self.at - 1)
        if fate is not None and fate.is_wary:
            self.is_wary = True
        elif fate is not None:
            self.mend()
            Environment.doom = fate.breach()
            has_company = step is not None and (type(op) is Parallel or bool(step.during))
            Environment.calls_before = () if has_company else fate.calls
            self.died, self.due = time.monotonic(), 0.0
            if not self.judging and not fate.is_hang:
                self.deaths[operation_name(op)] += 1
        elif not self.judging and any(self.deaths[name] >= DEATHS for name in _names(op)):
            Environment.doom = Crash(f"not tried any more, after {DEATHS} ends of its process", NOT_TRIED)
        is_known = Environment.doom is None and not self.is_wary and all(n < DEATHS for n in self.deaths.values())
        self.look = self._next() if is_known else self.at + 1

    def _next(self) -> int:
        """The next count of which something is known."""
        return min((at for at in self.fates if at > self.at), default=NEVER)

    def switches(self) -> list[int]:
        """A list for the switches of two threads: what `Scheduler.keep` wants."""
        fate = self.fates.get(self.at)
        self.words[Shared.SWITCHED] = 0
        return _Switches(self.words, () if fate is None else fate.switches)

    def note(self, place: int, call: Call) -> None:
        """Write down a call of a trace that is told: what `Recorder.keep` wants."""
        if self.at not in self.fates and self.words is self.ends.shared.words:
            self.ends.shared.note(place, call)

    @contextmanager
    def looking_into(self) -> Iterator[None]:
        """Meanwhile all steps are taken, also of operations that were given up."""
        self.judging += 1
        try:
            yield
        finally:
            self.judging -= 1

    def given_up(self) -> dict[str, int]:
        """Operations that are not tried any more, and how often they have ended the process."""
        return {name: n for name, n in self.deaths.items() if n >= DEATHS}

    def clock(self) -> float:
        """The time; while work is done once more, one that leads to what was done before: too late from when it was."""
        self.looks += 1
        late, now = self.words[Shared.LATE], time.monotonic()
        if self.at < self.until:
            return now if late and self.looks >= late else 0.0
        if now >= self.deadline and not late:
            self.words[Shared.LATE] = self.looks
        return now

    # -- what others hear

    def say(self, message: Any) -> None:
        """Send something to the supervisor."""
        if os.getpid() != self.pid:  # a child of the candidate's has come back to us
            os._exit(0)
        with suppress(MemoryError):  # where none is left, what is there must do
            self.mend()
        text = pickle.dumps(message)
        left = memoryview(MARK + len(text).to_bytes(8, "little") + text)
        while left:
            left = left[os.write(self.ends.channel, left) :]

    def tell(self, *told: Any) -> None:
        """Say how far the work is, unless that was said before.

        Raises:
            KeyboardInterrupt  it is to stop
        """
        if self.at < self.until or os.getpid() != self.pid:
            return
        if self.words[Shared.STOP]:
            raise KeyboardInterrupt
        self.say(("tell", told))

    def _pass_on(self) -> None:
        """Show people what the candidate has written, and forget it."""
        with suppress(MemoryError):  # where none is left, what is there must do
            self.mend()
        size = os.fstat(self.ends.output).st_size
        if not size:
            return
        if self.at >= self.until and self.passed_on < SHOWN:
            text = os.pread(self.ends.output, SHOWN, max(0, size - SHOWN))
            self.passed_on += len(text)
            if self.passed_on >= SHOWN:
                text += b"\n[the candidate writes more than is shown]\n"
            with suppress(OSError):
                os.write(self.ends.screen, text)
        os.ftruncate(self.ends.output, 0)

    def mend(self) -> list[str]:
        """Have again what the candidate has taken away of ours; what that was, nothing as a rule."""
        return self.belongings.mend()

    def look_after(self, at: int) -> None:
        """Give up where something of ours cannot be had again: for the step at this count, or to find out for which."""
        done = self.belongings.for_good()
        if done and self.began:
            self.give_up(Fate(at, done) if self.is_wary else Fate(self.began, "", is_wary=True))

    def give_up(self, fate: Fate) -> None:
        """End this process, which is no use any more, and have the copy go on."""
        self.say(("spoilt", fate))
        os._exit(LAST)

    # -- copies

    def fork(self) -> None:
        """Leave a copy behind that goes on from here should this process die; the one before is not needed any more."""
        while True:
            flush()
            self.forked = time.monotonic()
            chance = random.getstate()
            self.is_copying = True
            try:
                child = os.fork()
            except OSError:  # too many processes, or too little memory: the one before must do
                self.due = self.forked + QUIET
                return
            finally:
                self.is_copying = False
            if child:
                with suppress(OSError):  # whichever of the two comes first
                    os.setpgid(child, child)
                break
            os.setpgid(0, 0)
            random.setstate(chance)
            self._wait()
        self.words[Shared.COPY] = child
        cost = time.monotonic() - self.forked
        before, self.copy = self.copy, child
        self._drop(before)
        self.due = self.forked + self._pause(cost)

    def _pause(self, cost: float) -> float:
        """Until the next copy: the later the longer nothing died, so that copies and repetition cost alike."""
        quiet = max(QUIET, RARELY * cost)
        if self.died is None:
            return quiet
        return min(quiet, math.sqrt(2 * cost * (self.forked - self.died)))

    def _drop(self, copy: int) -> None:
        """Kill a copy; whoever is dead by now is waited for."""
        if copy:
            with suppress(ProcessLookupError):
                os.kill(copy, signal.SIGKILL)
            self.replaced.append(copy)
        for pid in list(self.replaced):
            with suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue
            self.replaced.remove(pid)

    def _wait(self) -> None:
        """In the copy: sleep until it is to go on."""
        fate: Fate = pickle.loads(self._read(int.from_bytes(self._read(8), "little")))  # noqa: S301 - our supervisor's
        die_with(self.supervisor)
        self.pid = os.getpid()
        self.copy, self.replaced = 0, []
        self.fates[fate.at] = fate
        self.until = max(self.fates)
        self.look = min(self.look, self._next())
        self.words[Shared.AT] = self.at

    def _forked(self) -> None:
        """In a child that the candidate has forked: what it does from now on is nothing to us."""
        if not self.is_copying:
            self.words = Shared().words

    def _read(self, size: int) -> bytes:
        text = b""
        while len(text) < size:
            try:
                more = os.read(self.ends.waker, size - len(text))
            except BlockingIOError:  # of the candidate's doing
                os.set_blocking(self.ends.waker, True)
                continue
            if not more:
                os._exit(0)
            text += more
        return text

    # -- its life

    def live(self, function: Callable[[Any], Any]) -> None:
        """Do the work and say what came of it. Never returns."""
        Runner.now = self
        try:
            self._set_up()
            self.say(("done", function(self.tell)))
        except KeyboardInterrupt:
            self.say(("stopped",))
        except BaseException as error:  # a SystemExit too: nobody above us hears of it but by this channel
            exit_if_spoilt(error)
            told = isinstance(error, UsageError | HarnessError)
            if not told and os.environ.get("CONFORMANCE_DEBUG"):
                traceback.print_exception(error)
            self.say(("failed", error if told else HarnessError(f"{type(error).__name__}: {error}")))
        finally:
            try:
                if os.getpid() == self.pid:
                    self._pass_on()
                    self._drop(self.copy)
            finally:
                os._exit(0)

    def _set_up(self) -> None:
        os.setpgid(0, 0)
        die_with(self.supervisor)
        last = 2
        for fd in sorted(self.ends.kept(self.supervisor).keys() - {1, 2}):  # whoever started us has others
            os.closerange(last + 1, fd)
            last = fd
        os.closerange(last + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        for stream in (1, 2):
            os.dup2(self.ends.output, stream)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, self._asked)
        _limit(resource.RLIMIT_FSIZE, OUTPUT)
        _limit(resource.RLIMIT_DATA, _data() + MEMORY)
        _limit(resource.RLIMIT_CORE, 0)
        self.belongings = Belongings(self.ends.kept(self.supervisor))
        if not hasattr(ctypes.CDLL(None), "__asan_init"):  # it has a better handler of its own
            faulthandler.enable(2, all_threads=False)
        os.register_at_fork(after_in_child=self._forked)
        Lockstep.keep, Scheduler.keep, Recorder.keep = self.begin, self.switches, self.note

    def _asked(self, _signal: int, _frame: FrameType | None) -> None:
        """The supervisor asks why nothing moves. It is the candidate's fault while that is running."""
        words = self.words
        if words[Shared.ASKED] != self.at:  # it has gone on meanwhile, or the candidate has a timer of its own
            return
        heard, self.heard = self.heard, Environment.heard
        is_inside = bool(Environment.inside) and heard == self.heard
        if not is_inside or self.hung != self.at:
            words[Shared.ANSWERED] += 1
        if is_inside:
            self.hung = self.at
            words[Shared.HANGS] += 1
            raise Hang(f"did not return within {words[Shared.PATIENCE] / 1000:g} s")


_append = list.append


class _Counted(Kept):
    """The steps taken of one trace; each is counted before it is taken."""

    __slots__ = ("runner",)

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self.runner = runner

    def append(self, item: Step) -> None:
        """One more step is about to be taken; this happens all the time, so nothing else is called."""
        _append(self, item)
        runner = self.runner
        runner.at = runner.words[0] = at = runner.at + 1
        if at >= runner.look:
            runner.foretell(item)

    def end(self) -> None:
        """What happens to the candidate's object counts as a step of its own."""
        runner = self.runner
        runner.at = runner.words[Shared.AT] = runner.at + 1
        if runner.at >= runner.look:
            runner.foretell(Step(ended))
        belongings = runner.belongings
        lost = belongings.descriptors_mended()
        belongings.limits_mended()
        if lost and Environment.doom is None:
            Environment.doom = Crash("; ".join(lost))
            runner.look = runner.at + 1


class _Switches(list[int]):
    """The switches made of two threads, each written down; or those that were made before this process died."""

    __slots__ = ("words",)

    def __init__(self, words: memoryview[int], before: tuple[int, ...]) -> None:
        super().__init__(before)
        self.words = words

    def append(self, item: int) -> None:
        """One more."""
        list.append(self, item)
        if len(self) <= SWITCHES:
            self.words[Shared.FIRST + len(self) - 1] = item
            self.words[Shared.SWITCHED] = len(self)


def _names(op: Any) -> list[str]:
    """What signatures call an operation, and either side of it."""
    names = [operation_name(op)]
    return [*names, operation_name(op.left.op), operation_name(op.right.op)] if type(op) is Parallel else names


def exit_if_spoilt(error: BaseException | None) -> None:
    """End this process where an error of ours comes of what the candidate has taken away: memory, limit, descriptor."""
    runner, cause = Runner.now, error
    if runner is None:
        return
    while cause is not None:
        if isinstance(cause, MemoryError):
            runner.words[Shared.SPENT] = 1
            os._exit(LAST)
        cause = cause.__cause__ or cause.__context__
    done = runner.mend()
    runner.look_after(runner.at)
    if done:
        runner.give_up(Fate(runner.at, f"{'; '.join(done)}: {error}"))


def flush() -> None:
    """Write what the streams of Python and C still hold, so that no copy writes it again."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def _limit(what: int, most: int) -> None:
    """Lower a limit, where it is not lower already."""
    now, hard = resource.getrlimit(what)
    if now == resource.RLIM_INFINITY or now > most:
        resource.setrlimit(what, (most, hard))


def _data() -> int:
    """Bytes of memory that this process has of its own, as RLIMIT_DATA counts them."""
    with Path("/proc/self/status").open() as status:
        return next((int(line.split()[1]) << 10 for line in status if line.startswith("VmData:")), 0)
