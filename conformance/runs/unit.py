"""One unit of work, done in any process: an engine, or a part of one, on one candidate."""

from __future__ import annotations

import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from conformance.baseline.judge import Judged, judge
from conformance.candidates.load import Candidate, load
from conformance.candidates.promised import check_profile
from conformance.engines.context import Context
from conformance.engines.leads import Leads
from conformance.lockstep import Report, run_trace
from conformance.real.adapter import MICROSECONDS, OPERATIONS, Adapter, RealWorld
from conformance.reports import graph
from conformance.reports.story import tell
from conformance.reports.values import snake
from conformance.runs.checkpoint import Runner, exit_if_spoilt
from conformance.runs.containment import contained, may_die
from conformance.runs.describe import Described
from conformance.runs.request import ALL_ENGINES, BASELINE, GATE_STEPS, Unit
from conformance.runs.result import Result, failure_to_data
from conformance.runs.watchdog import watching
from conformance.runs.workers import Died, Tell
from conformance.subsystem import Subsystem, subsystem
from conformance.verdict import Failure, HarnessError, UsageError


def run_unit(unit: Unit, progress: Callable[[Context], None] | None = None) -> Result:
    """Do one piece of work; a mistake of ours ends it with what was found before.

    Raises:
        UsageError  the candidate cannot be loaded, or the profile does not exist
    """
    candidate = load(unit.spec, subsystem(unit.subsystem))
    of, adapter = candidate.part(subsystem(unit.subsystem)), candidate.adapter
    profile = unit.profile or candidate.profile
    check_profile("--profile", profile, of)
    runner = Runner.now
    context = _context(unit, candidate, of, profile, progress)
    judged, errors, interrupted = Judged(), [], False
    try:
        with watching(), redirect_stdout(sys.stderr):  # what a candidate prints is not our verdict
            judged = _perform(unit, context)
    except KeyboardInterrupt:
        interrupted = True
    except UsageError:
        raise
    except Exception as failed:
        exit_if_spoilt(failed)
        is_told = isinstance(failed, HarnessError)
        if not is_told and os.environ.get("CONFORMANCE_DEBUG"):
            raise
        errors.append(f"{unit.name}: {failed if is_told else _where(failed)}")
    if runner is not None:
        for name, n in runner.given_up().items():
            context.notes[f"times that {snake(name)} ended the process, until it was given up"] = n
    transitions, recipes = ({}, {}) if context.leads is None else context.leads.told(context.tally.clauses)
    return _seen(
        Result(
            unit=unit.name,
            subsystem=of.name,
            spec=unit.spec,
            profile=profile,
            capabilities=sorted(candidate.capabilities),
            clauses={clause.id: n for clause, n in context.tally.clauses.items()},
            failures=[failure_to_data(failure) for failure in context.failures],
            warnings=[failure_to_data(failure) for failure in context.warnings],
            steps=context.tally.steps,
            traces=context.tally.traces,
            seconds=time.monotonic() - context.started,
            notes=context.notes,
            scopes=[graph.tell(explored, of, profile) for explored in context.explored],
            known=judged.known,
            gaps=judged.gaps,
            stale=[msgspec.to_builtins(stale) for stale in judged.stale],
            interrupted=interrupted,
            transitions=transitions,
            recipes=recipes,
            errors=errors,
            settled=context.stillborn,
        ),
        adapter,
        of,
    )


def _context(
    unit: Unit, candidate: Candidate, of: Subsystem, profile: str, progress: Callable[[Context], None] | None
) -> Context:
    """What the engine is given."""
    adapter, started, runner = candidate.adapter, time.monotonic(), Runner.now

    def story(found: Failure) -> Failure:
        with nullcontext() if runner is None else runner.looking_into():
            return tell(found, of, candidate)

    deadline = None if unit.seconds is None else started + unit.seconds
    if runner is not None and deadline is not None:
        runner.deadline = deadline
    return Context(
        subsystem=of,
        candidate=candidate,
        profile=profile,
        seed=unit.seed,
        steps=_gate_steps(unit, candidate) if unit.seconds is None else None,
        deadline=deadline,
        clock=time.monotonic if runner is None else runner.clock,
        part=unit.part,
        parts=unit.parts,
        hunting=unit.seconds is not None,
        stop_at_first=unit.first,
        only=unit.only,
        engine=unit.engine,
        judge=run_trace if runner is None else partial(_looked_into, runner),
        tell=story,
        known=set(unit.known),
        leads=None if unit.follow is None else Leads(unit.follow),
        examples=None if adapter is None else adapter.examples,
        length=None if adapter is None else adapter.length,
        settled=frozenset() if adapter is None else frozenset(adapter.findings),
        stillborn=unit.settled,
        progress=progress,
    )


