"""The eventfds of the process, as the driver refers to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.eventfd import Eventfds, Kind, World
from conformance.environment.simulator import Simulator
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import DECOY_COUNT, DUP_FD, NOT_EVENTFDS, O_PATH_FD, STANDARD_FDS
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import EINVAL
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment, Frame
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.process import Process

FIRST_CTX = 1 << 40
"""The eventfd context of eventfd i is FIRST_CTX + (i << 8)."""


def open_files(config: Config) -> World:
    """What the process has open at the start; the last eventfd is the decoy."""
    kinds = [Kind(e.count, e.semaphore, e.nonblock) for e in config.eventfds]
    kinds.append(Kind(DECOY_COUNT, False, True))
    return World(kinds, DUP_FD, O_PATH_FD, NOT_EVENTFDS)


class EventfdContexts(Simulator):
    """struct eventfd_ctx: the references that the driver holds, and its signals. The files are the process's."""

    CLAUSES = (c.ONE_REFERENCE_EACH, c.REFERENCE_OUTLIVES_HANDLER, c.MEMORY_SAFE)
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"eventfd_signal": (c.REFERENCE_OUTLIVES_HANDLER,)}

    def __init__(self, door: Environment, context: Context, process: Process, files: Eventfds) -> None:
        super().__init__(door)
        self.context = context
        self.process = process
        self.files = files
        self.references = [0] * len(files.references())
        """References held, by eventfd."""
        self.signals = 0
        self.signalled: dict[Frame, list[int]] = {}
        """Eventfds signalled by the handlers inside a request_irq, while somebody wants to know."""

    def eventfd_ctx_fdget(self, fd: int) -> int:
        """As the port says."""
        self.context.needs_process("eventfd_ctx_fdget")
        found = -EINVAL if fd in STANDARD_FDS else self.files.fdget(fd)
        if found < 0:
            return found
        refusal = self.door.refused("eventfd_ctx_fdget")
        if refusal:
            self.files.put(found)
            return refusal
        self.references[found] += 1
        argument = self.process.arguments.get(self.door.frame)
        if argument is not None:
            argument.found = found
        return FIRST_CTX + (found << 8)

    def descriptor(self, ctx: int) -> int | None:
        """The descriptor that stands for the last reference taken to this eventfd, where there is one."""
        return self.files.held(ctx - FIRST_CTX >> 8)

    def eventfd_ctx_put(self, ctx: int) -> None:
        """As the port says."""
        eventfd = ctx - FIRST_CTX >> 8
        if not 0 <= eventfd < len(self.references) or not self.references[eventfd]:
            raise Violation(c.ONE_REFERENCE_EACH, f"eventfd_ctx_put of {ctx:#x}, to which no reference is held")
        self.references[eventfd] -= 1
        self.files.put(eventfd)

    def eventfd_signal(self, ctx: int) -> None:
        """As the port says."""
        eventfd = ctx - FIRST_CTX >> 8
        if not 0 <= eventfd < len(self.references):
            raise Violation(c.MEMORY_SAFE, f"eventfd_signal of {ctx:#x}, which is no eventfd")
        if not self.references[eventfd]:
            raise Violation(c.REFERENCE_OUTLIVES_HANDLER, "eventfd_signal after the reference was dropped")
        self.signals += 1
        if self.signalled and self.door.frame in self.signalled:
            self.signalled[self.door.frame].append(eventfd)
        self.files.signal(eventfd)
