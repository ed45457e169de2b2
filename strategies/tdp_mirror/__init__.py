"""What may happen to a TDP MMU: addresses on both sides of the split, faults, and others in between."""

from __future__ import annotations

from conformance.strategies.tdp_mirror.domains import CONFIGS
from conformance.strategies.tdp_mirror.races import AFTERWARDS, RACES, STARTS
from conformance.strategies.tdp_mirror.scopes import SCOPES
from conformance.strategies.tdp_mirror.shapes import SHAPES
from conformance.strategies.tdp_mirror.suggest import opening, suggest

__all__ = [
    "AFTERWARDS",
    "CONFIGS",
    "RACES",
    "SCOPES",
    "SHAPES",
    "STARTS",
    "opening",
    "suggest",
]