def _seen(result: Result, adapter: Adapter | None, of: Subsystem) -> Result:
    """Of a real implementation what it cannot be held to is not counted, and its pace is told."""
    if adapter is None:
        return result
    judged = adapter.judged(of)
    result.judged, result.absent = sorted(judged), list(adapter.absent)
    result.clauses = {identifier: n for identifier, n in result.clauses.items() if identifier in judged}
    found = [failure["signature"] for failure in (*result.failures, *result.warnings)]
    result.known |= {signature: adapter.findings[signature] for signature in found if signature in adapter.findings}
    result.notes |= {OPERATIONS: RealWorld.done, MICROSECONDS: RealWorld.nanoseconds // 1000}
    RealWorld.done = RealWorld.nanoseconds = 0
    return result


def _gate_steps(unit: Unit, candidate: Candidate) -> int | None:
    """Steps of an engine that could go on for ever; a real implementation has its own pace."""
    usual = GATE_STEPS.get(unit.engine)
    return usual if usual is None or candidate.adapter is None else candidate.adapter.gate_steps


def _perform(unit: Unit, context: Context) -> Judged:
    """The unit's work; what it says of a baseline, if that is what it is about."""
    if unit.engine == BASELINE:
        assert unit.today is not None
        return judge(context, unit.entries, unit.today)
    if not unit.settled:
        _engine(unit, context)
    return Judged()


def _engine(unit: Unit, context: Context) -> None:
    engine = _module(unit.engine)
    if unit.engine == "corpus":
        engine.run(context, Path(unit.corpus) if unit.corpus is not None else None)
    else:
        engine.run(context)


def _module(engine: str) -> ModuleType:
    """What does the work, loaded by whoever is to do it: some of it takes long to load."""
    if engine not in ALL_ENGINES:
        raise UsageError(f"--engine: unknown engine {engine!r}; known: {', '.join(ALL_ENGINES)}")
    return importlib.import_module(f"conformance.engines.{engine}")


def _looked_into(runner: Runner, *arguments: Any, **options: Any) -> Report:
    """`run_trace`, of which nothing is taken for granted."""
    with runner.looking_into():
        return run_trace(*arguments, **options)


def unit_job(unit: Unit, tell: Tell) -> Result | Died:
    """One unit, in any process; a candidate that may end it has one of its own.

    A mistake of ours ends the unit, not the run.
    """
    if not may_die(unit.spec):
        return _unit_job(unit, tell)
    subsystem(unit.subsystem)  # loaded once, not in each process, and where no candidate is in the way
    if unit.engine != BASELINE:
        _module(unit.engine)
    result: Result | Died = contained(partial(_unit_job, unit), tell)
    return result


def _unit_job(unit: Unit, tell: Tell) -> Result:
    return run_unit(unit, _telling(unit, tell))


def _telling(unit: Unit, tell: Tell) -> Callable[[Context], None]:
    """Tells of each failure as soon as it is found; of stored traces, which are known, in the end."""
    told = 0

    def progress(context: Context) -> None:
        nonlocal told
        new = [] if unit.engine == BASELINE else [failure_to_data(failure) for failure in context.failures[told:]]
        told += len(new)
        tell(context.tally.steps, len(context.tally.clauses), len(context.failures), *new)

    return progress


def ended_early(unit: Unit, candidate: Described, how: str) -> Result:
    """The result of a unit of whose end nobody can tell the cause."""
    return without_findings(unit, candidate, f"{unit.name}: {how}")


def without_findings(unit: Unit, candidate: Candidate | Described, error: str) -> Result:
    """The result of a unit that came to nothing, with the sentence that says why."""
    return Result(
        unit=unit.name,
        subsystem=unit.subsystem,
        spec=unit.spec,
        profile=unit.profile or candidate.profile,
        capabilities=sorted(candidate.capabilities),
        errors=[error],
    )


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
