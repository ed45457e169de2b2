"""The encrypted save area of a guest whose register state is protected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.registers import XSS
from conformance.environment.cet.vcpus import PerVcpu

if TYPE_CHECKING:
    from conformance.environment.cet.platform import Platform
    from conformance.environment.cet.processors import Processors
    from conformance.environment.cet.threads import Thread
    from conformance.environment.door import Environment


class Saved:
    """Of one vCPU."""

    __slots__ = ("xss",)

    def __init__(self) -> None:
        self.xss = 0
        """The guest's XSS: the value that it last wrote and the hypervisor accepted."""


class Vmsa(PerVcpu[Saved]):
    """SEV-ES: VMRUN loads XSS from the encrypted save area, #VMEXIT brings the host's back.

    The guest's other CET registers are where the hypervisor keeps them, as before the state is encrypted: what it
    can no longer read or write then is not modelled.
    """

    def __init__(self, door: Environment, platform: Platform, processors: Processors) -> None:
        super().__init__(door)
        self.platform = platform
        self.files = processors.files

    def add(self, vcpu: int) -> None:
        """Power-up state."""
        self.parts[vcpu] = Saved()

    def reset(self, vcpu: int) -> None:
        """RESET clears XSS."""
        self.parts[vcpu].xss = 0

    def accept(self, thread: Thread, value: int) -> None:
        """A write of XSS succeeded; without XSAVES there is nothing to write to."""
        if thread.asked.xsaves and self.platform.host.xsaves:
            self.parts[thread.number].xss = value

    def enter(self, thread: Thread) -> None:
        """VMRUN."""
        self.files[thread.cpu][XSS] = self.parts[thread.number].xss

    def leave(self, thread: Thread) -> None:
        """#VMEXIT."""
        host = self.platform.host
        self.files[thread.cpu][XSS] = host.own_xss if host.xsaves else 0
