"""One run of the command line: do the units, conclude, tell people and programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from conformance.candidates.defect import Defect
from conformance.candidates.load import Candidate, check_profile, defects, load
from conformance.engines import corpus
from conformance.options import nearest
from conformance.reports import json, text
from conformance.reports.progress import Progress
from conformance.runner import (
    ENGINES,
    Conclusion,
    Request,
    Result,
    Unit,
    conclude,
    failure_from_data,
    failure_to_data,
    run_unit,
    units,
    worst,
)
from conformance.strength import Kill, kill
from conformance.subsystem import subsystem
from conformance.verdict import Exit, Failure, UsageError
from conformance.workers import Died, Jobs, Tell

TRACES = Path(".conformance/traces")
"""Where failing traces go, so that the printed command can repeat them."""

Say = Callable[[str], None]
"""Prints one piece of text on standard output."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command ends: the exit code, and why."""

    exit: Exit
    why: str


@dataclass
class Run:
    """`conformance run`, from the request to the last line."""

    request: Request
    only: str = "*"
    """Pattern of the clause ids that are judged."""
    strict: bool = False
    reports: Sequence[Path] = ()
    traces: Path = TRACES
    say: Say = print
    complain: Say = print
    """Prints on standard error."""
    started: float = field(default_factory=time.monotonic)

    @cached_property
    def candidates(self) -> dict[str, Candidate]:
        """Loaded once here, so that a wrong one is refused before anything runs."""
        loaded = {}
        for name, spec in self.request.candidates:
            of = subsystem(name)
            loaded[name] = load(spec, of)
            if self.request.profile is not None:
                check_profile(f"--profile={self.request.profile}", self.request.profile, of)
        return loaded

    def perform(self) -> Ending:
        """Everything; raises UsageError before the run starts, OSError when a report cannot be written."""
        request = self._restricted()
        _ = self.candidates
        listed = units(request)
        headers = [self._header(name) for name in dict.fromkeys(unit.subsystem for unit in listed)]
        if not listed:
            return Ending(Exit.NOTHING_RAN, "nothing ran: this shard or selection has no work")
        json.begin(self.reports, headers)
        results, interrupted = self._results(listed)
        conclusions = self._conclusions(listed, results)
        ending = _together(conclusions, interrupted)
        for conclusion in conclusions:
            self._tell(conclusion)
        lines: list[json.Line] = []
        for head in headers:
            lines.append(head)
            lines += [line for c in conclusions if c.subsystem.name == head["subsystem"] for line in json.findings(c)]
        steps = sum(c.steps for c in conclusions)
        elapsed = time.monotonic() - self.started
        lines.append(json.footer(ending.exit, ending.why, steps=steps, seconds=elapsed, interrupted=interrupted))
        for path in self.reports:
            json.write(path, lines)
        return ending

    def _restricted(self) -> Request:
        """The request without the subsystems that the pattern leaves nothing of."""
        kept = tuple(
            (name, spec)
            for name, spec in self.request.candidates
            if any(fnmatchcase(clause.id, self.only) for clause in subsystem(name).clauses)
        )
        if not kept:
            known = [clause.id for name, _ in self.request.candidates for clause in subsystem(name).clauses]
            raise UsageError(f"-k {self.only}: matches no clause{nearest(self.only, known)}")
        return replace(self.request, candidates=kept)

    def _header(self, name: str) -> json.Line:
        candidate = self.candidates[name]
        return json.header(
            name,
            candidate.spec,
            self.request.profile or candidate.profile,
            seed=self.request.seed,
            budget=self.request.budget,
            engines=self.request.engines,
            capabilities=sorted(candidate.capabilities),
        )

    def _results(self, listed: Sequence[Unit]) -> tuple[list[Result], bool]:
        """The results in the order of the units, and whether somebody interrupted."""
        found: dict[int, Result] = {}
        with Progress([unit.name for unit in listed]) as progress:
            strangers = any(not spec.startswith("builtin:") for _, spec in self.request.candidates)
            jobs = Jobs(unit_job, listed, self.request.workers, progress.tell, apart=strangers)
            for number, answer in jobs.run():
                result = self._failed(listed[number], answer.how) if isinstance(answer, Died) else answer
                found[number] = result
                progress.end(number, result.steps, result.clauses, [data["signature"] for data in result.failures])
                self._keep(result)
        return [found[number] for number in sorted(found)], jobs.interrupted

    def _failed(self, unit: Unit, how: str) -> Result:
        candidate = self.candidates[unit.subsystem]
        return _without_findings(unit, candidate, f"{unit.name}: {how}")

    def _keep(self, result: Result) -> None:
        """New failures of a hunt go to the corpus at once, so that nothing that happens later loses them."""
        if self.request.budget is None or self.request.corpus is None:
            return
        for data in result.failures:
            corpus.save(Path(self.request.corpus), failure_from_data(data, subsystem(result.subsystem)))

    def _conclusions(self, listed: Sequence[Unit], results: Sequence[Result]) -> list[Conclusion]:
        complete = self.request.engines == ENGINES and self.request.shard == (1, 1)
        grouped = {
            name: [r for r in results if r.subsystem == name] for name in dict.fromkeys(u.subsystem for u in listed)
        }
        return [
            conclude(group, strict=self.strict, complete=complete, only=self.only)
            for group in grouped.values()
            if group
        ]

    def _tell(self, conclusion: Conclusion) -> None:
        """Summary, failures, warnings of one candidate."""
        self.say("\n".join(text.summary(conclusion)))
        candidate = self.candidates[conclusion.subsystem.name]
        told: set[str] = set()
        for found in sorted(conclusion.failures, key=_in_order):
            saved = self._save(found)
            if found.clause.id in told:
                self.say(text.another(found, saved))
            else:
                self.say("\n" + text.failure(found, conclusion.subsystem, candidate, saved))
            told.add(found.clause.id)
        for found in sorted(conclusion.warnings, key=_in_order):
            if self.strict:
                self.say("\n" + text.failure(found, conclusion.subsystem, candidate, self._save(found)))
            else:
                saved = self._save(found)
                self.say("\n".join(text.warning(found, text.replay_command(saved, candidate) if saved else "")))
        for error in conclusion.errors:
            self.say(f"  harness error: {error}")
        self.say("")

    def _save(self, found: Failure) -> Path | None:
        try:
            return corpus.save(self.traces, found)
        except OSError as error:
            self.complain(f"the trace of {found.signature} was not saved: {error.strerror}: {error.filename}")
            return None


