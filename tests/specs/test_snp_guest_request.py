"""The catalogue of snp_guest_request: complete, in order, and consistent with the manuals' layouts."""

from __future__ import annotations

import inspect

import pytest

from conformance.specs import snp_guest_request as specs
from conformance.specs.clause import Clause
from conformance.specs.snp_guest_request import clauses
from conformance.specs.snp_guest_request import constants as k


def test_ids_run_from_1_to_102() -> None:
    """No clause is missing, and the catalogue is in the order of the ids."""
    assert [clause.id for clause in specs.CLAUSES] == [f"SNP-{n:03}" for n in range(1, 103)]


def test_every_constant_is_in_the_catalogue() -> None:
    """A clause that is defined is also listed."""
    assert {value for value in vars(clauses).values() if isinstance(value, Clause)} == set(specs.CLAUSES)


def test_profiles_and_capabilities_of_clauses_exist() -> None:
    """A clause names no profile and no capability that there is not."""
    for clause in specs.CLAUSES:
        assert clause.profiles <= specs.PROFILES.keys()
        assert clause.needs <= specs.CAPABILITIES.keys()


def test_default_profile_is_upstream() -> None:
    """The first profile is the default, and each is filed under its own name."""
    assert next(iter(specs.PROFILES)) == "upstream"
    assert all(profile.name == name for name, profile in specs.PROFILES.items())


def test_optional_entry_points_are_entry_points() -> None:
    """A capability gates methods that the candidate's Protocol has, and all of them have one."""
    methods = {name for name, member in vars(specs.Candidate).items() if inspect.isfunction(member) and name[0] != "_"}

    assert specs.OPTIONAL.keys() == methods
    assert set(specs.OPTIONAL.values()) <= specs.CAPABILITIES.keys()


@pytest.mark.parametrize(
    ("offset", "bit"),
    [
        (k.GHCB_RAX, 63),
        (k.GHCB_RBX, 99),
        (k.GHCB_SW_EXITCODE, 114),
        (k.GHCB_SW_EXITINFO1, 115),
        (k.GHCB_SW_EXITINFO2, 116),
    ],
)
def test_valid_bits_follow_from_offsets(offset: int, bit: int) -> None:
    """The valid bit of a field is its offset in quadwords."""
    assert offset // 8 == bit


def test_hypervisor_conditions_leave_the_low_half_free() -> None:
    """SW_EXITINFO2 of too small, busy and generic."""
    values = (k.TOO_SMALL_INFO2, k.BUSY_INFO2, k.GENERIC_INFO2)

    assert [f"{value:#018x}" for value in values] == ["0x0000000100000000", "0x0000000200000000", "0xffffffff00000000"]


def test_facts_that_were_not_verified_say_so() -> None:
    """Clauses whose source could not be read are marked."""
    marked = {clause.id for clause in specs.CLAUSES if "unverified" in clause.source or "not readable" in clause.source}

    assert {"SNP-005", "SNP-006", "SNP-007", "SNP-031", "SNP-067", "SNP-071"} <= marked
