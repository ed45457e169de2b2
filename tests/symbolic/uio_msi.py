"""Properties of uio_msi's pure parts for CrossHair: asserts before the call are preconditions."""

from __future__ import annotations

import struct

from conformance.model import uio_msi as model
from conformance.model.step import Outcome
from conformance.model.uio_msi.eventfds import eventfd_of
from conformance.model.uio_msi.ioctls import irq_set, is_readable, raw_ioctl
from conformance.model.uio_msi.operations import NOTHING_REFUSED, PAGE, PAGE_END, RawIoctl
from conformance.model.uio_msi.state import number_of_vectors
from conformance.specs.uio_msi import PROFILES
from conformance.specs.uio_msi.constants import (
    EBADF,
    EINVAL,
    ENOTTY,
    ERANGE,
    IRQ_SET_SIZE,
    MAX_MSIX_VECTORS,
    UIO_MSI_IRQ_SET,
)

UPSTREAM = PROFILES["upstream"]
_OPENED = model.initial(model.Config(), UPSTREAM)._replace(life="bound", opens=1)


def _only(outcomes: object) -> Outcome:
    return outcomes if isinstance(outcomes, Outcome) else outcomes[0]  # type: ignore[index]  # Outcomes


def only_the_command_is_known(cmd: int) -> None:
    """UIO-003: one 32-bit value is the command, every other one is unknown."""
    assert 0 <= cmd < 2**32

    outcome = _only(raw_ioctl(_OPENED, RawIoctl(cmd), NOTHING_REFUSED, UPSTREAM))

    assert (outcome.result == -ENOTTY) == (cmd != UIO_MSI_IRQ_SET)


def high_bits_do_not_matter(cmd: int, high: int) -> None:
    """What the system call drops changes nothing."""
    assert 0 <= cmd < 2**32
    assert 0 <= high < 2**32

    low = _only(raw_ioctl(_OPENED, RawIoctl(cmd), NOTHING_REFUSED, UPSTREAM))
    full = _only(raw_ioctl(_OPENED, RawIoctl(high << 32 | cmd), NOTHING_REFUSED, UPSTREAM))

    assert low.result == full.result


def unknown_commands_ignore_the_pointer(cmd: int, pointer: int) -> None:
    """UIO-002."""
    assert 0 <= cmd < 2**32
    assert cmd != UIO_MSI_IRQ_SET
    assert 0 <= pointer < 2**64

    outcome = _only(raw_ioctl(_OPENED, RawIoctl(cmd, pointer), NOTHING_REFUSED, UPSTREAM))

    assert (outcome.result, outcome.state) == (-ENOTTY, _OPENED)


def readable_means_all_eight_bytes(pointer: int) -> None:
    """UIO-004 and UIO-006: the first and the last byte decide."""
    assert 0 <= pointer < 2**64

    first = PAGE <= pointer < PAGE_END
    last = PAGE <= pointer + 7 < PAGE_END

    assert is_readable(pointer) == (first and last)


def vectors_are_unsigned(vector: int) -> None:
    """UIO-009: every u32 not below max_vectors is refused and changes nothing."""
    assert 0 <= vector < 2**32

    outcome = _only(irq_set(_OPENED, vector, -1, NOTHING_REFUSED, UPSTREAM))

    assert (outcome.result == -ERANGE) == (vector >= _OPENED.limit)
    assert outcome.state == _OPENED


def negative_fds_unmap(fd: int) -> None:
    """UIO-012 to UIO-014."""
    assert -(2**31) <= fd < 0

    outcome = _only(irq_set(_OPENED, 0, fd, NOTHING_REFUSED, UPSTREAM))

    assert (outcome.result, outcome.state.wired) == (0, (None, None))


def fds_name_an_eventfd_or_an_errno(fd: int) -> None:
    """UIO-015: nothing else comes of a look-up."""
    assert 0 <= fd < 2**31

    found = eventfd_of(_OPENED, fd)

    assert found in (-EBADF, -EINVAL) or 0 <= found < len(_OPENED.counters)


def number_of_vectors_is_capped(vectors: int) -> None:
    """UIO-065."""
    assert 1 <= vectors <= 2048

    limit = number_of_vectors(model.Config(vectors=vectors))

    assert 1 <= limit <= MAX_MSIX_VECTORS
    assert limit == vectors or vectors > MAX_MSIX_VECTORS


def struct_is_decoded_as_laid_out(vector: int, fd: int) -> None:
    """u32 and s32 in 8 bytes."""
    assert 0 <= vector < 2**32
    assert -(2**31) <= fd < 2**31

    data = vector.to_bytes(4, "little") + (fd % 2**32).to_bytes(4, "little")

    assert len(data) == IRQ_SET_SIZE
    assert struct.unpack("<Ii", data) == (vector, fd)
