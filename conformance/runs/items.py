"""A run as pytest items: the same units as the command line's, collected beside a project's own tests.

There is one item per unit of work, so `-n 2` splits a run, `-k uio_msi.explore` selects from it, and
`-m conformance` leaves the other tests out. Each item fails with the failures it found; when all have ended,
the terminal shows the verdict per clause, and the exit status says what the command line's would.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from conformance.candidates.load import check_profile, load
from conformance.commands import options
from conformance.engines import corpus
from conformance.engines.corpus import TRACES
from conformance.reports import json, text
from conformance.runs.conclusion import Conclusion, conclude, worst
from conformance.runs.request import Request, Unit, units
from conformance.runs.result import Result, failure_from_data
from conformance.runs.unit import run_unit
from conformance.subsystem import subsystem
from conformance.verdict import Exit, HarnessError, UsageError


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
        self.paths = options.report_paths(config.getoption("--conformance-report"), "--conformance-report")
        self.request = Request(
            candidates=options.candidates(given),
            profile=config.getoption("--conformance-profile"),
            seed=input_.get("conformance_seed", seed if seed is not None else chosen),
            budget=limit,
            workers=input_.get("workercount", getattr(config.option, "numprocesses", None) or 1),
        )
        self._check()

    def _check(self) -> None:
        profile = self.request.profile
        for name, spec in self.request.candidates:
            load(spec, subsystem(name))
            if profile is not None:
                check_profile(f"--conformance-profile={profile}", profile, subsystem(name))


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
        return [UnitItem.from_parent(self, name=unit.name, unit=unit) for unit in units(self.run.request)]


class UnitItem(pytest.Item):
    """One unit of work; fails with what it found."""

    def __init__(self, *, unit: Unit, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.unit = unit
        self.add_marker("conformance")
        self.result: dict[str, Any] | None = None
        """The `Result` as plain data, once it is there."""

    def runtest(self) -> None:
        """Do the unit's work."""
        result = run_unit(self.unit)
        self.result = asdict(result)
        if result.interrupted:
            raise KeyboardInterrupt
        if result.error:
            raise HarnessError(result.error)
        if result.failures:
            raise NotConforming(self._explained(result))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The text of the failures, without a traceback; ours with one."""
        if isinstance(excinfo.value, NotConforming | UsageError | HarnessError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the item comes from, and its headline."""
        return self.path, None, f"{self.unit.name}: {self.unit.spec}"

    def _explained(self, result: Result) -> str:
        of = subsystem(result.subsystem)
        candidate = load(self.unit.spec, of)
        told = []
        for data in result.failures:
            found = failure_from_data(data, of)
            try:
                saved = corpus.save(TRACES, found)
            except OSError:
                saved = None
            told.append(text.failure(found, of, candidate, saved))
        return "\n\n".join(told)


class NotConforming(Exception):
    """The candidate broke clauses; the message is the failures' text."""


class _Conclusions:
    """Lives where the reports come together: gathers results, concludes, and sets the exit status."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.results: list[Result] = []
        self.conclusions: list[Conclusion] = []
        self.exit = Exit.CONFORMS
        self.started = time.monotonic()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Write reports without a footer first, so that an unfinished run shows."""
        del session
        try:
            json.begin(self.run.paths, self._headers())
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the result that came with a report."""
        data = getattr(report, "conformance", None)
        if data is not None:
            self.results.append(Result(**data))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Conclude; where pytest itself is content, the exit status is the command line's."""
        if not self.results:
            return
        listed = units(self.run.request)
        order = {unit.name: number for number, unit in enumerate(listed)}
        self.results.sort(key=lambda result: order[result.unit])
        interrupted = exitstatus == pytest.ExitCode.INTERRUPTED
        for name in dict.fromkeys(result.subsystem for result in self.results):
            group = [result for result in self.results if result.subsystem == name]
            complete = len(group) == sum(unit.subsystem == name for unit in listed)
            self.conclusions.append(conclude(group, complete=complete))
        self.exit = worst(c.exit for c in self.conclusions)
        if exitstatus == pytest.ExitCode.OK or (
            exitstatus == pytest.ExitCode.TESTS_FAILED and self.exit is Exit.HARNESS
        ):
            session.exitstatus = int(self.exit)
        self._write(interrupted)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The verdict per clause, and why the exit status is what it is."""
        if not self.conclusions:
            return
        terminalreporter.section("conformance")
        for conclusion in self.conclusions:
            for line in text.summary(conclusion):
                terminalreporter.line(line)
            for warning in conclusion.warnings:
                for line in text.warning(warning):
                    terminalreporter.line(line)
        if self.run.request.budget is not None:
            terminalreporter.line(f"repeat this hunt with --conformance-seed {self.run.request.seed}")
        whys = "; ".join(f"{c.subsystem.name}: {c.why}" for c in self.conclusions)
        terminalreporter.line(f"exit {int(self.exit)}: {whys}")

    def _headers(self) -> list[json.Line]:
        request = self.run.request
        headers = []
        for name, spec in request.candidates:
            if self.run.paths:
                candidate = load(spec, subsystem(name))
                headers.append(
                    json.header(
                        name,
                        spec,
                        request.profile or candidate.profile,
                        seed=request.seed,
                        budget=request.budget,
                        engines=request.engines,
                        capabilities=sorted(candidate.capabilities),
                    )
                )
        return headers

    def _write(self, interrupted: bool) -> None:
        lines: list[json.Line] = []
        for head in self._headers():
            concluded = [c for c in self.conclusions if c.subsystem.name == head["subsystem"]]
            if concluded:
                lines += [head, *json.findings(concluded[0])]
        whys = "; ".join(f"{c.subsystem.name}: {c.why}" for c in self.conclusions)
        steps = sum(c.steps for c in self.conclusions)
        elapsed = time.monotonic() - self.started
        lines.append(json.footer(self.exit, whys, steps=steps, seconds=elapsed, interrupted=interrupted))
        for path in self.run.paths:
            json.write(path, lines)
