"""What guests, userspace and hardware may show of CET state, step by step."""

from conformance.model.cet.operations import NEEDS, OPERATIONS, Answers, Config
from conformance.model.cet.state import State, initial
from conformance.model.cet.step import legal, step
from conformance.model.cet.view import VIEW_CLAUSES, VIEW_LABELS, View, cite, view

__all__ = [
    "NEEDS",
    "OPERATIONS",
    "VIEW_CLAUSES",
    "VIEW_LABELS",
    "Answers",
    "Config",
    "State",
    "View",
    "cite",
    "initial",
    "legal",
    "step",
    "view",
]
