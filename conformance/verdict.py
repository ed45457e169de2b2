"""What can be wrong, and what a run concludes: breaches, failures, verdicts and exit codes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

from conformance.specs.clause import Clause
from conformance.trace import Trace


class Breach(BaseException):
    """The candidate did something that ends the step: base of the three below.

    Not an Exception, so that a candidate's `except Exception` does not swallow it; the
    environment remembers the first one in any case.
    """

    def __init__(self, clause: Clause | None, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.clause = clause
        """The clause broken; None stands for the subsystem's clause on robustness."""
        self.kind = kind
        """Kind of mismatch, the last part of the signature."""
        self.detail = detail


class Violation(Breach):
    """The candidate broke `clause` at an environment call; `detail` says how, in one line."""

    def __init__(self, clause: Clause, detail: str, kind: str = "protocol") -> None:
        super().__init__(clause, kind, detail)


class Crash(Breach):
    """The candidate raised an exception, returned a value of the wrong type, or died."""

    def __init__(self, detail: str, kind: str = "crash") -> None:
        super().__init__(None, kind, detail)


class Hang(Breach):
    """The candidate did not come back within its budget of calls or time."""

    def __init__(self, detail: str) -> None:
        super().__init__(None, "hang", detail)


NOT_TRIED = "not tried"
"""Kind of what was not done since it has ended the process often enough: known, and never a finding of its own."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came to a process that ignores Ctrl-C; never the candidate's own."""


class UsageError(Exception):
    """The user asked for something that cannot be done; the message is one clear sentence."""


class HarnessError(Exception):
    """We failed, or cannot tell; never counted as pass or violation."""


class Exit(IntEnum):
    """Exit codes of every command."""

    CONFORMS = 0
    DOES_NOT_CONFORM = 1
    USAGE = 2
    HARNESS = 3
    INCONCLUSIVE = 4
    NOTHING_RAN = 5
    STALE_BASELINE = 6


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ends: the exit code, and why."""

    exit: Exit
    why: str


class Verdict(Enum):
    """What a run says of one clause."""

    PASS = "pass"
    FAIL = "fail"
    KNOWN = "known"
    NOT_FOLLOWED = "not-followed"
    """A SHOULD clause that the candidate breaks; with --strict it fails."""
    NOT_EXERCISED = "not-exercised"
    NOT_APPLICABLE = "not-applicable"
    UNTESTABLE = "untestable"


@dataclass(frozen=True, slots=True)
class Failure:
    """One way in which a candidate disagrees with the specification."""

    clause: Clause
    operation: str
    """Name of the operation of the failing step."""
    kind: str
    """`result`, `view.FIELD`, `protocol`, `check`, `crash`, `hang`, …"""
    detail: str
    """One line, or a few: what was seen."""
    step: int
    """Index of the failing step in the trace, from 0."""
    expected: str = ""
    got: str = ""
    trace: Trace | None = None
    """The trace that shows it; minimal once the engine has minimised it."""
    engine: str = ""
    seconds: float = 0.0
    """When it was found, counted from the start of the engine's run."""
    flaky: bool = False
    """Whether its trace did not fail again on a fresh candidate, so that it proves nothing."""
    story: Any = None
    """What its steps did, once it has been told: `conformance.reports.story.Story`."""

    @property
    def signature(self) -> str:
        """Names the class of failures: clause, operation and kind of mismatch."""
        return f"{self.clause.id}:{self.operation}:{self.kind}"


@dataclass(slots=True)
class Tally:
    """How often each clause was exercised, and how much was run."""

    clauses: dict[Clause, int] = field(default_factory=dict)
    steps: int = 0
    traces: int = 0
    hangs: int = 0
    """How often the candidate had to be stopped; each time costs a second."""

    def add(self, other: Tally) -> None:
        """Count what `other` counted as well."""
        for clause, n in other.clauses.items():
            self.clauses[clause] = self.clauses.get(clause, 0) + n
        self.steps += other.steps
        self.traces += other.traces
        self.hangs += other.hangs
