"""What the model of uio_msi allows: the error table, delivery, lifetimes, INTx, and the freedom it leaves."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from conformance.model import uio_msi as model
from conformance.model.step import Outcome, Step, each
from conformance.model.uio_msi import Answers, Config, State
from conformance.model.uio_msi.operations import (
    DECOY_COUNT,
    DUP_FD,
    FIRST_FD,
    NEVER_OPENED_FD,
    NOT_EVENTFDS,
    NOTHING_REFUSED,
    O_PATH_FD,
    PAGE,
    PAGE_END,
    Bar,
    Close,
    CloseFd,
    CompatIrqSet,
    ConfigIntx,
    DeviceReset,
    Eventfd,
    IrqSet,
    Open,
    Operation,
    OtherInterrupt,
    Probe,
    RaiseVector,
    RawIoctl,
    ReadEventfd,
    Remove,
    ReuseFd,
    SetIntx,
    Write,
)
from conformance.specs.uio_msi import PROFILES, Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import (
    EBADF,
    EBUSY,
    EFAULT,
    EINVAL,
    EIO,
    ENODEV,
    ENOMEM,
    ENOSPC,
    ENOTCONN,
    ENOTTY,
    EOPNOTSUPP,
    EPERM,
    EPROBE_DEFER,
    ERANGE,
    EVENTFD_MAX,
    UIO_MSI_IRQ_SET,
)
from conformance.strategies.uio_msi import SCOPES

UPSTREAM = PROFILES["upstream"]
POSTED = PROFILES["as-posted"]
VFIO = PROFILES["vfio-like"]

SECOND = FIRST_FD + 1


def outcomes(
    state: State, op: Operation, answers: Answers = NOTHING_REFUSED, profile: Profile = UPSTREAM
) -> tuple[Outcome, ...]:
    """All that is allowed."""
    allowed = model.step(state, op, answers, profile)
    return each(allowed)


def after(*ops: Operation, config: Config | None = None, profile: Profile = UPSTREAM) -> State:
    """The state after these operations, by the most desired outcome of each."""
    state = model.initial(config or Config(), profile)
    for op in ops:
        assert model.legal(state, op), op
        state = outcomes(state, op, profile=profile)[0].state
    return state


def results(state: State, op: Operation, answers: Answers = NOTHING_REFUSED, profile: Profile = UPSTREAM) -> set[int]:
    """The results that are allowed."""
    return {outcome.result for outcome in outcomes(state, op, answers, profile)}


def explored(name: str) -> tuple[State, list[Any]]:
    """Initial state and plain operations of a scope."""
    scope = SCOPES[name]
    assert isinstance(scope.config, Config)
    return model.initial(scope.config, UPSTREAM), [step.op for step in scope.steps if isinstance(step, Step)]


OPENED = (Probe(), Open())
MAPPED = (*OPENED, IrqSet(0, FIRST_FD))
INTX = Config(vectors=0)
NOWHERE = (0, 1, PAGE - 1, PAGE_END - 7, PAGE_END, 0xFFFF_8000_0000_0000)


@pytest.mark.parametrize("pointer", [PAGE, *NOWHERE])
@pytest.mark.parametrize("cmd", [0, 0x8008_4987, 0xC008_4987, 0x4004_4987, 0x4008_4986, 0xFFFF_FFFF])
def test_unknown_command_is_refused_whatever_the_pointer(cmd: int, pointer: int) -> None:
    """Row 1: -ENOTTY, and -EOPNOTSUPP as posted; nothing changes."""
    state = after(*MAPPED)

    assert results(state, RawIoctl(cmd, pointer)) == {-ENOTTY}
    assert results(state, RawIoctl(cmd, pointer), profile=POSTED) == {-EOPNOTSUPP}
    assert outcomes(state, RawIoctl(cmd, pointer))[0].state == state


@pytest.mark.parametrize("pointer", NOWHERE)
def test_unmapped_argument_faults(pointer: int) -> None:
    """Row 2."""
    assert results(after(*MAPPED), RawIoctl(pointer=pointer)) == {-EFAULT}


@pytest.mark.parametrize("pointer", [PAGE + 1, PAGE_END - 8])
def test_unaligned_argument_is_fine(pointer: int) -> None:
    """Row 3, also for the last 8 bytes of the page."""
    state = after(*MAPPED)

    allowed = outcomes(state, RawIoctl(pointer=pointer, vector=0, fd=-1))

    assert [o.result for o in allowed] == [0]
    assert allowed[0].state.wired == (None, None)
    assert allowed[0].because is c.ARGUMENT_IS_EIGHT_BYTES


def test_high_half_of_a_command_is_dropped() -> None:
    """The system call keeps 32 bits."""
    assert results(after(*MAPPED), RawIoctl(UIO_MSI_IRQ_SET | 1 << 32, PAGE, 0, -1)) == {0}


@pytest.mark.parametrize("fd", [FIRST_FD, NEVER_OPENED_FD, -1])
@pytest.mark.parametrize("vector", [2, 3, 2**31 - 1, 2**31, 2**32 - 1])
def test_vector_out_of_range_is_refused_whatever_the_fd(vector: int, fd: int) -> None:
    """Rows 4 to 6: nothing changes."""
    state = after(*MAPPED)

    assert results(state, IrqSet(vector, fd)) == {-ERANGE}
    assert results(state, IrqSet(vector, fd), profile=VFIO) == {-EINVAL}
    assert outcomes(state, IrqSet(vector, fd))[0].state == state


@pytest.mark.parametrize("fd", [-1, -2, -(2**31)])
def test_any_negative_fd_unmaps(fd: int) -> None:
    """Rows 7 to 9: once mapped or not."""
    state = after(*MAPPED)

    once = outcomes(state, IrqSet(0, fd))[0]
    twice = outcomes(once.state, IrqSet(0, fd))[0]

    assert (once.result, once.state.wired) == (0, (None, None))
    assert (twice.result, twice.state) == (0, once.state)


@pytest.mark.parametrize(
    ("fd", "errno"),
    [(NEVER_OPENED_FD, EBADF), (2**31 - 1, EBADF), (O_PATH_FD, EBADF), *((fd, EINVAL) for fd in NOT_EVENTFDS)],
)
def test_bad_fd_keeps_the_old_mapping_or_breaks_a_should(fd: int, errno: int) -> None:
    """Rows 10 to 12; as posted the mapping may be lost."""
    state = after(*MAPPED)

    kept, lost = outcomes(state, IrqSet(0, fd))
    posted = outcomes(state, IrqSet(0, fd), profile=POSTED)

    assert kept.result == lost.result == -errno
    assert (kept.state, kept.breaches) == (state, ())
    assert (lost.state.wired, lost.breaches) == ((None, None), (c.BAD_FD_KEEPS_OLD,))
    assert [(o.state.wired, o.breaches) for o in posted] == [((0, None), ()), ((None, None), ())]


def test_closed_and_reused_numbers_are_judged_by_what_they_name_now() -> None:
    """Closed -EBADF, a pipe -EINVAL, the decoy is mapped."""
    assert results(after(*OPENED, CloseFd(FIRST_FD)), IrqSet(0, FIRST_FD)) == {-EBADF}
    assert results(after(*OPENED, ReuseFd(FIRST_FD, pipe=True)), IrqSet(0, FIRST_FD)) == {-EINVAL}
    assert after(*OPENED, ReuseFd(FIRST_FD), IrqSet(0, FIRST_FD)).wired == (2, None)


@pytest.mark.parametrize("errno", [EBUSY, ENOMEM, EINVAL, ENOTCONN])
def test_refused_request_keeps_or_loses_the_old_mapping_whole(errno: int) -> None:
    """Row 14."""
    state = after(*MAPPED)

    allowed = outcomes(state, IrqSet(0, SECOND), Answers(request_irq=-errno))

    assert {o.result for o in allowed} == {-errno}
    assert [o.state.wired[0] for o in allowed] == [0, None]


def test_intx_has_one_vector() -> None:
    """Rows 15 and 16."""
    state = after(*OPENED, config=INTX)

    assert results(state, IrqSet(0, FIRST_FD)) == {0}
    assert results(state, IrqSet(1, FIRST_FD)) == {-ERANGE}


def test_refused_enabling_is_forwarded_and_not_counted() -> None:
    """Row 18; the next open tries again and is blamed for nothing else."""
    refused = outcomes(after(Probe()), Open(), Answers(pci_enable_msix=-ENOMEM))[0]
    opened = outcomes(refused.state, Open())[0]

    assert (refused.result, refused.state.opens) == (-ENOMEM, 0)
    assert (opened.result, opened.state.opens, opened.because) == (0, 1, c.FAILED_OPEN_NOT_COUNTED)


def test_too_few_vectors_fail_or_shrink() -> None:
    """Row 19: with a smaller max_vectors the range of sets is smaller too; a further attempt may have all of them."""
    refused, all_of_them, fewer, *_ = outcomes(after(Probe()), Open(), Answers(pci_enable_msix=1))

    assert (refused.result, refused.state.opens) == (-ENOSPC, 0)
    assert (all_of_them.result, all_of_them.state.limit) == (0, 2)
    assert (fewer.result, fewer.state.limit, model.view(fewer.state).enabled) == (0, 1, 1)
    assert results(fewer.state, IrqSet(1, FIRST_FD)) == {-ERANGE}


def test_second_open_enables_nothing() -> None:
    """Row 20."""
    once, twice = after(*OPENED), after(*OPENED, Open())

    assert twice.opens == 2
    assert model.view(once) == model.view(twice)


def test_after_remove_the_core_answers() -> None:
    """Rows 21 to 23."""
    gone = after(*MAPPED, Remove())

    for op in (Open(), IrqSet(0, FIRST_FD)):
        (refused,) = outcomes(gone, op)
        assert refused.result == -EIO
        assert refused.result != 0
        assert refused.state == gone
    assert results(gone, Close()) == {0}
    assert model.view(gone)._replace(counters=()) == model.view(after(config=Config()))._replace(counters=())


@pytest.mark.parametrize(
    ("answers", "errnos"),
    [
        (Answers(pci_enable_device=-EIO), {-EIO}),
        (Answers(pci_request_regions=-EBUSY), {-EBUSY}),
        (Answers(ioremap=-ENOMEM), {-ENOMEM}),
        (Answers(kzalloc=-ENOMEM), {-ENOMEM}),
        (Answers(kcalloc=-ENOMEM), {-ENOMEM}),
        (Answers(kasprintf=-ENOMEM), {-ENOMEM}),
        (Answers(uio_register_device=-EPROBE_DEFER), {-EPROBE_DEFER}),
    ],
)
@pytest.mark.parametrize("config", [Config(), INTX])
def test_probe_forwards_what_it_met(config: Config, answers: Answers, errnos: set[int]) -> None:
    """Rows 29 to 33, in both modes."""
    state = after(config=config)

    assert results(state, Probe(), answers) == errnos
    assert all(o.state == state for o in outcomes(state, Probe(), answers))


def test_refused_mapping_may_be_invalid_as_posted() -> None:
    """Row 31 in brackets."""
    assert results(after(), Probe(), Answers(ioremap=-ENOMEM), POSTED) == {-ENOMEM, -EINVAL}


def test_no_usable_interrupt_is_refused() -> None:
    """Row 34."""
    assert results(after(config=Config(vectors=0, intx=False)), Probe()) == {-EINVAL, -ENODEV}


def test_bridges_should_be_refused() -> None:
    """Binding one is tolerated and noted."""
    refused, bound = outcomes(after(config=Config(bridge=True)), Probe())

    assert (refused.result, refused.breaches) == (-ENODEV, ())
    assert (bound.result, bound.breaches) == (0, (c.BRIDGES_REFUSED,))


def test_unusable_msix_falls_back_fails_or_breaks_a_should() -> None:
    """Which of the three, the first open shows; then it stays so."""
    bound = outcomes(after(config=Config(msix_broken=True)), Probe())[0]
    fallen, useless = outcomes(bound.state, Open())

    assert (fallen.result, fallen.state.msix, fallen.breaches) == (0, False, ())
    assert (useless.result, useless.breaches) == (-EINVAL, (c.UNUSABLE_MSIX,))
    assert results(useless.state, Open()) == {-EINVAL}


def test_open_without_privilege_should_be_denied() -> None:
    """-EPERM or -EACCES, or 0 with a breach."""
    denied, _, opened = outcomes(after(Probe()), Open(rawio=False))

    assert (denied.result, denied.state.opens) == (-EPERM, 0)
    assert (opened.result, opened.breaches) == (0, (c.OPEN_IS_PRIVILEGED,))


def test_event_adds_one_to_the_mapped_eventfd_alone() -> None:
    """UIO-033."""
    state = after(*MAPPED, IrqSet(1, SECOND), RaiseVector(1), RaiseVector(1), RaiseVector(0))

    assert state.counters == (0x11, 0x22, DECOY_COUNT)


def test_event_of_an_unmapped_vector_is_held_and_delivered_once() -> None:
    """UIO-041 and UIO-042."""
    held = after(*OPENED, RaiseVector(0), RaiseVector(0))
    delivered = after(*OPENED, RaiseVector(0), RaiseVector(0), IrqSet(0, FIRST_FD))

    assert held.pending == (True, False)
    assert (delivered.pending, delivered.counters[0]) == ((False, False), 0x11)


def test_held_events_do_not_survive_the_last_release() -> None:
    """UIO-056."""
    state = after(*OPENED, RaiseVector(0), Close(), Open(), IrqSet(0, FIRST_FD))

    assert state.counters[0] == 0x10


def test_closing_the_fd_changes_nothing_for_the_driver() -> None:
    """UIO-044."""
    state = after(*MAPPED, CloseFd(FIRST_FD), RaiseVector(0))

    assert state.counters[0] == 0x11


def test_counter_saturates() -> None:
    """UIO-036."""
    full = Config(eventfds=(Eventfd(EVENTFD_MAX - 1), Eventfd()))

    state = after(*MAPPED, RaiseVector(0), RaiseVector(0), config=full)

    assert state.counters[0] == EVENTFD_MAX


def test_semaphore_reads_take_one() -> None:
    """The flag matters to readers, not to signals."""
    config = Config(eventfds=(Eventfd(3, semaphore=True), Eventfd()))

    assert results(after(*MAPPED, config=config), ReadEventfd(FIRST_FD)) == {1}


def test_reset_makes_a_vector_deaf_unless_the_message_is_rewritten() -> None:
    """UIO-032: not rewriting is tolerated and noted."""
    repaired, deaf = outcomes(after(*OPENED, DeviceReset()), IrqSet(0, FIRST_FD))

    assert (repaired.breaches, deaf.breaches) == ((), (c.MESSAGE_REWRITTEN,))
    assert outcomes(repaired.state, RaiseVector(0))[0].state.counters[0] == 0x11
    assert outcomes(deaf.state, RaiseVector(0))[0].state.counters[0] == 0x10


def test_intx_signals_once_until_unmasked() -> None:
    """UIO-081 to UIO-083."""
    asserted = after(*MAPPED, SetIntx(True), config=INTX)
    again = after(*MAPPED, SetIntx(True), OtherInterrupt(), SetIntx(False), SetIntx(True), config=INTX)
    unmasked = after(*MAPPED, SetIntx(True), IrqSet(0, FIRST_FD), config=INTX)
    written = after(*MAPPED, SetIntx(True), SetIntx(False), Write(), SetIntx(True), config=INTX)

    assert (asserted.counters[0], asserted.masked) == (0x11, True)
    assert again.counters[0] == 0x11
    assert (unmasked.counters[0], unmasked.masked) == (0x12, True)
    assert written.counters[0] == 0x12


def test_only_the_user_unmasks_as_posted() -> None:
    """UIO-083 in that profile: the mask survives sets, releases and removal."""
    ops = (*MAPPED, SetIntx(True), SetIntx(False), Close(), Open(), IrqSet(0, FIRST_FD), SetIntx(True))

    masked = after(*ops, config=INTX, profile=POSTED)
    unmasked = after(
        *MAPPED,
        SetIntx(True),
        SetIntx(False),
        Close(),
        ConfigIntx(False),
        *MAPPED[1:],
        SetIntx(True),
        config=INTX,
        profile=POSTED,
    )

    assert masked.counters[0] == 0x11
    assert unmasked.counters[0] == 0x12


def test_fresh_set_of_an_asserted_intx_may_signal_twice() -> None:
    """A handler that runs inside request_irq has signalled before the set unmasks."""
    allowed = outcomes(after(*OPENED, SetIntx(True), config=INTX), IrqSet(0, FIRST_FD))

    assert [o.state.counters[0] for o in allowed] == [0x11, 0x12]


def test_compat_callers_get_the_same() -> None:
    """UIO-007: outcomes differ in the clause alone."""
    state = after(*MAPPED)

    for vector, fd in ((0, SECOND), (0, -1), (0, NEVER_OPENED_FD), (9, FIRST_FD)):
        native = outcomes(state, IrqSet(vector, fd))
        compat = outcomes(state, CompatIrqSet(vector, fd))
        assert [(o.result, o.state) for o in native] == [(o.result, o.state) for o in compat]
        assert {o.because for o in compat} == {c.COMPAT_IDENTICAL}


@pytest.mark.parametrize(("table", "vectors"), [(0, 1), (1, 1), (2, 2), (63, 63), (64, 64), (65, 64), (2048, 64)])
def test_number_of_vectors(table: int, vectors: int) -> None:
    """UIO-065."""
    assert model.initial(Config(vectors=table), UPSTREAM).limit == vectors


def test_duplicate_number_names_the_same_eventfd() -> None:
    """UIO-018: the object counts, not the number."""
    assert after(*OPENED, IrqSet(0, DUP_FD)).wired == (0, None)


def test_port_only_devices_are_bound() -> None:
    """UIO-072."""
    config = Config(vectors=0, bars=(Bar(0xE000, 0x20, io=True),))

    assert outcomes(after(config=config), Probe())[0].because is c.PORT_ONLY_DEVICES


@pytest.mark.parametrize(
    ("name", "states", "transitions", "depth"),
    [
        ("1,1,1", 44, 237, 9),
        ("1,2,2", 472, 3948, 13),
        ("2,2,2", 1336, 16660, 14),
        ("3,2,2", 4792, 79268, 15),
        ("intx-2,2", 944, 9736, 13),
    ],
)
def test_reachable_states(name: str, states: int, transitions: int, depth: int) -> None:
    """The model alone reaches what the exhaustive runs are pinned to, at this depth."""
    scope = SCOPES[name]
    start, ops = explored(name)
    depths, queue, taken = {start: 0}, deque([start]), 0
    while queue:
        state = queue.popleft()
        for op in ops:
            if model.legal(state, op):
                taken += 1
                following = outcomes(state, op)[0].state
                if following not in depths:
                    depths[following] = depths[state] + 1
                    queue.append(following)

    assert (len(depths), taken, max(depths.values())) == (states, transitions, depth)
    assert (scope.states, scope.transitions) == (states, transitions)


def test_invariants_hold_in_every_reachable_state() -> None:
    """I1, I2, I4 and I8: nothing is held while closed or unbound, and only unmapped vectors have held events."""
    scope = SCOPES["2,2,2"]
    start, ops = explored("2,2,2")
    seen, queue = {start}, [start]
    while queue:
        state = queue.pop()
        shown = model.view(state)
        if state.life != "bound" or not state.opens:
            assert not shown.enabled
            assert not any(shown.references)
            assert not any(shown.pending)
        assert sum(shown.references) == len(state.wired) - state.wired.count(None)
        assert not any(held and mapped is not None for held, mapped in zip(state.pending, state.wired, strict=True))
        for op in ops:
            if model.legal(state, op):
                following = outcomes(state, op)[0].state
                if following not in seen:
                    seen.add(following)
                    queue.append(following)

    assert len(seen) == scope.states


@pytest.mark.xfail(reason="the model is not vacuous: counters do move", strict=True)
def test_counters_never_move() -> None:
    """A property that is false, and is found to be."""
    assert after(*MAPPED, RaiseVector(0)).counters == after(*MAPPED).counters
