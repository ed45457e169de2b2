"""The simulators of uio_msi that interrupt: handlers, INTx, MSI-X, config space, the irq core."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.environment.door import Environment
from conformance.environment.eventfd import FastEventfds
from conformance.environment.irq import Action, IrqCore
from conformance.environment.uio_msi.config_space import MSIX_CAP, ConfigSpace
from conformance.environment.uio_msi.context import Context
from conformance.environment.uio_msi.device import Device
from conformance.environment.uio_msi.eventfds import EventfdContexts, open_files
from conformance.environment.uio_msi.handlers import Handlers
from conformance.environment.uio_msi.heap import Heap
from conformance.environment.uio_msi.intx import Intx
from conformance.environment.uio_msi.irqs import Irqs
from conformance.environment.uio_msi.msix import FIRST_IRQ, Msix
from conformance.environment.uio_msi.mutexes import Mutexes
from conformance.environment.uio_msi.process import Argument, Process
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import FIRST_FD, PAGE, PDEV_IRQ
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import IRQ_HANDLED, IRQ_NONE, IRQF_SHARED
from conformance.verdict import Violation
from tests.conformance.uio_msi.driving import breach

DEV_ID = 0x4000
"""Static data of the module."""


class Driver:
    """Its handler does what the test says."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []
        self.answer: Callable[[], int] = lambda: IRQ_HANDLED

    def handler(self, irq: int, dev_id: int) -> int:
        """Note the call."""
        self.calls.append((irq, dev_id))
        return self.answer()


class Function:
    """The simulators about one function, as far as its interrupts reach; it is enabled and may do DMA."""

    def __init__(self, config: Config) -> None:
        self.door = door = Environment()
        self.driver = door.driver = Driver()
        self.core = core = IrqCore()
        self.context = context = Context(door)
        self.heap = heap = Heap(door, context)
        self.process = Process(door, context, Mutexes(door, context, heap))
        self.eventfds = EventfdContexts(door, context, self.process, FastEventfds(open_files(config)))
        self.device = device = Device(door, core)
        self.handlers = handlers = Handlers(door, context, heap, core, device)
        self.intx = Intx(door, context, core, handlers, self.eventfds, config)
        self.msix = Msix(door, context, core, device, handlers, self.intx, self.process, self.eventfds, config)
        self.config_space = ConfigSpace(door, context, device, self.intx, self.msix, config)
        self.irqs = Irqs(door, context, heap, core, handlers, self.intx, self.msix)
        device.pci_enable_device()
        device.pci_set_master()


@pytest.fixture
def intx() -> Function:
    """A function without MSI-X."""
    return Function(Config(vectors=0))


@pytest.fixture
def msix() -> Function:
    """A function with two vectors, enabled."""
    function = Function(Config())
    function.door.frame.made["pci_enable_msix"] = 1
    function.msix.pci_enable_msix((0, 1))
    return function


# -- handlers


def test_a_handler_is_atomic(intx: Function) -> None:
    """For as long as it runs."""
    seen = []

    def answer() -> int:
        seen.append((intx.context.is_atomic(), intx.door.atomic, action.running))
        return IRQ_HANDLED

    intx.driver.answer = answer
    action = Action(PDEV_IRQ, 0, 0, DEV_ID)

    assert intx.handlers.run(action) == IRQ_HANDLED
    assert seen == [(True, 1, 1)]
    assert (intx.context.is_atomic(), intx.door.atomic, action.running) == (False, 0, 0)
    assert intx.driver.calls == [(PDEV_IRQ, DEV_ID)]


def test_a_handler_gives_its_spinlocks_back(intx: Function) -> None:
    """Nobody could take them any more."""
    intx.context.spinning[intx.door.frame] = 1

    assert breach(intx.handlers.run, Action(PDEV_IRQ, 0, 0, DEV_ID)) is c.MEMORY_SAFE


