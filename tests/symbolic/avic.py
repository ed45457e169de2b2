"""Properties of AVIC's pure parts for CrossHair: asserts before the call are preconditions."""

from __future__ import annotations

from conformance.candidates.builtin.avic.upstream import Upstream
from conformance.model.avic import Answers, Config, initial
from conformance.model.avic import operations as s
from conformance.model.avic.apic import ppr
from conformance.model.avic.helpers import helper_step
from conformance.model.avic.logical_ids import logical_index
from conformance.model.avic.routing import x2_ldr
from conformance.model.step import Outcome
from conformance.specs.avic import PROFILES
from conformance.specs.avic.constants import ADDRESS_BITS, CLUSTER, FLAT

UPSTREAM = PROFILES["upstream"]
_STATE = initial(Config(), UPSTREAM)
_DRIVER = Upstream(None)


def _only(outcomes: object) -> Outcome:
    return outcomes if isinstance(outcomes, Outcome) else outcomes[0]  # type: ignore[index]  # Outcomes


def mask_keeps_address_bits_only(address: int) -> None:
    """AVIC-014."""
    assert 0 <= address < 2**64

    field = _only(helper_step(_STATE, s.HpaField(address), Answers(), UPSTREAM)).result

    assert field >> 52 == 0
    assert field & 0xFFF == 0
    assert field & ADDRESS_BITS == address & ADDRESS_BITS


def flat_index_is_a_power_of_two(ldr: int) -> None:
    """AVIC-037."""
    assert 0 <= ldr < 256

    index = logical_index(ldr, FLAT)

    assert -1 <= index < 8
    assert index < 0 or ldr == 1 << index


def cluster_index_names_cluster_and_member(ldr: int) -> None:
    """AVIC-037."""
    assert 0 <= ldr < 256

    index = logical_index(ldr, CLUSTER)

    assert -1 <= index < 60
    assert index < 0 or ldr == (index >> 2) << 4 | 1 << (index & 3)


def x2_ldr_has_one_member(apic_id: int) -> None:
    """AVIC-046: the id can be read back from its LDR."""
    assert 0 <= apic_id < 4096

    ldr = x2_ldr(apic_id)

    assert ldr >> 16 == apic_id >> 4
    assert ldr & 0xFFFF == 1 << (apic_id & 15)


def ppr_is_at_least_both_classes(tpr: int, isrv: int) -> None:
    """AVIC-054."""
    assert 0 <= tpr < 256
    assert 0 <= isrv < 256

    value = ppr(tpr, isrv)

    assert value >> 4 == max(tpr >> 4, isrv >> 4)


def physical_entries_stay_in_the_table(index: int) -> None:
    """AVIC-029."""
    assert -(2**31) <= index < 2**31

    offset = _only(helper_step(_STATE, s.PhysIndex(index), Answers(), UPSTREAM)).result

    assert offset == -1 or (offset == 8 * index and 0 <= offset <= 8 * 254)


def tags_come_back(vm_tag: int, index: int) -> None:
    """AVIC-091, of the shipped driver."""
    assert 1 <= vm_tag < 2**20
    assert 0 <= index < 4096

    assert _DRIVER.tag_round_trip(vm_tag, index) == (vm_tag, index)
