"""`conformance run`: do the units, conclude, tell people and programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from conformance.commands.options import nearest
from conformance.engines import corpus
from conformance.reports import forms, record, text
from conformance.reports.causes import causes
from conformance.reports.forms import Target
from conformance.reports.progress import Progress
from conformance.runs.conclusion import Conclusion, conclude, together
from conformance.runs.describe import Described, describe, is_ours
from conformance.runs.executor import Executor, Processes, executor
from conformance.runs.growth import Growth
from conformance.runs.request import BASELINE, Request, Unit, baselines, is_complete, units
from conformance.runs.result import Result, failure_from_data
from conformance.runs.unit import ended_early, unit_job
from conformance.runs.work import Hunt, Work
from conformance.runs.workers import Died
from conformance.subsystem import subsystem
from conformance.verdict import Ending, Exit, Failure, UsageError

Say = Callable[[str], None]
"""Prints one piece of text on standard output."""


@dataclass
class Run:
    """`conformance run`, from the request to the last line."""

    request: Request
    only: str = "*"
    """Pattern of the clause ids that are judged."""
    strict: bool = False
    reports: Sequence[Target] = ()
    traces: Path = corpus.TRACES
    cluster: str | None = None
    """Address of the scheduler whose machines do the work; None: this machine."""
    say: Say = print
    complain: Say = print
    """Prints on standard error."""
    started: float = field(default_factory=time.monotonic)
    is_told: bool = False
    """Whether a failure has been shown by now."""
    saved: dict[str, str] = field(default_factory=dict)
    """Where the traces of the failures are, by signature."""

    @cached_property
    def candidates(self) -> dict[str, Described]:
        """What they say of themselves, so that a wrong one is refused before anything runs."""
        return {name: describe(name, spec, self.request.profile) for name, spec in self.request.candidates}

    def perform(self) -> Ending:
        """Everything; raises UsageError before the run starts, OSError when a report cannot be written."""
        self.request = self._restricted()
        _ = self.candidates
        with self.executor() as place:
            return self._perform(place)

    def executor(self) -> AbstractContextManager[Executor]:
        """Where the work is to be done."""
        request = self.request
        return executor(request.workers, self.cluster, [spec for _, spec in request.candidates])

    def _perform(self, place: Executor) -> Ending:
        listed = units(replace(self.request, workers=place.slots))
        headers = [self._header(name, units) for name, units in _by_subsystem(listed).items()]
        if not listed:
            return Ending(Exit.NOTHING_RAN, "nothing ran: this shard or selection has no work")
        forms.begin(self.reports, headers)
        conclusions, interrupted = self.concluded(listed, place)
        if self.growth is not None:
            self.growth.end()
        ending = together(conclusions, interrupted)
        for conclusion in conclusions:
            self._tell(conclusion)
        elapsed = time.monotonic() - self.started
        lines = record.whole(headers, conclusions, ending, seconds=elapsed, interrupted=interrupted, saved=self.saved)
        forms.write(self.reports, lines)
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

    def _header(self, name: str, listed: Sequence[Unit]) -> record.Header:
        candidate = self.candidates[name]
        return record.Header(
            subsystem=name,
            candidate=candidate.spec,
            profile=self.request.profile or candidate.profile,
            capabilities=tuple(sorted(candidate.capabilities)),
            seed=self.request.seed,
            budget=self.request.budget,
            engines=self.request.engines,
            only=self.only,
            strict=self.strict,
            units=tuple(unit.name for unit in listed),
        )

    def concluded(self, listed: Sequence[Unit], place: Executor) -> tuple[list[Conclusion], bool]:
        """What the units come to for each candidate, and whether somebody interrupted."""
        results, interrupted = self.results(listed, place)
        return self._conclusions(listed, results), interrupted

    def results(self, listed: Sequence[Unit], place: Executor) -> tuple[list[Result], bool]:
        """The results in the order of the units, and whether somebody interrupted.

        Stored traces are judged before the rest begins, so that nothing is spent on what is known.
        """
        results: list[Result] = []
        strangers = not all(is_ours(spec) for _, spec in self.request.candidates)
        known: dict[str, tuple[str, ...]] = {}
        for where, part in self._places(listed, place):
            work = self._work([replace(unit, known=known.get(unit.subsystem, ()), only=self.only) for unit in part])
            with Progress(work.names) as progress:
                at_once = _AtOnce(self, work, progress, known)
                for number, answer in where.run(unit_job, work, at_once.tell, apart=strangers, until=work.until):
                    result = self._failed(work.units[number], answer.how) if isinstance(answer, Died) else answer
                    new = _new(result, known)
                    progress.end(number, result.steps, result.clauses, new)
                    at_once.end(result, new)
                    self._keep(result)
                    work.learn(number, result)
                    if self.request.first and any(self._is_judged(signature) for signature in new):
                        return results + work.results(), False
            known |= {result.subsystem: tuple(sorted(result.known)) for result in work.results() if result.known}
            results += [result for result in work.results() if _is_of(result, listed)]
            if where.interrupted:
                return results, True
            if where.lost:
                self.complain(text.not_awaited([work.names[number] for number in where.lost]))
        return results, False

    def _work(self, part: list[Unit]) -> Work | Hunt:
        """What is handed out: of a hunt on many machines seed after seed, of all else each unit once."""
        once = self.cluster is None or self.request.budget is None or all(unit.engine == BASELINE for unit in part)
        return Work(part, self.request) if once else Hunt(part, self.request)

    def _places(self, listed: Sequence[Unit], place: Executor) -> Iterator[tuple[Executor, list[Unit]]]:
        """Stored traces are judged first; the user's are tried where they are, the rest is done where he wants it."""
        if first := baselines(self.request):
            yield Processes(self.request.workers), first
        rest = [unit for unit in listed if unit.engine != BASELINE]
        here = [] if self.cluster is None else [u for u in rest if u.engine == "corpus" and u.corpus is not None]
        if here:
            yield Processes(1), here
        yield place, [unit for unit in rest if unit not in here]

    def _failed(self, unit: Unit, how: str) -> Result:
        """What a unit found whose process has ended under it."""
        return ended_early(unit, self.candidates[unit.subsystem], how)

    @cached_property
    def growth(self) -> Growth | None:
        """Where the new failures of a hunt go, if anywhere."""
        if self.request.budget is None or self.request.corpus is None:
            return None
        awaited = {unit.subsystem for unit in units(self._restricted()) if unit.engine == "corpus"}
        return Growth(Path(self.request.corpus), awaited, self.complain)

    def _keep(self, result: Result) -> None:
        """New failures of a hunt go to the corpus at once, so that nothing that happens later loses them."""
        if self.growth is not None:
            self.growth.add(result)

    def _conclusions(self, listed: Sequence[Unit], results: Sequence[Result]) -> list[Conclusion]:
        conclusions = []
        for name, of in _by_subsystem(listed).items():
            group = [result for result in results if result.subsystem == name]
            if group:
                complete = is_complete(name, self._done(of, group))
                hunting = self.request.budget is not None
                conclusions.append(
                    conclude(group, strict=self.strict, complete=complete, only=self.only, hunting=hunting)
                )
        return conclusions

    def _done(self, listed: Sequence[Unit], results: Sequence[Result]) -> set[str]:
        """Names of the units that were to be done; of a hunt on many machines, of those that some machine did."""
        awaited = {unit.name for unit in listed}
        if self.cluster is None or self.request.budget is None:
            return awaited
        return awaited & {result.unit for result in results}

    def _tell(self, conclusion: Conclusion) -> None:
        """Summary, failures, warnings of one candidate."""
        self.say("\n".join(text.summary(conclusion)))
        told: set[str] = set()
        for found in (failure for cause in causes(conclusion.failures) for failure in cause.failures):
            if found.signature in conclusion.known:
                continue
            saved = self._save(found)
            if found.clause.id in told:
                self.say(text.another(found, saved))
            else:
                self.say("\n" + text.failure(found, conclusion.spec, saved))
            told.add(found.clause.id)
        warnings = [
            found for found in sorted(conclusion.warnings, key=_in_order) if found.signature not in conclusion.known
        ]
        for line in text.warnings((found, self._repeat(found, conclusion)) for found in warnings):
            self.say(line)
        for line in text.baseline(conclusion):
            self.say(line)
        for error in conclusion.errors:
            self.say(f"  harness error: {error}")
        self.say("")

    def _is_judged(self, signature: str) -> bool:
        """Whether a failure is of a clause that was asked for."""
        return fnmatchcase(signature.partition(":")[0], self.only)

    def at_once(self, found: Failure, spec: str, progress: Progress) -> None:
        """Show the first failure while the run goes on; where it ends with it, the end is at hand."""
        if self.is_told or self.request.first or not fnmatchcase(found.clause.id, self.only):
            return
        self.is_told = True
        progress.first(found.signature, text.failure(found, spec, self._save(found)))

    def _repeat(self, found: Failure, of: Conclusion) -> str:
        """The command that shows it again, if its trace could be saved."""
        saved = self._save(found)
        return text.replay_command(saved, of.spec) if saved else ""

    def _save(self, found: Failure) -> Path | None:
        try:
            path = corpus.save(self.traces, found)
            self.saved[found.signature] = str(path)
            return path
        except OSError as error:
            self.complain(f"the trace of {found.signature} was not saved: {error.strerror}: {error.filename}")
            return None


