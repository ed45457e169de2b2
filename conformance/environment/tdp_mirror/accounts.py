"""The counts that the candidate keeps of its tables and leaves, beside the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Accounts(Simulator):
    """Page-table pages and leaves by level: as accounted, and as linked.

    Not modelled: the kernel's per-CPU counters; a count is at once what it will be.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.STATISTICS,)

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.accounted = 0
        """Tables, as the candidate says."""
        self.stats: dict[int, int] = {}
        """Level to leaves, as the candidate says."""
        self.linked = 0
        """Tables below roots."""
        self.leaves: dict[int, int] = {}
        """Level to leaves, below whatever root, and in tables that were unlinked and still hold some."""

    def link(self, change: int) -> None:
        """A table comes into reach, or goes out of it."""
        self.linked += change

    def count(self, level: int, change: int) -> None:
        """A leaf comes or goes."""
        self.leaves[level] = self.leaves.get(level, 0) + change

    def settle(self) -> None:
        """Both agree while no operation is in progress."""
        if self.accounted != self.linked:
            raise Violation(c.STATISTICS, f"{self.linked} tables are linked, {self.accounted} are accounted")
        for level in self.stats.keys() | self.leaves.keys():
            counted, real = self.stats.get(level, 0), self.leaves.get(level, 0)
            if counted != real:
                raise Violation(c.STATISTICS, f"{real} leaves of level {level}, statistics say {counted}")
        self.door.hold(c.STATISTICS)

    # -- environment calls

    def account_pgtable(self, change: int) -> None:
        """Count a table."""
        self.accounted += change

    def update_page_stats(self, level: int, change: int) -> None:
        """Count leaves."""
        self.stats[level] = self.stats.get(level, 0) + change
