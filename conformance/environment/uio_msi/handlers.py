"""The driver's interrupt handlers, called."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from conformance.environment.irq import Action, IrqCore
from conformance.environment.simulator import Simulator
from conformance.environment.uio_msi.blame import blame
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.device import Device
    from conformance.environment.uio_msi.heap import Heap


class Handlers(Simulator):
    """The irq core's call of an action's handler: on this CPU, or beside another thread on one of its own.

    Never twice at once for one action. What the handler's answer means is for the line to say. There are no
    threaded handlers.
    """

    CLAUSES = (c.READY_BEFORE_REQUEST, c.REMOVE_WHILE_OPEN, c.MEMORY_SAFE)

    def __init__(self, door: Environment, context: Context, heap: Heap, core: IrqCore, device: Device) -> None:
        super().__init__(door)
        self.context = context
        self.heap = heap
        self.core = core
        self.device = device

    def run(self, action: Action) -> int:
        """Call the handler of one action; what it returned."""
        if self.heap.is_freed(action.dev_id):
            raise Violation(self._unsafe(), f"the handler of irq {action.irq} is given a freed dev_id")
        door, handling = self.door, self.context.handling
        frame = door.frame
        alone = door.scheduler is None
        if action.running and not alone:
            # The irq core never runs the handlers of one irq on two CPUs at once.
            door.scheduler.block(f"handlers of irq {action.irq}", lambda: not action.running)
        action.running += 1
        handling.add(frame)
        # Beside another thread a handler runs on its own CPU: the other one goes on.
        if alone:
            door.atomic += 1
        result = door.enter_int(door.driver.handler, action.irq, action.dev_id)
        if frame in self.context.spinning:
            raise Violation(c.MEMORY_SAFE, "the handler returned with a spinlock held")
        if alone:
            door.atomic -= 1
        handling.discard(frame)
        action.running -= 1
        return result

    def run_inside_request(self, run: Callable[[], None]) -> None:
        """The handler runs before request_irq returns: all it needs must be there (UIO-028)."""
        try:
            run()
        except (Crash, Violation) as breach:
            blame(self.door, breach, c.READY_BEFORE_REQUEST, "handler inside request_irq")
        self.door.hold(c.READY_BEFORE_REQUEST)

    def list_interrupts(self) -> None:
        """Print /proc/interrupts, with the name of every action."""
        for action in self.core.actions():
            if action.name in self.heap.ledger.back:
                raise Violation(self._unsafe(), f"/proc/interrupts reads the freed name of irq {action.irq}")

    def _unsafe(self) -> Clause:
        """What it breaks that an action outlives the memory it uses."""
        return c.MEMORY_SAFE if self.device.bound else c.REMOVE_WHILE_OPEN
