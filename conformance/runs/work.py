"""What a run hands out: each unit once, or, in a hunt on many machines, seed after seed until the time is up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from conformance.engines.leads import Recipe, rarest
from conformance.runs.request import Request, Unit
from conformance.runs.result import Result

SEEDED = ("campaign", "machine", "symbolic")
"""Engines that a seed sends another way; the others do the same every time, so they are done once."""
LONGEST = 10.0
"""Seconds of one seed at most: after that what was found is told, and the next is led by what all have seen."""
ROUNDS = 12
"""In how many rounds short hunts are divided."""
LED = (8, 16)
"""How many clauses and transitions a seed is led to."""
GRACE = 10.0
"""Seconds after the end of a hunt in which a machine may still hand over what it has."""


class Work:
    """The units of a run, each once.

    In a hunt the rest is given what some leave of their time, and goes without what they took too much.
    """

    until: float | None = None

    def __init__(self, units: Sequence[Unit], request: Request) -> None:
        self.units = list(units)
        """By the number of the job."""
        self.workers = max(1, min(request.workers, len(units)))
        self.budget = request.budget
        self.ends: dict[int, float] = {}
        """When those that are on their way should end, by the number of the job."""
        self.found: dict[int, Result] = {}
        self.settled: set[str] = set()
        """Subsystems whose candidates do not start."""

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[Unit]:
        deadline = None if self.budget is None else time.monotonic() + self.budget
        for number, unit in enumerate(self.units):
            seconds = unit.seconds
            if deadline is not None and seconds is not None:
                seconds = self._share(number, seconds, deadline)
            yield replace(unit, seconds=seconds, settled=unit.subsystem in self.settled)

    @property
    def names(self) -> list[str]:
        """Of the units, by number."""
        return [unit.name for unit in self.units]

    def learn(self, number: int, result: Result) -> None:
        """A unit is done."""
        self.ends.pop(number, None)
        self.found[number] = result
        if result.settled:
            self.settled.add(result.subsystem)

    def results(self) -> list[Result]:
        """Of the units that are done, in their order."""
        return [self.found[number] for number in sorted(self.found)]

    def _share(self, number: int, seconds: float, deadline: float) -> float:
        """What a unit that was to have so many seconds has of those that are left by now."""
        now = time.monotonic()
        left = max(0.0, deadline - now)
        taken = sum(max(0.0, end - now) for end in self.ends.values())
        planned = sum(other.seconds or 0.0 for other in self.units[number:])
        share = (self.workers * left - taken) * seconds / planned
        seconds = max(1.0, min(share, left))
        self.ends[number] = now + seconds
        return seconds


class Hunt:
    """Units of a hunt on many machines, made when there is a machine for them.

    First those that do the same every time, then rounds of campaigns and machines, each with a seed of its own,
    each told what is known by then: the failures, and the recipes of what is least exercised anywhere.
    """

    def __init__(self, units: Sequence[Unit], request: Request) -> None:
        assert request.budget is not None
        self.once = [unit for unit in units if unit.engine not in SEEDED]
        self.again = [unit for unit in units if unit.engine in SEEDED]
        self.budget = request.budget
        self.slice = min(LONGEST, self.budget / ROUNDS)
        self.deadline = time.monotonic() + self.budget
        self.until = self.deadline + GRACE
        self.units: dict[int, Unit] = {}
        """Those that are on their way, by the number of the job."""
        self.names: list[str] = []
        """Of all that were handed out."""
        self.seen: dict[str, Counter[str]] = {}
        """By subsystem: how often each clause and transition was exercised, anywhere."""
        self.recipes: dict[str, dict[str, Recipe]] = {}
        self.known: dict[str, dict[str, None]] = {}
        self.gathered = {unit.name: list[Result]() for unit in units}

    def __iter__(self) -> Iterator[Unit]:
        for unit in self.once:
            assert unit.seconds is not None
            if (left := self._left()) > 0:
                yield self._handed(replace(unit, seconds=min(unit.seconds, left), known=self._known(unit)))
        rounds = 0
        while self.again:
            for unit in self.again:
                left = self._left()
                if left < min(0.5, self.slice / 2):
                    return
                seconds = min(self.slice, left)
                led = replace(unit, seconds=seconds, seed=unit.seed + rounds, known=self._known(unit))
                yield self._handed(replace(led, follow=self.rarest(unit.subsystem)))
            rounds += 1

    def learn(self, number: int, result: Result) -> None:
        """Take up what one unit saw; however many there are, one result of each name is kept."""
        del self.units[number]
        seen = self.seen.setdefault(result.subsystem, Counter())
        seen.update(result.clauses)
        seen.update(result.transitions)
        self.recipes.setdefault(result.subsystem, {}).update(result.recipes)
        found = [data["signature"] for data in [*result.failures, *result.warnings]]
        self.known.setdefault(result.subsystem, {}).update(dict.fromkeys(found))
        gathered = self.gathered[result.unit]
        if gathered:
            gathered[0].add(result)
        else:
            gathered.append(replace(result, transitions={}, recipes={}))

    def results(self) -> list[Result]:
        """What all seeds of a unit found, in the order of the units."""
        return [result for gathered in self.gathered.values() for result in gathered]

    def rarest(self, subsystem: str) -> tuple[Recipe, ...]:
        """Recipes of what is least exercised anywhere, each once."""
        seen, recipes = self.seen.get(subsystem, Counter()), self.recipes.get(subsystem, {})
        return tuple(dict.fromkeys(recipes[name] for name in rarest(recipes, seen, *LED)))

    def _left(self) -> float:
        return self.deadline - time.monotonic()

    def _known(self, unit: Unit) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*unit.known, *self.known.get(unit.subsystem, ()))))

    def _handed(self, unit: Unit) -> Unit:
        self.units[len(self.names)] = unit
        self.names.append(unit.name)
        return unit
