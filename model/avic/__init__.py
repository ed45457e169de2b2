"""What AVIC and its driver may do together, step by step."""

from conformance.model.avic.machine import VIEW_CLAUSES, boot, cite, initial, legal, step, view
from conformance.model.avic.state import NEEDS, OPERATIONS, Answers, Config, State, View, requires

__all__ = [
    "NEEDS",
    "OPERATIONS",
    "VIEW_CLAUSES",
    "Answers",
    "Config",
    "State",
    "View",
    "boot",
    "cite",
    "initial",
    "legal",
    "requires",
    "step",
    "view",
]
