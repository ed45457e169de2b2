"""The device as the PCI core and the driver core keep it: bound or not, and what the driver acquired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.irq import IrqCore
from conformance.environment.simulator import Simulator
from conformance.model.uio_msi.operations import PDEV_IRQ
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import EBUSY
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Device(Simulator):
    """struct pci_dev: the binding, drvdata, the count of pci_enable_device, the regions, bus mastering.

    It also remembers in what order things were acquired. Not modelled: power states, and other drivers that want
    the regions.
    """

    CLAUSES = (c.NOTHING_RELEASED_TWICE, c.FAILED_PROBE_LEAVES_NOTHING, c.REMOVE_WHILE_OPEN, c.MEMORY_SAFE)
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "pci_release_regions": (c.NOTHING_RELEASED_TWICE,),
        "pci_disable_device": (c.NOTHING_RELEASED_TWICE,),
    }

    def __init__(self, door: Environment, core: IrqCore) -> None:
        super().__init__(door)
        self.core = core
        self.bound = False
        self.probing = False
        self.enabled = 0
        """Calls of pci_enable_device that were not undone."""
        self.regions = False
        self.master = False
        self.drvdata = 0
        self.acquired: list[str] = []
        """Calls that acquired what is not yet released, in order."""
        self.disorder = ""
        """What was released out of order in this operation."""

    def pci_enable_device(self) -> int:
        """As the port says."""
        refusal = self.door.refused("pci_enable_device")
        if refusal:
            return refusal
        self.enabled += 1
        self.acquired.append("pci_enable_device")
        return 0

    def pci_disable_device(self) -> None:
        """As the port says."""
        if not self.enabled:
            raise Violation(c.NOTHING_RELEASED_TWICE, "pci_disable_device of a device that is not enabled")
        # While MSI-X is on there are lines beside INTx.
        if self.core.lines.keys() - {PDEV_IRQ} or self.core.actions():
            clause = c.FAILED_PROBE_LEAVES_NOTHING if self.probing else c.REMOVE_WHILE_OPEN
            raise Violation(clause, "pci_disable_device while MSI-X is on or an action is installed")
        self.enabled -= 1
        if not self.enabled:
            self.master = False
        self.released("pci_enable_device")

    def pci_request_regions(self, name: str) -> int:
        """As the port says."""
        if self.regions:
            return -EBUSY
        refusal = self.door.refused("pci_request_regions")
        if refusal:
            return refusal
        self.regions = True
        self.acquired.append("pci_request_regions")
        return 0

    def pci_release_regions(self) -> None:
        """As the port says."""
        if not self.regions:
            raise Violation(c.NOTHING_RELEASED_TWICE, "pci_release_regions of regions that are not held")
        self.regions = False
        self.released("pci_request_regions")

    def released(self, what: str) -> None:
        """Note a release that is not the reverse of the acquisition (UIO-063).

        The device file goes first, whatever was acquired by an open since it is there: nobody must come any more.
        """
        acquired = self.acquired
        at = len(acquired) - 1 - acquired[::-1].index(what)
        if acquired[-1] != what and what != "uio_register_device":
            self.disorder = f"what {what} gave is released before what {acquired[-1]} gave"
        del acquired[at]

    def must_be_enabled(self, call: str) -> None:
        """Refuse a call that talks to a function without power."""
        if not self.enabled:
            raise Violation(c.MEMORY_SAFE, f"{call} on a device that is not enabled")

    def pci_set_master(self) -> None:
        """As the port says."""
        self.must_be_enabled("pci_set_master")
        self.master = True

    def pci_clear_master(self) -> None:
        """As the port says."""
        self.must_be_enabled("pci_clear_master")
        self.master = False

    def pci_set_drvdata(self, data: int) -> None:
        """As the port says."""
        self.drvdata = data

    def pci_get_drvdata(self) -> int:
        """As the port says."""
        return self.drvdata
