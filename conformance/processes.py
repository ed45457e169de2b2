"""What is done with processes on this machine: who dies with whom, who belongs to whom, how one ended, what it uses."""

from __future__ import annotations

import ctypes
import inspect
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""Of prctl(2)."""
_TICKS = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Have this process killed when its parent dies; it is a child of `parent`, or too late."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt(orphans: bool) -> None:
    """Whether what our descendants leave behind comes to us, in sessions of their own too."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, int(orphans))


def children() -> list[int]:
    """Ids of the processes that this one is the parent of, zombies too."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except ProcessLookupError:  # a thread that has ended since it was listed
            continue
        except FileNotFoundError:
            if task.exists():  # a kernel without CONFIG_PROC_CHILDREN
                mine = [str(os.getpid())]
                return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _stat(path)[1:2] == mine]
    return found


def runs(pid: int) -> bool:
    """Whether one of its threads runs, or would if it had a processor."""
    return any(_stat(task)[:1] == ["R"] for task in Path(f"/proc/{pid}/task").glob("*"))


def used(pid: int) -> float:
    """Seconds of the processor's time that it has had; 0 of one that is gone."""
    told = _stat(Path(f"/proc/{pid}"))
    return sum(map(int, told[11:13])) / _TICKS


def _stat(folder: Path) -> list[str]:
    """What is said behind the name: state, parent, …; nothing of a process that is gone."""
    with suppress(OSError):
        return (folder / "stat").read_text().rpartition(")")[2].split()
    return []


def ended(code: int | None) -> str:
    """How a process ended, by its exit code, which is below 0 for a signal."""
    if code is not None and code < 0:
        named = {number.value: number.name for number in signal.Signals}
        return f"its process was killed by {named.get(-code, f'signal {-code}')}"
    return f"its process ended with exit code {code}"


def kill_sessions(sessions: set[int]) -> None:
    """Kill all processes of these sessions, whatever groups they are in, and those that they fork meanwhile."""
    killed: set[int] = set()
    while sessions:
        found = set()
        for path in Path("/proc").glob("[0-9]*"):
            pid = int(path.name)
            try:
                if pid not in killed and os.getsid(pid) in sessions:
                    os.kill(pid, signal.SIGKILL)
                    found.add(pid)
            except OSError:
                pass
        if not found:
            return
        killed |= found


class Guard:
    """A process that does no more than wait for our end, however that comes, and then kills the sessions it is told."""

    PROGRAM = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
{}
sessions = set()
for line in sys.stdin:
    (sessions.add if line[0] == "+" else sessions.discard)(int(line[1:]))
kill_sessions(sessions)
"""

    def __init__(self) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - this interpreter, with the program above
            [sys.executable, "-I", "-S", "-c", self.PROGRAM.format(inspect.getsource(kill_sessions))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, session: int) -> None:
        """Kill this one, too, when the time comes."""
        self._say(b"+%d\n" % session)

    def forget(self, session: int) -> None:
        """It has ended; its number may be another's."""
        self._say(b"-%d\n" % session)

    def end(self) -> None:
        """The time has come."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        self.process.wait()

    def abandon(self) -> None:
        """It is that of the process that we were forked from, and must not be kept from its end."""
        self.process.returncode = 0  # nobody waits for it here
        self.end()

    def _say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError, ValueError):  # it has ended, or is told to end already
            os.write(self.process.stdin.fileno(), line)
