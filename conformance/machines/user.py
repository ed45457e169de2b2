"""A machine in a user's own test file: an ordinary Hypothesis test of a candidate.

    from conformance.machines import machine

    TestMyDriver = machine("uio_msi", MyDriver).TestCase

Everything that Hypothesis offers works on it: settings and profiles, `--hypothesis-seed`, the example
database, `@reproduce_failure`, `settings(backend=…)`. A failure shows the clause, the minimal steps and
the command that repeats them.
"""

from __future__ import annotations

import inspect
import re
import unittest
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.errors import HypothesisWarning
from hypothesis.stateful import run_state_machine_as_test

from conformance.candidates.load import Candidate, from_class, load
from conformance.engines import corpus
from conformance.engines.context import Context
from conformance.engines.minimise import without_company
from conformance.machines.base import Disagreement, Machine, machine_of
from conformance.reports.story import tell
from conformance.subsystem import Subsystem
from conformance.subsystem import subsystem as subsystem_of
from conformance.verdict import Failure, Tally, UsageError


def machine(
    subsystem: str | Subsystem,
    candidate: type | str,
    *,
    profile: str | None = None,
    strict: bool = False,
    known: tuple[str, ...] = (),
) -> type[Machine]:
    """The state machine that drives a candidate and the model of a subsystem.

    Args:
        subsystem: its name, as in `conformance list`
        candidate: the class, or what `--candidate` takes
        profile: the one that the candidate declares, by default
        strict: whether breaches of SHOULD clauses fail as well
        known: signatures of failures that are passed over: `UIO-048:Open:view.enabled`

    Raises:
        UsageError  no such subsystem or profile, or the class does not fit the port
    """
    of = subsystem_of(subsystem) if isinstance(subsystem, str) else subsystem
    given = load(candidate, of) if isinstance(candidate, str) else from_class(candidate, of, _spec(candidate))
    of = given.part(of)
    named = profile or given.profile
    if named not in of.profiles:
        raise UsageError(f"{of.name} has no profile {named!r}; it has {', '.join(of.profiles)}")

    environment = of.fast or of.environment

    def disagree(failure: Failure) -> None:
        __tracebackhide__ = True
        plain = without_company(Context(of, given, named), failure, environment)
        if plain.signature not in known:
            raise Explained(plain, of, given)

    def warned(warning: Failure) -> None:
        if strict and warning.signature not in known:
            disagree(warning)

    warnings.filterwarnings("ignore", "Generating overly large repr", HypothesisWarning)
    base = machine_of(of, given.capabilities)
    members = {
        "__doc__": base.__doc__,
        "__module__": getattr(candidate, "__module__", __name__),
        "factory": staticmethod(given.factory),
        "profile": named,
        "environment": environment,
        "known": set(known),
        "on_failure": staticmethod(disagree),
        "on_warning": staticmethod(warned),
        "tally": Tally(),
        "tells": True,
    }
    return type(_name(base, candidate, profile, strict=strict), (base,), members)


def _name(base: type[Machine], candidate: type | str, profile: str | None, *, strict: bool) -> str:
    """A name of its own: by it Hypothesis tells whose the examples in its database are, and drops what passes now."""
    words = [candidate if isinstance(candidate, str) else candidate.__qualname__, profile or "", "strict" * strict]
    return re.sub(r"\W+", "_", "_".join([base.__name__, *filter(None, words)]))


def parts(driven: type[Machine], count: int) -> type[unittest.TestCase]:
    """The work of a machine as so many tests, which `pytest -n` runs at the same time.

    Each takes its share of `max_examples`, and draws in its own way.
    """
    if count < 1:
        raise UsageError(f"a machine divides into 1 part or more, not {count}")
    members: dict[str, Any] = {"__doc__": driven.__doc__, "__module__": driven.__module__}
    members["settings"] = settings(deadline=None, suppress_health_check=list(HealthCheck))
    for part in range(count):
        mine = type(f"{driven.__name__}{part + 1}", (driven,), {"part": part, "__module__": driven.__module__})
        members[f"test_part_{part + 1}"] = _test_of(mine, count)
    return type(f"{driven.__name__}Parts", (unittest.TestCase,), members)


def _test_of(mine: type[Machine], count: int) -> Callable[[Any], None]:
    def test(self: Any) -> None:
        __tracebackhide__ = True
        share = max(1, self.settings.max_examples // count)
        run_state_machine_as_test(mine, settings=settings(self.settings, max_examples=share))

    test.__doc__ = mine.__doc__
    test.is_hypothesis_test = True  # type: ignore[attr-defined]  # for the statistics, as on Hypothesis's own
    return test


class Explained(Disagreement):
    """A disagreement that tells its story when somebody reads it, not each time that shrinking meets it."""

    def __init__(self, failure: Failure, of: Subsystem, candidate: Candidate) -> None:
        super().__init__(failure)
        self.of = of
        self.candidate = candidate

    @cached_property
    def told(self) -> str:
        """Clause, steps and calls, as on the command line; the trace is saved for the command at its end."""
        try:
            saved: Path | None = corpus.save(corpus.TRACES, self.failure)
        except OSError:
            saved = None
        from conformance.reports import text  # which tells of strength, whose engines are machines

        return text.failure(tell(self.failure, self.of, self.candidate), self.candidate.spec, saved)

    def __str__(self) -> str:
        return self.told


def _spec(candidate: type) -> str:
    """What --candidate calls a class: its module, or its file where the module cannot be imported by name."""
    file: Callable[[Any], str] = inspect.getfile
    try:
        path = Path(file(candidate))
    except (OSError, TypeError):
        return f"{candidate.__module__}:{candidate.__qualname__}"
    with suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return f"{path}:{candidate.__qualname__}"
