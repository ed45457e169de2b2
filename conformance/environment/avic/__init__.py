"""The world of AVIC: host memory, hardware that walks the driver's tables, scheduler, IOMMU."""

from conformance.environment.avic.checks import CHECKS
from conformance.environment.avic.world import Avic

ENVIRONMENT = Avic

__all__ = ["CHECKS", "ENVIRONMENT"]
