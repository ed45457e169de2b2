"""The zoo of snp_guest_request: handlers and drivers that are right but for one known defect.

SNP-D… are those of the posted design (RFC v7 and v8), SNP-U… of later revisions and of merged code,
SNP-G… of guest drivers; SNP-V… break a clause in a way that no posted code did. Each lives in the correct
design in which it can be told apart.
"""

from __future__ import annotations

from conformance.candidates.defect import Defect
from conformance.candidates.defects.snp_guest_request import guest, inplace, upstream


def _place(defect: Defect) -> tuple[int, str]:
    return "DUGV".index(defect.id.removeprefix("SNP-")[0]), defect.id


DEFECTS: tuple[Defect, ...] = tuple(sorted((*upstream.DEFECTS, *inplace.DEFECTS, *guest.DEFECTS), key=_place))
"""Every defect of the facts, in their order, and then the others."""

__all__ = ["DEFECTS"]
