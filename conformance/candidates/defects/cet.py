"""The zoo."""

from conformance.candidates.defect import Defect

DEFECTS: tuple[Defect, ...] = ()
