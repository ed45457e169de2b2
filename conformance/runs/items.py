"""A run as pytest items: the same units as the command line's, collected beside a project's own tests.

There is one item per unit of work, so `-n 2` splits a run, `-k uio_msi.explore` selects from it, and
`-m conformance` leaves the other tests out. Each item fails with the failures it found; when all have ended,
the terminal shows the verdict per clause, and the exit status says what the command line's would.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from conformance.baseline.entry import gap
from conformance.baseline.file import expected
from conformance.commands import options
from conformance.engines import corpus
from conformance.engines.corpus import TRACES
from conformance.reports import forms, record, text
from conformance.runs.conclusion import Conclusion, conclude, together
from conformance.runs.describe import describe, is_ours
from conformance.runs.growth import Growth
from conformance.runs.request import BASELINE, Request, Unit, baselines, is_complete, units
from conformance.runs.result import Result, failure_from_data
from conformance.runs.unit import ended_early, unit_job
from conformance.runs.workers import Died, Jobs
from conformance.subsystem import subsystem
from conformance.verdict import Ending, Exit, HarnessError, UsageError


def register(config: pytest.Config) -> None:
    """Refuse wrong options before anything runs; choose the seed of a hunt once for all workers."""
    try:
        run = _Run(config)
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(_Units(run), "conformance-units")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Conclusions(run), "conformance-conclusions")


class _Run:
    """The request that the options describe."""

    def __init__(self, config: pytest.Config) -> None:
        given = config.getoption("--candidate")
        budget = config.getoption("--conformance-budget")
        seed = config.getoption("--conformance-seed")
        input_ = getattr(config, "workerinput", {})
        limit = None if budget is None else options.seconds(budget)
        chosen = random.randrange(2**32) if limit is not None else 0
        if seed is not None:
            options.seed(seed, "--conformance-seed")
        self.targets = forms.targets(config.getoption("--conformance-report"), "--conformance-report")
        candidates = options.candidates(given)
        profile = config.getoption("--conformance-profile")
        baseline = config.getoption("--baseline")
        untracked = bool(config.getoption("--conformance-allow-untracked"))
        self.request = Request(
            candidates=candidates,
            profile=profile,
            engines=options.engines(config.getoption("--conformance-engine"), "--conformance-engine"),
            baseline=() if baseline is None else expected(Path(baseline), candidates, profile, untracked),
            seed=input_.get("conformance_seed", seed if seed is not None else chosen),
            budget=limit,
            corpus=options.corpus(config.getoption("--conformance-corpus"), "--conformance-corpus"),
            workers=input_.get("workercount", getattr(config.option, "numprocesses", None) or 1),
        )
        self.described = {
            name: describe(name, spec, self.request.profile, "--conformance-profile")
            for name, spec in self.request.candidates
        }
        """What the candidates say of themselves: a wrong one is refused before anything runs."""
        self.judged: dict[str, Result] = {}

    def result(self, unit: Unit) -> Result:
        """What a unit finds; before the first one of a subsystem each process judges the stored traces for itself."""
        name = unit.subsystem
        for first in baselines(self.request):
            if first.subsystem == name and name not in self.judged:
                self.judged[name] = self._done(first)
        if unit.engine == BASELINE:
            return self.judged[name]
        return self._done(replace(unit, known=tuple(sorted(self.known(unit)))))

    def known(self, unit: Unit) -> dict[str, str]:
        """Signatures that the stored traces of the unit's subsystem have shown."""
        judged = self.judged.get(unit.subsystem)
        return {} if judged is None else judged.known

    def _done(self, unit: Unit) -> Result:
        """What a unit finds; a candidate that is not ours runs in a process of its own."""
        jobs = Jobs(unit_job, [unit], 1, lambda *_: None, apart=not is_ours(unit.spec))
        for _, answer in jobs.run():
            if not isinstance(answer, Died):
                result: Result = answer
                return result
            return ended_early(unit, self.described[unit.subsystem], answer.how)
        raise KeyboardInterrupt


class _Units:
    """Collects the units, on every worker alike, and has their results travel with the reports."""

    def __init__(self, run: _Run) -> None:
        self.run = run

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell an xdist worker the seed."""
        node.workerinput["conformance_seed"] = self.run.request.seed

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Put the units before the project's own tests; `-k` and `-m` then choose from both."""
        collector = Units.from_parent(session, name="conformance", nodeid="conformance", run=self.run)
        items[:0] = collector.collect()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Let an item's result travel with its report, through xdist too."""
        report = yield
        if isinstance(item, UnitItem) and getattr(report, "when", "") == "call":
            report.conformance = item.result
        return report


