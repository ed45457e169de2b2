"""What a UIO driver that binds MSI-X vectors to eventfds may do, step by step.

The state is what the specification must remember: who has the device open, which eventfd each
vector signals, which events the hardware holds back, and what user space did to its own fds.
"""

from __future__ import annotations

from conformance.model.uio_msi.operations import NEEDS, OPERATIONS, Answers, Config, requires
from conformance.model.uio_msi.state import State, initial
from conformance.model.uio_msi.step import legal, step
from conformance.model.uio_msi.view import VIEW_CLAUSES, VIEW_LABELS, View, cite, view

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
    "requires",
    "step",
    "view",
]
