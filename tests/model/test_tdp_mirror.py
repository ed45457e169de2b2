"""The model of tdp_mirror: what operations mean for the two maps, the external tree and the roots."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.model import tdp_mirror as model
from conformance.model.step import Outcome, Outcomes, each
from conformance.model.tdp_mirror import OPERATIONS, Answers, Config, State
from conformance.model.tdp_mirror import operations as ops
from conformance.model.tdp_mirror.state import Gfns, Root
from conformance.model.tdp_mirror.step import _STEPS
from conformance.specs.tdp_mirror import PROFILES
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import EBUSY, EIO, MEM_GUEST_MEMFD, RET_PF_RETRY

UPSTREAM = PROFILES["upstream"]
POSTED = PROFILES["as-posted"]
SHARED = 1 << 14


def only(outcomes: Outcomes) -> Outcome:
    """The single outcome."""
    (outcome,) = each(outcomes)
    return outcome


SMALL = Config()


def after(*taken: ops.Op, config: Config = SMALL) -> State:
    """The state after operations that leave no freedom."""
    state = model.initial(config, UPSTREAM)
    for op in taken:
        assert model.legal(state, op)
        state = each(model.step(state, op, Answers(), UPSTREAM))[0].state
    return state


LOADED = (ops.VcpuCreate(), ops.MmuReload())
PRIVATE = ops.PageFault(private=True)
PUBLIC = ops.PageFault(gpa=0x3000 | SHARED)


def test_a_load_makes_the_mirror_root_first() -> None:
    """Two roots of two references each."""
    view = model.view(after(*LOADED))

    assert view.roots == ((True, False, 2), (False, False, 2))
    assert view.vcpus[0] == (1, 0)


def test_a_private_fault_maps_in_the_mirror_and_outside() -> None:
    """The external tree equals the mirror."""
    view = model.view(after(*LOADED, PRIVATE))

    assert view.private == {(0, 1, "gmem")}
    assert view.external == ({(2, 0), (1, 0)}, {(0, 1, "gmem", "pending")})
    assert view.tables[0] == {(2, 0), (1, 0)}
    assert not view.shared


def test_a_shared_fault_leaves_the_external_tree_alone() -> None:
    """The direct root maps the natural gfn."""
    view = model.view(after(*LOADED, PUBLIC))

    assert view.shared == {(3, 1, "hva", True)}
    assert view.external == (frozenset(), frozenset())


@pytest.mark.parametrize(
    ("op", "keeps_private", "keeps_shared"),
    [
        (ops.HvaInvalidate(), True, False),
        (ops.GmemInvalidate(), False, True),
        (ops.ZapAllFast(), True, False),
        (ops.ZapAll(), True, False),
        (ops.MmuUnload(), True, True),
        (ops.SetAttributes(0, 4096, 0), False, True),
        (ops.SlotDelete(0), False, True),
        (ops.Unmap(0, 4, 3), False, False),
        (ops.Age(), True, True),
    ],
)
def test_what_each_operation_spares(op: ops.Op, keeps_private: bool, keeps_shared: bool) -> None:
    """Halves are zapped one at a time."""
    view = model.view(each(model.step(after(*LOADED, PRIVATE, PUBLIC), op, Answers(), UPSTREAM))[0].state)

    assert bool(view.private) == keeps_private
    assert bool(view.external[1]) == keeps_private
    assert bool(view.shared or any(view.old)) == keeps_shared


def test_a_refused_link_leaves_the_tables_linked_before() -> None:
    """RETRY, and no VM bug when it was busy."""
    outcomes = each(model.step(after(*LOADED), PRIVATE, Answers(ext_link=-EBUSY), UPSTREAM))

    assert {outcome.result for outcome in outcomes} == {(RET_PF_RETRY, ())}
    assert sorted(len(outcome.state.ext_tables) for outcome in outcomes) == [0, 1]
    assert not any(outcome.state.bugged for outcome in outcomes)


def test_a_broken_removal_leaves_the_page_with_the_td() -> None:
    """The mirror forgets the leaf, the external tree does not (TDP-079)."""
    outcome = only(model.step(after(*LOADED, PRIVATE), ops.GmemInvalidate(), Answers(ext_remove=-EIO), UPSTREAM))

    view = model.view(outcome.state)
    assert outcome.because is c.FAILED_REMOVE_KEEPS_PAGE
    assert not view.private
    assert view.external[1] == {(0, 1, "gmem", "pending")}
    assert view.bugged


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("invalid", [False, True])
@pytest.mark.parametrize("types", range(8))
def test_root_types_follow_the_truth_table(mirror: bool, invalid: bool, types: int) -> None:
    """TDP-003 upstream, TDP-004 as posted."""
    state, op = model.initial(Config(), UPSTREAM), ops.RootMatch(mirror, invalid, types)
    kind = bool(types & (4 if mirror else 2))

    assert only(model.step(state, op, Answers(), UPSTREAM)).result == (kind and (bool(types & 1) or not invalid))
    assert only(model.step(state, op, Answers(), POSTED)).result == (kind and not (types & 1 and invalid))


def test_an_obsolete_root_stays_until_its_last_holder_drops_it() -> None:
    """The MMU's reference goes with the zap, the vCPU's with the unload."""
    state = after(*LOADED, ops.ZapAllFast())
    dropped = each(model.step(state, ops.MmuUnload(), Answers(), UPSTREAM))[0].state

    assert model.view(state).roots == ((True, False, 2), (False, True, 1))
    assert model.view(dropped).roots == ((True, False, 2),)


def test_faults_on_an_obsolete_root_are_dropped() -> None:
    """RETRY without any change (TDP-056)."""
    state = after(*LOADED, ops.ZapAllFast())

    outcome = only(model.step(state, PUBLIC, Answers(), UPSTREAM))

    assert outcome.result == (RET_PF_RETRY, ())
    assert outcome.state == state


def test_conversion_under_a_huge_leaf_takes_the_whole_leaf() -> None:
    """It overlaps the range."""
    config = Config(huge=True, slots=((0, 0, 4, MEM_GUEST_MEMFD),), private_gfns=())
    leaf = (0, 2, "hva", True)
    state = replace(after(*LOADED, config=config), roots=(Root(True), Root(False, leaves=frozenset({leaf}))))

    outcome = each(model.step(state, ops.SetAttributes(0, 4096, 8), Answers(), UPSTREAM))[0]

    assert not model.view(outcome.state).shared
    assert outcome.state.attributes == Gfns.of(0)


def test_the_end_of_a_vm_leaves_nothing() -> None:
    """No root, no external table; then nothing is legal any more."""
    state = after(*LOADED, PRIVATE, ops.GmemInvalidate(), ops.HkidRelease(), ops.VcpuDestroy(), ops.VmUninit())

    assert model.view(state).roots == ()
    assert model.view(state).external == (frozenset(), frozenset())
    assert not model.legal(state, ops.VcpuCreate())


def test_private_pages_go_before_the_key() -> None:
    """The world does not release an HKID with private leaves left (TDP-100)."""
    state = after(*LOADED, PRIVATE)

    assert not model.legal(state, ops.HkidRelease())
    assert model.legal(after(*LOADED), ops.HkidRelease())


def test_the_model_is_not_vacuous() -> None:
    """An outcome that maps the wrong half is not among those allowed."""
    state = after(*LOADED)

    for outcome in each(model.step(state, PRIVATE, Answers(), UPSTREAM)):
        assert not model.view(outcome.state).shared


def test_a_set_of_gfns_is_its_edges() -> None:
    """Ranges are joined, cut and exchanged without naming each gfn."""
    gfns = Gfns.of(0, 1, 5)

    assert gfns.ranges() == ((0, 2), (5, 6))
    assert gfns.with_range(2, 5, True).ranges() == ((0, 6),)
    assert gfns.with_range(1, 2**40, False).ranges() == ((0, 1),)
    assert (gfns ^ Gfns.of(1, 2)).ranges() == ((0, 1), (2, 3), (5, 6))
    assert [gfn for gfn in range(8) if gfn in gfns] == [0, 1, 5]
    assert gfns.has_all(2, 5, False)
    assert not gfns.has_all(0, 3, True)
    assert gfns.with_range(3, 3, True) == gfns


def test_each_operation_has_its_function() -> None:
    """In the order of the operations."""
    assert tuple(_STEPS) == OPERATIONS
