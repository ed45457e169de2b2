"""The values, worlds and steps of cet: legal where they should be, and as small as pinned."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from conformance.candidates.load import load
from conformance.engines import explore
from conformance.engines.context import Context
from conformance.model import cet as model
from conformance.model.cet import operations as m
from conformance.model.cet.nesting import entry_refusal
from conformance.model.cet.values import pointer_refusal
from conformance.specs.cet import PROFILES
from conformance.specs.cet.constants import MSRS
from conformance.strategies import cet as strategies
from conformance.strategies.cet.domains import AREAS, HOSTS, tag
from conformance.subsystem import subsystem

S = subsystem("cet")


def test_tags_are_distinct_legal_pointers() -> None:
    """A value in the wrong place shows which vCPU and register it was made for."""
    tags = [tag(vcpu, msr, n) for vcpu in (0, 1) for msr in MSRS[:7] for n in range(8)]

    assert len(set(tags)) == len(tags)
    assert all(pointer_refusal(value, 48) is None for value in tags)


def test_capabilities_are_explored_over_every_prerequisite() -> None:
    """Both values of every field that matters, on both vendors, and each VMX prerequisite missing alone."""
    hosts = HOSTS

    assert len(set(hosts)) == len(hosts)
    for field in ("shstk", "ibt", "xsaves", "tdp", "smaller_maxphyaddr", "lm"):
        assert {(h.vendor, getattr(h, field)) for h in hosts} >= {
            (v, b) for v in ("intel", "amd") for b in (True, False)
        } - ({("amd", True)} if field == "smaller_maxphyaddr" else set())
    missing = {
        tuple(f for f in ("load_cet_entry", "load_cet_exit", "basic56", "unrestricted") if not getattr(h, f))
        for h in hosts
        if h.vendor == "intel"
    }
    assert {("load_cet_entry",), ("load_cet_exit",), ("basic56",), ("unrestricted",), ()} <= missing


@pytest.mark.parametrize("config", strategies.CONFIGS, ids=repr)
def test_suggestions_are_mostly_legal(config: m.Config) -> None:
    """A suggestion that the world cannot do is a draw lost."""
    random = Random(1)
    state = model.initial(config, PROFILES["upstream"])
    legal = total = 0
    for _ in range(300):
        step = strategies.suggest(state, random)
        if step is None:
            break
        total += 1
        if model.legal(state, step.op):
            legal += 1
            outcomes = model.step(state, step.op, m.Answers(), PROFILES["upstream"])
            state = (outcomes[0] if isinstance(outcomes, tuple) else outcomes).state

    assert legal >= 0.7 * total


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("field", ["host_s_cet", "host_ssp", "host_table"])
def test_each_host_field_is_wrong_alone_in_either_mode_of_l1(field: str, wide: bool) -> None:
    """An area that is refused, and would not be with a plain value of this field."""
    state = model.initial(m.Config(), PROFILES["upstream"])
    v = state.vcpus[0]
    assert v is not None

    def is_refused(area: m.Area) -> bool:
        return entry_refusal(state, v, area, True) is not None

    areas = [area for area in AREAS if area.load_host and area.host_64 == wide and is_refused(area)]

    assert any(not is_refused(replace(area, **{field: 0})) for area in areas)


SIZES = {
    "core": (466, 4837),
    "pair": (616, 2554),
    "nested-vmx": (147, 148),
    "guest-values-neither": (5, 822),
    "bereft": (1183, 7148),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_small_worlds(name: str) -> None:
    """States and transitions of the correct candidate: a change nobody expected is news."""
    of = replace(S, scopes={name: S.scopes[name]})
    context = Context(subsystem=of, candidate=load("builtin:upstream", S), profile="upstream")

    explore.run(context)

    assert context.failures == []
    assert (context.notes[f"{name}: states"], context.notes[f"{name}: transitions"]) == SIZES[name]
