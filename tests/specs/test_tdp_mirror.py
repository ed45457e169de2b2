"""The catalogue of tdp_mirror: complete, in order, and consistent with the hardware's encodings."""

from __future__ import annotations

from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import PROFILES
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import (
    FROZEN,
    NONPRESENT,
    PRESENT,
    SUPPRESS_VE,
    TDX_OPERAND_BUSY,
    TDX_OPERAND_ID_SEPT,
    TDX_PREVIOUS_TLB_EPOCH_BUSY,
    TDX_STATUS_MASK,
)


def test_ids_run_without_gaps() -> None:
    """The 104 clauses of the sources, the one on robustness, what 6.19 leaves of TDP-079, and what was not said."""
    assert [clause.id for clause in c.CLAUSES] == [f"TDP-{n:03}" for n in range(1, len(c.CLAUSES) + 1)]
    assert c.CLAUSES[104] is c.ROBUSTNESS
    assert c.KEEPS_PAGE_ANYHOW.profiles == {"upstream-6.19"}


def test_every_constant_is_in_the_catalogue() -> None:
    """A clause that is defined is also listed."""
    defined = {value for value in vars(c).values() if isinstance(value, Clause)}

    assert defined == set(c.CLAUSES)


def test_entries_are_encoded_as_the_manual_has_it() -> None:
    """FROZEN is not present; neither it nor NONPRESENT clears suppress-#VE."""
    assert NONPRESENT == 0x8000000000000000
    assert FROZEN == 0x80000000000005A0
    assert not FROZEN >> PRESENT & 1
    assert FROZEN >> SUPPRESS_VE & 1


def test_the_two_truth_tables_of_roots_belong_to_their_profiles() -> None:
    """No candidate is held to both."""
    upstream, posted = c.MATCH_INVALID_WITH_KIND, c.MATCH_VALID_BIT

    assert upstream.profiles | posted.profiles == set(PROFILES)
    assert not upstream.profiles & posted.profiles


def test_default_profile_is_upstream() -> None:
    """The first profile is the default, and each is filed under its own name."""
    assert next(iter(PROFILES)) == "upstream"
    assert all(profile.name == name for name, profile in PROFILES.items())


def test_a_status_is_busy_whatever_its_operand() -> None:
    """The low 32 bits name the operand; the epoch's own busy status is another."""
    status = TDX_OPERAND_BUSY | TDX_OPERAND_ID_SEPT

    assert status & TDX_STATUS_MASK == TDX_OPERAND_BUSY
    assert TDX_PREVIOUS_TLB_EPOCH_BUSY & TDX_STATUS_MASK != TDX_OPERAND_BUSY
