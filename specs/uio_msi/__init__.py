"""A UIO driver that binds MSI-X vectors of a PCI function to eventfds.

The driver binds any PCI function, maps its BARs into /dev/uioN, enables MSI-X at the first
open and tears everything down at the last release. One ioctl, `UIO_MSI_IRQ_SET`, takes a
vector and an eventfd to signal when it fires, or a negative fd to unmap it. Functions
without MSI-X fall back to INTx with the PCI 2.3 disable bit, as one vector.
"""

from __future__ import annotations

from conformance.specs.uio_msi.clauses import CLAUSES, ROBUSTNESS
from conformance.specs.uio_msi.port import MAPS_TYPE, OPTIONAL, PORTS_TYPE, Candidate, Port
from conformance.specs.uio_msi.profiles import CAPABILITIES, PROFILES, Profile

__all__ = [
    "CAPABILITIES",
    "CLAUSES",
    "MAPS_TYPE",
    "OPTIONAL",
    "PORTS_TYPE",
    "PROFILES",
    "ROBUSTNESS",
    "Candidate",
    "Port",
    "Profile",
]
