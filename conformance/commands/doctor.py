"""`conformance doctor`: whether a candidate is plugged in as it should be, before the first run."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Callable
from typing import Any

import msgspec

from conformance.runs.checkup import CHECKS, Check, Checkup, checkup_job
from conformance.runs.describe import describe
from conformance.runs.workers import Died, Jobs
from conformance.verdict import Ending, Exit, UsageError

LIMIT = 120.0
"""Seconds that all checks together may take."""
DIED = "conformance run finds the shortest trace that ends it; then use a debugger, or sanitizers"


def doctor(name: str, spec: str, profile: str | None, say: Callable[[str], None]) -> Ending:
    """Look at the plumbing of a candidate, check by check; each that fails says what to do.

    Raises:
        UsageError  no such subsystem or profile
    """
    say(f"{name}: {spec}")
    try:
        told = describe(name, spec, profile)
    except UsageError as error:
        if not str(error).startswith("--candidate"):
            raise
        what = str(error).removeprefix(f"--candidate={spec}: ")
        do = f"conformance list {name} shows what a candidate needs; conformance new {name} writes one that loads"
        say(_line(Check("loads", False, what, do)))
        return Ending(Exit.USAGE, f"{name}: the candidate cannot be loaded")
    declared = ", ".join(sorted(told.capabilities)) or "none"
    say(_line(Check("loads", True, f"profile {profile or told.profile}; capabilities: {declared}")))
    failed = _perform(Checkup(name, spec, profile), say)
    if failed:
        return Ending(Exit.DOES_NOT_CONFORM, f"{name}: not plugged in as it should be ({', '.join(failed)})")
    then = f"conformance run {name} --candidate {shlex.quote(spec)}"
    return Ending(Exit.CONFORMS, f"{name}: the plumbing works; next: {then}")


def _perform(job: Checkup, say: Callable[[str], None]) -> list[str]:
    """Make the checks where the candidate can do no harm; the names of those that failed."""
    done: list[Check] = []

    def hear(_number: int, _steps: int, _clauses: int, _failures: int, *found: dict[str, Any]) -> None:
        for data in found:
            check = msgspec.convert(data, Check)
            done.append(check)
            say(_line(check))

    for _, answer in Jobs(checkup_job, [job], 1, hear, apart=True, limit=LIMIT).run():
        if isinstance(answer, Died):
            name = CHECKS[min(len(done), len(CHECKS) - 1)]
            done.append(Check(name, False, answer.how, DIED))
            say(_line(done[-1]))
    return [check.name for check in done if not check.ok]


def _line(check: Check) -> str:
    """One check, with what to do where it failed."""
    lines = _wrapped(f"  {'ok' if check.ok else 'FAIL':<6}{check.name:<14}", check.said)
    if not check.ok and check.do:
        lines += _wrapped(f"  {'':<6}{'do':<14}", check.do)
    return "\n".join(lines)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), 110, initial_indent=label, subsequent_indent=" " * len(label), break_on_hyphens=False
    )
