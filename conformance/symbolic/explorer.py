"""The search: run a skeleton, take each comparison that went one way only, solve for the other way, and run that.

Comparisons that never went the other way anywhere come first, then those that did not in this operation. What
is solved for is a trace; where it leads to code that nothing reached before, further steps are put behind it,
since what went wrong may show only later.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from types import CodeType
from typing import Any

from conformance.model.step import Step
from conformance.symbolic.arguments import with_values
from conformance.symbolic.execution import Execution, Run
from conformance.symbolic.skeletons import Skeleton, Skeletons
from conformance.symbolic.solver import Solver
from conformance.symbolic.words import Site, Term

ASKED_OF_CODE = 8
"""How often one way of a comparison is asked for, whatever the operation."""
ASKED_OF_OPERATION = 2
"""The same in one operation."""
CONSTANTS = 24
"""Constants that are told apart at one place: a loop compares with each number of a range."""
PER_SKELETON = 12
"""Questions after each new skeleton; what is left waits."""
NARROW = 1 << 12
"""A comparison for equality with a number from here on is seldom met by chance."""
CONTEXTS = 10
"""How often a narrow way is taken, since what is behind it may depend on what else is the case."""
TRIES = 20
"""How often it is asked for: what leads there in one world may be nothing that can happen in another."""
BEHIND = (3, 10)
"""How many continuations a trace is given that reached something new, and how many steps each has."""

Branch = tuple[Site, bool]


@dataclass(slots=True)
class Question:
    """One comparison of one run, to be answered otherwise."""

    config: Any
    run: Run
    solver: Solver
    before: int
    """Conditions of the path that come before it."""
    step: int
    """In which step it was made."""
    term: Term
    answer: bool
    branch: Branch
    is_behind: bool = False
    """Whether it was asked by the code in which a narrow way had just been taken."""

    @property
    def operation(self) -> str:
        """The operation in which it was made."""
        return type(self.run.steps[self.step].op).__name__


@dataclass(slots=True)
class Figures:
    """What was done, for the notes."""

    runs: int = 0
    questions: int = 0
    solved: int = 0
    impossible: int = 0
    """Of these, those whose values mean nothing to the world."""
    branches: int = 0
    """Ways out of comparisons, of candidate and model, that were taken."""
    found: int = 0
    """Of these, those that solving led to."""


@dataclass(slots=True)
class Explorer:
    """Explores one candidate."""

    execution: Execution
    skeletons: Skeletons
    random: Random
    over: Callable[[], bool]
    """Whether to stop."""
    figures: Figures = field(default_factory=Figures)
    seen: set[Branch] = field(default_factory=set)
    seen_by: set[tuple[Branch, str]] = field(default_factory=set)
    asked: Counter[Any] = field(default_factory=Counter)
    taken: Counter[Branch] = field(default_factory=Counter)
    """How often a narrow way was taken where it was asked for."""
    met: set[Any] = field(default_factory=set)
    """(branch, world) of the narrow ways that were asked for."""
    constants: dict[Any, set[int | None]] = field(default_factory=dict)
    waiting: list[tuple[int, int, Question]] = field(default_factory=list)
    serial: int = 0

    def proposals(self) -> Iterator[tuple[Any, tuple[Step, ...]]]:
        """Traces that are worth judging, until `over()`."""
        for skeleton in self.skeletons:
            if self.over():
                return
            run, _ = self._run(skeleton)
            if not run.agreed:
                yield skeleton.config, run.steps
            for _ in range(PER_SKELETON):
                question = self._next(skeleton.below)
                if question is None or self.over():
                    break
                yield from self._pursue(question)

    def _pursue(self, question: Question) -> Iterator[tuple[Any, tuple[Step, ...]]]:
        self.figures.questions += 1
        values = question.solver.solve(question.term, question.answer, question.before)
        if values is None:
            return
        self.figures.solved += 1
        steps = with_values(question.run.steps, values)
        narrow = question.branch[0][0] if _is_narrow(question) or question.is_behind else None
        run, is_new = self._run(Skeleton(question.config, steps), narrow)
        if not run.is_possible:
            self.figures.impossible += 1
            return
        self.figures.found += is_new
        yield question.config, steps
        if not run.agreed:
            return
        if _is_narrow(question) and _took(run, question.branch):
            self.taken[question.branch] += 1
            at = question.step
            solved = {name[1] for name in values if name[0] == at}
            for variant in self.skeletons.variants(steps[at], solved):
                yield question.config, (*steps[:at], variant)
            for look in self.skeletons.looks(steps[at].op):
                yield question.config, (*steps[: at + 1], *look)
            yield from self.skeletons.prepared(question.config, steps[: at + 1], self._ways(question, steps[at]))
        elif is_new:
            times, length = BEHIND
            for _ in range(times):
                yield question.config, (*steps, *self.skeletons.steps(length))

    def _ways(self, question: Question, step: Step) -> list[dict[str, Any]]:
        """Fields of the operation in which the question was asked, as they lead into its way."""
        at, solver = question.step, question.solver
        own = {name[1] for name in solver.variables_in(question.term) if name[0] == at}
        if not own:
            return []
        alone = solver.alone(question.term, question.answer)
        others = [with_values(question.run.steps, values)[at] for values in alone]
        return [{name: getattr(one.op, name) for name in own} for one in (step, *others)]

    def _run(self, skeleton: Skeleton, narrow: CodeType | None = None) -> tuple[Run, bool]:
        """Run a trace and ask about what it met; also whether it took a way that nothing took before.

        `narrow` is the code in which a narrow way was solved for: what it asks next comes first.
        """
        self.figures.runs += 1
        run = self.execution.run(skeleton.config, skeleton.steps)
        self.skeletons.reached |= run.kinds
        names = [type(step.op).__name__ for step in run.steps]
        before = len(self.seen)
        for condition in run.path:
            if condition.is_target:
                branch = (condition.site, condition.answer)
                self.seen.add(branch)
                self.seen_by.add((branch, names[condition.step]))
        is_new = len(self.seen) > before
        self.figures.branches = len(self.seen)
        solver = Solver(run.variables, run.path)
        for at, made in enumerate(run.path):
            if made.is_target:
                branch = (made.site, not made.answer)
                behind = made.site[0] is narrow
                self._wait(
                    Question(skeleton.config, run, solver, at, made.step, made.term, not made.answer, branch, behind)
                )
        for at, term, step, what in run.doubts:
            site: Site = (Explorer._run.__code__, 0, hash((what, names[step])))
            self._wait(Question(skeleton.config, run, solver, at, step, term, True, (site, True)))
        return run, is_new

    def _wait(self, question: Question) -> None:
        """Put a question in its place, unless it was answered or asked often enough."""
        rank = self._rank(question)
        if rank is None:
            return
        (code, at, constant), _ = question.branch
        known = self.constants.setdefault((code, at), set())
        if constant not in known and len(known) >= CONSTANTS:
            return
        known.add(constant)
        self.serial += 1
        heapq.heappush(self.waiting, (rank, self.serial, question))

    def _rank(self, question: Question) -> int | None:
        branch, operation = question.branch, question.operation
        asked, asked_here = self.asked[branch], self.asked[branch, operation]
        if (branch, operation) in self.seen_by:
            world = _world(question)
            if not _is_narrow(question) or self._is_enough(branch) or (branch, world) in self.met:
                return None
            return 2 + min(asked, 6)
        if _is_narrow(question):
            return asked if not self._is_enough(branch) else None
        if question.is_behind:
            return asked if asked < CONTEXTS else None
        if asked >= ASKED_OF_CODE or asked_here >= ASKED_OF_OPERATION:
            return None
        return 1 + asked + asked_here + (4 if branch in self.seen else 0)

    def _is_enough(self, branch: Branch) -> bool:
        return self.taken[branch] >= CONTEXTS or self.asked[branch] >= TRIES

    def _next(self, below: int | None) -> Question | None:
        """The most promising question that is still open, of a rank below that if one is given."""
        while self.waiting and (below is None or self.waiting[0][0] < below):
            rank, _, question = heapq.heappop(self.waiting)
            now = self._rank(question)
            if now is None:
                continue
            if now > rank:
                self.serial += 1
                heapq.heappush(self.waiting, (now, self.serial, question))
                continue
            self.asked[question.branch] += 1
            self.asked[question.branch, question.operation] += 1
            self.met.add((question.branch, _world(question)))
            return question
        return None


def _is_narrow(question: Question) -> bool:
    """Whether the way is one that chance does not take: one number, or some bytes."""
    term, answer = question.term, question.answer
    if term[0] == "all":
        return answer
    if (term[0], answer) not in (("eq", True), ("ne", False)):
        return False
    return any(part[0] == "const" and abs(part[1]) >= NARROW for part in term[1:])


def _took(run: Run, branch: Branch) -> bool:
    """Whether a run went that way."""
    return any((condition.site, condition.answer) == branch for condition in run.path)


def _world(question: Question) -> Any:
    """What is the case besides: the configuration and the operations."""
    return question.config, tuple(type(step.op).__name__ for step in question.run.steps)
