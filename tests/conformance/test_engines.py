"""Sources of traces: each finds what it is for, minimal, once, and goes on."""

from __future__ import annotations

import gc
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from conformance.candidates.load import from_class, load
from conformance.engines import campaign, corpus, explore, garbage, machine
from conformance.engines.context import Context
from conformance.engines.minimise import minimise, minimiser
from conformance.lockstep import run_trace
from conformance.model.step import Fault, Parallel, Step
from conformance.runs import watchdog
from conformance.runs.watchdog import watching
from conformance.subsystem import NAMES, subsystem
from conformance.trace import encode
from conformance.verdict import UsageError
from tests.toy import TOY, Clear, Config, Put, Shelf, Take, context, trace


class Leaky(Shelf):
    """Forgets to free what Take returned when it was put second."""

    def take(self) -> int:
        """Skip the free for the last slot."""
        if len(self.items) == 2:
            value, _ = self.items.pop()
            self._show()
            return value
        return super().take()


class Doubly(Leaky):
    """Has a second, independent defect."""

    def clear(self) -> int:
        """Return a wrong result."""
        super().clear()
        return 1


class Racy(Shelf):
    """Puts without the lock."""

    def put(self, value: int) -> int:
        """No lock."""
        return self._put(value)


ENGINES: list[Any] = [explore.run, campaign.run, machine.run]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_correct_candidate_is_never_accused(engine: Any) -> None:
    """No engine finds anything, and all of them do take steps."""
    given = context(steps=5_000)

    engine(given)

    assert given.failures == given.warnings == []
    assert given.tally.steps > 50


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_finds_a_leak_with_the_shortest_trace(engine: Any) -> None:
    """Two puts and a take, plainest values."""
    given = context(Leaky, steps=5_000)

    engine(given)

    leak = next(f for f in given.failures if f.operation == "Take")
    assert leak.signature == "TOY-007:Take:view.held"
    assert leak.trace == trace(Put(), Put(), Take())


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_goes_on_after_a_failure(engine: Any) -> None:
    """Two defects are two signatures, each reported once."""
    given = context(Doubly, steps=10_000)

    engine(given)

    signatures = [f.signature for f in given.failures]
    assert {"TOY-007:Take:view.held", "TOY-012:Clear:result"} <= set(signatures)
    assert len(signatures) == len(set(signatures))


@pytest.mark.parametrize("engine", ENGINES)
def test_garbage_is_collected_seldom_while_an_engine_runs(engine: Any) -> None:
    """The interpreter's own thresholds cost a tenth of the time, and hold again afterwards."""
    before, seen = gc.get_threshold(), set()

    class Looking(Shelf):
        """Sees how often garbage is collected."""

        def take(self) -> int:
            """Look first."""
            seen.add(gc.get_threshold())
            return super().take()

    engine(context(Looking, steps=500))

    assert seen == {garbage.THRESHOLDS}
    assert gc.get_threshold() == before


def test_exploration_counts_states_and_transitions() -> None:
    """Seven states of two slots and two values, five steps in each."""
    given = context()

    explore.run(given)

    assert given.notes == {"all: states": 7, "all: transitions": 35}


@pytest.mark.parametrize("name", NAMES)
def test_an_exploration_begins_the_worlds_that_no_scope_has(name: str) -> None:
    """What is wrong there from the start is found at once."""
    of = subsystem(name)
    right = load("builtin:upstream", of)
    context = Context(right.part(of), right, right.profile)
    explored = {scope.config for _, scope in explore.scopes(context)}
    others = [config for config in of.configs if context.allows(config) and config not in explored]

    class WrongInOthers(right.factory):  # type: ignore[misc]  # a base that is known at run time
        def __init__(self, port: Any) -> None:
            super().__init__(port)
            if port._env.config in others:
                raise RuntimeError

    candidate = from_class(WrongInOthers, of, "others.py:WrongInOthers")
    context = Context(candidate.part(of), candidate, candidate.profile)

    explore.begin_others(context)

    assert [failure.trace.config for failure in context.failures if failure.trace] == others[:1]
    assert context.tally.traces >= len(others)


def test_parts_of_an_exploration_divide_its_scopes() -> None:
    """One scope belongs to one part."""
    parts = [context(part=part, parts=2) for part in range(2)]

    for part in parts:
        explore.run(part)

    assert [part.notes.get("all: states") for part in parts] == [7, None]


def test_exploration_walks_on_rather_than_start_again() -> None:
    """Thirty-five transitions need few more steps, besides the sequences of length two."""
    given = context()
    given.subsystem = replace(TOY, scopes={"all": replace(TOY.scopes["all"], sequences=0)})

    explore.run(given)

    assert given.notes["all: transitions"] == 35
    assert given.tally.steps < 60


