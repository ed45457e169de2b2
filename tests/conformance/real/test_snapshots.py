"""States of guests in the cache: made once, removed when they are out of date and nobody uses them."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from conformance.real.guest import snapshots
from conformance.real.guest.snapshots import UNUSED, kept, sweep

PARTS = (".state", ".cpio.gz", ".lock")


def present(folder: Path, **other: str) -> dict[str, str]:
    """What snapshots are made from here; the kernel is there."""
    kernel = folder / "vmlinuz"
    kernel.touch()
    return {"kernel": str(kernel), "helper": "1", "qemu": "7", "layout": "2", **other}


def snapshot(folder: Path, origin: dict[str, str] | None, age: float = 2 * UNUSED) -> Path:
    """The files of one, used that long ago."""
    path = folder / f"{len(list(folder.iterdir()))}.state"
    for suffix in PARTS:
        path.with_suffix(suffix).write_text("" if origin is None or suffix != ".lock" else json.dumps(origin))
    then = time.time() - age
    os.utime(path.with_suffix(".lock"), (then, then))
    return path


@pytest.mark.parametrize(
    "other", [{"helper": "0"}, {"qemu": "6"}, {"layout": "1"}, {"kernel": "/nowhere/vmlinuz"}, None]
)
def test_what_nobody_makes_any_more_goes(tmp_path: Path, other: dict[str, str] | None) -> None:
    """Of another helper, emulator or version of the suite, of a kernel that is gone, or older than such records."""
    folder = tmp_path / "guests"
    folder.mkdir()
    old = snapshot(folder, None if other is None else present(tmp_path, **other))
    fresh = snapshot(folder, present(tmp_path))

    assert sweep(folder, present(tmp_path)) == [old]

    assert {path.name for path in folder.iterdir()} == {fresh.with_suffix(suffix).name for suffix in PARTS}


def test_a_state_of_another_kernel_stays(tmp_path: Path) -> None:
    """Each kernel that is there has its own."""
    folder = tmp_path / "guests"
    folder.mkdir()
    (tmp_path / "another").touch()
    snapshot(folder, present(tmp_path, kernel=str(tmp_path / "another")))

    assert not sweep(folder, present(tmp_path))


def test_what_was_used_lately_stays(tmp_path: Path) -> None:
    """Another version of the suite may use it."""
    path = snapshot(tmp_path, {"helper": "0"}, age=UNUSED / 2)

    assert not sweep(tmp_path, present(tmp_path))
    assert path.is_file()


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    """And goes when it is not."""
    path = snapshot(tmp_path, None)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_SH)

    during = sweep(tmp_path, present(tmp_path))
    os.close(lock)

    assert not during
    assert sweep(tmp_path, present(tmp_path)) == [path]


def test_a_use_is_noted(tmp_path: Path) -> None:
    """With what it was made from, where nobody had; so it stays."""
    path = snapshot(tmp_path, None)

    with kept(path, present(tmp_path)):
        assert not sweep(tmp_path, {})

    assert json.loads(path.with_suffix(".lock").read_text()) == present(tmp_path)
    assert time.time() - path.with_suffix(".lock").stat().st_mtime < UNUSED


def test_a_lock_that_is_removed_meanwhile_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for a lock that a sweep has removed would hold a file that nobody else finds."""
    path = tmp_path / "a.state"
    flock, calls = fcntl.flock, []

    def removed(lock: int, how: int) -> Any:
        calls.append(how)
        if len(calls) == 1:
            path.with_suffix(".lock").unlink()
        return flock(lock, how)

    monkeypatch.setattr(snapshots.fcntl, "flock", removed)

    with kept(path, present(tmp_path)):
        assert path.with_suffix(".lock").is_file()

    assert calls == [fcntl.LOCK_SH, fcntl.LOCK_SH, fcntl.LOCK_EX]
