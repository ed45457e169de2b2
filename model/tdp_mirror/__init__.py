"""Two maps, private and shared, and the external tree that the private one must equal.

The state is what the page tables *mean*: per root a set of leaves and a set of linked tables.
How entries are frozen, exchanged and flushed is judged where it happens, in the environment.
"""

from __future__ import annotations

from conformance.model.tdp_mirror.operations import NEEDS, OPERATIONS, Answers, Config, requires
from conformance.model.tdp_mirror.state import State, initial
from conformance.model.tdp_mirror.step import also_needs, legal, legal_beside, step
from conformance.model.tdp_mirror.view import VIEW_CLAUSES, VIEW_LABELS, View, cite, view

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
    "legal_beside",
    "requires",
    "step",
    "view",
]
