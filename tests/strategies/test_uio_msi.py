"""Domains, shapes and worlds of uio_msi: legal, complete, and as biased as they should be."""

from __future__ import annotations

import dataclasses
import typing
from itertools import pairwise
from random import Random

import pytest

from conformance.model import uio_msi as model
from conformance.model.step import Outcome, Parallel, Step
from conformance.model.uio_msi.operations import NOTHING_REFUSED, IrqSet, RaiseVector
from conformance.specs.uio_msi import PROFILES, Port
from conformance.specs.uio_msi.constants import PCI_BARS
from conformance.strategies import uio_msi as strategies
from conformance.strategies.uio_msi.domains import LAYOUTS

UPSTREAM = PROFILES["upstream"]


def test_every_operation_has_a_shape() -> None:
    """And each shape a domain for each field."""
    assert set(strategies.SHAPES) == set(model.OPERATIONS)
    for op, shape in strategies.SHAPES.items():
        assert list(shape.fields) == [field.name for field in dataclasses.fields(op)]


def test_faults_are_calls_that_can_be_refused() -> None:
    """Each is a field of Answers and a call of the port, and no value is 0; four of them nobody plans."""
    unplanned = {"unmask_coalesced", "message_written", "refused_again", "granted_again"}
    answers = {field.name for field in dataclasses.fields(model.Answers)} - unplanned
    planned = [fault for shape in strategies.SHAPES.values() for fault in shape.faults]

    assert {call for call, _ in planned} == answers
    assert all(hasattr(Port, call) for call, _ in planned)
    assert all(value for _, values in planned for value in values)


def test_operations_of_each_domain_can_be_made() -> None:
    """Every listed value has the type of its field."""
    for op, shape in strategies.SHAPES.items():
        hints = typing.get_type_hints(op)
        for name, domain in shape.fields.items():
            assert all(type(value) is hints[name] for value in domain.values)


@pytest.mark.parametrize("config", [*strategies.CONFIGS, *LAYOUTS.values()], ids=lambda config: f"{config.vectors}v")
def test_worlds_are_possible(config: model.Config) -> None:
    """BARs do not overlap, table and pending bits lie within theirs, and two eventfds are there."""
    spans = sorted((bar.start, bar.start + bar.size) for bar in config.bars if bar.size and bar.start)

    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert len(config.eventfds) >= 2
    assert len(config.bars) <= PCI_BARS
    if config.vectors:
        table, pba = config.bars[config.table_bar], config.bars[config.pba_bar]
        assert config.table_offset + 16 * config.vectors <= table.size
        assert config.pba_offset + (config.vectors + 63) // 64 * 8 <= pba.size


def test_opening_is_legal_everywhere() -> None:
    """Random walks begin with it in every world; where probe fails, the open is refused."""
    for config in strategies.CONFIGS:
        state = model.initial(config, UPSTREAM)
        for step in strategies.opening(config, UPSTREAM):
            assert model.legal(state, step.op)
            outcomes = model.step(state, step.op, NOTHING_REFUSED, UPSTREAM)
            state = (outcomes if isinstance(outcomes, Outcome) else outcomes[0]).state


def test_suggestions_fit_and_favour_mapped_vectors() -> None:
    """All are legal; about a third of the sets meet a mapped vector, events are frequent."""
    random = Random(1)
    state = model.initial(model.Config(), UPSTREAM)
    sets = events = mapped = 0
    for _ in range(3000):
        step = strategies.suggest(state, random)
        assert step is not None
        assert model.legal(state, step.op)
        if isinstance(step.op, IrqSet):
            sets += 1
            mapped += state.wired[step.op.vector] is not None
        events += isinstance(step.op, RaiseVector)
        outcomes = model.step(state, step.op, NOTHING_REFUSED, UPSTREAM)
        state = (outcomes if isinstance(outcomes, Outcome) else outcomes[0]).state

    assert mapped > sets * 0.3
    assert events > 3000 * 0.25


def test_exhaustive_steps_are_made_of_known_values() -> None:
    """What explore finds can be simplified within the domains."""
    for scope in strategies.SCOPES.values():
        for step in scope.steps if scope.in_gate else ():
            assert isinstance(step, Step)
            for side in (step.op.left, step.op.right) if isinstance(step.op, Parallel) else (step,):
                fields = strategies.SHAPES[type(side.op)].fields
                assert all(
                    getattr(side.op, name) in domain.values or domain.bounds is not None
                    for name, domain in fields.items()
                ), side


def test_gate_scopes_are_pinned() -> None:
    """Every world that is about more than its probe has its counts."""
    for name, scope in strategies.SCOPES.items():
        if not name.startswith("world-"):
            assert scope.states, name
            assert scope.transitions, name
