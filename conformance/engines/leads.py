"""What leads a hunt on many machines to what is seldom seen anywhere.

A walk of the campaign draws from a world and a subset of the operations, in a mood. All are remembered, as a recipe,
for every clause and transition that few walks exercised. Whoever gathers the results of all machines sends the
recipes of what is least exercised anywhere, and half of the next walks follow one of them, with an operation
more or less. A recipe changes what is likely, never what is judged, and the trace holds what really happened. For what
no walk has ever exercised there is no recipe, and the other half of the walks goes on looking for it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from conformance.specs.clause import Clause

FOLLOWED = 0.5
"""Share of the walks that follow a recipe, where there are some."""
CHANGED = 0.1
"""Chance of an operation to be left out of a recipe, or added."""
BETWEEN = ">"
"""Stands in the name of a transition, between two clauses."""
RARE = 10
"""What was exercised more often than that in one unit of work needs no recipe."""
TOLD = 100
"""Recipes of transitions that one unit tells at most."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a walk drew from."""

    world: int
    """Number of the configuration among the subsystem's."""
    operations: tuple[str, ...]
    """Their names."""
    mood: int = 0
    """Number of the mood among the campaign's."""


@dataclass(slots=True)
class Leads:
    """Recipes to follow, and what the walks saw."""

    follow: Sequence[Recipe] = ()
    transitions: dict[tuple[Clause, Clause], int] = field(default_factory=dict)
    """(clause that decided a step, clause that decided the next) -> how often."""
    recipes: dict[str, Recipe] = field(default_factory=dict)
    """Of the last walk that exercised a clause or transition, while it was rare."""
    _last: Clause | None = None
    _new: set[str] = field(default_factory=set)

    def recipe(self, random: Random) -> Recipe | None:
        """One to follow now, or None."""
        if not self.follow or random.random() >= FOLLOWED:
            return None
        return random.choice(self.follow)

    def decided(self, clause: Clause | None) -> None:
        """A step of the walk was decided by a clause."""
        last, self._last = self._last, clause
        if last is None or clause is None:
            return
        n = self.transitions[last, clause] = self.transitions.get((last, clause), 0) + 1
        if n <= RARE:
            self._new.add(name(last, clause))

    def walked(self, recipe: Recipe, before: Mapping[Clause, int], after: Mapping[Clause, int]) -> None:
        """A walk is over: remember what it drew from for all that it exercised and few others did."""
        for clause, n in after.items():
            if n <= RARE and n != before.get(clause):
                self._new.add(clause.id)
        for seen in self._new:
            self.recipes[seen] = recipe
        self._new.clear()
        self._last = None

    def told(self, clauses: Mapping[Clause, int]) -> tuple[dict[str, int], dict[str, Recipe]]:
        """Transitions, and the recipes of what is rarest, for whoever gathers them."""
        transitions = {name(*pair): n for pair, n in self.transitions.items()}
        counts = {**transitions, **{clause.id: n for clause, n in clauses.items()}}
        return transitions, {seen: self.recipes[seen] for seen in rarest(self.recipes, counts, len(clauses), TOLD)}


def rarest(names: Iterable[str], counts: Mapping[str, int], clauses: int, transitions: int) -> list[str]:
    """The names of that many clauses and of that many transitions, least exercised first.

    Of those exercised equally often it takes some from everywhere, not the first by name.
    """
    ordered = sorted(names, key=lambda seen: (counts.get(seen, 0), zlib.crc32(seen.encode())))
    return [seen for seen in ordered if BETWEEN not in seen][:clauses] + [seen for seen in ordered if BETWEEN in seen][
        :transitions
    ]


def name(before: Clause, after: Clause) -> str:
    """Of a transition: `UIO-001>UIO-009`."""
    return f"{before.id}{BETWEEN}{after.id}"
