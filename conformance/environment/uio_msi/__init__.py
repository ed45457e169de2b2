"""The world of a UIO MSI-X driver: a PCI function, the irq core, the UIO core, a process with eventfds."""

from __future__ import annotations

from conformance.environment.uio_msi.checks import CHECKS
from conformance.environment.uio_msi.world import FastUioMsi, UioMsi

ENVIRONMENT = UioMsi
"""Eventfds of the running kernel."""
FAST = FastUioMsi
"""For runs in which the system calls of real eventfds would dominate."""

__all__ = ["CHECKS", "ENVIRONMENT", "FAST"]
