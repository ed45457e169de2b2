"""AMD AVIC: tables, VMCB fields and exits of virtual interrupts, and the routing they must reproduce."""

from conformance.specs.avic.clauses import CLAUSES, ENTRY_POINTS_RETURN
from conformance.specs.avic.port import CAPABILITIES, OPTIONAL, PROFILES, Apics, Candidate, Message, Port, Profile

ROBUSTNESS = ENTRY_POINTS_RETURN

__all__ = [
    "CAPABILITIES",
    "CLAUSES",
    "OPTIONAL",
    "PROFILES",
    "ROBUSTNESS",
    "Apics",
    "Candidate",
    "Message",
    "Port",
    "Profile",
]
