"""Requesting and freeing irqs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.irq import IrqCore
from conformance.environment.simulator import Simulator
from conformance.model.uio_msi.operations import PDEV_IRQ
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import EBUSY, ENOTCONN, IRQ_NOTCONNECTED, IRQF_SHARED, PAGE_SIZE
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.handlers import Handlers
    from conformance.environment.uio_msi.heap import Heap
    from conformance.environment.uio_msi.intx import Intx
    from conformance.environment.uio_msi.msix import Msix


class Irqs(Simulator):
    """kernel/irq/manage.c for the lines of this function: actions come, and go once their handlers are done.

    Lines of other devices cannot be had. Of /proc/irq nothing is there.
    """

    CLAUSES = (
        c.CURRENT_IRQ_NUMBERS,
        c.NO_REQUEST_WHILE_DISABLED,
        c.FREE_MATCHES_REQUEST,
        c.INTX_REQUEST,
        c.NO_LINE,
        c.MEMORY_SAFE,
    )
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "free_irq": (c.FREE_MATCHES_REQUEST,),
        "request_irq": (c.CURRENT_IRQ_NUMBERS, c.NO_REQUEST_WHILE_DISABLED),
    }

    def __init__(
        self,
        door: Environment,
        context: Context,
        heap: Heap,
        core: IrqCore,
        handlers: Handlers,
        intx: Intx,
        msix: Msix,
    ) -> None:
        super().__init__(door)
        self.context = context
        self.heap = heap
        self.core = core
        self.handlers = handlers
        self.intx = intx
        self.msix = msix
        self.counts = [0] * len(msix.pending)
        """Actions by vector; INTx is vector 0."""
        self.refusal = 0
        """What every request_irq answers while a flood says so."""

    def request_irq(self, irq: int, flags: int, name: int, dev_id: int) -> int:
        """As the port says."""
        self.context.may_sleep("request_irq")
        if name and name not in self.heap.allocations:
            raise Violation(c.MEMORY_SAFE, f"request_irq: the name {name:#x} is not allocated")
        if irq == IRQ_NOTCONNECTED:
            return -ENOTCONN
        if irq == 0 and self.intx.is_used and not self.intx.is_wired:
            raise Violation(c.NO_LINE, "request_irq of irq 0: the function has none, and that one is another device's")
        if irq == PDEV_IRQ and self.intx.is_used and self.intx.is_wired:
            return self._request_intx(flags, name, dev_id)
        vector = self.msix.vector_of.get(irq)
        if vector is None:
            raise self._not_ours(irq)
        if self.core.lines[irq] and not flags & IRQF_SHARED:
            return -EBUSY
        refusal = self._refused()
        if refusal:
            return refusal
        action = self.core.request(irq, flags, name, dev_id)
        if isinstance(action, int):
            return action
        self._had(vector)
        if self.door.frame not in self.msix.process.arguments:
            self.msix.resident.add(vector)
        self.msix.unmask(vector, action)
        return 0

    def _refused(self) -> int:
        """What this request is refused with, 0 when it is not."""
        given = self.door.frame.given
        is_further = "request_irq" in given
        if self.refusal:
            given.setdefault("request_irq", self.refusal)
        refusal = self.refusal or self.door.refused("request_irq")
        if refusal and is_further:
            given["refused_again"] = refusal
        return refusal

    def _had(self, vector: int) -> None:
        """The request was granted; this operation may have met a refusal before."""
        self.counts[vector] += 1
        given = self.door.frame.given
        if "request_irq" in given:
            given["granted_again"] = 1

    def _not_ours(self, irq: int) -> Violation:
        if not self.msix.size:
            return Violation(c.INTX_REQUEST, f"request_irq of irq {irq}, the function's is {PDEV_IRQ}")
        clause = c.CURRENT_IRQ_NUMBERS if self.msix.order else c.NO_REQUEST_WHILE_DISABLED
        return Violation(clause, f"request_irq of irq {irq}, which is not this device's now")

    def _request_intx(self, flags: int, name: int, dev_id: int) -> int:
        door, intx = self.door, self.intx
        # Static data is one for all functions of the module, which may share the line.
        unique = dev_id >= PAGE_SIZE and self.core.find(PDEV_IRQ, dev_id) is None
        static = ", static data that all functions of the module share" if 0 < dev_id < PAGE_SIZE else ""
        door.require(
            c.INTX_REQUEST,
            bool(flags & IRQF_SHARED) and unique,
            f"request_irq of INTx with flags {flags:#x} and dev_id {dev_id:#x}{static}",
        )
        refusal = self._refused()
        if refusal:
            return refusal
        self.core.request(PDEV_IRQ, flags, name, dev_id)
        self._had(0)
        if intx.asserted and not intx.disable_bit:
            self.handlers.run_inside_request(intx.evaluate)
        return 0

    def free_irq(self, irq: int, dev_id: int) -> None:
        """As the port says. A shared handler is called once more, as with the kernel's debug option."""
        self.context.may_sleep("free_irq")
        core, intx = self.core, self.intx
        action = core.find(irq, dev_id)
        if action is None:
            raise Violation(c.FREE_MATCHES_REQUEST, f"free_irq({irq}, {dev_id:#x}): no action has that dev_id")
        core.lines[irq].remove(action)
        self.counts[self.msix.vector_of.get(irq, 0)] -= 1
        if action.running and not self.door.wait_until(f"handlers of irq {irq}", lambda: not action.running):
            raise Violation(c.MEMORY_SAFE, f"free_irq({irq}) waits for a handler that it interrupted")
        if action.flags & IRQF_SHARED and irq == PDEV_IRQ and (intx.disable_bit or not intx.asserted):
            intx.run(action)

    def synchronize_irq(self, irq: int) -> None:
        """As the port says."""
        self.context.may_sleep("synchronize_irq")
        if not self.door.wait_until(f"handlers of irq {irq}", self.core.is_quiet(irq)):
            raise Violation(c.MEMORY_SAFE, f"synchronize_irq({irq}) waits for a handler that it interrupted")
