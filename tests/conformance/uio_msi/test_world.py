"""The world of uio_msi, wired."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.as_posted import AsPosted
from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.environment.uio_msi import ENVIRONMENT, FAST
from conformance.environment.uio_msi.eventfds import FIRST_CTX
from conformance.environment.uio_msi.msix import FIRST_IRQ
from conformance.environment.uio_msi.world import FastUioMsi, UioMsi
from conformance.lockstep import run_trace
from conformance.model import uio_msi as model
from conformance.model.step import Parallel, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    PAGE,
    Close,
    CloseFd,
    Flood,
    IrqSet,
    Open,
    OtherInterrupt,
    Probe,
    RaiseVector,
    Remove,
    SetIntx,
    Write,
)
from conformance.reports import values
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import PROFILES
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import EBUSY, EINVAL, ENOSPC
from tests.conformance.uio_msi.driving import INTX, SECOND, S, blamed, breach, run, walks, warned


def test_nothing_stays_open() -> None:
    """The process has the descriptors it had before, whatever the driver left."""
    before = {path.name for path in Path("/proc/self/fd").iterdir()}

    run(AsPosted, Probe(), Open(), IrqSet(0, FIRST_FD), CloseFd(FIRST_FD), Remove(), profile="as-posted")

    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before


def test_same_traces_same_verdicts_on_both_backends() -> None:
    """Results, views and environment calls of random traces agree step by step."""
    for trace in walks(40):
        real, fast = (run_trace(S, trace, Upstream, environment=env, record=True) for env in (ENVIRONMENT, FAST))
        assert real.failure is None
        assert fast.failure is None
        assert [(r.result, r.got, r.calls) for r in real.steps] == [(r.result, r.got, r.calls) for r in fast.steps]


@pytest.fixture
def world() -> UioMsi:
    """A function with two vectors, powered up, with a driver that handles every interrupt."""
    env = FAST(Config(), PROFILES["upstream"])
    env.start(lambda _port: Idle())
    env.call("pci_enable_device")
    env.call("pci_set_master")
    return env


class Idle:
    """A driver that does nothing, and handles every interrupt."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_: k.IRQ_HANDLED


def test_irq_numbers_come_back_for_other_vectors() -> None:
    """Never a vector's number; the first vector's are another device's in between, those of others are exchanged."""
    world = FastUioMsi(Config(vectors=3), PROFILES["upstream"])
    world.call("pci_enable_device")
    numbers = []
    for _ in range(3):
        world.call("pci_enable_msix", (0, 1, 2))
        numbers.append([world.call("pci_irq_vector", vector) for vector in (0, 1, 2)])
        world.call("pci_disable_msix")

    assert numbers == [[201, 204, 207], [202, 207, 204], [201, 204, 207]]


def test_more_vectors_than_the_table_has(world: UioMsi) -> None:
    """pci_enable_msix says how many there are; the range call takes them."""
    assert world.call("pci_enable_msix", tuple(range(5))) == 2
    assert world.call("pci_enable_msix", (0, 0)) == -EINVAL
    assert world.call("pci_enable_msix_range", tuple(range(5)), 3, 5) == -ENOSPC
    assert world.call("pci_enable_msix_range", tuple(range(5)), 1, 5) == 2


@pytest.mark.parametrize(
    ("call", "args", "result"),
    [
        ("pci_enable_msix", ((0, 1),), 1),
        ("pci_enable_msix_range", ((0, 1), 1, 2), 1),
        ("pci_enable_msix_range", ((0, 1), 2, 2), -ENOSPC),
        ("pci_alloc_irq_vectors", (1, 2), 1),
        ("pci_alloc_irq_vectors", (2, 2), -ENOSPC),
    ],
)
def test_shortage_is_met_by_every_way_of_enabling(world: UioMsi, call: str, args: tuple[Any, ...], result: int) -> None:
    """One planned refusal means the same whichever call the driver makes."""
    world.frame.plan = {("pci_enable_msix", 1): 1}

    assert world.call(call, *args) == result
    assert world.frame.given == {"pci_enable_msix": 1}


