"""What SNP guest requests may do: the hypervisor's side and the guest's, as pure functions over one state."""

from __future__ import annotations

from conformance.model.snp_guest_request.operations import NEEDS, OPERATIONS, Answers, Config, requires
from conformance.model.snp_guest_request.state import State, initial
from conformance.model.snp_guest_request.step import also_needs, legal, step
from conformance.model.snp_guest_request.view import VIEW_CLAUSES, VIEW_LABELS, View, cite, view

__all__ = [
    "NEEDS",
    "OPERATIONS",
    "VIEW_CLAUSES",
    "VIEW_LABELS",
    "Answers",
    "Config",
    "State",
    "View",
    "also_needs",
    "cite",
    "initial",
    "legal",
    "requires",
    "step",
    "view",
]