class Units(pytest.Collector):
    """Stands where a file of tests would: the units of the candidates that were named."""

    def __init__(self, *, run: _Run, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = run

    def collect(self) -> list[pytest.Item]:
        """One item per unit."""
        return [UnitItem.from_parent(self, name=unit.name, unit=unit, run=self.run) for unit in units(self.run.request)]


class UnitItem(pytest.Item):
    """One unit of work; fails with what it found."""

    def __init__(self, *, unit: Unit, run: _Run, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unit = unit
        self.run = run
        self.add_marker("conformance")
        self.result: dict[str, Any] | None = None
        """The `Result` as plain data, once it is there."""

    def runtest(self) -> None:
        """Do the unit's work."""
        result = self.run.result(self.unit)
        self.result = asdict(result)
        if result.interrupted:
            raise KeyboardInterrupt
        if result.errors:
            raise HarnessError("; ".join(result.errors))
        new = [data for data in result.failures if data["signature"] not in self.run.known(self.unit)]
        if new:
            raise NotConforming(self._explained(result, new))
        if result.stale:
            raise NeedsAttention("\n".join(found["text"] for found in result.stale))
        if result.known or result.gaps:
            told = [f"{signature} ({why})" if why else signature for signature, why in result.known.items()]
            told += [f"{gap(clause)} ({why})" if why else gap(clause) for clause, why in result.gaps.items()]
            pytest.xfail(f"{len(told)} known: {', '.join(told)}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The text of the failures, without a traceback; ours with one."""
        if isinstance(excinfo.value, NotConforming | NeedsAttention | UsageError | HarnessError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the item comes from, and its headline."""
        return self.path, None, f"{self.unit.name}: {self.unit.spec}"

    def _explained(self, result: Result, new: Sequence[dict[str, Any]]) -> str:
        of = subsystem(result.subsystem)
        told = []
        for data in new:
            found = failure_from_data(data, of)
            try:
                saved = corpus.save(TRACES, found)
            except OSError:
                saved = None
            told.append(text.failure(found, self.unit.spec, saved))
        return "\n\n".join(told)


class NotConforming(Exception):
    """The candidate broke clauses; the message is the failures' text."""


class NeedsAttention(Exception):
    """Entries of the baseline do; the message is a sentence for each."""


class _Conclusions:
    """Lives where the reports come together: gathers results, concludes, and sets the exit status."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.results: list[Result] = []
        self.conclusions: list[Conclusion] = []
        self.ending = Ending(Exit.NOTHING_RAN, "nothing ran")
        self.started = time.monotonic()
        self.other_failures = False
        """Whether anything failed beside the baseline's own item."""
        self.complaints: list[str] = []
        self.growth = self._growth()

    def _growth(self) -> Growth | None:
        """Where the new failures of a hunt go, if anywhere."""
        if self.run.request.budget is None or self.run.request.corpus is None:
            return None
        names = [name for name, _ in self.run.request.candidates]
        return Growth(Path(self.run.request.corpus), names, self.complaints.append)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Write reports without a footer first, so that an unfinished run shows."""
        del session
        try:
            forms.begin(self.run.targets, self._headers())
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the result that came with a report."""
        data = getattr(report, "conformance", None)
        if data is not None:
            self.results.append(Result(**data))
            if self.growth is not None:
                self.growth.add(self.results[-1])
        self.other_failures |= report.failed and (data is None or not data["stale"] or bool(data["errors"]))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Conclude; where pytest itself is content, the exit status is the command line's."""
        if self.growth is not None:
            self.growth.end()
        if not self.results:
            return
        listed = units(self.run.request)
        order = {unit.name: number for number, unit in enumerate(listed)}
        self.results.sort(key=lambda result: order[result.unit])
        interrupted = exitstatus == pytest.ExitCode.INTERRUPTED
        for name in dict.fromkeys(result.subsystem for result in self.results):
            group = [result for result in self.results if result.subsystem == name]
            complete = is_complete(name, [result.unit for result in group])
            self.conclusions.append(conclude(group, complete=complete, hunting=self.run.request.budget is not None))
        self.ending = together(self.conclusions, interrupted)
        if exitstatus == pytest.ExitCode.OK or (
            exitstatus == pytest.ExitCode.TESTS_FAILED and (self.ending.exit is Exit.HARNESS or not self.other_failures)
        ):
            session.exitstatus = int(self.ending.exit)
        self._write(interrupted)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The verdict per clause, and why the exit status is what it is."""
        if not self.conclusions:
            return
        terminalreporter.section("conformance")
        for conclusion in self.conclusions:
            for line in text.summary(conclusion):
                terminalreporter.line(line)
            for line in text.baseline(conclusion):
                terminalreporter.line(line)
            new = [warning for warning in conclusion.warnings if warning.signature not in conclusion.known]
            for line in text.warnings((warning, "") for warning in new):
                terminalreporter.line(line)
        for line in self.complaints:
            terminalreporter.line(line)
        if self.run.request.budget is not None:
            terminalreporter.line(f"repeat this hunt with --conformance-seed {self.run.request.seed}")
        terminalreporter.line(f"exit {int(self.ending.exit)}: {self.ending.why}")

    def _headers(self) -> list[record.Header]:
        request = self.run.request
        return [
            record.Header(
                subsystem=name,
                candidate=spec,
                profile=request.profile or self.run.described[name].profile,
                capabilities=tuple(sorted(self.run.described[name].capabilities)),
                seed=request.seed,
                budget=request.budget,
                engines=request.engines,
                units=self._units(name),
            )
            for name, spec in request.candidates
        ]

    def _units(self, name: str) -> tuple[str, ...]:
        """Of a subsystem those that pytest's own options left, once that is known."""
        done = [result.unit for result in self.results if result.subsystem == name]
        return tuple(done or [unit.name for unit in units(self.run.request) if unit.subsystem == name])

    def _write(self, interrupted: bool) -> None:
        concluded = {conclusion.subsystem.name for conclusion in self.conclusions}
        lines = record.whole(
            [head for head in self._headers() if head.subsystem in concluded],
            self.conclusions,
            self.ending,
            seconds=time.monotonic() - self.started,
            interrupted=interrupted,
            saved=self._saved(),
        )
        if any(target.path is None for target in self.run.targets):
            print()  # pytest has left its line of dots open
        forms.write(self.run.targets, lines)

    def _saved(self) -> dict[str, str]:
        """Where the traces of the failures are; what cannot be saved was told of already."""
        saved = {}
        for found in [failure for conclusion in self.conclusions for failure in conclusion.failures]:
            with suppress(OSError):
                saved[found.signature] = str(corpus.save(TRACES, found))
        return saved
