"""The way to the secure processor: its driver's mailbox, through which one command goes at a time."""

# ruff: noqa: D102  # environment calls are described in the port

from __future__ import annotations

from conformance.environment.door import Environment
from conformance.environment.simulator import Simulator
from conformance.environment.snp_guest_request.files import Files
from conformance.environment.snp_guest_request.mutexes import Mutexes
from conformance.environment.snp_guest_request.tasks import Tasks
from conformance.model.snp_guest_request.operations import LATE_EFAULT
from conformance.specs.snp_guest_request.constants import EBADF, EBUSY, EIO, ETIMEDOUT, SEV_CMD_MUTEX


class Mailbox(Simulator):
    """The ccp driver's mailbox: the file is checked, sev_cmd_mutex taken, the command given, the status written.

    What a command does is for the simulator to say that owns what it changes. Once a command has timed out the
    secure processor is dead. Commands take no time.
    """

    def __init__(self, door: Environment, tasks: Tasks, mutexes: Mutexes, files: Files) -> None:
        super().__init__(door)
        self.tasks = tasks
        self.mutexes = mutexes
        self.files = files
        self.refused = door.refused
        self.dead = False

    def enter(self) -> None:
        """Every firmware command takes the driver's one mutex, unless its caller holds it."""
        self.mutexes.wait_for(SEV_CMD_MUTEX)

    def command(self, call: str, fd: int, error: int) -> tuple[int, int] | None:
        """What keeps a command from firmware, None when firmware shall process it."""
        self.enter()
        if not self.files.is_secure_processor(fd):
            return -EBADF, error
        if self.dead:
            return -EBUSY, error
        refusal = self.refused(call)
        if refusal == -ETIMEDOUT:
            self.dead = True
            return -ETIMEDOUT, written(error)
        if refusal > 0:
            self.tasks.current.ran += call == "snp_guest_request"
            return -EIO, written(error, refusal)
        if refusal and refusal != LATE_EFAULT:
            return refusal, error
        return None

    @staticmethod
    def status(status: int, error: int) -> tuple[int, int]:
        """Result and status variable after firmware has answered: only the low 32 bits are written."""
        return (-EIO if status else 0), written(error, status)

    def psp_is_dead(self) -> int:
        return int(self.dead)


def written(error: int, status: int = 0) -> int:
    """The caller's status variable after firmware's driver stored a status in its low half."""
    return error & 0xFFFFFFFF_00000000 | status
