"""SEV-SNP guest requests: a hypervisor's handler, or a guest's driver, around the secure processor.

A guest encrypts a message for the secure processor, leaves it in a shared page and does VMGEXIT; the
hypervisor forwards the page and hands back the encrypted answer, with certificates for the extended form.
A candidate is the handler (capability `hypervisor`, kind H) or the guest's driver (capability `guest`, kind G).
"""

from __future__ import annotations

from conformance.specs.snp_guest_request.clauses import CLAUSES, ROBUSTNESS
from conformance.specs.snp_guest_request.port import OPTIONAL, Candidate, Port
from conformance.specs.snp_guest_request.profiles import CAPABILITIES, PROFILES, Profile

__all__ = ["CAPABILITIES", "CLAUSES", "OPTIONAL", "PROFILES", "ROBUSTNESS", "Candidate", "Port", "Profile"]
