"""The only code that judges: candidate and model take the same steps and must agree.

One step: perform the operation on the candidate with the planned faults; ask the model for
the allowed outcomes, with the refusals that were *really given*; match result and view
against them; cite the clause of the branch or of the view field that disagrees; run the
checks; count what was exercised.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from conformance.company import Company, Done
from conformance.environment.door import Environment, Frame
from conformance.environment.scheduler import Point, Priorities
from conformance.model.step import Outcome, Parallel, Step, each
from conformance.recording import Recorder, StepReport
from conformance.reports import values
from conformance.specs.clause import Clause
from conformance.subsystem import Record, Subsystem
from conformance.trace import Trace
from conformance.verdict import Breach, Failure, HarnessError, Tally

COUNTED = 1_000
"""How often the clause of a view field is counted; beyond that only the branches are."""
MAX_STATES = 64
"""Model states kept at once while the observations do not tell them apart."""


@dataclass(slots=True)
class Report:
    """What one trace showed."""

    failure: Failure | None = None
    warnings: list[Failure] = field(default_factory=list)
    """Breaches of SHOULD clauses that the run went on from."""
    steps: list[StepReport] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)


class Kept(list[Step]):
    """The steps of a trace, kept by somebody who wants to hear of its end as well."""

    __slots__ = ()

    def end(self) -> None:
        """The candidate's object is about to go."""


