"""How a hunt adds to the user's corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from conformance.engines import corpus
from conformance.runs.result import Result, failure_from_data
from conformance.subsystem import subsystem
from conformance.verdict import Failure


class Growth:
    """Saves what is found as soon as it is told, so that nothing that happens later loses it.

    A signature that a saved trace shows on this candidate adds nothing; a new one is added once, whichever
    engines find it. What is found before the saved traces have all been tried waits for them.
    """

    def __init__(self, folder: Path, awaited: Iterable[str], complain: Callable[[str], None]) -> None:
        self.folder = folder
        self.awaited = set(awaited)
        """Subsystems whose saved traces are still being tried."""
        self.complain = complain
        self.shown: set[str] = set()
        """Signatures that need no trace any more."""
        self.held: list[Failure] = []

    def add(self, result: Result) -> None:
        """What one unit found; failures that did not show again prove nothing and are left out."""
        of = subsystem(result.subsystem)
        self.shown.update(result.known)
        found = [failure_from_data(data, of) for data in result.failures if not data["flaky"]]
        if result.unit == f"{of.name}.corpus":
            self.shown.update(failure.signature for failure in found)
            self.awaited.discard(of.name)
        self.held += [failure for failure in found if failure.engine != "corpus"]
        self._save([failure for failure in self.held if _subsystem(failure) not in self.awaited])

    def end(self) -> None:
        """Nothing else will be told: what waits, waits in vain."""
        self._save(self.held)

    def _save(self, ready: list[Failure]) -> None:
        for failure in list(ready):
            self.held.remove(failure)
            if failure.signature in self.shown:
                continue
            self.shown.add(failure.signature)
            try:
                corpus.save(self.folder, failure)
            except OSError as error:
                self.complain(f"{failure.signature} was not added to the corpus: {error.strerror}: {error.filename}")


def _subsystem(failure: Failure) -> str:
    assert failure.trace is not None
    return failure.trace.subsystem
