"""Domains, shapes and worlds of tdp_mirror: complete, legal, and of the right types."""

from __future__ import annotations

import dataclasses
import typing
from random import Random

import pytest

from conformance.model import tdp_mirror as model
from conformance.model.step import Step, each
from conformance.model.tdp_mirror import OPERATIONS, Answers, Config, State
from conformance.specs.tdp_mirror import PROFILES, Port
from conformance.strategies.tdp_mirror import CONFIGS, SHAPES, STARTS, opening, suggest

UPSTREAM = PROFILES["upstream"]


def test_every_operation_has_a_shape() -> None:
    """And each shape a domain for each field."""
    assert set(SHAPES) == set(OPERATIONS)
    for op, shape in SHAPES.items():
        assert set(shape.fields) == {field.name for field in dataclasses.fields(op)}


def test_faults_are_calls_of_the_port() -> None:
    """Each is a field of Answers, and no value is 0."""
    answers = {field.name for field in dataclasses.fields(Answers)}
    planned = [fault for shape in SHAPES.values() for fault in shape.faults]

    assert {call for call, _ in planned} <= answers
    assert all(hasattr(Port, call) for call, _ in planned)
    assert all(value for _, values in planned for value in values)


def test_values_have_the_types_of_their_fields() -> None:
    """A trace file would refuse anything else."""
    for op, shape in SHAPES.items():
        hints = typing.get_type_hints(op)
        for name, domain in shape.fields.items():
            assert all(type(value) is hints[name] for value in domain.values), (op, name)


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_walks_from_the_opening_find_legal_steps(config: Config) -> None:
    """What is suggested is legal most of the time, in every world."""
    random = Random(1)
    state = model.initial(config, UPSTREAM)
    for step in opening(config, UPSTREAM):
        if model.legal(state, step.op):
            state = plainest(state, step)
    legal = 0
    for _ in range(200):
        step = suggest(state, random)
        if step is not None and model.legal(state, step.op):
            legal += 1
            state = plainest(state, step)

    assert legal > 20 or config.deep or state.gone


def plainest(state: State, step: Step) -> State:
    """The state after the first outcome."""
    first = each(model.step(state, step.op, Answers(), UPSTREAM))[0]
    assert isinstance(first.state, State)
    return first.state


def test_starts_are_reached_by_legal_steps() -> None:
    """Each leads to the state it is meant to."""
    for config, steps in STARTS:
        state = model.initial(config, UPSTREAM)
        for step in steps:
            assert model.legal(state, step.op), (config, step)
            state = plainest(state, step)
