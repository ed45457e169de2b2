"""The driver laid out as the kernel is, and its variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.linux import Linux, _sparse
from conformance.environment.uio_msi import FAST
from conformance.environment.uio_msi.world import UioMsi
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    PDEV_IRQ,
    Close,
    ConfigIntx,
    IrqSet,
    Open,
    Probe,
    RaiseVector,
    Remove,
    SetIntx,
    Write,
)
from conformance.specs.uio_msi import PROFILES
from conformance.specs.uio_msi.constants import EBADF, ENODEV, IRQ_NOTCONNECTED
from tests.conformance.peers.linux_uio_msi import PEERS
from tests.conformance.uio_msi.driving import INTX, SECOND, run

DRIVERS = {"linux": Linux, **PEERS}
KEEPS_ACTION = [name for name in DRIVERS if name != "freed-while-unmapped"]
BAD_FD = FIRST_FD + 60


def world_of(driver: Callable[[Any], Any], *ops: Any, config: Config = INTX) -> UioMsi:
    """The world after these operations, each of which returned 0."""
    world: UioMsi = FAST(config, PROFILES["vfio-like"])
    world.start(driver)
    assert [world.perform(op) for op in ops] == [0] * len(ops)
    return world


def assert_level(world: UioMsi) -> None:
    """The function asserts INTx, and the line's handlers run while it drives the line; what they do is not judged."""
    world.intx.asserted = True
    for action in tuple(world.intx.core.lines[PDEV_IRQ]):
        if not world.intx.disable_bit:
            world.handlers.run(action)


@pytest.mark.parametrize("name", DRIVERS)
def test_a_plain_session_on_msix(name: str) -> None:
    """Mapping, replacing, unmapping, closing while mapped and removing while open break no clause."""
    driver = DRIVERS[name]

    report = run(
        driver,
        *(Probe(), Open(), IrqSet(0, FIRST_FD), IrqSet(1, FIRST_FD), RaiseVector(0), RaiseVector(1)),
        *(IrqSet(1, SECOND), RaiseVector(1), IrqSet(0, -1), RaiseVector(0), IrqSet(0, SECOND)),
        *(Close(), Open(), IrqSet(1, SECOND), Remove()),
        profile=driver.profile,
    )

    assert report.failure is None
    assert not report.warnings


@pytest.mark.parametrize("name", KEEPS_ACTION)
def test_an_unmapped_action_masks_and_tells_nobody(name: str) -> None:
    """The action that stays serves the line; the next set tells the user of the level that is still there."""
    world = world_of(DRIVERS[name], Probe(), Open(), IrqSet(0, FIRST_FD), IrqSet(0, -1))
    assert_level(world)
    assert world.irqs.counts[0] == 1
    assert world.intx.disable_bit
    assert not world.eventfds.signals
    assert not any(world.eventfds.references)

    world.perform(IrqSet(0, SECOND))

    assert world.eventfds.signals == 1


def test_an_unmapped_function_without_action_is_masked() -> None:
    """Who frees the action leaves nothing that could drive the line, and replacing leaves the mask as it was."""
    world = world_of(PEERS["freed-while-unmapped"], Probe(), Open(), IrqSet(0, FIRST_FD), IrqSet(0, -1), SetIntx(True))
    assert world.irqs.counts[0] == 0
    assert world.intx.disable_bit

    world.perform(IrqSet(0, SECOND))
    world.perform(IrqSet(0, FIRST_FD))

    assert world.eventfds.signals == 1
    assert world.intx.disable_bit


@pytest.mark.parametrize("name", KEEPS_ACTION)
def test_intx_keeps_its_eventfd_when_the_new_one_is_refused(name: str) -> None:
    """The fd is looked up before anything is undone."""
    world = world_of(DRIVERS[name], Probe(), Open(), IrqSet(0, FIRST_FD))

    assert world.perform(IrqSet(0, BAD_FD)) == -EBADF

    world.perform(SetIntx(True))
    assert world.eventfds.signals == 1


@pytest.mark.parametrize("name", DRIVERS)
def test_nothing_drives_the_line_before_the_first_set(name: str) -> None:
    """Either the disable bit is set by open, or an action is there that sets it; remove leaves the bit as found."""
    world = world_of(DRIVERS[name], Probe(), Open())
    assert_level(world)
    assert world.intx.disable_bit

    world.perform(Close())
    assert world.intx.disable_bit
    world.perform(Remove())

    assert not world.intx.disable_bit


def test_masking_by_user_space_is_seen() -> None:
    """The driver keeps no flag beside the disable bit, which user space may write."""
    world = world_of(Linux, Probe(), Open(), IrqSet(0, FIRST_FD), SetIntx(True), ConfigIntx(False))
    assert world.eventfds.signals == 2

    world.perform(Write(0))
    world.perform(ConfigIntx(False))

    assert world.eventfds.signals == 3


@pytest.mark.parametrize("irq", [0, IRQ_NOTCONNECTED])
def test_a_pin_that_leads_nowhere_is_refused(irq: int) -> None:
    """Without MSI-X there is then nothing to bind for."""
    world = world_of(Linux)

    assert world.driver.probe(irq, 0, False) == -ENODEV
    assert not world.heap.allocations
    assert not world.device.enabled


@pytest.mark.parametrize(
    ("guarded", "left"),
    [
        ([], [(0x1000, 0x5000)]),
        ([(0x2000, 0x3000)], [(0x1000, 0x2000), (0x3000, 0x5000)]),
        ([(0x0, 0x2000), (0x1000, 0x3000), (0x4000, 0x8000)], [(0x3000, 0x4000)]),
        ([(0x1000, 0x5000)], []),
        ([(0x5000, 0x6000)], [(0x1000, 0x5000)]),
    ],
)
def test_guarded_pages_are_left_out(guarded: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    """What remains of a BAR comes in order, without empty pieces."""
    assert _sparse((0x1000, 0x5000), guarded) == left