def unit_job(unit: Unit, tell: Tell) -> Result:
    """One unit, in any process. A mistake of ours ends the unit, not the run."""
    try:
        return run_unit(unit, lambda c: tell(c.tally.steps, len(c.tally.clauses), len(c.failures)))
    except UsageError:
        raise
    except Exception as error:
        if os.environ.get("CONFORMANCE_DEBUG"):
            raise
        candidate = load(unit.spec, subsystem(unit.subsystem))
        return _without_findings(unit, candidate, f"{unit.name}: {_where(error)}")


def _without_findings(unit: Unit, candidate: Candidate, error: str) -> Result:
    return Result(
        unit=unit.name,
        subsystem=unit.subsystem,
        spec=unit.spec,
        profile=unit.profile or candidate.profile,
        capabilities=sorted(candidate.capabilities),
        error=error,
    )


def _where(error: BaseException) -> str:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _in_order(failure: Failure) -> tuple[str, int]:
    return failure.clause.id, len(failure.trace.steps) if failure.trace is not None else 0


def _together(conclusions: Sequence[Conclusion], interrupted: bool) -> Ending:
    """The end of several subsystems' runs."""
    if not conclusions:
        return Ending(Exit.INCONCLUSIVE, "inconclusive: interrupted before the end")
    exits = [c.exit for c in conclusions] + ([Exit.INCONCLUSIVE] if interrupted else [])
    whys = [f"{c.subsystem.name}: {c.why}" for c in conclusions]
    if interrupted and not any(c.interrupted for c in conclusions):
        whys.append("interrupted before the end")
    return Ending(worst(exits), "; ".join(whys))


# -- strength


