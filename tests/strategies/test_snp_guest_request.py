"""What may happen to guest requests: domains fit their operations, scopes stay small."""

from __future__ import annotations

from dataclasses import fields
from random import Random

from conformance.model import snp_guest_request as model
from conformance.model.snp_guest_request.addresses import address
from conformance.model.snp_guest_request.messages import MESSAGES
from conformance.model.snp_guest_request.operations import ExtGuestRequest, GetExtReport, GetReport, GuestRequest
from conformance.specs import snp_guest_request as specs
from conformance.strategies import snp_guest_request as ops


def test_every_operation_has_a_shape_of_its_fields() -> None:
    """No field lacks a domain and no domain lacks a field."""
    for op, shape in ops.SHAPES.items():
        assert {f.name for f in fields(op)} == set(shape.fields), op.__name__


def test_every_refusal_has_an_answer() -> None:
    """A planned fault is one the model can be told of."""
    answers = {f.name for f in fields(model.Answers)}

    assert {call for shape in ops.SHAPES.values() for call, _ in shape.faults} <= answers


def test_plainest_values_are_the_defaults() -> None:
    """What shrinking ends at is what a reader need not be told."""
    for op in (GuestRequest, ExtGuestRequest, GetReport, GetExtReport):
        assert op(**{name: domain.scope[0] for name, domain in ops.SHAPES[op].fields.items()}) == op()


def test_names_of_addresses_resolve() -> None:
    """Every name in the domains of addresses is one that the guest can use."""
    for op in (GuestRequest, ExtGuestRequest):
        for field in ("req", "resp", "data"):
            for name in ops.SHAPES[op].fields[field].values if field in ops.SHAPES[op].fields else ():
                assert 0 <= address(str(name), 1) < 2**64


def test_suggestions_are_legal_or_none() -> None:
    """A suggestion fits the state it was made for."""
    random = Random(1)
    state = model.initial(model.Config(certs=True, vcpus=2), specs.PROFILES["upstream"])

    for _ in range(300):
        step = ops.suggest(state, random)
        if step is not None and hasattr(step.op, "vcpu"):
            assert model.legal(state, step.op)


def test_scopes_name_what_there_is() -> None:
    """Profiles and capabilities of the scopes exist, and their worlds need no more."""
    for scope in ops.SCOPES.values():
        assert scope.profiles <= specs.PROFILES.keys()
        assert scope.needs <= specs.CAPABILITIES.keys()


def test_every_message_is_drawn() -> None:
    """The campaign knows all messages."""
    assert set(ops.SHAPES[GuestRequest].fields["message"].values) == set(MESSAGES)
