"""`conformance run`: do the units, conclude, tell people and programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from conformance.commands.options import nearest
from conformance.engines import corpus
from conformance.reports import forms, record, text
from conformance.reports.forms import Target
from conformance.reports.progress import Progress
from conformance.runs.conclusion import Conclusion, conclude, together
from conformance.runs.describe import Described, describe, is_ours
from conformance.runs.request import BASELINE, Request, Unit, baselines, is_complete, units
from conformance.runs.result import Result, failure_from_data
from conformance.runs.unit import unit_job, without_findings
from conformance.runs.workers import Died, Jobs
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
    say: Say = print
    complain: Say = print
    """Prints on standard error."""
    started: float = field(default_factory=time.monotonic)
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
        listed = units(self.request)
        headers = [self._header(name, units) for name, units in _by_subsystem(listed).items()]
        if not listed:
            return Ending(Exit.NOTHING_RAN, "nothing ran: this shard or selection has no work")
        forms.begin(self.reports, headers)
        conclusions, interrupted = self.concluded(listed)
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

    def concluded(self, listed: Sequence[Unit]) -> tuple[list[Conclusion], bool]:
        """What the units come to for each candidate, and whether somebody interrupted."""
        results, interrupted = self.results(listed)
        return self._conclusions(listed, results), interrupted

    def results(self, listed: Sequence[Unit]) -> tuple[list[Result], bool]:
        """The results in the order of the units, and whether somebody interrupted.

        Stored traces are judged before the rest begins, so that nothing is spent on what is known.
        """
        first = baselines(self.request)
        rest = [unit for unit in listed if unit.engine != BASELINE]
        with Progress([unit.name for unit in [*first, *rest]]) as progress:
            found, interrupted = self._done(first, progress)
            if not interrupted:
                known = {result.subsystem: tuple(sorted(result.known)) for result in found.values()}
                rest = [replace(unit, known=known.get(unit.subsystem, ())) for unit in rest]
                others, interrupted = self._done(rest, progress, len(first))
                found |= others
        return [found[unit.name] for unit in listed if unit.name in found], interrupted

    def _done(self, listed: Sequence[Unit], progress: Progress, row: int = 0) -> tuple[dict[str, Result], bool]:
        """The results of some units by name, and whether somebody interrupted; `row` is where their progress begins."""
        found: dict[str, Result] = {}
        strangers = not all(is_ours(spec) for _, spec in self.request.candidates)

        def tell(number: int, steps: int, clauses: int, failures: int) -> None:
            progress.tell(row + number, steps, clauses, failures)

        jobs = Jobs(unit_job, listed, self.request.workers, tell, apart=strangers)
        for number, answer in jobs.run():
            unit = listed[number]
            result = self._failed(unit, answer.how) if isinstance(answer, Died) else answer
            found[unit.name] = result
            progress.end(row + number, result.steps, result.clauses, [data["signature"] for data in result.failures])
            self._keep(result)
        return found, jobs.interrupted

    def _failed(self, unit: Unit, how: str) -> Result:
        candidate = self.candidates[unit.subsystem]
        return without_findings(unit, candidate, f"{unit.name}: {how}")

    def _keep(self, result: Result) -> None:
        """New failures of a hunt go to the corpus at once, so that nothing that happens later loses them."""
        if self.request.budget is None or self.request.corpus is None:
            return
        for data in result.failures:
            corpus.save(Path(self.request.corpus), failure_from_data(data, subsystem(result.subsystem)))

    def _conclusions(self, listed: Sequence[Unit], results: Sequence[Result]) -> list[Conclusion]:
        conclusions = []
        for name, of in _by_subsystem(listed).items():
            group = [result for result in results if result.subsystem == name]
            if group:
                complete = is_complete(name, [unit.name for unit in of])
                hunting = self.request.budget is not None
                conclusions.append(
                    conclude(group, strict=self.strict, complete=complete, only=self.only, hunting=hunting)
                )
        return conclusions

    def _tell(self, conclusion: Conclusion) -> None:
        """Summary, failures, warnings of one candidate."""
        self.say("\n".join(text.summary(conclusion)))
        told: set[str] = set()
        for found in sorted(conclusion.failures, key=_in_order):
            if found.signature in conclusion.known:
                continue
            saved = self._save(found)
            if found.clause.id in told:
                self.say(text.another(found, saved))
            else:
                self.say("\n" + text.failure(found, conclusion.spec, saved))
            told.add(found.clause.id)
        for found in sorted(conclusion.warnings, key=_in_order):
            if found.signature in conclusion.known:
                continue
            saved = self._save(found)
            self.say("\n".join(text.warning(found, text.replay_command(saved, conclusion.spec) if saved else "")))
        for line in text.baseline(conclusion):
            self.say(line)
        for error in conclusion.errors:
            self.say(f"  harness error: {error}")
        self.say("")

    def _save(self, found: Failure) -> Path | None:
        try:
            path = corpus.save(self.traces, found)
            self.saved[found.signature] = str(path)
            return path
        except OSError as error:
            self.complain(f"the trace of {found.signature} was not saved: {error.strerror}: {error.filename}")
            return None


def _in_order(failure: Failure) -> tuple[str, int]:
    return failure.clause.id, len(failure.trace.steps) if failure.trace is not None else 0


def _by_subsystem(listed: Sequence[Unit]) -> dict[str, list[Unit]]:
    grouped: dict[str, list[Unit]] = {}
    for unit in listed:
        grouped.setdefault(unit.subsystem, []).append(unit)
    return grouped