def test_exploration_keeps_to_its_depth() -> None:
    """A state found at first by a detour still counts with its shortest path."""
    given = context()
    given.subsystem = replace(TOY, scopes={"all": replace(TOY.scopes["all"], sequences=0, depth=1)})

    explore.run(given)

    assert given.notes == {"all: states": 3, "all: transitions": 5}


def test_the_campaign_repeats_itself() -> None:
    """The same seed takes the same steps."""
    first, second = context(Doubly, steps=3_000), context(Doubly, steps=3_000)

    campaign.run(first)
    campaign.run(second)

    assert first.tally.clauses == second.tally.clauses
    assert [f.trace for f in first.failures] == [f.trace for f in second.failures]


def test_the_campaign_finds_a_race() -> None:
    """Only two threads show it, so the trace keeps them."""
    given = context(Racy, steps=20_000)

    campaign.run(given)

    assert given.failures
    assert all(type(f.trace.steps[-1].op) is Parallel for f in given.failures if f.trace)


def test_minimising_drops_what_is_not_needed() -> None:
    """Steps, faults, values and company go; the signature stays."""
    given = context(Leaky)
    long = trace(
        Put(7),
        Take(),
        Step(Put(255), (Fault("alloc", -12),)),
        Put(255),
        Clear(),
        Put(7),
        Put(7),
        Step(Take(), (Fault("alloc", -12),)),
        Put(1),
    )
    failure = run_trace(TOY, long, Leaky).failure
    assert failure is not None

    smallest = minimise(given, failure)

    assert smallest.trace == trace(Put(), Put(), Take())
    assert smallest.signature == failure.signature


def test_minimising_prefers_the_plainest_world() -> None:
    """A world that has nothing to do with the failure is not part of its trace."""
    given = context(Leaky)
    wide = replace(trace(Put(), Put(), Take()), config=Config(odd=True))
    failure = run_trace(TOY, wide, Leaky).failure
    assert failure is not None

    smallest = minimise(given, failure)

    assert smallest.trace == trace(Put(), Put(), Take())


def test_a_fault_at_a_call_that_cannot_be_refused_is_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt call would otherwise be passed over in silence."""
    monkeypatch.setattr(corpus, "available", lambda: ("toy",))
    monkeypatch.setattr(corpus, "subsystem", lambda _name: TOY)
    path = tmp_path / "trace.json"
    path.write_text(encode(trace(Step(Put(), (Fault("aloc", -12),)))))

    with pytest.raises(UsageError, match="no call 'aloc' can be refused; did you mean 'alloc'"):
        corpus.read(path)


def test_a_failure_met_in_company_is_reported_plain() -> None:
    """Two threads are not part of a failure that one thread shows."""
    given = context(Leaky)
    failure = run_trace(TOY, trace(Put(), Put(), Step(Parallel(Step(Take()), Step(Put()), (1,)))), Leaky).failure
    assert failure is not None

    smallest = minimise(given, failure)

    assert smallest.signature == "TOY-007:Take:view.held"


def test_a_known_failure_met_in_company_is_not_made_small() -> None:
    """It is seen to be the plain one, which is known; that takes two traces at most."""
    made: list[Leaky] = []

    class Counted(Leaky):
        def __init__(self, port: Any) -> None:
            super().__init__(port)
            made.append(self)

    steps = (Put(), Put(), Step(Parallel(Step(Take()), Step(Put()), (1,))))
    given = context(Counted, known={"TOY-007:Take:view.held"})
    failure = run_trace(TOY, trace(*steps), Leaky).failure
    assert failure is not None

    assert not given.note_failure(failure, minimiser(given))
    assert 1 <= len(made) <= 2
    assert given.failures == []


def test_what_is_imported_does_not_lead_the_machine(tmp_path: Path) -> None:
    """Hypothesis draws constants of such a module, and a gate would depend on what else its process has done."""
    numbers = [n * n + 10**6 for n in range(200)]
    path = tmp_path / "full_of_numbers.py"
    path.write_text(f"NUMBERS = {numbers}\n")
    spec = importlib.util.spec_from_file_location("full_of_numbers", path)
    assert spec is not None

    with machine.without_constants():
        before = drawn()
    sys.modules["full_of_numbers"] = importlib.util.module_from_spec(spec)
    try:
        with machine.without_constants():
            after = drawn()
        tempted = drawn()
    finally:
        del sys.modules["full_of_numbers"]

    assert before == after
    assert set(numbers) & set(tempted)


def drawn() -> list[int]:
    """What Hypothesis draws with one seed."""
    values: list[int] = []

    @seed(1)
    @settings(database=None, max_examples=400, phases=(Phase.generate,), deadline=None)
    @given(st.integers(0, 2**40))
    def take(value: int) -> None:
        values.append(value)

    take()
    return values


def test_an_endless_loop_is_stopped_by_the_watchdog() -> None:
    """A loop that never calls the environment is a hang, not a hanging run."""

    class Loop(Shelf):
        def clear(self) -> int:
            while True:
                pass

    with watching(patience=0.5):
        failure = run_trace(TOY, trace(Clear()), Loop).failure

    assert failure is not None
    assert failure.signature == "TOY-008:Clear:hang"


def test_a_saved_failure_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The corpus keeps the trace under its signature, and replays it first."""
    failure = run_trace(TOY, trace(Put(), Put(), Take()), Leaky).failure
    assert failure is not None
    monkeypatch.setattr(corpus, "available", lambda: ("toy",))
    monkeypatch.setattr(corpus, "subsystem", lambda _name: TOY)

    path = corpus.save(tmp_path, failure)
    given = context(Leaky)
    corpus.run(given, tmp_path)

    assert path.name.startswith("TOY-007-Take-view.held-")
    assert [f.signature for f in given.failures] == ["TOY-007:Take:view.held"]


