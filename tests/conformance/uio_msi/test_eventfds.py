"""Eventfds in both backends: as the kernel has them, and alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conformance.environment import eventfd
from conformance.model.uio_msi.operations import DUP_FD, FIRST_FD, NEVER_OPENED_FD, NOT_EVENTFDS, O_PATH_FD
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import EAGAIN, EBADF, EINVAL
from tests.conformance.uio_msi.driving import SECOND

BACKENDS = [eventfd.RealEventfds, eventfd.FastEventfds]


@pytest.fixture(params=BACKENDS, ids=["real", "fast"])
def eventfds(request: pytest.FixtureRequest) -> Iterator[eventfd.Eventfds]:
    """Two eventfds and the decoy, in both backends."""
    kinds = [
        eventfd.Kind(3, True, True),
        eventfd.Kind(k.EVENTFD_MAX - 1, False, False),
        eventfd.Kind(9, False, True),
    ]
    made: eventfd.Eventfds = request.param(eventfd.World(kinds, DUP_FD, O_PATH_FD, NOT_EVENTFDS))
    yield made
    made.close()


def test_look_up_follows_the_kernel(eventfds: eventfd.Eventfds) -> None:
    """An eventfd by any number; -EINVAL for other files, -EBADF for none and for O_PATH."""
    assert [eventfds.fdget(fd) for fd in (FIRST_FD, SECOND, DUP_FD)] == [0, 1, 0]
    assert [eventfds.fdget(fd) for fd in NOT_EVENTFDS] == [-EINVAL] * 4
    assert [eventfds.fdget(fd) for fd in (O_PATH_FD, NEVER_OPENED_FD, 2**31 - 1)] == [-EBADF] * 3
    assert [eventfds.fdget(fd) for fd in (-1, -2, 0, 512, 2**64)] == [-EBADF] * 5
    assert eventfds.references() == (2, 1, 0)


def test_reference_is_to_the_object(eventfds: eventfd.Eventfds) -> None:
    """Closing the number, and reusing it, changes nothing for who holds a reference."""
    eventfds.fdget(FIRST_FD)

    assert eventfds.close_number(FIRST_FD) == 0
    assert eventfds.close_number(FIRST_FD) == -EBADF
    assert eventfds.fdget(FIRST_FD) == -EBADF
    eventfds.reuse_number(FIRST_FD, 2)
    eventfds.signal(0)

    assert eventfds.fdget(FIRST_FD) == 2
    assert eventfds.counters() == (4, k.EVENTFD_MAX - 1, 9)


def test_signals_saturate(eventfds: eventfd.Eventfds) -> None:
    """The last value is reached and kept, on a blocking eventfd as well."""
    eventfds.fdget(SECOND)
    for _ in range(3):
        eventfds.signal(1)

    assert eventfds.counters()[1] == k.EVENTFD_MAX


def test_reads_take_all_or_one(eventfds: eventfd.Eventfds) -> None:
    """EFD_SEMAPHORE takes 1, otherwise everything; nothing is -EAGAIN, on a blocking eventfd as well."""
    assert [eventfds.read(FIRST_FD) for _ in range(4)] == [1, 1, 1, -EAGAIN]
    assert [eventfds.read(SECOND) for _ in range(2)] == [k.EVENTFD_MAX - 1, -EAGAIN]


def test_pollers_are_woken_once_per_signal(eventfds: eventfd.Eventfds) -> None:
    """Although the counter was above 0 before."""
    eventfds.fdget(FIRST_FD)
    assert not eventfds.woken(0)

    eventfds.signal(0)

    assert eventfds.woken(0)
    assert not eventfds.woken(0)


def test_pipe_under_a_reused_number(eventfds: eventfd.Eventfds) -> None:
    """It is open, and no eventfd."""
    eventfds.reuse_number(FIRST_FD, None)

    assert eventfds.fdget(FIRST_FD) == -EINVAL
