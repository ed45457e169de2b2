"""The world of a TDP MMU: page-table memory, locks, RCU, TLBs, the external tree, slots and the TD.

Page-table words live here. Every change of a word is judged where it happens: who holds which
lock, who froze the entry, what the external tree was told. What the words mean is the view.
"""

from __future__ import annotations

from conformance.environment.tdp_mirror.checks import CHECKS
from conformance.environment.tdp_mirror.world import TdpMirror

ENVIRONMENT = TdpMirror

__all__ = ["CHECKS", "ENVIRONMENT"]
