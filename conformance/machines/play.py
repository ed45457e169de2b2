"""One trace in a test of your own, step by step: what `conformance repro` writes.

    play = Play("uio_msi", "driver.py:Driver", profile="upstream", world=Config())
    assert play(Probe()) == 0

Each step is performed on the candidate and held to the specification at once; what breaks a clause raises an
AssertionError with everything that is known of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance.candidates.load import from_class, load
from conformance.engines import corpus
from conformance.lockstep import Lockstep
from conformance.model.step import Step
from conformance.reports.story import tell
from conformance.runs.watchdog import watching
from conformance.subsystem import subsystem as subsystem_of
from conformance.trace import Trace
from conformance.verdict import Failure


class Broken(AssertionError):
    """A clause is broken; says which, and how."""


class Play:
    """A candidate in a world of its own, taking the steps that it is told."""

    def __init__(
        self,
        subsystem: str,
        candidate: type | str,
        *,
        world: Any,
        profile: str | None = None,
        should: tuple[str, ...] = (),
    ) -> None:
        """Start the candidate; `should` names SHOULD clauses that must be followed here.

        Raises:
            UsageError  it cannot be loaded
            Broken      it does not start as it should
        """
        of = subsystem_of(subsystem)
        self.candidate = (
            load(candidate, of) if isinstance(candidate, str) else from_class(candidate, of, candidate.__qualname__)
        )
        self.of = self.candidate.part(of)
        self.steps = 0
        self.should = should
        header = Trace(of.name, profile or self.candidate.profile, world, ())
        with watching():
            self.lockstep = Lockstep(self.of, header, self.candidate.factory)
        self._judge()

    def __call__(self, step: Any) -> Any:
        """Take one step, an operation or one with company and refusals; its result.

        Raises:
            Broken  a clause is broken
        """
        __tracebackhide__ = True
        taken = step if isinstance(step, Step) else Step(step)
        self.steps += 1
        if not self.lockstep.legal(taken.op):
            self.end()
            import pytest

            pytest.skip(f"step {self.steps} cannot happen with this candidate: {type(taken.op).__name__}")
        results: list[Any] = []
        env = self.lockstep.env
        perform = env.perform

        def noted(op: Any) -> Any:
            results.append(perform(op))
            return results[-1]

        env.perform = noted  # type: ignore[method-assign]  # of this world alone, to see what it returns
        try:
            with watching():
                self.lockstep.step(taken)
        finally:
            env.perform = perform  # type: ignore[method-assign]  # as above
        self._judge()
        return results[0] if len(results) == 1 else tuple(results)

    def end(self) -> None:
        """Give back what the world holds, and say which SHOULD clauses were not followed."""
        self.lockstep.close()
        for warning in self.lockstep.warnings:
            print(f"{warning.clause.id} not followed: {warning.clause.text}")

    def _judge(self) -> None:
        __tracebackhide__ = True
        ignored = [warning for warning in self.lockstep.warnings if warning.clause.id in self.should]
        failure = self.lockstep.failure or next(iter(ignored), None)
        if failure is None:
            return
        self.lockstep.close()
        raise Broken(self._told(failure))

    def _told(self, failure: Failure) -> str:
        from conformance.reports import text

        try:
            saved: Path | None = corpus.save(corpus.TRACES, failure)
        except OSError:
            saved = None
        with watching():
            return text.failure(tell(failure, self.of, self.candidate), self.candidate.spec, saved)
