"""The firmware's page table alone: states, epochs, sizes, locks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.environment.tdp_mirror.secure_ept import SecureEpt
from conformance.model.tdp_mirror.state import BLOCKED, MAPPED, PENDING, PENDING_BLOCKED
from conformance.specs.tdp_mirror import constants as k
from conformance.strategies.tdp_mirror.domains import DEEP

MAPPED_AT = 0
"""gfn of the leaf that the tests of the firmware's page table work on."""


def secure_ept(kind: str, *, runnable: bool = True) -> SecureEpt:
    """A tree with one leaf of 4K, or the table above it, in some state; FREE when `kind` is empty."""
    sept = SecureEpt(DEEP)
    assert sept.sept_add(0, 3, 0x1000) == 0
    if kind.startswith("table"):
        assert sept.sept_add(0, 2, 0x2000) == 0
    elif kind:
        assert sept.sept_add(0, 2, 0x2000) == 0
        assert sept.page_add(MAPPED_AT, 77) == 0
        if "pending" in kind:
            sept.pending.add((0, 1))
    else:
        assert sept.sept_add(0, 2, 0x2000) == 0
    sept.runnable = runnable
    if "blocked" in kind:
        assert sept.range_block(0, 2 if kind.startswith("table") else 1) == 0
        if "tracked" in kind:
            assert sept.track() == 0
    return sept


LEAF_CALLS: dict[str, Callable[[SecureEpt], int]] = {
    "SEPT.ADD": lambda sept: sept.sept_add(0, 2, 0x3000),
    "PAGE.ADD": lambda sept: sept.page_add(0, 78),
    "PAGE.AUG": lambda sept: sept.page_aug(0, 1, 78),
    "ACCEPT": lambda sept: sept.accept(0),
    "RANGE.BLOCK": lambda sept: sept.range_block(0, 1),
    "RANGE.UNBLOCK": lambda sept: sept.range_unblock(0, 1),
    "PAGE.REMOVE": lambda sept: sept.page_remove(0, 1),
    "SEPT.REMOVE": lambda sept: sept.sept_remove(0, 2),
}
RCX = k.TDX_OPERAND_ID_RCX
STATE = k.TDX_EPT_ENTRY_STATE_INCORRECT | RCX
NOT_BLOCKED = k.TDX_GPA_RANGE_NOT_BLOCKED | RCX
NOT_TRACKED = k.TDX_TLB_TRACKING_NOT_DONE | RCX
NOT_FREE = k.TDX_EPT_PAGE_NOT_FREE


@pytest.mark.parametrize(
    ("kind", "call", "status", "becomes"),
    [
        ("", "SEPT.ADD", STATE, ""),
        ("", "PAGE.ADD", k.TDX_OPERAND_INVALID, ""),
        ("", "PAGE.AUG", 0, PENDING),
        ("", "ACCEPT", k.TDX_EPT_ENTRY_STATE_INCORRECT, ""),
        ("", "RANGE.BLOCK", STATE, ""),
        ("", "RANGE.UNBLOCK", NOT_BLOCKED, ""),
        ("", "PAGE.REMOVE", STATE, ""),
        ("mapped", "PAGE.AUG", STATE, MAPPED),
        ("mapped", "ACCEPT", k.TDX_PAGE_ALREADY_ACCEPTED, MAPPED),
        ("mapped", "RANGE.BLOCK", 0, BLOCKED),
        ("mapped", "RANGE.UNBLOCK", NOT_BLOCKED, MAPPED),
        ("mapped", "PAGE.REMOVE", NOT_BLOCKED, MAPPED),
        ("mapped", "SEPT.REMOVE", NOT_FREE, MAPPED),
        ("pending", "ACCEPT", 0, MAPPED),
        ("pending", "RANGE.BLOCK", 0, PENDING_BLOCKED),
        ("pending", "PAGE.REMOVE", NOT_BLOCKED, PENDING),
        ("mapped, blocked", "ACCEPT", k.TDX_EPT_ENTRY_STATE_INCORRECT, BLOCKED),
        ("mapped, blocked", "RANGE.BLOCK", k.TDX_GPA_RANGE_ALREADY_BLOCKED, BLOCKED),
        ("mapped, blocked", "RANGE.UNBLOCK", NOT_TRACKED, BLOCKED),
        ("mapped, blocked", "PAGE.REMOVE", NOT_TRACKED, BLOCKED),
        ("mapped, blocked, tracked", "RANGE.UNBLOCK", 0, MAPPED),
        ("mapped, blocked, tracked", "PAGE.REMOVE", 0, ""),
        ("pending, blocked, tracked", "RANGE.UNBLOCK", 0, PENDING),
        ("pending, blocked, tracked", "PAGE.REMOVE", 0, ""),
        ("table", "SEPT.REMOVE", NOT_BLOCKED, ""),
        ("table, blocked", "SEPT.REMOVE", NOT_TRACKED, ""),
        ("table, blocked, tracked", "SEPT.REMOVE", 0, ""),
    ],
)
def test_the_firmware_accepts_these_states(kind: str, call: str, status: int, becomes: str) -> None:
    """The table of the module's source: status and state afterwards."""
    sept = secure_ept(kind)

    assert LEAF_CALLS[call](sept) == status
    assert sept.state(0) == becomes


