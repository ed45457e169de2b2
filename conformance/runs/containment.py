"""Work on a candidate in a process that may die: watched, and gone on with by a copy of it when it does.

What the process does is in `checkpoint.py`. Here is whoever looks after it, which never imports a candidate.
"""

from __future__ import annotations

import fcntl
import gc
import os
import pickle
import select
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from conformance.processes import adopt, children, runs, used
from conformance.runs import autopsy, watchdog
from conformance.runs.checkpoint import MARK, Ends, Fate, Runner, Shared, flush
from conformance.runs.describe import is_ours
from conformance.runs.workers import Died, Tell

TICK = 0.25
"""Seconds between two looks at whether a step goes on."""
GRACE = 1.0
"""Seconds in which a process must say why nothing moves, if it has the processor; then it is stuck in C code."""
AGAIN = 3
"""Deaths at one and the same step after which nobody can tell."""
HEAD = len(MARK) + 8
"""Bytes before a message."""
MOST = 5_000
"""Deaths in one piece of work after which it is given up."""


def may_die(spec: str) -> bool:
    """Whether a candidate may end the process that it is in: ours do not, nor those with one of their own."""
    return not is_ours(spec) and not spec.startswith(("cmd:", "real:"))


def contained(function: Callable[[Tell], Any], tell: Tell) -> Any:
    """What `function(tell)` returns, in a process that may die; `Died` where nobody can tell what that died of.

    Raises:
        UsageError, HarnessError  what it raised
        KeyboardInterrupt         it was stopped
    """
    supervisor = Supervisor(function, tell)
    try:
        return supervisor.run()
    finally:
        supervisor.close()


