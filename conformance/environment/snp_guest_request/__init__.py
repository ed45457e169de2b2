"""The world of SNP guest requests: a machine with a secure processor for kind H, a guest's kernel for kind G.

`ENVIRONMENT` uses real cryptography; `FAST` the same world with a stand-in cipher behind the same interface.
"""

from __future__ import annotations

from conformance.environment.snp_guest_request.checks import CHECKS
from conformance.environment.snp_guest_request.world import World, fast

ENVIRONMENT = World
FAST = fast

__all__ = ["CHECKS", "ENVIRONMENT", "FAST"]
