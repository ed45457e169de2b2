"""What a candidate says of itself, found out in a process of its own: whoever concludes never imports it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from conformance.candidates.load import load
from conformance.candidates.promised import check_profile
from conformance.runs.workers import Died, Jobs, Tell
from conformance.subsystem import subsystem
from conformance.verdict import UsageError

LOADING = 30.0
"""Seconds in which a candidate must be loaded."""
PROBING = 300.0
"""The same for a real implementation, which may have to be started to be asked what it has."""


@dataclass(frozen=True, slots=True)
class Described:
    """A candidate that can be loaded."""

    spec: str
    profile: str
    """The one it declares."""
    capabilities: frozenset[str]
    note: str = ""
    """A sentence that its user should read."""


def is_ours(spec: str) -> bool:
    """Whether a candidate is shipped with the suite, so that it does nothing to the process that it is in."""
    return spec.startswith("builtin:")


def describe(name: str, spec: str, profile: str | None = None, option: str = "--profile") -> Described:
    """What the candidate declares, once it has been loaded.

    Raises:
        UsageError  it cannot be loaded, ends its process, takes too long, or there is no such profile
    """
    if profile is not None:
        check_profile(f"{option}={profile}", profile, subsystem(name))
    if is_ours(spec):
        return describe_job((name, spec), lambda *_: None)
    limit = PROBING if spec.startswith("real:") else LOADING
    jobs = Jobs(describe_job, [(name, spec)], 1, lambda *_: None, apart=True, limit=limit)
    for _, answer in jobs.run():
        if isinstance(answer, Died):
            raise UsageError(f"--candidate={spec}: while it was loaded, {answer.how}")
        described: Described = answer
        if described.note:
            print(f"--candidate={spec}: {described.note}", file=sys.stderr)
        return described
    raise KeyboardInterrupt


def describe_job(job: tuple[str, str], _tell: Tell) -> Described:
    """Load a candidate, in any process."""
    name, spec = job
    candidate = load(spec, subsystem(name))
    return Described(spec, candidate.profile, candidate.capabilities, candidate.note)