class Supervisor:
    """Looks after one process and its copies."""

    def __init__(self, function: Callable[[Tell], Any], tell: Tell) -> None:
        self.function = function
        self.tell = tell
        self.shared = Shared()
        self.words = self.shared.words
        self.before = set(children())
        self.fates: dict[int, Fate] = {}
        self.ends: Counter[int] = Counter()
        """How often a process ended in which step."""
        self.pid = 0
        self.exited = -1
        self.heard = b""
        self.channel, self._theirs = os.pipe()
        self._waker, self._wake = os.pipe()
        self.output = os.memfd_create("output")
        self.screen = os.dup(2)
        self._forget()
        os.set_blocking(self.channel, False)
        fcntl.fcntl(self.output, fcntl.F_SETFL, os.O_APPEND)
        adopt(orphans=True)

    def run(self) -> Any:
        """Watch until the work is done, or cannot be done."""
        self._start()
        while True:
            answer = self._watch()
            if answer is not None:
                kind, *rest = answer
                if kind == "stopped":
                    raise KeyboardInterrupt
                if kind == "failed":
                    raise rest[0]
                return rest[0]
            fate = self._fate()
            self.ends[fate.at] += 1
            if fate.at == 0 or self.ends[fate.at] >= AGAIN or self.ends.total() >= MOST:
                return Died(fate.detail)
            self.fates[fate.at] = fate
            self._go_on(fate)

    def close(self) -> None:
        """Leave nothing behind."""
        self._clear(0)
        adopt(orphans=False)
        for end in (self.channel, self._theirs, self._waker, self._wake, self.output, self.screen):
            os.close(end)
        if self.exited >= 0:
            os.close(self.exited)
        self.shared.close()

    # -- processes

    def _start(self) -> None:
        gc.freeze()  # so that collecting garbage copies no memory that is shared with it
        flush()
        pid = os.fork()
        if pid == 0:
            ends = Ends(self.shared, self._waker, self._theirs, self.output, self.screen)
            Runner(ends, self.fates).live(self.function)
        self._now(pid)

    def _go_on(self, fate: Fate) -> None:
        """Wake the copy; where there is none that can be, begin anew with all that is known by now."""
        copy = self.words[Shared.COPY]
        if copy not in set(children()) - self.before:
            copy = 0
        self._clear(copy)
        self._drain()
        self.heard = b""
        os.ftruncate(self.output, 0)
        self._forget()
        if not copy:
            self._start()
            return
        text = pickle.dumps(fate)
        os.write(self._wake, len(text).to_bytes(8, "little") + text)
        self._now(copy)

    def _now(self, pid: int) -> None:
        if self.exited >= 0:
            os.close(self.exited)
        self.pid, self.exited = pid, os.pidfd_open(pid)

    def _forget(self) -> None:
        """What the numbers say of a process that is gone."""
        for word in (Shared.COPY, Shared.SPENT, Shared.SWITCHED, Shared.NOTED):
            self.words[word] = 0
        self.killed: Fate | None = None
        """What was done to the process, if anything was."""
        self.spoilt: Fate | None = None
        """What it said that was done to it, so that it ended itself."""

    def _clear(self, spare: int) -> None:
        """Kill what a process has left behind, but for one."""
        while strays := [pid for pid in children() if pid not in self.before and pid != spare]:
            for pid in strays:
                os.kill(pid, signal.SIGKILL)
            for pid in strays:
                os.waitpid(pid, 0)

    # -- watching

    def _watch(self) -> tuple[Any, ...] | None:
        """What the process said last; None where it has died."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(self.exited, select.POLLIN)
        patience = _Patience(self)
        while True:
            ready = dict(poll.poll(TICK * 1000))
            has_ended = self.exited in ready
            if self.channel in ready or has_ended:
                self._drain()
                for message in self._messages():
                    if message[0] == "tell":
                        self._pass_on(message[1])
                    elif message[0] == "spoilt":
                        self.spoilt = message[1]
                    else:
                        return message
            if has_ended:
                return None
            patience.look()

    def _pass_on(self, told: tuple[Any, ...]) -> None:
        try:
            self.tell(*told)
        except KeyboardInterrupt:
            self.words[Shared.STOP] = 1

    def _drain(self) -> None:
        """Read what is there to be read."""
        with suppress(BlockingIOError):
            while more := os.read(self.channel, 1 << 16):
                self.heard += more

    def _messages(self) -> list[tuple[Any, ...]]:
        """Those that have come whole; who says something else has written where it has nothing to write."""
        messages = []
        while len(self.heard) >= HEAD:
            if not self.heard.startswith(MARK):
                self.heard = b""
                self.kill("wrote to descriptors that are not its own", is_hang=False)
                break
            end = HEAD + int.from_bytes(self.heard[len(MARK) : HEAD], "little")
            if len(self.heard) < end:
                break
            messages.append(pickle.loads(self.heard[HEAD:end]))  # noqa: S301 - from a process of ours
            self.heard = self.heard[end:]
        return messages

    # -- what it died of

    def kill(self, detail: str, *, is_hang: bool = True) -> None:
        """End a process that does not say why nothing moves, or says what it should not."""
        self.killed = Fate(self.words[Shared.AT], detail, is_hang)
        self.words[Shared.HANGS] += is_hang
        os.kill(self.pid, signal.SIGKILL)

    def _fate(self) -> Fate:
        """How the process ended, which has."""
        _, status = os.waitpid(self.pid, 0)
        if self.spoilt is not None:
            return self.spoilt
        size = os.fstat(self.output).st_size
        said = os.pread(self.output, autopsy.READ, max(0, size - autopsy.READ)).decode(errors="replace")
        if self.killed is not None:
            how = autopsy.told(self.killed.detail, said)
        elif self.words[Shared.SPENT]:
            how = autopsy.SPENT
        else:
            how = autopsy.told(autopsy.how(os.waitstatus_to_exitcode(status)), said)
        return Fate(
            self.words[Shared.AT],
            how,
            self.killed is not None and self.killed.is_hang,
            self.shared.switches(),
            self.shared.calls(),
        )


class _Patience:
    """With one process: what does not move is asked why, and killed where it does not answer."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.seen = (0, 0)
        self.asked = False
        self.begin()

    def begin(self) -> None:
        """Start to wait."""
        self.since, self.used = time.monotonic(), used(self.supervisor.pid)

    def is_over(self, patience: float) -> bool:
        """Whether that was long enough; whoever waits for the processor is waited for."""
        if time.monotonic() - self.since < patience:
            return False
        pid = self.supervisor.pid
        return not runs(pid) or used(pid) - self.used >= patience / 2

    def look(self) -> None:
        """One more look."""
        supervisor, words = self.supervisor, self.supervisor.words
        seen = words[Shared.AT], words[Shared.ANSWERED]
        if seen != self.seen:
            self.seen, self.asked = seen, False
            self.begin()
            return
        patience = watchdog.IMPATIENCE if words[Shared.HANGS] else watchdog.PATIENCE
        if self.asked and self.is_over(GRACE):
            supervisor.kill(f"did not return within {patience:g} s")
        elif not self.asked and self.is_over(patience):
            words[Shared.ASKED], words[Shared.PATIENCE] = seen[0], round(patience * 1000)
            self.asked = True
            self.begin()
            with suppress(ProcessLookupError):
                os.kill(supervisor.pid, signal.SIGALRM)
