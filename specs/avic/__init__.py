"""AMD AVIC: tables, VMCB fields and exits of virtual interrupts, and the routing they must reproduce."""

from conformance.specs.avic.clauses import CLAUSES, ROBUSTNESS
from conformance.specs.avic.port import FURTHER, OPTIONAL, Apics, Candidate, IrqfdActs, Message, Port
from conformance.specs.avic.profiles import CAPABILITIES, DECLARED, PROFILES, Profile

__all__ = [
    "CAPABILITIES",
    "CLAUSES",
    "DECLARED",
    "FURTHER",
    "OPTIONAL",
    "PROFILES",
    "ROBUSTNESS",
    "Apics",
    "Candidate",
    "IrqfdActs",
    "Message",
    "Port",
    "Profile",
]
