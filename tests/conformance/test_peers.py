"""Correct implementations that are built in another way than the shipped ones are not accused."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.candidates.load import load
from conformance.engines import campaign, explore
from conformance.engines.context import Context
from conformance.subsystem import subsystem

PEERS = Path(__file__).parent / "peers"


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("uio_msi", f"{PEERS / 'uio_msi' / 'swapping.py'}:SwappingDriver"),
        ("uio_msi", f"{PEERS / 'uio_msi' / 'swapping.py'}:AllocatesBeforeLookUp"),
        ("uio_msi", f"{PEERS / 'uio_msi' / 'swapping.py'}:AllocatesBeforeCopy"),
        ("uio_msi", f"{PEERS / 'uio_msi' / 'self_contained.py'}:SelfContainedDriver"),
        ("uio_msi", f"{PEERS / 'uio_msi' / 'self_contained.py'}:BlockDriver"),
        ("uio_msi", f"{PEERS / 'uio_msi' / 'mended.py'}:MendedDriver"),
        ("uio_msi", "builtin:linux"),
        ("uio_msi", f"{PEERS / 'linux_uio_msi.py'}:RequestedAtOpen"),
        ("uio_msi", f"{PEERS / 'linux_uio_msi.py'}:FreedWhileUnmapped"),
        ("uio_msi", f"{PEERS / 'linux_uio_msi.py'}:UnmasksByTheBit"),
        ("snp_guest_request", f"{PEERS / 'snp_guest_request' / 'deferred.py'}:Deferred"),
        ("snp_guest_request", f"{PEERS / 'snp_guest_request' / 'merged.py'}:Merged"),
        ("snp_guest_request", f"{PEERS / 'snp_guest_request' / 'counted.py'}:Counted"),
        ("snp_guest_request", f"{PEERS / 'snp_guest_request' / 'per_call.py'}:PerCall"),
        ("cet", f"{PEERS / 'cet.py'}:LazySwap"),
        ("cet", f"{PEERS / 'cet.py'}:Cautious"),
        ("cet", f"{PEERS / 'cet.py'}:Deferred"),
        ("cet", f"{PEERS / 'cet.py'}:Direct"),
        ("cet", f"{PEERS / 'cet.py'}:Conditional"),
        ("cet", f"{PEERS / 'cet.py'}:AtEntry"),
        ("cet", f"{PEERS / 'cet.py'}:Owner"),
        ("cet", "builtin:linux"),
        ("avic", f"{PEERS / 'avic.py'}:TablesWithTheFirstVcpu"),
        ("avic", f"{PEERS / 'avic.py'}:Chatty"),
        ("avic", f"{PEERS / 'avic.py'}:RebuildsTheTable"),
        ("avic", f"{PEERS / 'avic.py'}:AsLinuxDoes"),
        ("avic", f"{PEERS / 'avic.py'}:StaysInHostMode"),
    ],
)
def test_a_peer_conforms(name: str, spec: str) -> None:
    """No clause that binds is broken in the small scopes or at random."""
    of = subsystem(name)
    candidate = load(spec, of)
    context = Context(subsystem=of, candidate=candidate, profile=candidate.profile, steps=15_000)

    explore.run(context)
    campaign.run(context)

    assert [failure.signature for failure in context.failures] == []
