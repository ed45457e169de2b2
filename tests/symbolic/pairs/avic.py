"""Pairs for `crosshair diffbehavior`: the specification, and the function as posted. No property is in them."""

from __future__ import annotations

from conformance.candidates.builtin.avic.as_posted import AsPosted
from conformance.model.avic.logical_ids import logical_index
from conformance.specs.avic.constants import ADDRESS_BITS, CLUSTER, FLAT

_POSTED = AsPosted(None)


def specified_mask(address: int) -> int:
    """Bits 51:12."""
    assert 0 <= address < 2**64
    return address & ADDRESS_BITS


def posted_mask(address: int) -> int:
    """As posted (AP-01)."""
    assert 0 <= address < 2**64
    return _POSTED.hpa_field(address)


def specified_flat_index(ldr: int) -> int:
    """AVIC-037 in flat mode."""
    assert 0 <= ldr < 256
    return logical_index(ldr, FLAT)


def posted_flat_index(ldr: int) -> int:
    """As posted (AP-03)."""
    assert 0 <= ldr < 256
    return _POSTED.logical_index(ldr, FLAT)


def specified_cluster_index(ldr: int) -> int:
    """AVIC-037 in cluster mode."""
    assert 0 <= ldr < 256
    return logical_index(ldr, CLUSTER)


def posted_cluster_index(ldr: int) -> int:
    """As posted (AP-04, AP-05, AP-06)."""
    assert 0 <= ldr < 256
    return _POSTED.logical_index(ldr, CLUSTER)


def specified_phys_index(index: int) -> int:
    """AVIC-029."""
    assert -(2**31) <= index < 2**31
    return 8 * index if 0 <= index <= 254 else -1


def posted_phys_index(index: int) -> int:
    """As posted (AP-29)."""
    assert -(2**31) <= index < 2**31
    return _POSTED.phys_index(index)
