"""Each simulator of uio_msi alone: it behaves, and it breaches."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.environment.door import Environment, Frame
from conformance.environment.eventfd import FastEventfds
from conformance.environment.irq import Action, IrqCore
from conformance.environment.memory import UserMemory
from conformance.environment.uio_msi.context import Context
from conformance.environment.uio_msi.device import Device
from conformance.environment.uio_msi.eventfds import FIRST_CTX, EventfdContexts, open_files
from conformance.environment.uio_msi.heap import FIRST_TOKEN, Heap
from conformance.environment.uio_msi.iomem import IoMemory
from conformance.environment.uio_msi.log import LOG_BURST, Log
from conformance.environment.uio_msi.mutexes import Mutexes
from conformance.environment.uio_msi.process import Argument, Process
from conformance.environment.uio_msi.spinlocks import Spinlocks
from conformance.environment.uio_msi.uio_core import UioCore
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import FIRST_FD, NEVER_OPENED_FD, PAGE, PAGE_END, PDEV_IRQ
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import (
    CAP_SYS_RAWIO,
    EBADF,
    EBUSY,
    EINVAL,
    EIO,
    IRQF_SHARED,
    PAGE_SIZE,
    UIO_IRQ_CUSTOM,
)
from conformance.verdict import HarnessError
from tests.conformance.uio_msi.driving import breach

BAR = ("BAR0", 0xF000_0000, 0, PAGE_SIZE, 1)


def refuse(door: Environment, call: str, value: int) -> None:
    """Plan a refusal; calls that do not pass the door are all number 0."""
    door.frame.plan = {(call, 0): value}


@pytest.fixture
def door() -> Environment:
    """A door with nothing behind it."""
    return Environment()


@pytest.fixture
def context(door: Environment) -> Context:
    """Process context."""
    return Context(door)


@pytest.fixture
def heap(door: Environment, context: Context) -> Heap:
    """Nothing allocated."""
    return Heap(door, context)


@pytest.fixture
def mutexes(door: Environment, context: Context, heap: Heap) -> Mutexes:
    """None known."""
    return Mutexes(door, context, heap)


@pytest.fixture
def process(door: Environment, context: Context, mutexes: Mutexes) -> Process:
    """A process that makes no system call."""
    return Process(door, context, mutexes)


class Line:
    """Stands for INTx: counts how often it was evaluated."""

    evaluated = 0
    is_cores = False

    def evaluate(self) -> None:
        """Count."""
        self.evaluated += 1


# -- what is shared


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


# -- context and log


def test_a_handler_may_not_sleep(door: Environment, context: Context) -> None:
    """Nor may it do what needs a process; another operation may do both meanwhile."""
    context.handling.add(door.frame)

    assert breach(context.may_sleep, "kfree") is c.HANDLERS_DO_NOT_SLEEP
    assert breach(context.needs_process, "kzalloc") is c.HANDLERS_DO_NOT_SLEEP
    assert context.is_atomic()
    door.frame = Frame()
    context.may_sleep("kfree")
    assert not context.is_atomic()


def test_who_holds_a_spinlock_may_not_sleep(door: Environment, context: Context) -> None:
    """It may allocate, though."""
    door.atomic = 1
    context.spinning[door.frame] = 1

    assert breach(context.may_sleep, "ioremap") is c.MEMORY_SAFE
    assert context.is_atomic()
    context.needs_process("kzalloc")


def test_a_limited_print_stops_after_a_burst(door: Environment) -> None:
    """Other prints go on."""
    log = Log(door)
    for _ in range(2 * LOG_BURST):
        log.dev_err_ratelimited("again")
    log.dev_err("once")

    assert log.printed == LOG_BURST + 1


# -- memory


def test_an_address_is_not_allocated_twice(heap: Heap) -> None:
    """Allocations lie whole pages apart, so that an offset names one of them."""
    first = heap.kzalloc(PAGE_SIZE + 1)
    heap.kfree(first)
    second = heap.kcalloc(4, 8)

    assert (first, second) == (FIRST_TOKEN, FIRST_TOKEN + 2 * PAGE_SIZE)
    assert heap.is_freed(first + PAGE_SIZE)
    assert heap.is_held(second + 8)
    assert not heap.is_held(first)
    assert heap.is_held(0x100)  # static data


def test_memory_is_freed_once(heap: Heap) -> None:
    """NULL is nothing, and what never was allocated is no memory."""
    token = heap.kasprintf("name")
    heap.kfree(0)
    heap.kfree(token)

    assert breach(heap.kfree, token) is c.NOTHING_RELEASED_TWICE
    assert breach(heap.kfree, token + 8) is c.MEMORY_SAFE


def test_memory_may_be_short(door: Environment, heap: Heap) -> None:
    """The answer is NULL, for the call that is refused."""
    refuse(door, "kcalloc", -1)

    assert heap.kzalloc(8)
    assert not heap.kcalloc(1, 8)
    assert door.frame.given == {"kcalloc": -1}


def test_what_the_module_allocates_is_told_apart(door: Environment, heap: Heap) -> None:
    """While it is loaded there is no driver yet."""
    of_module = heap.kzalloc(8)
    door.driver = object()

    assert heap.kzalloc(8) not in heap.of_module
    assert heap.of_module == {of_module}


def test_device_memory_is_unmapped_once(door: Environment, context: Context) -> None:
    """A page lies between two mappings; a refused one is NULL."""
    iomem = IoMemory(door, context)
    first, second = iomem.ioremap(0xF000_0000, 0x800), iomem.ioremap(0xF000_1000, 0x800)
    iomem.iounmap(first)

    assert second == first + 2 * PAGE_SIZE
    assert breach(iomem.iounmap, first) is c.NOTHING_RELEASED_TWICE
    refuse(door, "ioremap", -1)
    assert not iomem.ioremap(0xF000_0000, 0x800)


# -- locks


def test_a_mutex_is_held_by_one(door: Environment, mutexes: Mutexes) -> None:
    """Taking it twice is a deadlock, giving it back is for who holds it."""
    mutexes.mutex_lock(0x100)

    assert breach(mutexes.mutex_lock, 0x100) is c.MEMORY_SAFE
    assert breach(mutexes.must_be_free, c.BAD_POINTER) is c.BAD_POINTER
    door.frame, mine = Frame(), door.frame
    assert breach(mutexes.mutex_unlock, 0x100) is c.MEMORY_SAFE
    mutexes.must_be_free(c.BAD_POINTER)
    door.frame = mine
    mutexes.mutex_unlock(0x100)
    mutexes.must_be_free(c.BAD_POINTER)


def test_a_mutex_in_memory_must_be_initialised(heap: Heap, mutexes: Mutexes) -> None:
    """In memory that is allocated; a static one needs nothing."""
    token = heap.kzalloc(8)

    assert breach(mutexes.mutex_lock, token) is c.MEMORY_SAFE
    assert breach(mutexes.mutex_init, token + PAGE_SIZE) is c.MEMORY_SAFE
    mutexes.mutex_init(token)
    mutexes.mutex_lock(token)


def test_memory_with_a_mutex_is_freed_when_nobody_holds_it(heap: Heap, mutexes: Mutexes) -> None:
    """After that there is no such mutex."""
    heap.at_free = mutexes.forget
    held, free = heap.kzalloc(8), heap.kzalloc(8)
    for token in (held, free):
        mutexes.mutex_init(token)
    mutexes.mutex_lock(held)
    heap.kfree(free)

    assert breach(mutexes.mutex_lock, free) is c.MEMORY_SAFE
    assert breach(heap.kfree, held) is c.MEMORY_SAFE


def test_a_spinlock_makes_its_holder_atomic(door: Environment, context: Context, heap: Heap) -> None:
    """Interrupts that came meanwhile are taken when it is released."""
    line = Line()
    spinlocks = Spinlocks(door, context, heap, line)  # type: ignore[arg-type]  # that is all it asks of INTx
    spinlocks.spin_lock_irqsave(0x80)
    spinlocks.spin_lock_irqsave(0x88)
    spinlocks.spin_unlock_irqrestore(0x88)

    assert (door.atomic, context.is_atomic(), line.evaluated) == (1, True, 1)
    assert breach(spinlocks.must_be_free, c.BAD_POINTER) is c.BAD_POINTER
    spinlocks.spin_unlock_irqrestore(0x80)
    assert (door.atomic, context.is_atomic(), line.evaluated) == (0, False, 2)
    spinlocks.must_be_free(c.BAD_POINTER)


def test_a_spinlock_is_held_by_one(door: Environment, context: Context, heap: Heap) -> None:
    """As a mutex is, and it lies in memory as well."""
    spinlocks = Spinlocks(door, context, heap, Line())  # type: ignore[arg-type]
    spinlocks.spin_lock_irqsave(0x80)

    assert breach(spinlocks.spin_lock_irqsave, 0x80) is c.MEMORY_SAFE
    assert breach(spinlocks.spin_lock_irqsave, FIRST_TOKEN) is c.MEMORY_SAFE
    assert breach(spinlocks.spin_unlock_irqrestore, 0x88) is c.MEMORY_SAFE


# -- the process


def test_an_argument_is_fetched_once(door: Environment, process: Process) -> None:
    """Field by field or at once, and no more than it has."""
    process.arguments[door.frame] = Argument(PAGE, b"abcdefgh")

    assert process.copy_from_user(PAGE + 4, 4) == b"efgh"
    assert process.copy_from_user(PAGE, 4) == b"abcd"
    assert breach(process.copy_from_user, PAGE, 1) is c.ARGUMENT_FETCHED_ONCE
    assert breach(process.copy_from_user, PAGE, 9) is c.ARGUMENT_IS_EIGHT_BYTES


def test_a_fetch_may_stop_early(door: Environment, process: Process) -> None:
    """Where memory ends, or where a refusal says that it vanished."""
    process.arguments[door.frame] = Argument(PAGE_END - 6, b"abcdefgh")
    assert process.copy_from_user(PAGE_END - 6, 8) == b"abcdef"

    process.arguments[door.frame] = Argument(PAGE, b"abcdefgh")
    refuse(door, "copy_from_user", 1)
    assert process.copy_from_user(PAGE, 8) == b"abcdefg"


def test_a_fetch_belongs_to_an_ioctl(door: Environment, process: Process, mutexes: Mutexes) -> None:
    """Nothing else has an argument; who holds a mutex meanwhile is noted."""
    assert breach(process.copy_from_user, PAGE, 8) is c.MEMORY_SAFE

    process.arguments[door.frame] = Argument(PAGE, b"abcdefgh")
    mutexes.mutex_lock(0x100)
    process.copy_from_user(PAGE, 8)
    assert process.copied_under_mutex is True


def test_a_capability_is_the_callers(door: Environment, process: Process) -> None:
    """Of all capabilities, only CAP_SYS_RAWIO can be missing."""
    process.unprivileged.add(door.frame)

    assert (process.capable(CAP_SYS_RAWIO), process.capable(1)) == (0, 1)
    door.frame = Frame()
    assert process.capable(CAP_SYS_RAWIO) == 1


@pytest.fixture
def eventfds(door: Environment, context: Context, process: Process) -> EventfdContexts:
    """No reference held."""
    return EventfdContexts(door, context, process, FastEventfds(open_files(Config())))


def test_a_reference_is_dropped_once(eventfds: EventfdContexts) -> None:
    """Nothing is signalled without one."""
    ctx = eventfds.eventfd_ctx_fdget(FIRST_FD)
    eventfds.eventfd_signal(ctx)
    eventfds.eventfd_ctx_put(ctx)

    assert (ctx, eventfds.signals, eventfds.references) == (FIRST_CTX, 1, [0, 0, 0])
    assert breach(eventfds.eventfd_signal, ctx) is c.REFERENCE_OUTLIVES_HANDLER
    assert breach(eventfds.eventfd_ctx_put, ctx) is c.ONE_REFERENCE_EACH
    assert breach(eventfds.eventfd_signal, 8) is c.MEMORY_SAFE


def test_a_look_up_that_is_refused_leaves_no_reference(door: Environment, eventfds: EventfdContexts) -> None:
    """Neither does one of a number that names nothing."""
    refuse(door, "eventfd_ctx_fdget", -EIO)

    assert eventfds.eventfd_ctx_fdget(NEVER_OPENED_FD) == -EBADF
    assert eventfds.eventfd_ctx_fdget(0) == -EINVAL  # standard input is a pipe
    assert eventfds.eventfd_ctx_fdget(FIRST_FD) == -EIO
    assert eventfds.files.references() == (0, 0, 0)


def test_a_look_up_in_an_ioctl_is_noted(door: Environment, process: Process, eventfds: EventfdContexts) -> None:
    """The eventfd is the one that events in the gap belong to."""
    argument = process.arguments[door.frame] = Argument(PAGE, b"abcdefgh")
    eventfds.eventfd_ctx_fdget(FIRST_FD + 1)

    assert argument.found == 1


# -- the device and the UIO core


@pytest.fixture
def device(door: Environment) -> Device:
    """Not enabled, with no line but INTx."""
    core = IrqCore()
    core.add_line(PDEV_IRQ)
    return Device(door, core)


def test_what_is_acquired_is_released_once(door: Environment, device: Device) -> None:
    """In any order: the one that is not the reverse is noted."""
    device.pci_enable_device()
    device.pci_request_regions("a")

    assert device.pci_request_regions("a") == -EBUSY
    device.pci_disable_device()
    assert "pci_enable_device" in device.disorder
    device.pci_release_regions()
    assert breach(device.pci_release_regions) is c.NOTHING_RELEASED_TWICE
    assert breach(device.pci_disable_device) is c.NOTHING_RELEASED_TWICE
    refuse(door, "pci_enable_device", -EIO)
    assert device.pci_enable_device() == -EIO


def test_what_an_open_acquired_outlasts_the_device_file(door: Environment, process: Process, device: Device) -> None:
    """It was acquired later, but the file goes before anything that its users need."""
    core = uio(door, process, device)
    device.pci_enable_device()
    core.uio_register_device("a", "1", UIO_IRQ_CUSTOM, False, (), ())
    device.pci_enable_device()
    device.pci_request_regions("a")

    core.uio_unregister_device()
    device.pci_release_regions()
    device.pci_disable_device()
    device.pci_disable_device()
    assert (device.acquired, device.disorder) == ([], "")

    device.pci_request_regions("a")
    core.uio_register_device("a", "1", UIO_IRQ_CUSTOM, False, (), ())
    device.pci_release_regions()
    assert "pci_request_regions" in device.disorder


def test_the_last_disabling_stops_dma(device: Device) -> None:
    """A function without power cannot be told to do any."""
    assert breach(device.pci_set_master) is c.MEMORY_SAFE

    device.pci_enable_device()
    device.pci_enable_device()
    device.pci_set_master()
    device.pci_disable_device()
    assert device.master
    device.pci_disable_device()
    assert not device.master


@pytest.mark.parametrize("probing", [True, False])
def test_a_device_with_interrupts_is_not_disabled(device: Device, probing: bool) -> None:
    """Whose clause that breaks, depends on who forgot them."""
    device.pci_enable_device()
    device.core.add_line(201)
    device.probing = probing

    clause = c.FAILED_PROBE_LEAVES_NOTHING if probing else c.REMOVE_WHILE_OPEN
    assert breach(device.pci_disable_device) is clause
    device.core.drop_line(201)
    device.core.request(PDEV_IRQ, IRQF_SHARED, 0, 1)
    assert breach(device.pci_disable_device) is clause


def uio(door: Environment, process: Process, device: Device, is_old: bool = False) -> UioCore:
    """A core with nothing registered."""
    line: Any = Line()
    return UioCore(door, process.context, device, process, line, is_old)


def test_a_device_file_is_registered_once(door: Environment, process: Process, device: Device) -> None:
    """With an irq that there is, and no more entries than the core has room for."""
    core = uio(door, process, device)

    assert core.uio_register_device("a", "1", 5, False, (), ()) == -EINVAL
    assert core.uio_register_device("", "1", UIO_IRQ_CUSTOM, False, (), ()) == -EINVAL
    assert breach(core.uio_register_device, "a", "1", UIO_IRQ_CUSTOM, False, (BAR,) * 6, ()) is c.AT_MOST_FIVE
    assert core.uio_register_device("a", "1", PDEV_IRQ, False, (BAR,), ()) == 0
    assert core.uio_register_device("a", "1", PDEV_IRQ, False, (BAR,), ()) == -EINVAL
    assert (core.mem, core.intx.is_cores, device.acquired) == ((BAR,), True, ["uio_register_device"])
    core.uio_unregister_device()
    assert (core.intx.is_cores, device.acquired) == (False, [])
    assert breach(core.uio_unregister_device) is c.NOTHING_RELEASED_TWICE


def test_the_new_core_lets_one_callback_in(door: Environment, process: Process, device: Device) -> None:
    """Where there is nobody to wait for, entering a second one is the harness's mistake; the old core minds nothing."""
    new, old = uio(door, process, device), uio(door, process, device, is_old=True)
    for core in (new, old):
        core.take_info_lock()

    old.take_info_lock()
    with pytest.raises(HarnessError):
        new.take_info_lock()
    new.drop_info_lock()
    new.take_info_lock()
