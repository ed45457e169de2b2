"""What a guest, its host's userspace and an adversary may do, simplest first."""

from __future__ import annotations

from conformance.strategies.snp_guest_request.domains import CONFIGS
from conformance.strategies.snp_guest_request.races import RACES
from conformance.strategies.snp_guest_request.scopes import SCOPES
from conformance.strategies.snp_guest_request.shapes import SHAPES
from conformance.strategies.snp_guest_request.suggest import suggest

__all__ = ["CONFIGS", "RACES", "SCOPES", "SHAPES", "configs", "faults", "operations", "suggest"]