@pytest.mark.parametrize(("bound", "clause"), [(True, c.MEMORY_SAFE), (False, c.REMOVE_WHILE_OPEN)])
def test_an_action_may_not_outlive_its_memory(intx: Function, bound: bool, clause: Clause) -> None:
    """Neither the dev_id that its handler is given nor the name that /proc/interrupts prints."""
    token = intx.heap.kzalloc(8)
    action = intx.core.request(PDEV_IRQ, 0, token, token)
    assert isinstance(action, Action)
    intx.handlers.list_interrupts()
    intx.heap.kfree(token)
    intx.device.bound = bound

    assert breach(intx.handlers.run, action) is clause
    assert breach(intx.handlers.list_interrupts) is clause


def test_a_handler_inside_request_irq_is_blamed_on_it(intx: Function) -> None:
    """Whatever was unsafe there; other clauses keep their name."""

    def unsafe() -> None:
        raise Violation(c.MEMORY_SAFE, "no trigger")

    def other() -> None:
        raise Violation(c.MSIX_HANDLED, "1")

    assert breach(intx.handlers.run_inside_request, unsafe) is c.READY_BEFORE_REQUEST
    assert breach(intx.handlers.run_inside_request, other) is c.MSIX_HANDLED
    intx.handlers.run_inside_request(lambda: None)
    assert intx.door.held == {c.READY_BEFORE_REQUEST: 1}


# -- INTx


def masks(function: Function) -> Callable[[], int]:
    """What a right handler does, that signals the first eventfd."""
    ctx = function.eventfds.eventfd_ctx_fdget(FIRST_FD)

    def answer() -> int:
        if function.intx.disable_bit or not function.intx.pci_check_and_mask_intx():
            return IRQ_NONE
        function.eventfds.eventfd_signal(ctx)
        return IRQ_HANDLED

    return answer


def test_an_asserted_line_is_handled_once(intx: Function) -> None:
    """The handler masks it, and it comes back when somebody unmasks it."""
    intx.driver.answer = masks(intx)
    intx.irqs.request_irq(PDEV_IRQ, IRQF_SHARED, 0, DEV_ID)
    intx.intx.set_level(asserted=True)

    assert (intx.eventfds.signals, intx.intx.disable_bit) == (1, True)
    assert intx.intx.pci_check_and_unmask_intx() == 0
    intx.intx.pci_intx(1)
    assert (intx.eventfds.signals, intx.intx.disable_bit) == (2, True)
    intx.intx.set_level(asserted=False)
    assert intx.intx.pci_check_and_unmask_intx() == 1
    assert intx.door.held[c.INTX_MASKED_AND_SIGNALLED] == 2


def test_a_line_that_is_up_already_is_handled_inside_request_irq(intx: Function) -> None:
    """All that the handler needs must be there."""
    intx.driver.answer = masks(intx)
    intx.intx.set_level(asserted=True)
    intx.irqs.request_irq(PDEV_IRQ, IRQF_SHARED, 0, DEV_ID)

    assert intx.eventfds.signals == 1
    assert intx.door.held[c.READY_BEFORE_REQUEST] == 1


def test_an_interrupt_of_another_is_not_ours(intx: Function) -> None:
    """A right handler says so, and one that signals is wrong."""
    right = masks(intx)
    intx.driver.answer = right
    intx.irqs.request_irq(PDEV_IRQ, IRQF_SHARED, 0, DEV_ID)
    intx.intx.interrupt_of_another()
    assert intx.door.held[c.INTX_NOT_OURS] == 1

    intx.driver.answer = lambda: IRQ_HANDLED
    assert breach(intx.intx.interrupt_of_another) is c.INTX_NOT_OURS


def test_an_asserted_line_must_be_masked(intx: Function) -> None:
    """Otherwise it interrupts for ever."""
    intx.irqs.request_irq(PDEV_IRQ, IRQF_SHARED, 0, DEV_ID)

    assert breach(intx.intx.set_level, True) is c.INTX_MASKED_AND_SIGNALLED


def test_the_core_has_no_handler_to_call(intx: Function) -> None:
    """A driver that registers the irq with the core must give one."""
    intx.intx.is_cores = True

    assert breach(intx.intx.interrupt_of_another) is c.MEMORY_SAFE


