"""What reaches a vCPU from outside: INIT, and shutdown."""

from __future__ import annotations

from conformance.environment.cet.vcpus import PerVcpu


class Pending:
    """Of one vCPU."""

    __slots__ = ("init", "shutdown")

    def __init__(self) -> None:
        self.init = False
        """An INIT that nobody has processed."""
        self.shutdown = False
        """RSM failed; only RESET helps."""


class Events(PerVcpu[Pending]):
    """The local APIC's pending INIT, and whether the vCPU shut down. SIPI, NMI and interrupts are not modelled."""

    def add(self, vcpu: int) -> None:
        """None."""
        self.parts[vcpu] = Pending()

    def take_init(self, vcpu: int) -> bool:
        """Test and clear."""
        part = self.of(vcpu)
        pending, part.init = part.init, False
        return pending
