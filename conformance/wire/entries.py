"""The entry points that a candidate of a subsystem may have."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from conformance.subsystem import Subsystem
from conformance.wire.values import Method, methods


def entries_of(of: Subsystem) -> Mapping[str, Method]:
    """Those of the subsystem's Candidate, and those of the other Protocols that its port has beside it."""
    module = importlib.import_module(of.candidate.__module__)
    protocols = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and getattr(kind, "_is_protocol", False) and kind.__module__ == module.__name__
    ]
    return {name: method for kind in protocols if kind is not of.port for name, method in methods(kind).items()}
