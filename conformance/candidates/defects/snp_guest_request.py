"""The zoo."""

from __future__ import annotations

from conformance.candidates.defect import Defect

DEFECTS: tuple[Defect, ...] = ()
