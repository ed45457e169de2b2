"""Programs of this machine that are run to their end: packaging tools, compilers, emulators asked who they are."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from conformance.verdict import UsageError


def ran(command: Sequence[str], patience: float, cwd: str | Path | None = None) -> subprocess.CompletedProcess[str]:
    """What a program printed, once it has ended well.

    Raises:
        UsageError  it cannot be run, does not end within `patience` seconds, or fails; with its last line
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(  # noqa: S603 - what the suite itself wants to run
            command, cwd=cwd, capture_output=True, text=True, errors="replace", timeout=patience, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise UsageError(f"{name} does not end within {patience:g} s") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be run: {error.strerror or error}") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UsageError(f"{name} failed: {said[-1] if said else f'exit code {done.returncode}'}")
    return done