def test_before_the_td_runs_nothing_need_be_blocked() -> None:
    """Removal asks for tracking only where a vCPU may hold a translation."""
    sept = secure_ept("mapped", runnable=False)

    assert sept.page_remove(0, 1) == 0
    assert sept.sept_remove(0, 2) == 0


def test_a_vcpu_in_the_old_epoch_keeps_a_page_from_being_removed() -> None:
    """The epoch of blocking is over when the epoch after it has begun and nobody of it is inside."""
    sept = secure_ept("mapped")
    entered = sept.enter()

    assert sept.range_block(0, 1) == 0
    assert sept.track() == 0
    assert sept.page_remove(0, 1) == NOT_TRACKED
    assert sept.track() == k.TDX_PREVIOUS_TLB_EPOCH_BUSY
    sept.leave(entered)
    assert sept.page_remove(0, 1) == 0


def test_a_page_is_in_the_tree_once() -> None:
    """Leaves and tables are pages of the TD."""
    sept = secure_ept("mapped")

    assert sept.page_aug(1, 1, 77) == k.TDX_PAGE_METADATA_INCORRECT
    assert sept.page_aug(1, 1, 2) == k.TDX_PAGE_METADATA_INCORRECT
    assert sept.page_aug(1, 1, 78) == 0


def test_the_walk_must_reach_the_entry_and_name_the_private_half() -> None:
    """A missing table, an alias, an address beyond the root, and an entry that is not aligned."""
    sept = secure_ept("")

    assert sept.page_aug(2, 1, 78) == k.TDX_EPT_WALK_FAILED
    assert sept.page_aug(4, 1, 78) == k.TDX_OPERAND_INVALID
    assert sept.page_aug(8, 1, 78) == k.TDX_OPERAND_INVALID
    assert sept.sept_add(1, 2, 0x3000) == k.TDX_OPERAND_INVALID


def test_demoting_and_promoting_keep_the_pages_and_their_state() -> None:
    """A huge leaf that is blocked and tracked becomes a table of leaves, and the table a huge leaf again."""
    sept = secure_ept("")
    assert sept.sept_remove(0, 2) == NOT_BLOCKED
    assert (sept.range_block(0, 2), sept.track(), sept.sept_remove(0, 2)) == (0, 0, 0)
    assert sept.page_aug(0, 2, 78) == 0

    assert sept.page_demote(0, 2, 0x4000) == NOT_BLOCKED
    assert (sept.range_block(0, 2), sept.track(), sept.page_demote(0, 2, 0x4000)) == (0, 0, 0)
    assert sept.leaves == {(0, 1): 78, (1, 1): 79}
    assert sept.state(0) == sept.state(1) == PENDING
    assert sept.page_remove(0, 2) == k.TDX_PAGE_SIZE_MISMATCH | RCX
    assert sept.accept(0, 2) == k.TDX_PAGE_SIZE_MISMATCH
    assert (sept.range_block(0, 2), sept.track(), sept.page_promote(0, 2)) == (0, 0, 0)
    assert sept.leaves == {(0, 2): 78}
    assert sept.state(0, 2) == PENDING


def test_leaves_in_different_states_are_not_promoted() -> None:
    """Half of a table accepted, half not."""
    sept = secure_ept("pending")
    assert sept.page_aug(1, 1, 78) == 0
    assert sept.accept(1) == 0

    assert (sept.range_block(0, 2), sept.track()) == (0, 0)
    assert sept.page_promote(0, 2) == STATE


def test_pages_are_reclaimed_once_the_key_is_gone_and_the_root_last() -> None:
    """The life cycle of the key, and the count of what hangs on the TD."""
    sept = secure_ept("")

    assert sept.reclaim(0x1000) == k.TDX_OPERAND_INVALID
    sept.key = False
    assert sept.page_aug(0, 1, 78) == k.TDX_OPERAND_INVALID
    assert sept.track() == k.TDX_OPERAND_INVALID
    assert sept.reclaim(0x9000) == k.TDX_PAGE_METADATA_INCORRECT
    assert sept.reclaim_root() == k.TDX_TD_ASSOCIATED_PAGES_EXIST
    assert (sept.reclaim(0x1000), sept.reclaim(0x2000)) == (0, 0)
    assert sept.reclaim_root() == 0


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("shared", "shared", 0),
        ("shared", "exclusive", k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_SEPT),
        ("exclusive", "shared", k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_SEPT),
        ("exclusive", "none", 0),
        ("none", "root", k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_TDR),
        ("root", "shared", k.TDX_OPERAND_BUSY | k.TDX_OPERAND_ID_TDR),
    ],
)
def test_the_locks_of_the_firmware_do_not_wait(first: str, second: str, status: int) -> None:
    """Who comes second is told that the operand is busy, and which one."""
    sept = SecureEpt(DEEP)

    assert sept.acquire(0, first) == 0
    assert sept.acquire(1, second) == status
    sept.release(0)
    assert sept.acquire(1, second) == 0
