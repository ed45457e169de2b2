"""The IOMMU: remapping entries that post interrupts past the host, and its log for vCPUs that do not run."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

from conformance.environment.simulator import Simulator
from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import ADDRESS_BITS
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.tables import Tables
    from conformance.environment.door import Environment


class Irte:
    """One interrupt remapping entry."""

    __slots__ = ("cpu", "log", "page", "posted", "returned", "tag", "vector")

    def __init__(self) -> None:
        self.posted = False
        self.returned = False
        """It was posted since it was routed, and is in host mode now."""
        self.page = self.vector = self.tag = 0
        self.cpu = -1
        self.log = 0


class Iommu(Simulator):
    """Interrupt remapping entries by irq, the notifier of the GALog, and where the host routes the devices' interrupts.

    The log is no buffer: each entry is reported at once, and none is lost. Caches of entries are not modelled.
    """

    CLAUSES = (c.DESTROY_LEAVES_GALOG_FIRST, c.IRTE_FOLLOWS_VCPU, c.OLD_VCPU_FORGETS_IRTE)

    def __init__(self, door: Environment, tables: Tables) -> None:
        super().__init__(door)
        self.tables = tables
        tables.memory.posted = self.posted_to
        self.irtes: dict[int, Irte] = {}
        self.logged: dict[int, int] = {}
        """Tag that each IRTE was last posted with: the log may hold it for a while after."""
        self.notifiers = 0
        self.routes: dict[int, tuple[int, int]] = {}
        """Where each device interrupt was last sent to: vCPU id (-1 for none) and vector."""
        self.was_posted = False
        """Whether the device interrupt raised last went past the host."""
        self.delivering = 0
        """Device interrupts in host mode that are on their way into the driver."""

    def digest(self) -> Hashable:
        """What each entry was last told."""
        return tuple((irq, i.posted, i.returned, i.cpu, i.log) for irq, i in sorted(self.irtes.items()))

    def posted_to(self, address: int) -> list[int]:
        """Irqs that are posted to this page; with its VM their routes end, which no driver hears of."""
        guest = self.tables.vcpus.vms.get(0)
        if guest is None or guest.closed:
            return []
        return [irq for irq, irte in self.irtes.items() if irte.posted and irte.page == address]

    def register_ga_notifier(self) -> None:
        """Log entries are reported from now on."""
        self.notifiers += 1

    def unregister_ga_notifier(self) -> None:
        """They no longer are."""
        if self.notifiers == 0:
            raise Violation(c.DESTROY_LEAVES_GALOG_FIRST, "no notifier is registered")
        self.notifiers -= 1

    def set_vcpu_affinity(self, irq: int, page: int, vector: int, tag: int) -> int:
        """Post an IRTE, or return it to host mode."""
        refusal = self.door.refused("set_vcpu_affinity") if page else 0
        if refusal < 0:
            return refusal
        irte = self.irtes.setdefault(irq, Irte())
        if page and (page & ADDRESS_BITS) not in self.tables.backing:
            raise Violation(c.IRTE_FOLLOWS_VCPU, f"irq {irq} posted to {page:#x}, which is no backing page")
        irte.returned = (irte.posted or irte.returned) and not page and self.door.frame.actor != "UpdateIrte"
        irte.posted = bool(page)
        if page:
            self.logged[irq] = tag
        irte.page, irte.vector, irte.tag, irte.cpu, irte.log = page & ADDRESS_BITS, vector, tag, -1, 0
        return refusal

    def iommu_update_ga(self, irq: int, cpu: int, ga_log_intr: int) -> int:
        """Tell a posted IRTE where its vCPU runs."""
        irte = self.irtes.get(irq)
        if irte is None or not irte.posted:
            raise Violation(c.OLD_VCPU_FORGETS_IRTE, f"iommu_update_ga of irq {irq}, which is not posted")
        irte.cpu, irte.log = cpu, ga_log_intr
        return 0