def test_vectors_hold_events_until_requested(world: UioMsi) -> None:
    """The handler runs inside request_irq."""
    world.call("pci_enable_msix", (0, 1))
    world.perform(RaiseVector(1))
    assert world.view().pending == (False, True)

    irq = world.call("pci_irq_vector", 1)
    assert world.call("request_irq", irq, 0, 0, 7) == 0

    assert world.msix.pending == [False, False]
    assert world.view().pending == (False, True), "the handler has told nobody"
    assert world.held[c.READY_BEFORE_REQUEST] == 1


def test_second_request_of_a_vector_is_busy(world: UioMsi) -> None:
    """MSI-X vectors are not shared."""
    world.call("pci_enable_msix", (0,))
    irq = world.call("pci_irq_vector", 0)

    assert world.call("request_irq", irq, 0, 0, 7) == 0
    assert world.call("request_irq", irq, 0, 0, 8) == -EBUSY


def test_misuse_names_its_clause(world: UioMsi) -> None:
    """Each wrong call on a world of its own."""
    fresh = [FAST(Config(), PROFILES["upstream"]) for _ in range(24)]
    for env in fresh:
        env.start(lambda _port: Idle())
        env.call("pci_enable_device")
    worlds = iter(fresh)

    def broken(*calls: tuple[Any, ...]) -> Clause | None:
        env = next(worlds)
        for name, *args in calls[:-1]:
            env.call(name, *args)
        name, *args = calls[-1]
        return breach(env.call, name, *args)

    enable = ("pci_enable_msix", (0, 1))
    first = FIRST_IRQ
    assert broken(("request_irq", first, 0, 0, 1)) is c.NO_REQUEST_WHILE_DISABLED
    assert broken(enable, ("request_irq", 5, 0, 0, 1)) is c.CURRENT_IRQ_NUMBERS
    assert broken(enable, enable) is c.FIRST_OPEN_ENABLES
    assert broken(enable, ("request_irq", first, 0, 0, 1), ("free_irq", first, 2)) is c.FREE_MATCHES_REQUEST
    assert broken(enable, ("request_irq", first, 0, 0, 1), ("pci_disable_msix",)) is c.DISABLED_AFTER_LAST_FREE
    assert broken(enable, ("pci_disable_device",)) is c.REMOVE_WHILE_OPEN
    assert broken(("pci_disable_device",), ("pci_disable_device",)) is c.NOTHING_RELEASED_TWICE
    assert broken(("pci_release_regions",)) is c.NOTHING_RELEASED_TWICE
    assert broken(("iounmap", 1)) is c.NOTHING_RELEASED_TWICE
    assert broken(("kzalloc", 8), ("kfree", 0x1_0000), ("kfree", 0x1_0000)) is c.NOTHING_RELEASED_TWICE
    assert broken(("kfree", 0x1_0008)) is c.MEMORY_SAFE
    assert broken(("uio_unregister_device",)) is c.NOTHING_RELEASED_TWICE
    assert broken(("eventfd_ctx_put", FIRST_CTX)) is c.ONE_REFERENCE_EACH
    assert broken(("eventfd_signal", FIRST_CTX)) is c.REFERENCE_OUTLIVES_HANDLER
    assert broken(("eventfd_signal", 0)) is c.MEMORY_SAFE
    assert broken(("mutex_lock", 1), ("mutex_lock", 1)) is c.MEMORY_SAFE
    assert broken(("mutex_lock", 0x1_0000)) is c.MEMORY_SAFE
    assert broken(("mutex_unlock", 1)) is c.MEMORY_SAFE
    assert broken(("kzalloc", 8), ("mutex_init", 0x1_0000), ("mutex_lock", 0x1_0000), ("kfree", 0x1_0000)) is (
        c.MEMORY_SAFE
    )
    assert broken(("pci_write_config", k.PCI_COMMAND, 2, 0)) is c.MEMORY_SAFE
    assert broken(("copy_from_user", PAGE, 8)) is c.MEMORY_SAFE
    assert broken(("uio_register_device", "a", "b", -1, False, (("BAR0", 0, 0, 1, 1),) * 6, ())) is c.AT_MOST_FIVE
    assert broken(("spin_lock_irqsave", 1), ("mutex_lock", 2)) is c.MEMORY_SAFE
    assert broken(enable, ("request_irq", first, 0, 0x1_0000, 1)) is c.MEMORY_SAFE