def test_only_what_needs_power_asks_for_it(intx: Function) -> None:
    """A reset and MSI-X do; config space answers without."""
    intx.device.pci_disable_device()

    for call in (intx.config_space.pci_reset_function, lambda: intx.msix.pci_enable_msix((0,))):
        assert breach(call) is c.MEMORY_SAFE
        intx.door.breach = None
    intx.intx.pci_intx(0)
    assert intx.intx.disable_bit
    assert intx.intx.pci_intx_mask_supported()


# -- MSI-X


def test_a_masked_vector_holds_its_event(msix: Function) -> None:
    """The handler is told once it is there, however often the function asked."""
    msix.msix.raise_vector(1)
    msix.msix.raise_vector(1)
    assert msix.msix.pending == [False, True]

    msix.irqs.request_irq(msix.msix.pci_irq_vector(1), 0, 0, DEV_ID)
    msix.msix.raise_vector(1)

    assert msix.msix.pending == [False, False]
    assert msix.driver.calls == [(msix.msix.irq_of[1], DEV_ID)] * 2


def test_a_function_sends_what_it_can(msix: Function) -> None:
    """Nothing without DMA, and nothing by a message that a reset cleared."""
    msix.irqs.request_irq(FIRST_IRQ, 0, 0, DEV_ID)
    msix.device.pci_clear_master()
    msix.msix.raise_vector(0)
    msix.device.pci_set_master()
    msix.msix.lose_messages()
    msix.msix.raise_vector(0)
    assert msix.driver.calls == []

    msix.msix.pci_write_msi_msg(FIRST_IRQ)
    msix.msix.raise_vector(0)
    assert msix.driver.calls == [(FIRST_IRQ, DEV_ID)]


def test_a_message_is_always_ours(msix: Function) -> None:
    """A handler that denies it is wrong."""
    msix.irqs.request_irq(FIRST_IRQ, 0, 0, DEV_ID)
    msix.driver.answer = lambda: IRQ_NONE

    assert breach(msix.msix.raise_vector, 0) is c.MSIX_HANDLED


def test_an_event_in_the_gap_is_the_new_mappings(msix: Function) -> None:
    """Signalled to the eventfd that the ioctl looked up, or the driver is wrong."""
    argument = msix.process.arguments[msix.door.frame] = Argument(PAGE, bytes(8))
    old = msix.eventfds.eventfd_ctx_fdget(FIRST_FD)
    new = msix.eventfds.eventfd_ctx_fdget(FIRST_FD + 1)
    for ctx in (new, old):
        msix.msix.raise_vector(0)
        assert msix.msix.window == {0}
        msix.driver.answer = lambda ctx=ctx: msix.eventfds.eventfd_signal(ctx) or IRQ_HANDLED  # type: ignore[misc]
        if ctx == new:
            msix.irqs.request_irq(FIRST_IRQ, 0, 0, DEV_ID)
            msix.irqs.free_irq(FIRST_IRQ, DEV_ID)

    assert argument.found == 1
    assert msix.door.held[c.EVENT_WHILE_REPLACING] == 1
    assert breach(msix.irqs.request_irq, FIRST_IRQ, 0, 0, DEV_ID) is c.EVENT_WHILE_REPLACING


def test_disabling_forgets_events_and_numbers(msix: Function) -> None:
    """Not while a vector has an action, though; twice is fine."""
    msix.irqs.request_irq(FIRST_IRQ, 0, 0, DEV_ID)
    assert breach(msix.msix.pci_disable_msix) is c.DISABLED_AFTER_LAST_FREE

    msix.irqs.free_irq(FIRST_IRQ, DEV_ID)
    msix.msix.raise_vector(1)
    msix.msix.pci_disable_msix()
    msix.msix.pci_disable_msix()

    assert msix.msix.pending == [False, False]
    assert list(msix.core.lines) == [PDEV_IRQ]
    assert breach(msix.msix.pci_write_msi_msg, FIRST_IRQ) is c.CURRENT_IRQ_NUMBERS
    assert not msix.intx.disable_bit


def test_unusable_msix_is_never_enabled() -> None:
    """The capability is there all the same."""
    function = Function(Config(msix_broken=True))

    assert function.msix.pci_alloc_irq_vectors(1, 1) == -k.EINVAL
    assert function.msix.pci_msix_vec_count() == 2
    assert function.config_space.pci_find_capability(k.PCI_CAP_ID_MSIX) == MSIX_CAP


