"""The catalogue of clauses and the constants of `specs/cet`."""

from __future__ import annotations

import inspect

from conformance.specs.cet import CAPABILITIES, CLAUSES, OPTIONAL, PROFILES, Candidate
from conformance.specs.cet import clauses as c
from conformance.specs.cet.constants import ONE_REG_GUEST_SSP, ONE_REG_MSR
from conformance.specs.clause import Clause


def test_clauses_are_numbered_without_gaps() -> None:
    """CET-001 to CET-092 are the facts' clauses, CET-093 is the one on robustness, the others came later."""
    ids = [clause.id for clause in CLAUSES]

    assert ids == [f"CET-{n:03d}" for n in range(1, 102)]


def test_every_clause_is_a_constant_of_the_module() -> None:
    """What code cites is what the catalogue lists."""
    constants = {value for value in vars(c).values() if isinstance(value, Clause)}

    assert constants == set(CLAUSES)


def test_profiles_named_by_clauses_exist() -> None:
    """A clause that holds in some profiles names profiles there are."""
    assert all(clause.profiles <= set(PROFILES) for clause in CLAUSES)


def test_capabilities_named_by_clauses_exist() -> None:
    """A clause that needs capabilities names capabilities there are."""
    assert all(clause.needs <= set(CAPABILITIES) for clause in CLAUSES)


def test_optional_entry_points_are_entry_points() -> None:
    """Each entry point that needs a capability is one of the candidate's, and the capability exists."""
    names = {name for name, member in vars(Candidate).items() if inspect.isfunction(member)}

    assert set(OPTIONAL) <= names
    assert set(OPTIONAL.values()) == set(CAPABILITIES)


def test_register_ids_have_the_documented_layout() -> None:
    """arch 0x20, size U64 (3) in bits 55:52, type in bits 39:32, index in bits 31:0."""
    for identifier, kind in ((ONE_REG_MSR, 2), (ONE_REG_GUEST_SSP, 3)):
        assert identifier >> 56 == 0x20
        assert identifier >> 52 & 0xF == 3
        assert identifier >> 40 & 0xFFF == 0
        assert identifier >> 32 & 0xFF == kind
        assert identifier & 0xFFFF_FFFF == 0