def test_handlers_may_not_sleep() -> None:
    """Nor allocate, nor look an fd up."""
    for call, *args in (("mutex_lock", 1), ("kzalloc", 8), ("eventfd_ctx_fdget", FIRST_FD), ("free_irq", 1, 1)):

        class Sleeps(Upstream):
            """Sleeps in its handler."""

            def handler(self, irq: int, dev_id: int) -> int:
                getattr(self.port, call)(*args)  # noqa: B023  # called within this round
                return super().handler(irq, dev_id)

        assert blamed(run(Sleeps, Probe(), Open(), IrqSet(0, FIRST_FD), RaiseVector(0))) == "UIO-045"


def test_command_register_is_read_back(world: UioMsi) -> None:
    """Config space shows mastering, the disable bit, the status and the capability."""
    cap = world.call("pci_find_capability", k.PCI_CAP_ID_MSIX)

    assert world.call("pci_read_config", k.PCI_COMMAND, 2) & k.PCI_COMMAND_MASTER
    assert world.call("pci_read_config", cap + k.PCI_MSIX_FLAGS, 2) & k.PCI_MSIX_FLAGS_QSIZE == 1
    assert world.call("pci_read_config", cap + k.PCI_MSIX_TABLE, 4) == 1
    assert world.call("pci_read_config", cap + k.PCI_MSIX_PBA, 4) == 0x800 | 1


def test_event_while_replacing_is_delivered_once() -> None:
    """UIO-043 is counted when an event meets the gap between the old handler and the new one."""
    mapped = (Probe(), Open(), IrqSet(0, FIRST_FD))
    counted = 0
    for point in range(16):
        report = run(Upstream, *mapped, Step(IrqSet(0, SECOND), during=((point, Step(RaiseVector(0))),)))
        assert report.failure is None
        counted += report.tally.clauses.get(c.EVENT_WHILE_REPLACING, 0)

    assert counted > 0


def test_free_irq_waits_for_a_running_handler() -> None:
    """Detaching beside a handler that is about to signal."""
    race = Parallel(Step(RaiseVector(0)), Step(IrqSet(0, -1)), (0,))

    report = run(Upstream, Probe(), Open(), IrqSet(0, FIRST_FD), race)

    assert report.failure is None


def test_removal_waits_for_an_ioctl_with_the_new_core_only() -> None:
    """With the old one the driver itself must survive a set that comes too late."""
    race = Parallel(Step(IrqSet(0, FIRST_FD)), Step(Remove()), (1,))

    for core_41 in (False, True):
        assert run(Upstream, Probe(), Open(), race, config=Config(core_41=core_41)).failure is None


def test_write_that_meets_removal_after_falling_back() -> None:
    """The driver answers -ENODEV, as the core does after removal, also where MSI-X could not be used."""
    race = Parallel(Step(Write()), Step(Remove()), (0,))

    report = run(Upstream, Probe(), Open(), IrqSet(0, FIRST_FD), race, config=Config(msix_broken=True, core_41=True))

    assert report.failure is None


def test_shared_line_of_intx() -> None:
    """Another device's interrupts leave ours alone before, while and after it is asserted."""
    ops = (Probe(), Open(), IrqSet(0, FIRST_FD), OtherInterrupt(), SetIntx(True), OtherInterrupt())
    report = run(Upstream, *ops, SetIntx(False), OtherInterrupt(), Close(), Remove(), config=INTX)

    assert report.failure is None
    assert warned(report) == set()


def test_flood_returns_the_result_that_differs() -> None:
    """A driver that tires of refusing is not excused by a thousand results being summed up."""

    class Tires(Upstream):
        """Accepts the hundredth bad set."""

        sets = 0

        def _set(self, vector: int, fd: int) -> int:
            self.sets += 1
            return 5 if self.sets == 100 else super()._set(vector, fd)

    assert blamed(run(Tires, Probe(), Open(), Flood())) == "UIO-009"


def test_lost_messages_are_told_by_vector() -> None:
    """As pending bits are; a list of numbers would not say what it lists."""
    held = model.view(model.initial(Config(), PROFILES["upstream"]))

    told = values.differences(held, held._replace(lost=(False, True)), ["lost"], S.view_labels)

    assert told == ("lost, vector 1 = False", "lost, vector 1 = True")