class Lockstep:
    """A candidate and the model side by side, taking one step at a time."""

    __slots__ = (
        "_call_clauses",
        "_checks",
        "_fields",
        "_legal",
        "_model",
        "_seen",
        "_view",
        "answers",
        "because",
        "company",
        "counts",
        "env",
        "failure",
        "history",
        "made",
        "profile",
        "recorder",
        "reports",
        "states",
        "steps",
        "subsystem",
        "trace",
        "warnings",
    )

    keep: ClassVar[Callable[[Trace], list[Step]] | None] = None
    """Makes the list of the steps taken, where they are to be known even if this process ends in one of them."""

    def __init__(
        self,
        subsystem: Subsystem,
        trace: Trace,
        factory: Callable[[Any], Any],
        *,
        environment: Callable[..., Environment] | None = None,
        record: bool = False,
        counts: dict[Clause, int] | None = None,
    ) -> None:
        """Start a candidate in a fresh world; `trace` gives the header, its steps are ignored."""
        self.subsystem = subsystem
        self.trace = trace
        self.profile = subsystem.profiles[trace.profile]
        self._legal = subsystem.legal
        self._model = subsystem.step
        self._view = subsystem.view
        self._checks = subsystem.checks
        self._call_clauses = subsystem.clauses_of_calls()
        self.made: dict[str, int] = {}
        """How often each environment call was made, for counting clauses."""
        self.answers = subsystem.answers()
        self.because: Clause | None = None
        """What decided the last step that was explained."""
        self.counts: dict[Clause, int] = {} if counts is None else counts
        self.history: list[Step] = [] if Lockstep.keep is None else Lockstep.keep(trace)
        self.failure: Failure | None = None
        self.warnings: list[Failure] = []
        self.reports: list[StepReport] = []
        self.company: Company | None = None
        """What happened in the last step that had company."""
        self.steps = 0
        self.states: tuple[Any, ...] = (subsystem.initial(trace.config, self.profile),)
        seen = self._view(self.states[0])
        self._seen = (self.states[0], seen)
        seldom = [(f, c) for f, c in subsystem.view_clauses.items() if self.counts.get(c, 0) < COUNTED]
        self._fields = [(seen._fields.index(f), c) for f, c in seldom]
        self.env = (environment or subsystem.environment)(trace.config, self.profile)
        self.recorder = Recorder(self.env, tuple(subsystem.view_clauses)) if record else None
        if self.recorder is not None:
            self.env.frame.log = self.recorder.log()
        try:
            self.env.start(factory)
            self.states = (self.env.starting_at(self.states[0]),)
        except Breach as breach:
            self._breached(Step(started), breach)

    @property
    def passed(self) -> list[Point]:
        """Points of preemption that the threads of the last `Parallel` passed."""
        return self.company.passed if self.company is not None else []

    @property
    def state(self) -> Any:
        """The model's state; one of several while observations leave it open."""
        return self.states[0]

    def legal(self, op: Any) -> bool:
        """Whether the world can do `op` now."""
        if type(op) is Parallel:
            left, right = op.left.op, op.right.op
            both = all(self._legal(self.states[0], side) for side in (left, right))
            return both and self.env.can_run_beside(left, right)
        return self._legal(self.states[0], op)

    def retrace(self, steps: Sequence[Step], states: tuple[Any, ...]) -> Failure | None:
        """Take steps that an equal candidate took before and that were judged then: `states` is where they led.

        They are performed, not judged again, which takes half the time. Steps with company are not for this.
        """
        env = self.env
        for step in steps:
            self.history.append(step)
            env.frame = frame = Frame(step.faults, self.made)
            if self.recorder is not None:
                frame.log = self.recorder.log()
            try:
                env.perform(step.op)
            except Breach as breach:
                return self._breached(step, env.remember(breach))
            if env.breach is not None:
                return self._breached(step, env.breach)
        self.states = states
        self._seen = (states[0], self._view(states[0]))
        return None

    def step(self, step: Step, priorities: Priorities | None = None) -> Failure | None:
        """Take one step; the failure that ends the run, or None. `priorities` switch threads in place of a schedule."""
        self.history.append(step)
        self.steps += 1
        env = self.env
        env.frame = frame = Frame(step.faults, self.made)
        if self.recorder is not None:
            frame.log = self.recorder.log()
        op = step.op
        if step.during or type(op) is Parallel:
            return self._step_with_company(step, priorities)
        try:
            result = env.perform(op)
        except Breach as breach:
            return self._breached(step, env.remember(breach))
        if env.breach is not None:
            return self._breached(step, env.breach)
        try:
            observed = env.view()
        except OSError as error:
            return self._gone(step, error)
        answers = self.answers if not frame.given else self._answers(frame.given)
        before = self.states[0]
        matched = _matching(self, op, frame, answers, result, observed)
        if isinstance(matched, Outcome):
            outcome = matched
            self.states = (outcome.state,)
        elif matched:
            outcome = self._settle(matched)
        else:
            return self._mismatch(step, result, observed, answers)
        for clause in outcome.breaches:
            self._warn(step, clause)
        self._saw(outcome.state, observed)
        counts, self.because = self.counts, outcome.because
        counts[outcome.because] = counts.get(outcome.because, 0) + 1
        if outcome.effect is not None:
            counts[outcome.effect] = counts.get(outcome.effect, 0) + 1
        for clause in outcome.also:
            counts[clause] = counts.get(clause, 0) + 1
        if step.faults:
            self._count_calls(frame.made)
        if self.recorder is not None:
            self._report(step, [Done(step, result, frame)], self._view(outcome.state), observed)
        checks = self._checks.get(type(op))
        if checks:
            return self._check(step, before, outcome, result, frame)
        return None

    def run(self, steps: Sequence[Step]) -> Failure | None:
        """Take steps until one fails."""
        for step in steps:
            if self.failure is not None or self.step(step) is not None:
                break
        return self.failure

    def close(self) -> None:
        """Let go of the candidate and of what the environment holds, and add its own counts."""
        if self.failure is None and sys.exception() is None and isinstance(self.history, Kept):
            self.history.end()
        try:
            self.env.end()
        except Breach as breach:
            if self.failure is None:
                self._breached(Step(ended), breach)
        self._count_calls(self.made)
        self.made = {}
        for clause, n in self.env.held.items():
            self.counts[clause] = self.counts.get(clause, 0) + n
        self.env.held = {}
        self.env.close()
        self.env.driver = None  # it knows the world, and the world it: one in C would be kept until both are found

    # -- company

    def _step_with_company(self, step: Step, priorities: Priorities | None) -> Failure | None:
        """Judge a step with others during it: some order of them must explain what was seen."""
        env = self.env
        self.company = company = Company(self.subsystem, env, self.states, step, self._allowed, self._frame)
        breach: Breach | None = None
        try:
            company.perform(priorities)
        except Breach as raised:
            breach = env.remember(raised)
        step = self.history[-1] = company.step
        breach = breach or env.breach
        if breach is not None:
            return self._breached(step, breach)
        try:
            observed = env.view()
        except OSError as error:
            return self._gone(step, error)
        explained: list[list[Outcome]] = []
        others: list[tuple[Any, Outcome]] = []
        for path in company.explanations():
            end = self._view(path[-1].state)
            if end == observed:
                explained.append(path)
            elif not explained:
                others.append((end, path[-1]))
        if explained:
            self._accept(company, explained, observed)
            return None
        if others:
            return self._view_mismatch(step, *self._nearest(others, observed), observed, company)
        nearest = company.nearest()
        because = self.subsystem.robustness if nearest is None else nearest[1].decider(nearest[0].result)
        self._report(step, company.done, None, observed)
        return self._fail(
            step,
            because,
            "result",
            "no order of the operations explains the results",
            " or ".join(dict.fromkeys(company.allowed_results())),
            company.results(),
        )

    def _allowed(self, state: Any, done: Done) -> tuple[Outcome, ...]:
        """What the model allows for an operation that happened."""
        return tuple(_outcomes(self, (state,), done.step.op, done.frame))

    def _frame(self, step: Step) -> Frame:
        """What belongs to one operation in company, which counts its own calls."""
        frame = Frame(step.faults)
        if self.recorder is not None:
            frame.log = self.recorder.log()
        return frame

    def _accept(self, company: Company, explained: Sequence[list[Outcome]], observed: Any) -> None:
        """Keep every state that some order explains; count and warn by the one with the fewest breaches."""
        breaches = [sum(len(outcome.breaches) for outcome in path) for path in explained]
        least = min(breaches)
        kept = [path for path, n in zip(explained, breaches, strict=True) if n == least]
        self.states = tuple(dict.fromkeys(path[-1].state for path in kept))
        if len(self.states) > MAX_STATES:
            raise HarnessError(f"{len(self.states)} model states explain the same trace")
        self._saw(self.states[0], observed)
        self.because = kept[0][-1].because
        for outcome in kept[0]:
            for clause in (outcome.because, outcome.effect, *outcome.also):
                if clause is not None:
                    self.counts[clause] = self.counts.get(clause, 0) + 1
            for clause in outcome.breaches:
                self._warn(company.step, clause)
        for done in company.done:
            if done.frame.made is not self.made:
                self._count_calls(done.frame.made)
        self._report(company.step, company.done, observed, observed)

    # -- verdicts

    def _settle(self, matched: list[Outcome]) -> Outcome:
        """Of several that explain the step, one that breaks the fewest SHOULD clauses; keep the states of all such."""
        outcome = min(matched, key=lambda o: len(o.breaches))
        self.states = tuple(dict.fromkeys(o.state for o in matched if len(o.breaches) == len(outcome.breaches)))
        if len(self.states) > MAX_STATES:
            raise HarnessError(f"{len(self.states)} model states explain the same trace")
        return outcome

    def _gone(self, step: Step, error: OSError) -> Failure:
        """The failure of a step after which the world cannot be seen any more."""
        breach = self.env.gone(error)
        if not isinstance(breach, Breach):
            raise error
        return self._breached(step, breach)

    def _mismatch(self, step: Step, result: Any, observed: Any, answers: Any) -> Failure:
        """Name the clause of the outcome that came closest."""
        allowed: list[Outcome] = []
        for state in self.states:
            allowed += each(self._model(state, step.op, answers, self.profile))
        returned = [(self._view(o.state), o) for o in allowed if o.result == result]
        if returned:
            return self._view_mismatch(step, *self._nearest(returned, observed), observed, None, result)
        if not allowed:
            raise HarnessError(f"the model of {self.subsystem.name} allows nothing for {step.op!r}")
        seen = [o for o in allowed if self._view(o.state) == observed]
        outcome = max(seen or allowed[:1], key=lambda o: o.agreement(result))
        self._report(step, [Done(step, result, self.env.frame)], self._view(outcome.state), observed)
        expected, got = _results(step.op, allowed, outcome, result)
        return self._fail(step, outcome.decider(result), "result", "", expected, got)

    def _nearest(self, ends: Sequence[tuple[Any, Outcome]], observed: Any) -> tuple[Any, Outcome]:
        """The one whose view differs from what is seen in the fewest fields, the first of equals."""
        return min(ends, key=lambda end: len(_differing(self.subsystem, end[0], observed)))

    def _view_mismatch(
        self, step: Step, expected: Any, outcome: Outcome, observed: Any, company: Company | None, result: Any = None
    ) -> Failure:
        fields = _differing(self.subsystem, expected, observed)
        if not fields:
            raise HarnessError(f"the views differ in a field that has no clause: {expected!r} and {observed!r}")
        name = fields[0]
        op = step.op
        clause = None
        if type(op) is Parallel:
            if self.subsystem.cite_together is not None:
                clause = self.subsystem.cite_together(self.states[0], op, name)
        elif self.subsystem.cite is not None:
            clause = self.subsystem.cite(self.states[0], op, name, expected, observed)
        clause = clause or outcome.effect or self.subsystem.view_clauses[name]
        done = [Done(step, result, self.env.frame)] if company is None else company.done
        prefix = "" if company is None else "during." if step.during else "parallel."
        self._report(step, done, expected, observed)
        want, got = values.differences(expected, observed, fields, self.subsystem.view_labels)
        return self._fail(step, clause, f"{prefix}view.{name}", "", want, got)

    def _check(self, step: Step, before: Any, outcome: Outcome, result: Any, frame: Frame) -> Failure | None:
        record = Record(before, outcome.state, step.op, result, tuple(frame.log), frame.given, self.env, self.profile)
        for check in self._checks[type(step.op)]:
            verdict = check.holds(record)
            if verdict is False:
                continue
            self.counts[check.clause] = self.counts.get(check.clause, 0) + 1
            if verdict is True:
                continue
            if check.clause.level.is_binding:
                return self._fail(step, check.clause, "check", str(verdict))
            self._warn(step, check.clause, str(verdict))
        return None

    def _breached(self, step: Step, breach: Breach) -> Failure:
        has_company = bool(step.during) or type(step.op) is Parallel
        done = self.company.done if has_company and self.company else [Done(step, None, self.env.frame)]
        self._report(step, done, None, None)
        clause = breach.clause or self.subsystem.robustness
        return self._fail(step, clause, breach.kind, breach.detail)

    def _report(self, step: Step, done: Sequence[Done], expected: Any, observed: Any) -> None:
        if self.recorder is not None:
            self.reports.append(self.recorder.take(step, done, expected, observed))

    def _fail(self, step: Step, clause: Clause, kind: str, detail: str, expected: str = "", got: str = "") -> Failure:
        self.counts[clause] = self.counts.get(clause, 0) + 1
        self.failure = Failure(
            clause=clause,
            operation=operation_name(step.op),
            kind=kind,
            detail=detail,
            step=len(self.history) - 1,
            expected=expected,
            got=got,
            trace=self.trace.with_steps(tuple(self.history)),
        )
        return self.failure

    def _warn(self, step: Step, clause: Clause, detail: str = "") -> None:
        self.warnings.append(
            Failure(
                clause=clause,
                operation=operation_name(step.op),
                kind="should",
                detail=detail,
                step=len(self.history) - 1,
                trace=self.trace.with_steps(tuple(self.history)),
            )
        )

    def _answers(self, given: dict[str, int]) -> Any:
        return self.subsystem.answers(**given) if given else self.answers

    def _saw(self, state: Any, observed: Any) -> None:
        """What was observed is the state's view; a field's clause is exercised by each step that changes the field."""
        before, last = self._seen
        if state is before:
            return
        self._seen = (state, observed)
        if self._fields and observed != last:
            for at, clause in self._fields:
                if observed[at] != last[at]:
                    self.counts[clause] = self.counts.get(clause, 0) + 1

    def _count_calls(self, made: dict[str, int]) -> None:
        for name, n in made.items():
            for clause in self._call_clauses.get(name, ()):
                self.counts[clause] = self.counts.get(clause, 0) + n


