"""INTx: the function's pin, its disable bit, and the shared line behind it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from conformance.environment.irq import Action, IrqCore
from conformance.environment.simulator import Simulator
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import PDEV_IRQ, has_line
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import IRQ_HANDLED, IRQ_NONE
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment, Frame
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.eventfds import EventfdContexts
    from conformance.environment.uio_msi.handlers import Handlers

STORM = 4
"""Rounds of the line that nobody silences, after which it counts as a storm."""


class Intx(Simulator):
    """A level-triggered line that another device shares, and the two bits by which the function drives it.

    The line is evaluated whenever one of the bits changes, and its handlers run at once. Of the other device only
    the interrupts are there; its handler always serves them. Nobody switches the line off when it is driven and no
    handler is there; that it could be is what `is_unserved` says.
    """

    CLAUSES = (c.INTX_NOT_OURS, c.INTX_NO_SECOND_SIGNAL, c.INTX_MASKED_AND_SIGNALLED, c.MEMORY_SAFE)

    def __init__(
        self,
        door: Environment,
        context: Context,
        core: IrqCore,
        handlers: Handlers,
        eventfds: EventfdContexts,
        config: Config,
    ) -> None:
        super().__init__(door)
        self.context = context
        self.core = core
        self.handlers = handlers
        self.eventfds = eventfds
        self.maskable = config.intx
        self.is_wired = has_line(config)
        self.is_used = not config.vectors or config.msix_broken
        """Whether the function interrupts by INTx: it has no MSI-X, none that works, or none could be had at probe."""
        self.disable_bit = config.left_masked
        """Of the command register."""
        self.found_disable_bit = config.left_masked
        """The same when probe began."""
        self.asserted = False
        """The interrupt bit of the status register."""
        self.is_users = False
        """User space cleared the disable bit, and the driver has neither written it since nor had a reason to."""
        self.config_writes = 0
        """Writes to the command register."""
        self.unmasked: tuple[Frame, object] | None = None
        """The operation that let the level through last, and what runs threads then, while no handler has masked it."""
        self.is_cores = False
        """Whether the UIO core requested the line itself."""
        core.add_line(PDEV_IRQ)

    def digest(self) -> Hashable:
        """The disable bit also where the model lets it be."""
        return self.disable_bit, self.is_users

    def pci_intx_mask_supported(self) -> int:
        """As the port says."""
        return int(self.maskable)

    def pci_check_and_mask_intx(self) -> int:
        """As the port says."""
        if not self.asserted:
            return 0
        self.is_users = False
        if not self.disable_bit:
            self.disable_bit = True
            self.unmasked = None
            self.config_writes += 1
        return 1

    def pci_check_and_unmask_intx(self) -> int:
        """As the port says."""
        if self.asserted:
            return 0
        self.disable_bit = self.is_users = False
        self.config_writes += 1
        return 1

    def pci_intx(self, enable: int) -> None:
        """As the port says."""
        self.write_command(not enable)

    def write_command(self, disable: bool) -> None:
        """The driver writes the command register."""
        self.is_users = False
        self.config_writes += 1
        self.set_disable_bit(disable)

    def set_disable_bit(self, disable: bool) -> None:
        """Somebody changes the disable bit, but for a handler that masks."""
        if disable and not self.disable_bit:
            other = self._unmasked_beside()
            if other is not None:
                other.given.setdefault("unmask_coalesced", 1)
            self.unmasked = None
        elif self.disable_bit and not disable:
            self.unmasked = (self.door.frame, self.door.scheduler) if self.asserted else None
        self.disable_bit = disable
        self.evaluate()

    def read_disable_bit(self) -> bool:
        """The bit as config space shows it. Who unmasks need not where another has, with the handler still to come."""
        if self._unmasked_beside() is not None:
            self.door.frame.given.setdefault("unmask_coalesced", 1)
        return self.disable_bit

    def _unmasked_beside(self) -> Frame | None:
        """Another operation of this step that unmasked, of which no handler has asked yet what it let through."""
        if self.unmasked is None or not self.asserted:
            return None
        (other, threads), frame = self.unmasked, self.door.frame
        if other is frame:
            return None
        at_once = threads is not None and threads is self.door.scheduler
        return other if at_once or other.outer is frame or frame.outer is other else None

    def set_level(self, asserted: bool) -> None:
        """The function asserts or deasserts INTx."""
        self.asserted = asserted
        self.unmasked = None
        self.evaluate()

    def evaluate(self) -> None:
        """Run the line's handlers while the function drives it; under a spinlock, once that is released."""
        if self.context.is_atomic():
            return
        if self.asserted and not self.disable_bit:
            self._run_core_handler()
        actions = self.core.lines[PDEV_IRQ]
        for turn in range(STORM):
            if not self.asserted or self.disable_bit or not actions:
                return
            for action in tuple(actions):
                if action.running:
                    self._wait_for(action, first=not turn)
                # It may have been freed meanwhile.
                if action in actions:
                    self.run(action)
        raise Violation(c.INTX_MASKED_AND_SIGNALLED, "INTx storms: no handler masks it")

    def _wait_for(self, action: Action, *, first: bool) -> None:
        """Its handler is under way for another interrupt, and may mask what this one is about: the two are then one."""
        waited = self.door.wait_until(f"handlers of irq {PDEV_IRQ}", lambda: not action.running)
        if waited and first and self.disable_bit:
            self.door.frame.given.setdefault("unmask_coalesced", 1)

    def is_unserved(self) -> bool:
        """Whether the function drives the line, no action is there, and it was not user space that wanted it so."""
        if not self.asserted or self.disable_bit or self.is_users or not self.is_used:
            return False
        # While MSI-X is on there are other lines, and the function does not drive this one.
        return not self.core.lines[PDEV_IRQ] and len(self.core.lines) == 1

    def interrupt_of_another(self) -> None:
        """The other device interrupts: every handler of the line is called."""
        self._run_core_handler()
        for action in tuple(self.core.lines[PDEV_IRQ]):
            self.run(action)

    def _run_core_handler(self) -> None:
        """The core requests the irq that it is given, and its handler calls info.handler."""
        if self.is_cores:
            raise Violation(c.MEMORY_SAFE, f"registered with irq {PDEV_IRQ}, so the core calls info.handler: NULL")

    def run(self, action: Action) -> None:
        """One call of our handler on the shared line, and what it may do then.

        How often an assertion is signalled, if anybody is mapped at all, the counters show.
        """
        door = self.door
        asserted, masked, threads = self.asserted, self.disable_bit, door.scheduler
        switches = threads.switches if threads is not None else 0
        signals, writes = self.eventfds.signals, self.config_writes
        result = self.handlers.run(action)
        if threads is not None and threads.switches != switches:
            return  # who ran meanwhile may have moved the bits, and signalled too
        signals, writes = self.eventfds.signals - signals, self.config_writes - writes
        did = f"the INTx handler returned {result}, signalled {signals} times"
        if not asserted:
            holds = result == IRQ_NONE and not signals and not writes
            door.require(c.INTX_NOT_OURS, holds, f"{did} and wrote config space {writes} times with status clear")
        elif masked:
            door.require(c.INTX_NO_SECOND_SIGNAL, not signals, f"{did} while INTx was masked")
        else:
            # Of two actions, one may leave it to the other: the line storms where both do.
            left = result == IRQ_NONE and not signals and len(self.core.lines[PDEV_IRQ]) > 1
            holds = left or (result == IRQ_HANDLED and signals <= 1 and self.disable_bit)
            door.require(c.INTX_MASKED_AND_SIGNALLED, holds, f"{did}, and the disable bit is {self.disable_bit}")
