"""What can be observed of the world from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.model.uio_msi import View
from conformance.model.uio_msi.view import NOT_ONE

if TYPE_CHECKING:
    from conformance.environment.uio_msi.world import UioMsi


def view(world: UioMsi) -> View:
    """What can be observed from outside."""
    msix, files = world.msix, world.eventfds.files
    return View(
        () if world.device.bound else _leftovers(world),
        world.uio.registered,
        len(msix.order),
        files.references(),
        files.counters(),
        tuple([held or v in msix.kept for v, held in enumerate(msix.pending)]) if msix.kept else tuple(msix.pending),
        world.intx.disable_bit and not msix.irq_of and any(world.eventfds.references),
        tuple([msix.has_lost(v) for v in range(len(msix.pending))]) if msix.lost else NOT_ONE[: len(msix.pending)],
        world.intx.asserted and world.uio.opens > 0 and _is_unserved(world),
    )


def _is_unserved(world: UioMsi) -> bool:
    """While the device is bound; where only user space unmasks, the line is its affair."""
    return world.device.bound and world.profile.intx_unmask != "user" and world.intx.is_unserved()


def _leftovers(world: UioMsi) -> tuple[str, ...]:
    """What the driver holds, by name; nothing while it is not bound."""
    device, heap, out = world.device, world.heap, world.iomem.ledger.out
    locks, counts, references = world.config_space.locks.owners, world.irqs.counts, world.eventfds.references
    if not device.enabled and len(heap.allocations) == len(heap.of_module) and not out:
        if not (device.regions or locks or world.msix.order or any(references) or any(counts)):
            return ()
    held = {
        "pci_enable_device": device.enabled,
        "pci_request_regions": device.regions,
        "pci_enable_msix": world.msix.order,
        "request_irq": sum(counts),
        "eventfd_ctx_fdget": sum(references),
        "ioremap": out,
        "kzalloc": heap.allocations.keys() - heap.of_module,
        "pci_cfg_access_lock": locks,
    }
    return tuple([name for name, value in held.items() if value])