@dataclass(frozen=True, slots=True)
class _Start:
    """Stands for the creation of the candidate in a failure's trace."""


@dataclass(frozen=True, slots=True)
class _End:
    """Stands for the end of the candidate's object after the last step."""


started, ended = _Start(), _End()


def run_trace(
    subsystem: Subsystem,
    trace: Trace,
    factory: Callable[[Any], Any],
    *,
    environment: Callable[..., Environment] | None = None,
    record: bool = False,
) -> Report:
    """Judge one trace on a fresh candidate. Steps that the world cannot do are left out."""
    lockstep = Lockstep(subsystem, trace, factory, environment=environment, record=record)
    try:
        for step in trace.steps:
            if lockstep.failure is not None:
                break
            if lockstep.legal(step.op):
                lockstep.step(step)
    finally:
        lockstep.close()
    return Report(lockstep.failure, lockstep.warnings, lockstep.reports, Tally(lockstep.counts, lockstep.steps, 1))


def _matching(
    judge: Lockstep, op: Any, frame: Frame, answers: Any, result: Any, observed: Any
) -> Outcome | list[Outcome]:
    """The outcome that explains a step, or all where there are several or none."""
    matched: list[Outcome] = []
    seen_state, seen = judge._seen
    model, view, profile, states = judge._model, judge._view, judge.profile, judge.states
    for state in states:
        given = model(state, op, answers, profile)
        if isinstance(given, Outcome):  # most steps leave no freedom
            if given.result == result and (seen if given.state is seen_state else view(given.state)) == observed:
                if len(states) == 1 and not frame.overcome:
                    return given
                matched.append(given)
            continue
        for outcome in given if isinstance(given, tuple) else given.explaining(result):
            if outcome.result == result:
                if (seen if outcome.state is seen_state else view(outcome.state)) == observed:
                    matched.append(outcome)
    if frame.overcome:
        matched += _despite(judge, op, frame, result, observed)
    return matched[0] if len(matched) == 1 else matched


