"""What may happen to AVIC: domains, suggestions, and scopes that fit the model."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.model import avic as model
from conformance.model.avic import operations as s
from conformance.model.avic.routing import DISABLED, X2APIC, XAPIC, Apic, Message
from conformance.model.step import Outcome, Parallel
from conformance.specs.avic import PROFILES
from conformance.specs.avic.constants import CLUSTER, FLAT
from conformance.strategies.avic.domains import (
    CONFIGS,
    DESTINATIONS,
    LDRS,
    RESERVED_BITS,
    RESET,
    RUNNING,
    VECTORS,
    X2,
    an_apic,
)
from conformance.strategies.avic.scopes import SCOPES
from conformance.strategies.avic.shapes import SHAPES
from conformance.strategies.avic.suggest import suggest

UPSTREAM = PROFILES["upstream"]


def test_every_operation_has_a_shape() -> None:
    """Nothing that can happen is left out of random runs."""
    assert set(SHAPES) == set(model.OPERATIONS)


def test_every_operation_needs_a_layer() -> None:
    """Each operation says which capabilities it needs."""
    assert set(model.NEEDS) == set(model.OPERATIONS)


@pytest.mark.parametrize("kind", model.OPERATIONS)
def test_shapes_name_the_fields(kind: Any) -> None:
    """A domain for each field and for nothing else."""
    shape = SHAPES[kind]

    assert set(shape.fields) <= set(kind.__dataclass_fields__)
    kind(**{name: domain.scope[0] for name, domain in shape.fields.items()})


@pytest.mark.parametrize("config", CONFIGS)
def test_configurations_start(config: model.Config) -> None:
    """Each configuration's vCPUs can be brought about."""
    state = model.initial(config, UPSTREAM)

    assert {v.id for v in state.vcpus} == set(config.vcpus)


@pytest.mark.parametrize("name", SCOPES)
def test_scopes_have_something_to_do(name: str) -> None:
    """Some step of each scope is legal at its start, and all are of known kinds."""
    scope = SCOPES[name]
    state = model.initial(scope.config, UPSTREAM)  # type: ignore[arg-type]  # a scope's config is the subsystem's

    ops = [step.op for step in scope.steps]  # type: ignore[attr-defined]  # Steps
    alone = [op.left.op if type(op) is Parallel else op for op in ops]
    assert any(model.legal(state, op) for op in alone)


def test_suggestions_are_legal_most_of_the_time() -> None:
    """A suggestion fits the state it was made for."""
    random = Random("suggest")
    legal = total = 0
    for config in (RUNNING, X2, RESET):
        state = model.initial(config, UPSTREAM)
        for _ in range(200):
            step = suggest(state, random)
            assert step is not None
            total += 1
            op = step.op.left.op if isinstance(step.op, Parallel) else step.op
            if model.legal(state, op):
                legal += 1
                outcomes = model.step(state, op, model.Answers(), UPSTREAM)
                state = (outcomes if isinstance(outcomes, Outcome) else outcomes[0]).state

    assert legal > 0.7 * total


def test_suggested_messages_name_an_apic_that_is_there() -> None:
    """Drawn independently of the APICs, most logical destinations would be nobody's."""
    random = Random("routes")
    state = model.initial(RUNNING, UPSTREAM)
    steps = [suggest(state, random) for _ in range(1500)]
    routes = [step.op for step in steps if step is not None and isinstance(step.op, s.Route)]

    legal = [op for op in routes if model.legal(state, op)]
    named = [op for op in legal if any(_names(op.message, apic) for apic in op.apics)]
    assert len(routes) > 50
    assert len(legal) > 0.7 * len(routes)
    assert len(named) > 0.8 * len(legal)


def _names(message: Message, apic: Apic) -> bool:
    """Whether the destination has the APIC's id, or its logical id among others."""
    if not message.logical:
        return message.dest == apic.id
    ldr = apic.ldr if apic.mode == X2APIC else apic.ldr >> 24
    return message.dest & ldr == ldr


def apics() -> st.SearchStrategy[tuple[Apic, ...]]:
    """One to five APICs of any modes with different ids; the x2APIC ones have their derived LDR."""
    one = st.builds(
        an_apic,
        st.sampled_from((0, 1, 2, 3, 15, 16, 17, 31, 127, 255, 256, 300, 511)),
        st.sampled_from((XAPIC, X2APIC, DISABLED)),
        st.sampled_from((0x1FF, 0xFF, 0x2FF)),
        st.sampled_from(LDRS.values),
        st.sampled_from((FLAT, CLUSTER, 0x5FFFFFFF)),
        st.sampled_from((-1, -1, -1, 0, 1, 44)),
    )
    return st.lists(one, min_size=1, max_size=5, unique_by=lambda a: a.id).map(tuple)


def messages() -> st.SearchStrategy[Message]:
    """MSIs and IPIs of every mode and shorthand; some are not legal for the APICs they meet."""
    return st.builds(
        Message,
        dest=st.sampled_from(DESTINATIONS.values),
        sender=st.sampled_from((-1, 0, 1)),
        logical=st.booleans(),
        shorthand=st.sampled_from((0, 0, 1, 2, 3)),
        mode=st.sampled_from((0, 1, 4, 5, 6, 2, 3, 7)),
        vector=st.sampled_from(VECTORS.values),
        level=st.booleans(),
        asserted=st.booleans(),
        hint=st.booleans(),
        wide=st.booleans(),
        no_quirk=st.booleans(),
        reserved=st.sampled_from((0, 0, *(1 << bit for bit in RESERVED_BITS))),
    )


@given(apics=apics(), message=messages())
def test_legal_messages_can_be_routed(apics: Any, message: Any) -> None:
    """Whatever Hypothesis draws, a legal message has an answer."""
    state = model.initial(model.Config(), UPSTREAM)
    op = s.Route(apics, message)

    if model.legal(state, op):
        assert model.step(state, op, model.Answers(), UPSTREAM)
