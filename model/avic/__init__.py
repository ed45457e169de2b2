"""What AVIC and its driver may do together, step by step."""

from conformance.model.avic.boot import initial
from conformance.model.avic.operations import NEEDS, OPERATIONS, Answers, Config, requires
from conformance.model.avic.state import State
from conformance.model.avic.step import legal, step
from conformance.model.avic.view import VIEW_CLAUSES, VIEW_LABELS, View, cite, cite_together, view

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
    "cite_together",
    "initial",
    "legal",
    "requires",
    "step",
    "view",
]
