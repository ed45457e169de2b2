"""The entry points that a candidate of a subsystem may have."""

from __future__ import annotations

from collections.abc import Mapping

from conformance.candidates.promised import protocols
from conformance.subsystem import Subsystem
from conformance.wire.values import Method, methods


def entries_of(of: Subsystem) -> Mapping[str, Method]:
    """By name; those of the subsystem's Candidate come first."""
    return {name: method for kind in protocols(of) for name, method in methods(kind).items()}
