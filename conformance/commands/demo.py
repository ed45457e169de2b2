"""`conformance demo`: designs as they were posted, the defects found in them, each explained by a minimal trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from conformance.candidates.load import Candidate, builtin_names, load
from conformance.engines import campaign, explore
from conformance.engines.context import Context
from conformance.engines.corpus import TRACES
from conformance.reports import text
from conformance.subsystem import Subsystem, subsystem
from conformance.verdict import Ending, Exit, Failure

DESIGNS = 3
"""Designs shown at most."""
DEFECTS = 3
"""Defects shown altogether."""
STEPS = 30_000
"""Random steps taken where the small scopes show too little."""
SECONDS = 15.0
"""Longest search, all designs together."""
MORE = 9
"""Clauses that must be broken before the search ends early; the shortest traces are shown."""


class _Enough(BaseException):
    """The search has found what the demo shows."""


def demo(say: Callable[[str], None], names: Sequence[str]) -> Ending:
    """Search each posted design for a moment and explain what shows."""
    from conformance.engines import corpus

    started = time.monotonic()
    posted = [name for name in names if "as-posted" in builtin_names(subsystem(name))][:DESIGNS]
    if not posted:
        return Ending(Exit.NOTHING_RAN, "nothing ran: no design as posted is shipped")
    shown = 0
    for number, name in enumerate(posted):
        of = subsystem(name)
        candidate = load("builtin:as-posted", of)
        share = DEFECTS // len(posted) + (number < DEFECTS % len(posted))
        found = _search(of, candidate, started + SECONDS * (number + 1) / len(posted))
        say(f"{name}: {of.title}\n  the design as it was posted, profile {candidate.profile}\n")
        for failure in _chosen(found, share):
            shown += 1
            say(text.failure(failure, of, candidate, corpus.save(TRACES, failure)) + "\n")
    say(f"{shown} defects found and explained in {time.monotonic() - started:.1f} s. All of them:")
    for name in posted:
        say(f"  {text.program()} run {name} --candidate builtin:as-posted")
    code = Exit.CONFORMS if shown else Exit.INCONCLUSIVE
    return Ending(code, f"the demo found {shown} defects, as it should" if shown else "the demo found nothing")


def _search(of: Subsystem, candidate: Candidate, deadline: float) -> list[Failure]:
    """What the first engines find before the deadline, or until there is plenty."""

    def look(context: Context) -> None:
        if len({f.clause for f in context.failures}) >= MORE:
            raise _Enough

    known: set[str] = set()
    found: list[Failure] = []
    for engine in (explore, campaign):
        context = Context(
            subsystem=of,
            candidate=candidate,
            profile=candidate.profile,
            steps=STEPS,
            deadline=deadline,
            engine=engine.__name__.rpartition(".")[2],
            known=known,
            progress=look,
        )
        try:
            engine.run(context)
        except _Enough:
            return found + context.failures
        found += context.failures
    return found


def _chosen(found: list[Failure], count: int) -> list[Failure]:
    """One failure per clause, those first whose traces are short but take more than one step."""
    best: dict[str, Failure] = {}
    for failure in sorted(found, key=_plainness):
        best.setdefault(failure.clause.id, failure)
    return sorted(best.values(), key=_plainness)[:count]


def _plainness(failure: Failure) -> tuple[bool, int, str]:
    assert failure.trace is not None
    steps = len(failure.trace.steps)
    return steps < 2, steps, failure.clause.id