@dataclass
class _AtOnce:
    """Hears what the units find while they run."""

    run: Run
    work: Work | Hunt
    progress: Progress
    known: dict[str, tuple[str, ...]]

    def tell(self, number: int, steps: int, clauses: int, failures: int, *found: dict[str, Any]) -> None:
        """A unit says how far it is, and what it found since."""
        self.progress.tell(number, steps, clauses, failures)
        unit = self.work.units[number]
        for data in found:
            if data["signature"] not in self.known.get(unit.subsystem, ()):
                self.run.at_once(failure_from_data(data, subsystem(unit.subsystem)), unit.spec, self.progress)

    def end(self, result: Result, new: Sequence[str]) -> None:
        """A unit is done; what ended its process is heard of only now."""
        for data in result.failures if not self.progress.is_over else ():
            if data["signature"] in new:
                self.run.at_once(failure_from_data(data, subsystem(result.subsystem)), result.spec, self.progress)


def _new(result: Result, known: dict[str, tuple[str, ...]]) -> list[str]:
    """Signatures of what failed that no stored trace has shown."""
    accepted = {*result.known, *known.get(result.subsystem, ())}
    return [data["signature"] for data in result.failures if data["signature"] not in accepted]


def _is_of(result: Result, listed: Sequence[Unit]) -> bool:
    """Whether a result is one of this shard: each judges the stored traces, and one of them tells of it."""
    return any(unit.name == result.unit for unit in listed)


def _in_order(failure: Failure) -> tuple[str, int]:
    return failure.clause.id, len(failure.trace.steps) if failure.trace is not None else 0


def _by_subsystem(listed: Sequence[Unit]) -> dict[str, list[Unit]]:
    grouped: dict[str, list[Unit]] = {}
    for unit in listed:
        grouped.setdefault(unit.subsystem, []).append(unit)
    return grouped