@dataclass
class Strength:
    """`conformance strength`: the zoo, defect by defect."""

    subsystems: Sequence[str]
    only: str = "*"
    workers: int = 1
    seed: int = 0
    reports: Sequence[Path] = ()
    say: Say = print
    started: float = field(default_factory=time.monotonic)

    def perform(self) -> Ending:
        """Search for every defect; 1 where one survives, or a clause is cited that nobody expected."""
        matching = {name: [d for d in defects(name) if fnmatchcase(d.id, self.only)] for name in self.subsystems}
        zoo = {name: listed for name, listed in matching.items() if listed}
        if not zoo:
            known = [d.id for name in self.subsystems for d in defects(name)]
            raise UsageError(f"-k {self.only}: matches no defect{nearest(self.only, known)}")
        headers = {name: json.header(name, "zoo", subsystem(name).default_profile, seed=self.seed) for name in zoo}
        json.begin(self.reports, list(headers.values()))
        found, interrupted = self._kills(zoo)
        lines: list[json.Line] = []
        survivors, unexpected = 0, 0
        whys = []
        for name, listed in zoo.items():
            kills = [found[name, d.id] for d in listed if (name, d.id) in found]
            kills += [Kill(d, None, "", 0.0) for d in listed if d.candidate is None]
            self.say("\n".join(text.strength(subsystem(name), kills)))
            lines += [headers[name], *(json.kill(k) for k in kills)]
            tried = [k for k in kills if k.defect.candidate is not None]
            survivors += sum(not k.is_killed for k in tried)
            unexpected += sum(k.is_killed and not k.is_expected and not k.defect.note for k in tried)
            whys.append(f"{name}: {sum(k.is_killed for k in tried)} of {len(tried)} defects killed")
        ending = _strength_ending("; ".join(whys), survivors, unexpected, interrupted)
        elapsed = time.monotonic() - self.started
        lines.append(json.footer(ending.exit, ending.why, steps=0, seconds=elapsed, interrupted=interrupted))
        for path in self.reports:
            json.write(path, lines)
        return ending

    def _kills(self, zoo: dict[str, list[Defect]]) -> tuple[dict[tuple[str, str], Kill], bool]:
        listed = [(name, d.id, self.seed) for name, ds in zoo.items() for d in ds if d.candidate is not None]
        by_id = {(name, d.id): d for name, ds in zoo.items() for d in ds}
        found: dict[tuple[str, str], Kill] = {}
        with Progress([identifier for _, identifier, _ in listed], has_steps=False) as progress:
            jobs = Jobs(kill_job, listed, self.workers, progress.tell)
            for number, answer in jobs.run():
                name, identifier, _ = listed[number]
                defect = by_id[name, identifier]
                if isinstance(answer, Died):
                    found[name, identifier] = Kill(defect, None, answer.how, 0.0)
                    continue
                failure = answer["failure"] and failure_from_data(answer["failure"], subsystem(name))
                found[name, identifier] = Kill(defect, failure, answer["engine"], answer["seconds"])
                progress.end(number, 0, (), ())
        return found, jobs.interrupted


def kill_job(job: tuple[str, str, int], tell: Tell) -> dict[str, object]:
    """Search for one defect, in any process."""
    name, identifier, seed = job
    tell(0, 0, 0)
    of = subsystem(name)
    defect = next(d for d in defects(name) if d.id == identifier)
    done = kill(of, defect, load(f"builtin:{identifier}", of), seed)
    failure = failure_to_data(done.failure) if done.failure is not None else None
    return {"failure": failure, "engine": done.engine, "seconds": done.seconds}


def _strength_ending(why: str, survivors: int, unexpected: int, interrupted: bool) -> Ending:
    if survivors or unexpected:
        told = [f"{survivors} survived"] if survivors else []
        told += [f"{unexpected} killed by a clause that nobody expected"] if unexpected else []
        return Ending(Exit.DOES_NOT_CONFORM, f"{why}; {', '.join(told)}")
    if interrupted:
        return Ending(Exit.INCONCLUSIVE, f"{why}; interrupted before the end")
    return Ending(Exit.CONFORMS, why)
