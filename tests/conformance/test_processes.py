"""A process that is a candidate: nothing of it is left when it has ended, and nothing when we have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conformance.lockstep import run_trace
from conformance.processes import children
from tests.wire import OPENED, UIO, as_process, opening

ROOT = Path(__file__).parents[2]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    """Whether a process is no more, within a while."""
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_crashes_leave_no_process_and_no_descriptor() -> None:
    """The benchmark does it a thousand times."""
    candidate = as_process(opening(lambda: os._exit(1)), UIO)
    run_trace(UIO, OPENED, candidate.factory)
    before, seen = descriptors(), set()

    for _ in range(20):
        seen.add(candidate.factory.child.pid)
        assert run_trace(UIO, OPENED, candidate.factory).failure is not None

    candidate.factory.end()
    assert len(seen) == 20
    assert descriptors() <= before
    assert not any(map(alive, seen))


def with_a_daemon(folder: Path) -> tuple[Any, int]:
    """A candidate that has left a process in a session of its own, whose parents have ended, and the id of that."""
    told = folder / "pid"

    def daemon() -> int:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                told.write_text(str(os.getpid()))
                time.sleep(60)
            os._exit(0)
        os.wait()
        while not (told.exists() and told.read_text()):
            time.sleep(0.01)
        return 0

    candidate = as_process(opening(daemon), UIO)
    run_trace(UIO, OPENED.with_steps(OPENED.steps[:2]), candidate.factory)
    return candidate, int(told.read_text())


def test_what_has_left_the_session_of_a_process_ends_with_it(tmp_path: Path) -> None:
    """A daemon comes to us once its parents have ended."""
    candidate, pid = with_a_daemon(tmp_path)
    assert Path(f"/proc/{pid}").exists()

    candidate.factory.end()

    assert not Path(f"/proc/{pid}").exists()


def test_what_may_not_be_killed_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is with a daemon that has become another user's."""
    candidate, pid = with_a_daemon(tmp_path)
    kill, tried = os.kill, []

    def refused(number: int, signum: int) -> None:
        tried.append(number)
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    candidate.factory.end()

    assert tried == [pid]
    kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_thread_that_has_just_ended_hides_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is gone by the time that it is looked into."""
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: [path / "0", *listed(path)])

    with subprocess.Popen(["cat"], stdin=-1) as ours:
        assert ours.pid in children()


def test_what_a_process_has_started_ends_with_it_and_with_us(tmp_path: Path) -> None:
    """Also where we are killed: the kernel and a guard see to it."""
    script = tmp_path / "driver.sh"
    script.write_text("sleep 1000 & echo $! > child; echo $$ > parent; exec sleep 1000\n")
    program = (
        "import os, sys\nfrom conformance.candidates.child import Child, program\n"
        f"child = Child(program(['/bin/sh', {str(script)!r}]))\n"
        "while not (os.path.exists('parent') and os.path.getsize('parent')): pass\n"
        "print('ready', flush=True)\n"
        "if sys.argv[1] == 'wait': sys.stdin.read()\n"
    )
    for how in ("wait", "end"):
        (tmp_path / "parent").unlink(missing_ok=True)
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        us = subprocess.Popen([sys.executable, "-c", program, how], cwd=tmp_path, env=env, stdin=-1, stdout=-1)
        assert us.stdout is not None
        assert us.stdin is not None
        assert us.stdout.readline() == b"ready\n"
        pids = [int((tmp_path / name).read_text()) for name in ("child", "parent")]

        if how == "wait":
            us.kill()
        us.wait()

        assert all(map(gone, pids))
        us.stdout.close()
        us.stdin.close()
