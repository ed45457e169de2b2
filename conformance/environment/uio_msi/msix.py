"""MSI-X: the function's vectors, and the irq numbers that the kernel gives them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from conformance.environment.irq import Action, IrqCore
from conformance.environment.simulator import Simulator
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.state import number_of_vectors
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import EINVAL, ENOSPC, ERANGE, IRQ_HANDLED
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.device import Device
    from conformance.environment.uio_msi.eventfds import EventfdContexts
    from conformance.environment.uio_msi.handlers import Handlers
    from conformance.environment.uio_msi.intx import Intx
    from conformance.environment.uio_msi.process import Process

FIRST_IRQ = 201
"""Irq numbers of vectors start here: no number is ever a vector's, and those in between are other devices'."""
IRQ_STEP = 3
"""Irq numbers of neighbouring vectors lie this far apart."""


class Msix(Simulator):
    """The MSI-X capability with its table and its pending bits, and msi.c, which enables it.

    A vector is masked while its line has no action; an event then stays in its pending bit. A message that a reset
    cleared reaches nobody until it is written again. Addresses and data of messages are not modelled, nor is the
    function mask.
    """

    CLAUSES = (
        c.FIRST_OPEN_ENABLES,
        c.DISABLED_AFTER_LAST_FREE,
        c.CURRENT_IRQ_NUMBERS,
        c.MSIX_HANDLED,
        c.EVENT_WHILE_REPLACING,
    )

    def __init__(
        self,
        door: Environment,
        context: Context,
        core: IrqCore,
        device: Device,
        handlers: Handlers,
        intx: Intx,
        process: Process,
        eventfds: EventfdContexts,
        config: Config,
    ) -> None:
        super().__init__(door)
        self.context = context
        self.core = core
        self.device = device
        self.handlers = handlers
        self.intx = intx
        self.process = process
        self.eventfds = eventfds
        self.size = config.vectors
        """Entries of the table."""
        self.is_broken = config.msix_broken
        self.order: tuple[int, ...] = ()
        """Enabled vectors in the order asked for."""
        self.irq_of: dict[int, int] = {}
        """irq number of each enabled vector."""
        self.vector_of: dict[int, int] = {}
        self.is_second = False
        """Whether the next enabling gives the numbers of every second one."""
        self.pending = [False] * number_of_vectors(config)
        self.lost: set[int] = set()
        """Vectors whose message is cleared."""
        self.window: set[int] = set()
        """Vectors with an event that came while an ioctl had them unmapped."""
        self.kept: set[int] = set()
        """Vectors with an event of which a handler has told nobody yet."""
        self.resident: set[int] = set()
        """Vectors whose action is there while they are not mapped."""
        self.wired: set[int] = set()
        """Vectors that are mapped, by what the ioctls returned."""
        self.unsure: set[int] = set()
        """Those that two ioctls at once mapped and unmapped: the references say which came last."""
        self.sets = [0] * len(self.pending)
        """How often each vector was mapped."""

    def digest(self) -> Hashable:
        """Which numbers there are, where some come back: of two vectors none does."""
        return self.is_second and self.size > 2

    # -- enabling

    def pci_msix_vec_count(self) -> int:
        """As the port says."""
        return self.size or -EINVAL

    def pci_enable_msix(self, entries: tuple[int, ...]) -> int:
        """As the port says."""
        answer = self._may_enable(tuple(entries))
        if answer:
            return answer
        planned = self._planned_enable()
        if 0 < planned < len(entries) or planned < 0:
            return self._refused()
        return self._enable(tuple(entries))

    def pci_enable_msix_range(self, entries: tuple[int, ...], minvec: int, maxvec: int) -> int:
        """As the port says."""
        return self._enable_range("pci_enable_msix_range", tuple(entries), minvec, maxvec)

    def pci_alloc_irq_vectors(self, min_vecs: int, max_vecs: int) -> int:
        """As the port says."""
        entries = tuple(range(min(max_vecs, self.size)))
        return self._enable_range("pci_alloc_irq_vectors", entries, min_vecs, max_vecs)

    def _enable_range(self, call: str, entries: tuple[int, ...], least: int, most: int) -> int:
        """Between `least` and `most` vectors. A refusal planned for pci_enable_msix is met here as well."""
        made = self.door.frame.made
        made["pci_enable_msix"] = made.get("pci_enable_msix", 0) + 1
        if least < 1 or most < least:
            return -ERANGE
        entries = entries[:most]
        answer = self._may_enable(entries)
        if answer > 0:
            entries = entries[:answer]
        elif answer:
            return answer
        planned = self._planned_enable()
        if planned < 0:
            return self._refused()
        if 0 < planned < len(entries):
            entries = entries[: self._refused()]
        if len(entries) < least:
            return -ENOSPC
        self._enable(entries)
        return len(entries)

    def _planned_enable(self) -> int:
        """The refusal that the step plans for this attempt; it is met only where it decides."""
        frame = self.door.frame
        return frame.plan.get(("pci_enable_msix", frame.made["pci_enable_msix"]), 0) if frame.plan else 0

    def _may_enable(self, entries: tuple[int, ...]) -> int:
        """0, or what the kernel answers to this request in any case."""
        self.context.may_sleep("pci_enable_msix")
        self.device.must_be_enabled("pci_enable_msix")
        if self.order:
            raise Violation(c.FIRST_OPEN_ENABLES, "pci_enable_msix while MSI-X is enabled")
        vectors = self.size
        if self.is_broken or not vectors or not entries or len(set(entries)) < len(entries):
            return -EINVAL
        if len(entries) > vectors:
            return vectors
        return -EINVAL if any(not 0 <= entry < vectors for entry in entries) else 0

    def _enable(self, entries: tuple[int, ...]) -> int:
        self.order = entries
        for nr, entry in enumerate(entries):
            irq = _number(nr, self.is_second)
            self.irq_of[entry] = irq
            self.vector_of[irq] = entry
            self.core.add_line(irq)
        self.is_second = not self.is_second
        self.intx.disable_bit = True
        self.lost = set()
        return 0

    def _refused(self) -> int:
        """The refusal that is planned is met. At probe it may decide for INTx."""
        if self.device.probing:
            self.intx.is_used = True
        return self.door.refused("pci_enable_msix")

    def pci_disable_msix(self) -> None:
        """As the port says."""
        self.context.may_sleep("pci_disable_msix")
        if not self.order:
            return
        core = self.core
        self.door.require(
            c.DISABLED_AFTER_LAST_FREE,
            not any(core.lines[irq] for irq in self.vector_of),
            "pci_disable_msix while a vector has an action: the kernel stops with BUG",
        )
        for irq in self.vector_of:
            core.drop_line(irq)
        self.irq_of, self.vector_of, self.order = {}, {}, ()
        self.pending = [False] * len(self.pending)
        self.lost = set()
        self.window, self.kept, self.wired, self.unsure, self.resident = set(), set(), set(), set(), set()
        self.intx.disable_bit = False

    def pci_free_irq_vectors(self) -> None:
        """As the port says."""
        self.pci_disable_msix()

    def pci_irq_vector(self, nr: int) -> int:
        """As the port says."""
        return self.irq_of[self.order[nr]] if 0 <= nr < len(self.order) else -EINVAL

    # -- messages

    def pci_write_msi_msg(self, irq: int) -> None:
        """As the port says."""
        vector = self.vector_of.get(irq)
        if vector is None:
            raise Violation(c.CURRENT_IRQ_NUMBERS, f"pci_write_msi_msg of irq {irq}, which is not this device's")
        argument = self.process.arguments.get(self.door.frame)
        if argument is not None and vector in self.lost:
            argument.written.add(vector)
        self.lost.discard(vector)

    def lose_messages(self) -> None:
        """A reset clears the table."""
        self.lost = set(self.order)

    def raise_vector(self, vector: int) -> None:
        """The function has an event for a vector."""
        irq = self.irq_of.get(vector)
        if irq is None or not self.device.master:
            return
        actions = self.core.lines[irq]
        if not actions:
            self.pending[vector] = True
            if self.process.arguments:
                self.window.add(vector)
        elif vector not in self.lost:
            if self.process.arguments:
                self._beside_a_set(vector)
            self._tell(vector, actions)

    def _beside_a_set(self, vector: int) -> None:
        """An ioctl is under way, and has left no gap for the event; it may have written the message already."""
        self.door.hold(c.EVENT_WHILE_REPLACING)
        if any(vector in argument.written for argument in self.process.arguments.values()):
            self.door.frame.given["message_written"] = 1

    def _tell(self, vector: int, actions: list[Action]) -> None:
        """Run the handlers of a vector; a driver may keep what it cannot tell anybody yet."""
        frame, signalled = self.door.frame, self.eventfds.signalled
        already = self.sets[vector]
        outer, signalled[frame] = signalled.get(frame), []
        for action in actions:
            self._run(action)
        got = signalled.pop(frame)
        if outer is not None:
            signalled[frame] = [*outer, *got]
        # Who was mapped meanwhile has been told of it.
        if not got and self.sets[vector] == already:
            self.kept.add(vector)

    def mapped(self, vector: int) -> None:
        """An ioctl mapped a vector: what was kept for it is delivered."""
        self.sets[vector] += 1
        self.kept.discard(vector)
        self.wired.add(vector)

    def unmapped(self, vector: int, *, alone: bool) -> None:
        """An ioctl unmapped a vector; where no other one was under way, an action that is there stays."""
        self.wired.discard(vector)
        if alone and self.has_action(vector):
            self.resident.add(vector)

    def has_lost(self, vector: int) -> bool:
        """Whether a mapped vector's message is cleared."""
        if vector not in self.lost or not self.has_action(vector):
            return False
        return vector not in self.resident | self.unsure or self._is_mapped(vector)

    def _is_mapped(self, vector: int) -> bool:
        if vector not in self.unsure:
            return vector in self.wired
        return sum(self.eventfds.references) > len(self.wired - self.unsure)

    def has_action(self, vector: int) -> bool:
        """Whether a handler is there for a vector."""
        irq = self.irq_of.get(vector)
        return irq is not None and bool(self.core.lines[irq])

    def unmask(self, vector: int, action: Action) -> None:
        """The vector has an action now: it is told of the event that was held."""
        if not self.pending[vector]:
            return
        self.pending[vector] = False
        replaced = vector in self.window
        self.window.discard(vector)
        if vector not in self.lost and self.device.master:
            self._deliver_held(vector, action, replaced)

    def _deliver_held(self, vector: int, action: Action, replaced: bool) -> None:
        """Run the handler for the event that was held; one that came meanwhile is the new mapping's (UIO-043)."""
        frame = self.door.frame
        argument = self.process.arguments.get(frame)
        # After a refusal the old mapping is put back, and the event is its own.
        if not replaced or argument is None or frame.given:
            self.handlers.run_inside_request(lambda: self._tell(vector, [action]))
            return
        self.eventfds.signalled[frame] = []
        self.handlers.run_inside_request(lambda: self._tell(vector, [action]))
        got = self.eventfds.signalled.pop(frame)
        self.door.require(
            c.EVENT_WHILE_REPLACING,
            got == [argument.found],
            f"an event while the vector was unmapped signalled eventfds {got}, the new one is {argument.found}",
        )

    def _run(self, action: Action) -> None:
        result = self.handlers.run(action)
        if result != IRQ_HANDLED:
            raise Violation(c.MSIX_HANDLED, f"the MSI-X handler returned {result}")


def _number(nr: int, is_second: bool) -> int:
    """The irq number of the `nr`-th vector.

    Of two enablings in a row the first vector has different numbers, one of them another device's meanwhile, and those
    behind it have each other's, two by two: numbers come back, for other vectors.
    """
    if not is_second:
        return FIRST_IRQ + IRQ_STEP * nr
    return FIRST_IRQ + IRQ_STEP * ((nr - 1 ^ 1) + 1) if nr else FIRST_IRQ + 1
