"""`conformance repro`: a trace as a program that checks itself."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from conformance.abi.header import FOLDER
from conformance.candidates.promised import check_profile
from conformance.engines import corpus
from conformance.engines.context import lacking
from conformance.repro import c, python
from conformance.repro.python import Case
from conformance.repro.reference import reference
from conformance.runs.describe import describe
from conformance.runs.replaying import replayed
from conformance.specs.clause import Clause
from conformance.subsystem import Subsystem, subsystem
from conformance.trace import Trace, write_atomically
from conformance.verdict import Ending, Exit, UsageError

LANGUAGES = {"pytest": python.program, "c": c.program}
"""What a program may be written in."""


def repro(path: Path, language: str, spec: str | None, out: Path | None, put: Callable[[str], None]) -> Ending | None:
    """Write the program, or print it.

    Raises:
        UsageError  not a trace, or the candidate does not fail in it
    """
    trace = corpus.read(path)
    of = subsystem(trace.subsystem)
    check_profile(f"{path}: $.profile", trace.profile, of)
    text = LANGUAGES[language](_case(path, trace, of, spec))
    if out is None:
        put(text.rstrip("\n"))
        return None
    write_atomically(out, text)
    built = f"cc -I {FOLDER} -o repro {out} {_linked(spec)} && ./repro"
    return Ending(Exit.CONFORMS, f"{out} is written: {f'pytest {out}' if language == 'pytest' else built}")


def _linked(spec: str | None) -> str:
    """What the program is linked with: the candidate's library, however it was built; else some driver's source."""
    if spec is None or not spec.startswith("lib:"):
        return "driver.c"
    path = spec.removeprefix("lib:").partition("?")[0]
    return shlex.quote(path if "/" in path else f"./{path}")  # the loader looks for a bare name elsewhere


def _case(path: Path, trace: Trace, of: Subsystem, spec: str | None) -> Case:
    """All that is known of the trace."""
    right = reference(of, trace)
    taken, name = (None, "builtin:upstream") if right is None else (right.steps, right.spec)
    if spec is None:
        return Case(trace, named(path, of), None, name, taken, name)
    candidate = describe(of.name, spec)
    missing = lacking(of, trace, candidate.capabilities)
    if missing:
        raise UsageError(f"{path}: needs {', '.join(missing)}, which {spec} does not have")
    done = replayed(spec, trace)
    failure = done.failure or next(iter(done.warnings), None)
    if failure is None:
        raise UsageError(f"{path}: {spec} does not fail in it; without --candidate it is written all the same")
    return Case(trace, failure.clause, failure, spec, taken, name)


def named(path: Path, of: Subsystem) -> Clause | None:
    """The clause that the name of a trace's file speaks of, as the suite names its own."""
    known = {clause.id: clause for clause in of.clauses}
    found = [known[name] for name in re.findall(r"[A-Z]+-\d+", path.stem) if name in known]
    return found[-1] if found else None
