"""`conformance run`: do the units, conclude, tell people and programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

from conformance.candidates.load import Candidate, check_profile, load
from conformance.commands.options import nearest
from conformance.engines import corpus
from conformance.reports import json, text
from conformance.reports.progress import Progress
from conformance.runs.conclusion import Conclusion, conclude, worst
from conformance.runs.request import ENGINES, Request, Unit, units
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
    reports: Sequence[Path] = ()
    traces: Path = corpus.TRACES
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
        return without_findings(unit, candidate, f"{unit.name}: {how}")

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