# -- config space


def test_the_command_register_is_written_under_its_lock(intx: Function) -> None:
    """Of the rest nothing can be changed."""
    space = intx.config_space
    assert breach(space.pci_write_config, k.PCI_COMMAND, 2, 0) is c.MEMORY_SAFE
    assert breach(space.pci_cfg_access_unlock) is c.MEMORY_SAFE
    space.pci_write_config(0, 2, 0)

    space.pci_cfg_access_lock()
    space.pci_write_config(k.PCI_COMMAND, 2, k.PCI_COMMAND_INTX_DISABLE)
    assert breach(space.pci_cfg_access_lock) is c.MEMORY_SAFE
    space.pci_cfg_access_unlock()

    assert (intx.intx.disable_bit, intx.device.master, intx.intx.config_writes) == (True, False, 1)
    assert space.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE


def test_bytes_and_bars_outside_do_not_exist(intx: Function) -> None:
    """There are six BARs, of which those without memory read 0."""
    space = intx.config_space

    assert breach(space.pci_read_config, 254, 4) is c.MEMORY_SAFE
    assert breach(space.pci_read_config, 0, 3) is c.MEMORY_SAFE
    assert breach(space.pci_resource_len, 6) is c.MEMORY_SAFE
    assert [space.pci_resource_flags(bar) for bar in (0, 5)] == [k.IORESOURCE_MEM, 0]


def test_only_a_reset_behind_the_drivers_back_clears_messages(msix: Function) -> None:
    """The kernel's own gives them back, and the disable bit."""
    was = msix.intx.disable_bit

    msix.config_space.pci_reset_function()
    assert (msix.msix.lost, msix.intx.disable_bit) == (set(), was)

    msix.msix.lose_messages()
    assert msix.msix.lost == {0, 1}


# -- the irq core


def test_only_lines_of_this_function_are_requested(intx: Function, msix: Function) -> None:
    """Whichever way it interrupts, and by the numbers it has now."""
    assert breach(intx.irqs.request_irq, 5, IRQF_SHARED, 0, DEV_ID) is c.INTX_REQUEST
    assert breach(intx.irqs.request_irq, PDEV_IRQ, 0, 0, DEV_ID) is c.INTX_REQUEST
    assert breach(msix.irqs.request_irq, PDEV_IRQ, IRQF_SHARED, 0, DEV_ID) is c.CURRENT_IRQ_NUMBERS
    msix.msix.pci_disable_msix()
    assert breach(msix.irqs.request_irq, FIRST_IRQ, 0, 0, DEV_ID) is c.NO_REQUEST_WHILE_DISABLED


def test_an_action_is_freed_by_its_dev_id(msix: Function) -> None:
    """It counts until then."""
    msix.irqs.request_irq(FIRST_IRQ, 0, 0, DEV_ID)
    assert msix.irqs.counts == [1, 0]

    assert breach(msix.irqs.free_irq, FIRST_IRQ, DEV_ID + 1) is c.FREE_MATCHES_REQUEST
    msix.irqs.free_irq(FIRST_IRQ, DEV_ID)
    assert msix.irqs.counts == [0, 0]


def test_nobody_waits_for_a_handler_that_he_interrupted(msix: Function) -> None:
    """With one thread alone, it would never be done."""
    msix.irqs.request_irq(FIRST_IRQ, 0, 0, DEV_ID)
    msix.irqs.synchronize_irq(FIRST_IRQ)
    [action] = msix.core.lines[FIRST_IRQ]
    action.running = 1

    assert breach(msix.irqs.synchronize_irq, FIRST_IRQ) is c.MEMORY_SAFE
    assert breach(msix.irqs.free_irq, FIRST_IRQ, DEV_ID) is c.MEMORY_SAFE


def test_a_flood_refuses_every_request(msix: Function) -> None:
    """Until it is over."""
    msix.irqs.refusal = -k.EBUSY

    assert msix.irqs.request_irq(FIRST_IRQ, 0, 0, DEV_ID) == -k.EBUSY
    assert msix.irqs.counts == [0, 0]
