"""Properties of tdp_mirror's pure parts for CrossHair: asserts before the call are preconditions."""

from __future__ import annotations

from conformance.environment.tdp_mirror import words
from conformance.model import tdp_mirror as model
from conformance.model.step import Outcome, each
from conformance.model.tdp_mirror import Answers, Config
from conformance.model.tdp_mirror import operations as ops
from conformance.model.tdp_mirror.roots import filter_to_types, root_match
from conformance.model.tdp_mirror.slots import slot_create
from conformance.model.tdp_mirror.state import Gfns
from conformance.specs.tdp_mirror import PROFILES
from conformance.specs.tdp_mirror.constants import DIRECT_ROOTS, EEXIST, EINVAL, FROZEN, NONPRESENT

UPSTREAM = PROFILES["upstream"]
POSTED = PROFILES["as-posted"]
FOUR_LEVELS = Config(index_bits=9, levels=4, direct_bit=35, max_gfn=2**35 - 1)
_STATE = model.initial(FOUR_LEVELS, UPSTREAM)
_NONE_REFUSED = Answers()
_WITHOUT = model.initial(Config(mirror=False), UPSTREAM)


def _only(outcomes: object) -> Outcome:
    assert isinstance(outcomes, Outcome)
    return outcomes


def a_type_without_a_kind_matches_nothing(mirror: bool, invalid: bool, types: int) -> None:
    """TDP-002."""
    assert 0 <= types < 2**32
    assert types >> 1 & 3 == 0

    assert _only(root_match(_STATE, ops.RootMatch(mirror, invalid, types), _NONE_REFUSED, UPSTREAM)).result == 0


def an_invalid_root_needs_its_kind_and_the_bit(mirror: bool, types: int) -> None:
    """TDP-003."""
    assert 0 <= types < 8

    result = _only(root_match(_STATE, ops.RootMatch(mirror, True, types), _NONE_REFUSED, UPSTREAM)).result

    assert result == (types & 1 & types >> (2 if mirror else 1))


def with_the_valid_bit_invalid_roots_never_match(mirror: bool, types: int) -> None:
    """TDP-004."""
    assert 0 <= types < 2**31

    assert _only(root_match(_STATE, ops.RootMatch(mirror, True, types * 2 | 1), _NONE_REFUSED, POSTED)).result == 0


def halves_map_to_kinds(attr_filter: int) -> None:
    """TDP-005: shared is bit 0 and direct bit 1, private bit 1 and mirror bit 2."""
    assert 0 <= attr_filter < 2**32

    types = _only(filter_to_types(_STATE, ops.FilterToTypes(attr_filter), _NONE_REFUSED, UPSTREAM)).result

    assert types == (attr_filter & 3) << 1


def without_a_mirror_everything_is_direct(attr_filter: int) -> None:
    """TDP-005."""
    assert 0 <= attr_filter < 2**32

    assert (
        _only(filter_to_types(_WITHOUT, ops.FilterToTypes(attr_filter), _NONE_REFUSED, UPSTREAM)).result == DIRECT_ROOTS
    )


def an_address_is_direct_by_one_bit(gpa: int) -> None:
    """TDP-011: bit 47 with four levels."""
    assert 0 <= gpa < 2**52

    result = _only(model.step(_STATE, ops.AddrIsDirect(gpa), Answers(), UPSTREAM)).result

    assert result == gpa >> 47 & 1


def the_base_of_an_entry_covers_its_gfn(gfn: int, level: int) -> None:
    """The first gfn is aligned, and at most one cover below."""
    assert 0 <= gfn < 2**36
    assert 1 <= level <= 4

    base = FOUR_LEVELS.base(gfn, level)

    assert base % FOUR_LEVELS.cover(level) == 0
    assert base <= gfn < base + FOUR_LEVELS.cover(level)


def the_path_leads_down_to_the_entry(gfn: int) -> None:
    """One table per level, each within the one above."""
    assert 0 <= gfn < 2**36

    path = FOUR_LEVELS.path(gfn, 1)

    assert [level for level, _ in path] == [3, 2, 1]
    assert path[0][1] <= path[1][1] <= path[2][1] <= gfn


def a_slot_with_an_alias_is_refused(base: int, npages: int) -> None:
    """TDP-020: any gfn of the slot, not just the last; where it overlaps another too, that may be found first."""
    assert 0 <= base < 2**37
    assert 0 < npages < 2**36
    assert base >> 35 & 1 or base + npages - 1 >> 35 & 1

    op = ops.SlotCreate(9, base, npages, 0)
    outcomes = each(slot_create(model.initial(FOUR_LEVELS, UPSTREAM), op, _NONE_REFUSED, UPSTREAM))

    assert [outcome.result for outcome in outcomes] in ([-EINVAL], [-EINVAL, -EEXIST])


def presence_is_one_bit(entry: int) -> None:
    """TDP-043: bit 11, whatever the others say; FROZEN and NONPRESENT have it clear."""
    assert 0 <= entry < 2**64

    assert words.present(entry) == entry >> 11 & 1
    assert not words.present(FROZEN)
    assert not words.present(NONPRESENT)


def a_leaf_is_present_and_lowest_or_huge(entry: int, level: int) -> None:
    """Above the lowest level bit 7 tells a leaf from a table."""
    assert 0 <= entry < 2**64
    assert 1 <= level <= 5

    assert words.is_leaf(entry, level) == bool(entry >> 11 & 1 and (level == 1 or entry >> 7 & 1))


def the_page_of_an_entry_is_bits_12_to_51(pfn: int, low: int) -> None:
    """Neither the low bits nor those above disturb it."""
    assert 0 <= pfn < 2**40
    assert 0 <= low < 2**12

    assert (NONPRESENT | pfn << 12 | low) & words.PFN_MASK == pfn << 12


def a_set_of_gfns_has_what_was_put_in(start: int, length: int, gfn: int) -> None:
    """Edges say the same as the range."""
    assert 0 <= start < 2**36
    assert 0 <= length < 2**36
    assert 0 <= gfn < 2**37

    assert (gfn in Gfns().with_range(start, start + length, True)) == (start <= gfn < start + length)


def an_entry_covers_512_of_the_next_level(level: int) -> None:
    """Level arithmetic: 9 bits of the gfn for each level."""
    assert 1 <= level <= 4

    assert FOUR_LEVELS.cover(level + 1) == 512 * FOUR_LEVELS.cover(level)