@pytest.mark.parametrize("engine", [explore, campaign, machine])
def test_an_engine_gives_up_on_a_candidate_that_keeps_hanging(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hang is found, and not waited for a thousand times."""
    monkeypatch.setattr(watchdog, "TICK", 0.01)
    monkeypatch.setattr(watchdog, "IMPATIENCE", 0.02)
    entered = []

    class Looping(Shelf):
        def take(self) -> int:
            entered.append(1)
            while True:
                pass

    looping = context(Looping, steps=4_000)
    with watching(0.05):
        engine.run(looping)

    assert [failure.signature for failure in looping.failures] == ["TOY-008:Take:hang"]
    assert len(entered) < 60


def test_a_hang_is_reduced_however_long_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tries that hang cost patience; those that do not are as cheap as any."""
    monkeypatch.setattr(watchdog, "TICK", 0.01)
    monkeypatch.setattr(watchdog, "IMPATIENCE", 0.03)

    class Tiring(Shelf):
        def take(self) -> int:
            while len(self.items) == 2 and self.items[0][0] == 1 and self.items[1][0] == 2:
                pass
            return super().take()

    long = trace(*[Put(0), Take(), Clear()] * 9, Put(1), Clear(), Put(1), *[Put(3), Take()] * 6, Put(2), Take())
    with watching(0.03):
        failure = run_trace(TOY, long, Tiring).failure
        assert failure is not None
        smallest = minimise(context(Tiring), failure)

    assert failure.detail == "did not return within 0.03 s"
    assert smallest.trace == trace(Put(1), Put(2), Take())


def test_a_machine_without_a_world_does_nothing() -> None:
    """A candidate may have no capability that any world needs."""
    needy = replace(TOY, requires=lambda _config: frozenset({"colour"}))
    given = replace(
        context(Shelf), subsystem=needy, candidate=replace(context(Shelf).candidate, capabilities=frozenset())
    )

    machine.run(given)

    assert (given.failures, given.tally.steps) == ([], 0)


def test_a_failure_is_not_minimised_into_a_world_the_candidate_cannot_be_in() -> None:
    """A plainer configuration may need a capability that the candidate does not have."""
    needy = replace(TOY, requires=lambda config: frozenset({"small"}) if config.size == 2 else frozenset())
    given = replace(context(Leaky), subsystem=needy)
    failure = run_trace(TOY, replace(trace(Put(), Put(), Take()), config=Config(size=3)), Leaky).failure
    assert failure is not None

    smallest = minimise(given, failure)

    assert smallest.trace is not None
    assert smallest.trace.config == Config(size=3)


def test_an_exploration_knows_its_graph() -> None:
    """Every state with what was tried there, and which steps lead from one to another."""
    given = context(Leaky)

    explore.run(given)

    (seen,) = given.explored
    assert (len(seen.states), sum(s.tried for s in seen.states)) == (
        given.notes["all: states"],
        given.notes["all: transitions"],
    )
    assert all(s.tried == s.legal for s in seen.states)
    assert [s.depth for s in seen.states if s.failed] == [2] * sum(s.failed > 0 for s in seen.states) != []
    moved = sum(edge.steps for edge in seen.edges)
    assert 0 < moved < sum(s.tried - s.failed for s in seen.states)
    assert all(seen.states[edge.to].depth <= seen.states[edge.origin].depth + 1 for edge in seen.edges)
