"""A candidate implements what it has: whatever it declares leads to a verdict, and never to an error of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conformance.candidates.load import from_class, load
from conformance.engines import campaign, corpus, explore, interleave, machine
from conformance.engines.context import Context
from conformance.runs.conclusion import Conclusion, conclude
from conformance.runs.result import Result, failure_to_data
from conformance.runs.watchdog import watching
from conformance.subsystem import Subsystem, available, subsystem
from conformance.verdict import Exit

ENOSYS = 38
STEPS = 120
"""Of the campaign and the explorations, after which what is missing has been asked for."""
ENGINES = (corpus, explore, interleave, campaign, machine)
WHOLES = {"snp_guest_request": ("upstream", "guest", "inplace")}
"""Complete candidates of which parts are taken, where `upstream` is not all there is."""
NOTHING = {
    ("avic", ""): "helpers or irqfd or layer-r or layer-t",
    ("avic", "exits"): "layer-t",
    ("avic", "posted"): "exits and layer-t",
    ("avic", "kvm-return"): "layer-r",
    ("snp_guest_request", ""): "guest or hypervisor",
    ("snp_guest_request", "userspace-certs"): "hypervisor",
    ("snp_guest_request", "kernel-certs"): "hypervisor",
    ("snp_guest_request", "throttle"): "hypervisor",
    ("snp_guest_request", "move"): "hypervisor",
    ("tdp_mirror", ""): "small-tables or tables-of-512",
    ("tdp_mirror", "seamcalls"): "small-tables or tables-of-512",
    ("tdp_mirror", "log-dirty"): "small-tables or tables-of-512",
}
"""Capabilities that mean nothing alone, and what they need beside them."""


def alone() -> Iterator[tuple[str, str]]:
    """Each capability of each subsystem, and none at all."""
    for name in available():
        for capability in ("", *subsystem(name).capabilities):
            yield name, capability


def entry_points(of: Subsystem, capabilities: frozenset[str]) -> list[str]:
    """What a candidate with just these must have."""
    usual = [
        name
        for name, member in vars(of.candidate).items()
        if inspect.isfunction(member) and name[0] != "_" and of.optional.get(name) in (None, *capabilities)
    ]
    return [*usual, *(name for name, (capability, _) in of.further.items() if capability in capabilities)]


def made(of: Subsystem, capability: str, entry: Callable[[str], Callable[..., Any]], **members: Any) -> type:
    """A class that declares one capability and has just the entry points that this asks for."""
    capabilities = frozenset({capability} if capability else ())
    own: dict[str, Any] = {name: entry(name) for name in entry_points(of, capabilities)}
    for name, method in own.items():
        takes = of.further[name][1] if name in of.further else getattr(of.candidate, name)
        method.__signature__ = inspect.signature(takes)
    return type("Part", (), {"capabilities": capabilities, "__init__": lambda self, port: None, **own, **members})


def not_implemented(_name: str) -> Callable[..., int]:
    """An entry point that says so."""
    return lambda *_: -ENOSYS


def verdict(of: Subsystem, part: type, monkeypatch: pytest.MonkeyPatch, *, first: bool) -> Conclusion:
    """What all engines together come to, after a few steps of each; an error of ours is raised."""
    monkeypatch.setattr(machine, "EXAMPLES", 4)
    candidate = from_class(part, of, "part.py:Part")
    results = []
    for engine in ENGINES:
        name = engine.__name__.rpartition(".")[2]
        context = Context(
            of.within(candidate.capabilities), candidate, candidate.profile, engine=name, stop_at_first=first
        )
        context.steps = context.deadline = STEPS
        context.clock = lambda context=context: context.tally.steps
        with watching():
            engine.run(context)
        results.append(
            Result(
                unit=f"{of.name}.{name}",
                subsystem=of.name,
                spec=candidate.spec,
                profile=candidate.profile,
                capabilities=sorted(candidate.capabilities),
                clauses={clause.id: n for clause, n in context.tally.clauses.items()},
                failures=[failure_to_data(failure) for failure in context.failures],
                steps=context.tally.steps,
                traces=context.tally.traces,
            )
        )
    return conclude(results)


@pytest.mark.parametrize(("name", "capability"), list(alone()))
def test_each_capability_alone_leads_to_a_verdict(name: str, capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers -ENOSYS to all that it must have is wrong, or cannot be asked anything, and is told what lacks."""
    of = subsystem(name)

    concluded = verdict(of, made(of, capability, not_implemented), monkeypatch, first=True)

    if (name, capability) in NOTHING:
        assert concluded.exit is Exit.NOTHING_RAN
        assert concluded.why.endswith(f"no operation applies; declare {NOTHING[name, capability]} as well")
    else:
        assert concluded.exit is Exit.DOES_NOT_CONFORM


@pytest.mark.parametrize(("name", "capability"), list(alone()))
def test_what_a_part_lacks_is_never_asked_for(name: str, capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete candidate of which all is taken away that one capability does not ask for."""
    of = subsystem(name)
    wanted = entry_points(of, frozenset({capability}))
    wholes = [load(f"builtin:{known}", of).factory for known in WHOLES.get(name, ("upstream",))]
    whole: Any = next((factory for factory in wholes if all(hasattr(factory, entry) for entry in wanted)), None)
    if whole is None:
        pytest.skip("no shipped candidate has it")

    def begin(self: Any, port: Any) -> None:
        self.whole = whole(port)

    def passed_on(entry: str) -> Callable[..., Any]:
        return lambda self, *args: getattr(self.whole, entry)(*args)

    part = made(of, capability, passed_on, __init__=begin, profile=getattr(whole, "profile", of.default_profile))
    concluded = verdict(of, part, monkeypatch, first=False)

    assert concluded.exit in (Exit.INCONCLUSIVE, Exit.NOTHING_RAN, Exit.CONFORMS, Exit.DOES_NOT_CONFORM)
    assert {f.signature for f in concluded.failures} <= {"AVIC-085:Enter:result"}
