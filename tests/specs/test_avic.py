"""The AVIC catalogue: ids without gaps, and profiles and needs that exist."""

from __future__ import annotations

from conformance.specs.avic import CAPABILITIES, CLAUSES, OPTIONAL, PROFILES, Candidate, constants


def test_ids_run_without_a_gap() -> None:
    """107 clauses of the catalogue and seventeen of the suite's own, in order."""
    ids = [clause.id for clause in CLAUSES]

    assert ids == [f"AVIC-{n:03d}" for n in range(1, 125)]


def test_profiles_and_needs_exist() -> None:
    """A clause names only profiles and capabilities that there are."""
    for clause in CLAUSES:
        assert clause.profiles <= set(PROFILES)
        assert clause.needs <= set(CAPABILITIES)


def test_every_entry_point_needs_a_capability() -> None:
    """A pure router is a whole candidate of layer R, so nothing is required of everybody."""
    entry_points = {name for name in vars(Candidate) if name[0] != "_"}

    assert entry_points == set(OPTIONAL)
    assert set(OPTIONAL.values()) <= set(CAPABILITIES)


def test_icr_reserved_bits_are_those_of_the_manual() -> None:
    """Bits 13, 17:16 and 31:20; busy (bit 12) is a case of its own."""
    bits = {n for n in range(32) if constants.X2_ICR_RESERVED >> n & 1}

    assert bits == {13, 16, 17, *range(20, 32)}
