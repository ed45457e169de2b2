"""CET state of a virtual CPU: shadow-stack pointers across entry, preemption, ioctls, reset, migration, nesting.

The values of U_CET, S_CET, PL0..PL3_SSP, INT_SSP_TAB, SSP and XSS that a guest and its VMM see must
not depend on when the vCPU is preempted, where it runs, and how a value was written. The harness
plays scheduler, hardware and the generic skeleton of KVM (vcpu_load, notifiers, KVM_RUN, ioctls).
"""

from conformance.specs.cet.clauses import CLAUSES, ROBUSTNESS
from conformance.specs.cet.port import OPTIONAL, Candidate, Port
from conformance.specs.cet.profiles import CAPABILITIES, PROFILES, Profile

__all__ = [
    "CAPABILITIES",
    "CLAUSES",
    "OPTIONAL",
    "PROFILES",
    "ROBUSTNESS",
    "Candidate",
    "Port",
    "Profile",
]
