"""The zoo of uio_msi: wrong drivers, each with one known defect."""

from __future__ import annotations

from conformance.candidates.defect import Defect

DEFECTS: tuple[Defect, ...] = ()
