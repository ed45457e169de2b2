"""What may happen to a UIO MSI-X driver: values of the fields, faults, company, and the small scopes."""

from __future__ import annotations

from conformance.strategies.uio_msi.domains import CONFIGS
from conformance.strategies.uio_msi.races import RACES, STARTS
from conformance.strategies.uio_msi.scopes import SCOPES
from conformance.strategies.uio_msi.shapes import SHAPES
from conformance.strategies.uio_msi.suggest import opening, suggest

__all__ = [
    "CONFIGS",
    "RACES",
    "SCOPES",
    "SHAPES",
    "STARTS",
    "opening",
    "suggest",
]
