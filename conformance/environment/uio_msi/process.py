"""The process that uses the device: its memory, and what it may do."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.memory import UserMemory
from conformance.environment.simulator import Simulator
from conformance.model.uio_msi.operations import PAGE, PAGE_END
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import CAP_SYS_RAWIO, IRQ_SET_SIZE
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment, Frame
    from conformance.environment.uio_msi.context import Context
    from conformance.environment.uio_msi.mutexes import Mutexes


class Argument:
    """The argument of an ioctl in progress."""

    __slots__ = ("beside", "data", "fd", "found", "pointer", "seen", "vector", "written")

    def __init__(self, pointer: int, data: bytes) -> None:
        self.pointer = pointer
        self.data = data
        self.seen = 0
        """Bit i: byte i was fetched."""
        self.found: int | None = None
        """The eventfd that was looked up last."""
        self.vector, self.fd = struct.unpack("=Ii", data)
        self.beside: set[int] = set()
        """Vectors of other ioctls that were under way meanwhile."""
        self.written: set[int] = set()
        """Vectors whose cleared message was written again."""


class Process(Simulator):
    """A process with one page of memory, in which the arguments of its ioctls lie, and its capabilities.

    Each system call has an argument of its own; what another thread writes there meanwhile is not modelled, but a
    second fetch, in which it would show, is a breach.
    """

    CLAUSES = (c.MEMORY_SAFE, c.ARGUMENT_IS_EIGHT_BYTES, c.ARGUMENT_FETCHED_ONCE)
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "copy_from_user": (c.ARGUMENT_FETCHED_ONCE, c.ARGUMENT_IS_EIGHT_BYTES)
    }

    def __init__(self, door: Environment, context: Context, mutexes: Mutexes) -> None:
        super().__init__(door)
        self.context = context
        self.mutexes = mutexes
        self.memory = UserMemory(((PAGE, PAGE_END),))
        self.arguments: dict[Frame, Argument] = {}
        """Arguments of the ioctls in progress, by the operation that made them."""
        self.unprivileged: set[Frame] = set()
        """Opens in progress without CAP_SYS_RAWIO."""
        self.copied_under_mutex: bool | None = None
        """Whether the last ioctl fetched its argument with a mutex held; None when it fetched nothing."""

    def begin(self, argument: Argument) -> Argument:
        """An ioctl of the running operation begins."""
        for other in self.arguments.values():
            other.beside.add(argument.vector)
            argument.beside.add(other.vector)
        self.arguments[self.door.frame] = argument
        return argument

    def copy_from_user(self, src: int, n: int) -> bytes:
        """As the port says."""
        self.context.may_sleep("copy_from_user")
        frame = self.door.frame
        argument = self.arguments.get(frame)
        if argument is None:
            raise Violation(c.MEMORY_SAFE, "copy_from_user outside of an ioctl")
        at = src - argument.pointer
        if at < 0 or n < 0 or at + n > IRQ_SET_SIZE:
            raise Violation(c.ARGUMENT_IS_EIGHT_BYTES, f"copy_from_user of bytes {at} to {at + n} of the argument")
        bits = ((1 << n) - 1) << at
        if argument.seen & bits:
            raise Violation(c.ARGUMENT_FETCHED_ONCE, "the same bytes of the argument are fetched twice")
        self.copied_under_mutex = frame in self.mutexes.locks.owners.values()
        memory = self.memory
        memory.place(argument.pointer, argument.data)
        data = memory.fetch(src, n)
        if len(data) == n:
            missing = self.door.refused("copy_from_user")
            if missing:
                return data[: n - min(n, missing)]
            argument.seen |= bits
        return data

    def capable(self, cap: int) -> int:
        """As the port says."""
        return int(self.door.frame not in self.unprivileged or cap != CAP_SYS_RAWIO)
