"""TDP MMU with direct and mirror roots, and an external page table that mirrors follow.

A guest-physical address space in two halves, told apart by one address bit. The shared half is
translated by an ordinary page table under a *direct* root; the private half by an *external* tree
that only protected firmware touches. The implementation keeps a *mirror* root, shaped like the
external tree, and propagates every change of it through slow calls that can fail.
"""

from __future__ import annotations

from conformance.specs.tdp_mirror.clauses import CLAUSES, ROBUSTNESS
from conformance.specs.tdp_mirror.port import OPTIONAL, Candidate, Port
from conformance.specs.tdp_mirror.profiles import CAPABILITIES, DECLARED, PROFILES, Profile

__all__ = ["CAPABILITIES", "CLAUSES", "DECLARED", "OPTIONAL", "PROFILES", "ROBUSTNESS", "Candidate", "Port", "Profile"]
