"""The states of guests in the cache: made once, used by many processes, removed when nobody makes such a guest."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

UNUSED = 3600.0
"""Seconds without use after which a state that is out of date goes; other versions of the suite may share the cache."""
_PARTS = (".state", ".cpio.gz")
Origin = dict[str, str]
"""What a state was made from, by name; `kernel` is a file."""


@contextlib.contextmanager
def kept(snapshot: Path, origin: Origin) -> Iterator[None]:
    """Several processes that want the same guest make its state once; while one uses it nobody removes it."""
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    lock = _locked(snapshot.with_suffix(".lock"))
    try:
        os.utime(lock)
        if not snapshot.is_file():
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.fstat(lock).st_size:
            os.pwrite(lock, json.dumps(origin).encode(), 0)
        yield
    finally:
        os.close(lock)


def sweep(folder: Path, present: Origin) -> list[Path]:
    """Remove what no guest of the present is made from, has not been used for an hour, and nobody uses; the states."""
    gone = []
    for path in folder.glob("*.lock"):
        with contextlib.suppress(OSError):  # another process sweeps, too
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_named(lock, path) and _is_old(lock, present):
                    for suffix in _PARTS:
                        path.with_suffix(suffix).unlink(missing_ok=True)
                    path.unlink()
                    gone.append(path.with_suffix(".state"))
            finally:
                os.close(lock)
    return gone


def _locked(path: Path) -> int:
    """The lock, which is shared with others that use the state; it may be removed before it is ours."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_named(lock, path):
            return lock
        os.close(lock)


def _is_named(lock: int, path: Path) -> bool:
    """Whether the path still leads to the file that is open."""
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _is_old(lock: int, present: Origin) -> bool:
    """Whether the state is out of date, and was not used lately; what says nothing of its origin is older than that."""
    if time.time() - os.fstat(lock).st_mtime < UNUSED:
        return False
    try:
        origin = json.loads(os.pread(lock, 1 << 16, 0))
        is_there = Path(origin.pop("kernel")).is_file()
    except (ValueError, KeyError):
        return True
    return not is_there or origin != {name: value for name, value in present.items() if name != "kernel"}
