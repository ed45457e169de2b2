"""Hardware, scheduler, FPU code and the generic skeleton of KVM, as far as CET state meets them."""

from conformance.environment.cet.checks import CHECKS
from conformance.environment.cet.world import Cet

ENVIRONMENT = Cet

__all__ = ["CHECKS", "ENVIRONMENT"]
