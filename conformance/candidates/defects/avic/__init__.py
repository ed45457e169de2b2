"""The zoo of avic: one wrong driver per known defect."""

from conformance.candidates.defect import Defect

DEFECTS: tuple[Defect, ...] = ()
