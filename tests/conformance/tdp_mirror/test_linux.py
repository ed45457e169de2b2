"""The candidate laid out as the kernel is, and its relatives: what their worlds show of the order of things."""

from __future__ import annotations

import inspect

import pytest

from conformance.candidates.builtin.tdp_mirror import CANDIDATES
from conformance.candidates.builtin.tdp_mirror.linux import Linux, spte
from conformance.engines import explore
from conformance.specs.tdp_mirror import PROFILES
from conformance.specs.tdp_mirror.constants import DIRTY, PG_LEVEL_2M, PG_LEVEL_4K
from conformance.strategies.tdp_mirror import SCOPES
from tests.conformance.peers.linux_tdp_mirror import PEERS
from tests.conformance.tdp_mirror.judging import context


def test_linux_is_a_candidate() -> None:
    """It is found under its name."""
    assert CANDIDATES["linux"] is Linux


@pytest.mark.parametrize("name", PEERS)
def test_a_relative_differs_from_linux_and_says_how(name: str) -> None:
    """Each is a subclass with something of its own, a sentence, and a profile that there is."""
    peer = PEERS[name]
    assert issubclass(peer, Linux)
    assert any(callable(value) for value in vars(peer).values())
    assert peer.__doc__
    assert peer.__doc__.endswith(".")
    assert peer.profile in PROFILES


def test_a_dirty_leaf_needs_no_exchange() -> None:
    """The accessed bit alone is not worth an exchange; a dirty bit still to come is."""
    leaf = spte.make_spte(5, PG_LEVEL_4K, writable=True, prefetch=True)

    assert not spte.needs_atomic_update(leaf, PG_LEVEL_4K)
    assert spte.needs_atomic_update(leaf & ~(1 << DIRTY), PG_LEVEL_4K)


def test_a_write_protected_leaf_that_may_become_writable_is_exchanged() -> None:
    """The fast fault may win at any time."""
    leaf = spte.make_spte(5, PG_LEVEL_4K, writable=True, prefetch=False) & ~spte.WRITABLE_MASK

    assert spte.needs_atomic_update(leaf, PG_LEVEL_4K)


def test_small_leaves_of_a_huge_one_make_it_again() -> None:
    """Split and recovered, a huge leaf is what it was."""
    huge = spte.make_spte(1024, PG_LEVEL_2M, writable=True, prefetch=False)

    small = spte.make_small_spte(huge, PG_LEVEL_4K, 7, 1)

    assert spte.pfn_of(small) == 1031
    assert not spte.is_large(small)
    assert spte.make_huge_spte(small, 512) == huge


@pytest.mark.gates
@pytest.mark.parametrize("name", PEERS)
def test_a_relative_is_not_accused(name: str) -> None:
    """No clause that binds is broken in small worlds; random walks are those of all variants, in `test_peers`."""
    here = context(f"{inspect.getfile(PEERS[name])}:{PEERS[name].__name__}")

    for scope in ("SEAMCALLs", "slots that come and go", "roots that are not valid any more"):
        exploration = explore._Exploration(here, scope, SCOPES[scope])
        while exploration.go_on():
            pass

    assert [failure.signature for failure in here.failures] == []
