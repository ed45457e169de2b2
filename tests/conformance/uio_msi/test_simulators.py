"""Each simulator of uio_msi alone: it behaves, and it breaches."""

from __future__ import annotations

from conformance.environment.irq import Action, IrqCore
from conformance.environment.memory import UserMemory
from conformance.model.uio_msi.operations import PAGE, PAGE_END
from conformance.specs.uio_msi.constants import EBUSY, EINVAL, IRQF_SHARED


def test_fetch_stops_at_the_end_of_the_range() -> None:
    """And begins nowhere else."""
    memory = UserMemory(((PAGE, PAGE_END),))
    memory.place(PAGE_END - 6, b"abcdefgh")

    assert memory.fetch(PAGE_END - 6, 8) == b"abcdef"
    assert memory.fetch(PAGE_END - 8, 4) == b"\0\0ab"
    assert memory.fetch(PAGE_END, 1) == b""
    assert memory.fetch(PAGE - 1, 8) == b""


def test_lines_are_shared_only_by_consent() -> None:
    """-EBUSY unless both are shared; a shared one needs a dev_id; unknown irqs are -EINVAL."""
    core = IrqCore()
    core.add_line(5)

    assert core.request(6, 0, 0, 1) == -EINVAL
    assert core.request(5, IRQF_SHARED, 0, 0) == -EINVAL
    assert isinstance(core.request(5, IRQF_SHARED, 0, 1), Action)
    assert isinstance(core.request(5, IRQF_SHARED, 0, 2), Action)
    assert core.request(5, 0, 0, 3) == -EBUSY
    assert core.find(5, 2) is core.actions()[1]
    assert core.find(5, 3) is None
