"""The tasks of the kernel: which operation each thread performs, and what it has come to."""

from __future__ import annotations

from typing import Any

from conformance.environment.door import Environment, Frame
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.frames import HOST, Memory, Page
from conformance.specs.snp_guest_request.constants import MSG_TYPE, PAGE_SIZE


class Task:
    """One operation in progress, and what it has done so far."""

    __slots__ = (
        "allocated",
        "cleanup_failed",
        "entered",
        "filled",
        "ghcb_written",
        "instants",
        "invalid",
        "is_granted",
        "issued",
        "left_success",
        "misaligned",
        "op",
        "ran",
        "vcpu",
        "vm",
    )

    def __init__(self, op: Any, vm: int, vcpu: int) -> None:
        self.op = op
        self.vm = vm
        self.vcpu = vcpu
        self.issued = 0
        """SNP_GUEST_REQUEST commands issued."""
        self.ran = 0
        """Those that firmware saw."""
        self.allocated: list[Memory | int] = []
        """Memory and ASIDs taken, in order."""
        self.instants: list[bytes] = []
        """Contents that the guest's request page had during the operation."""
        self.misaligned = False
        """The request is not where a page begins, and no command is due."""
        self.ghcb_written = False
        self.invalid: list[str] = []
        """Fields of the answer whose valid bit the guest finds clear."""
        self.left_success = False
        """KVM_RUN returned an errno, and the GHCB says success."""
        self.cleanup_failed = False
        """A guest page could not be reclaimed or made shared again."""
        self.is_granted = False
        """The VM was said to be within its rate."""
        self.entered = False
        """The GHCB was mapped."""
        self.filled: set[Memory] = set()
        """Buffers that this operation filled."""

    def request_was_read(self, page: Page) -> None:
        """The guest puts another MSG_TYPE and another end into its request page once it was read from, both at once."""
        if getattr(self.op, "race", "") != "type" or not self.instants or bytes(page.data) != self.instants[0]:
            return
        for at, bits in ((MSG_TYPE, 6), (PAGE_SIZE - 1, 0xFF)):
            page.data[at] ^= bits
        self.instants.append(bytes(page.data))


class Tasks(Simulator):
    """The kernel's `current`: the operation that the running thread performs, and those that others have begun.

    Other simulators note in it what must be known when the operation ends. Nothing is scheduled here.
    """

    def __init__(self, door: Environment) -> None:
        super().__init__(door)
        self.running: dict[Frame, Task] = {}
        self.nobody = Task(None, HOST, -1)
        """While no operation is performed: the candidate is being created."""
        self.last: Task | None = None
        """The operation that ended last."""

    @property
    def current(self) -> Task:
        """The operation that the running thread performs."""
        return self.running.get(self.door.frame) or self.nobody

    def begin(self, task: Task) -> Task:
        """The running thread performs `task` from now on."""
        self.running[self.door.frame] = task
        return task

    def end(self, frame: Frame) -> None:
        """It performs nothing any more."""
        self.running.pop(frame, None)
