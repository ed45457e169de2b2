"""The catalogue of uio_msi: complete, in order, and consistent with the kernel's encodings."""

from __future__ import annotations

import inspect

from conformance.specs.clause import Clause
from conformance.specs.uio_msi import CAPABILITIES, CLAUSES, OPTIONAL, PROFILES, Candidate, Port, clauses
from conformance.specs.uio_msi.constants import IRQ_SET_SIZE, UIO_MSI_IRQ_SET


def test_ids_run_from_1_to_96() -> None:
    """No clause is missing, and the catalogue is in the order of the ids."""
    assert [clause.id for clause in CLAUSES] == [f"UIO-{n:03}" for n in range(1, 97)]


def test_every_constant_is_in_the_catalogue() -> None:
    """A clause that is defined is also listed."""
    defined = {value for value in vars(clauses).values() if isinstance(value, Clause)}

    assert defined == set(CLAUSES)


def test_command_is_encoded_as_the_kernel_does() -> None:
    """Direction write, 8 bytes, magic 'I', number 0x87."""
    direction, size, magic, number = 1 << 30, IRQ_SET_SIZE << 16, ord("I") << 8, 0x87

    assert direction | size | magic | number == UIO_MSI_IRQ_SET


def test_default_profile_is_upstream() -> None:
    """The first profile is the default, and each is filed under its own name."""
    assert next(iter(PROFILES)) == "upstream"
    assert all(profile.name == name for name, profile in PROFILES.items())


def test_profiles_and_capabilities_of_clauses_exist() -> None:
    """A clause names no profile and no capability that there is not."""
    for clause in CLAUSES:
        assert clause.profiles <= PROFILES.keys()
        assert clause.needs <= CAPABILITIES.keys()


def test_what_cannot_be_tested_says_why() -> None:
    """What no driver can break through this interface; everything else is tested."""
    untestable = ["UIO-031", "UIO-036", "UIO-037", "UIO-038", "UIO-046", "UIO-086", "UIO-088"]

    assert [clause.id for clause in CLAUSES if clause.untestable] == untestable


def test_optional_entry_points_exist() -> None:
    """Each is a method of the candidate and needs a capability that is listed."""
    for method, capability in OPTIONAL.items():
        assert hasattr(Candidate, method)
        assert capability in CAPABILITIES


def test_port_is_documented() -> None:
    """Every call says what it gives and takes."""
    calls = [member for name, member in vars(Port).items() if inspect.isfunction(member) and name[0] != "_"]

    assert len(calls) > 50
    assert all(call.__doc__ for call in calls)