def _outcomes(judge: Lockstep, states: Iterable[Any], op: Any, frame: Frame) -> Iterator[Outcome]:
    """What the model allows for an operation that met refusals, be it that further attempts mended some of them."""
    for given in frame.ways():
        answers = judge._answers(given)
        for state in states:
            yield from each(judge._model(state, op, answers, judge.profile))


def _despite(judge: Lockstep, op: Any, frame: Frame, result: Any, observed: Any) -> list[Outcome]:
    """What explains a step by the refusals alone that no further attempt mended."""
    answers = judge._answers(frame.ways()[-1])
    allowed = (o for state in judge.states for o in each(judge._model(state, op, answers, judge.profile)))
    return [o for o in allowed if o.result == result and judge._view(o.state) == observed]


def _differing(of: Subsystem, expected: Any, observed: Any) -> list[str]:
    """Fields of the view that are not as expected."""
    return [f for f in of.view_clauses if getattr(expected, f) != getattr(observed, f)]


def operation_name(op: Any) -> str:
    """What a signature calls an operation."""
    if type(op) is Parallel:
        return f"{operation_name(op.left.op)}|{operation_name(op.right.op)}"
    return type(op).__name__.lstrip("_")


def _results(op: Any, allowed: Sequence[Outcome], closest: Outcome, result: Any) -> tuple[str, str]:
    """What was allowed, and what came instead; of a result with several parts those that differ."""
    if closest.has_parts_as(result):
        return values.part_results(op, closest.result, result)
    return " or ".join(dict.fromkeys(values.result(o.result) for o in allowed)), values.result(result)
