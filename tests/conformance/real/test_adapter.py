"""The partial view: what an adapter cannot do is not asked for, what it cannot see is not compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from conformance.candidates.load import from_adapter, load
from conformance.engines import campaign, corpus, explore, machine
from conformance.engines.context import Context, lacking
from conformance.lockstep import run_trace
from conformance.model.step import Fault, Step
from conformance.real import adapter as adapters
from conformance.real.adapter import Adapter, Rate, RealWorld, rate, seen_by
from conformance.real.linux_uio import LinuxUio
from conformance.real.linux_vfio import LinuxVfio
from conformance.runs import unit
from conformance.runs.result import Result
from conformance.subsystem import NAMES, subsystem
from conformance.trace import encode
from conformance.verdict import UsageError
from tests import linux_facts, real_facts
from tests.real_facts import Fact
from tests.toy import CLEARED, ENOSPC, TOY, Clear, Config, Put, Take, View, trace


class Cupboard(RealWorld):
    """Stands for a real thing: a list, of which one sees the numbers alone."""

    def __init__(self, size: int = 2, broken: bool = False) -> None:
        super().__init__()
        self.size, self.broken = size, broken
        self.items: list[int] = []

    def do_put(self, op: Put) -> int:
        """Into the list."""
        if len(self.items) >= self.size:
            return -ENOSPC
        self.items.append(op.value ^ self.broken)
        return 0

    def do_take(self, _op: Take) -> int:
        """Out of it."""
        return self.items.pop() if self.items else -2

    def view(self) -> Any:
        """Nobody sees how much is held."""
        return View(tuple(self.items), 0)._replace(held=None)

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {Put: do_put, Take: do_take}


class Shelves(Adapter):
    """Puts and takes, in small cupboards."""

    profile = "upstream"
    capabilities = frozenset[str]()
    operations = frozenset({Put, Take})
    view_fields = frozenset({"numbers"})
    absent: ClassVar[Mapping[str, frozenset[str]]] = {"cupboards have no doors": frozenset({"TOY-009"})}
    broken = False

    def environment(self, config: Config, profile: Any) -> Cupboard:
        """A fresh one."""
        del profile
        return Cupboard(config.size, self.broken)

    def builds(self, config: Config) -> bool:
        """Small ones only."""
        return config.size < 4


def context(adapter: Adapter) -> Context:
    """Of an adapter on the toy."""
    candidate = from_adapter(adapter, "real:shelves")
    return Context(subsystem=candidate.part(TOY), candidate=candidate, profile="upstream", steps=400, examples=20)


@pytest.mark.parametrize("engine", [explore, campaign, machine])
def test_what_can_be_seen_agrees(engine: Any) -> None:
    """Every engine takes steps, and none that the adapter has no way to take."""
    found = context(Shelves())

    engine.run(found)

    assert not found.failures
    assert found.tally.steps > 10
    assert CLEARED not in found.tally.clauses


@pytest.mark.parametrize("engine", [explore, campaign, machine])
def test_a_wrong_thing_is_found(engine: Any) -> None:
    """What is visible is compared."""
    adapter = Shelves()
    adapter.broken = True
    found = context(adapter)

    engine.run(found)

    assert "TOY-001:Put:view.numbers" in {failure.signature for failure in found.failures}


def test_what_is_hidden_is_compared_by_nobody() -> None:
    """The model counts what is held; the adapter sees nothing of it."""
    of = seen_by(TOY, Shelves())

    report = run_trace(of, trace(Put(1), Take()), lambda _port: None)

    assert report.failure is None
    assert of.view(TOY.initial(Config(), None)).held is None


def test_traces_out_of_reach_are_left_out() -> None:
    """An operation, a refusal or a world that the adapter does not have."""
    adapter = Shelves()
    of = seen_by(TOY, adapter)
    wide = replace(trace(Put(1)), config=Config(9))

    assert not lacking(of, trace(Put(1)), adapter.capabilities)
    assert lacking(of, trace(Clear()), adapter.capabilities)
    assert lacking(of, trace(Step(Put(1), (Fault("alloc", -12),))), adapter.capabilities)
    assert lacking(of, wide, adapter.capabilities)


def test_absent_features_take_their_clauses() -> None:
    """What is not there is not judged."""
    judged = Shelves().judged(TOY)

    assert "TOY-009" not in judged
    assert "TOY-001" in judged


def test_unknown_real_implementations_are_refused() -> None:
    """One sentence, with the nearest name."""
    of = subsystem("avic")

    with pytest.raises(UsageError, match="did you mean 'kvm-lapic'"):
        load("real:kvm-lapik", of)
    with pytest.raises(UsageError, match="no versions"):
        load("real:kvm-lapic@6.1", of)


def test_corpus_engine_skips_them() -> None:
    """The shipped corpus of a subsystem without traces for it is no harm."""
    found = context(Shelves())

    corpus.run(found)

    assert found.tally.steps == 0


FACTS = (*real_facts.FACTS, *linux_facts.FACTS, *linux_facts.FOUND.values())


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: f"{fact.adapter}-{fact.name}")
def test_what_was_measured_is_shipped(fact: Fact) -> None:
    """`python -m tests.real_facts` or `python -m tests.linux_facts` writes it."""
    assert fact.path.read_text() == encode(fact.trace)


def test_no_other_measurement_is_shipped() -> None:
    """One that was renamed leaves nothing behind."""
    assert {path for name in NAMES for path in corpus.files(corpus.SHIPPED / name / "real")} == {f.path for f in FACTS}


def test_findings_are_known_and_unseen_clauses_not_counted() -> None:
    """A failure that is settled is no new one; what the adapter cannot see is no exercise."""
    adapter = Shelves()
    adapter.findings = {"TOY-001:Put:view.numbers": "SHELF-1"}
    found: list[dict[str, Any]] = [{"signature": "TOY-001:Put:view.numbers"}, {"signature": "TOY-004:Take:result"}]
    result = Result("toy.machine", "toy", "real:shelves", "upstream", [], clauses={"TOY-009": 3, "TOY-001": 2})
    result.failures = found

    seen = unit._seen(result, adapter, TOY)

    assert seen.known == {"TOY-001:Put:view.numbers": "SHELF-1"}
    assert seen.clauses == {"TOY-001": 2}
    assert seen.absent == ["cupboards have no doors"]


@pytest.mark.parametrize("is_settled", [False, True])
def test_what_is_settled_is_not_minimised(is_settled: bool) -> None:
    """Each attempt would be a real operation; what nobody has seen yet is."""
    adapter = Shelves()
    adapter.broken = True
    (signature,) = {failure.signature for failure in failing(adapter).failures}
    asked: list[Any] = []

    def judge(*arguments: Any, **named: Any) -> Any:
        asked.append(arguments)
        return run_trace(*arguments, **named)

    found = failing(adapter, settled=frozenset({signature} if is_settled else ()), judge=judge)

    assert {failure.signature for failure in found.failures} == {signature}
    assert bool(asked) != is_settled


def failing(adapter: Adapter, **other: Any) -> Context:
    """What a campaign on it found."""
    found = replace(context(adapter), **other)
    campaign.run(found)
    return found


@pytest.mark.parametrize(
    ("seconds", "per_second"),
    [
        ((0.5,) * 60 + (0.01,) + (0.5,) * 9_999, 0),
        ((0.01, 0.001) * 99, 1000),
        ((0.1,) * 70 + (0.012,) + (0.1,) * 99, 83),
    ],
)
def test_a_busy_moment_does_not_decide(
    seconds: tuple[float, ...], per_second: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of many rounds counts, and while none is usual there are more, up to a limit."""
    now, needed = [0.0], iter(seconds)
    monkeypatch.setattr(adapters.time, "perf_counter", lambda: now[0])

    def ask() -> None:
        now[0] += next(needed)

    found = rate("asked", 100, ask)

    assert round(found.measured) == (per_second or 2)
    assert found.is_usual == bool(per_second)


def test_half_the_rate_of_the_facts_is_usual() -> None:
    """And less is not."""
    assert [Rate("", measured, 100).is_usual for measured in (49.9, 50, 200)] == [False, True, True]


@pytest.mark.parametrize("kind", [LinuxVfio, LinuxUio])
def test_no_bridge_is_built_of_a_function_that_is_none(kind: type[Adapter]) -> None:
    """The machine has endpoints alone, whatever the header type is called."""
    builds = kind.__new__(kind).builds
    built = [config for config in subsystem("uio_msi").configs if builds(config)]

    assert built
    assert not any(config.bridge or config.cardbus for config in built)
