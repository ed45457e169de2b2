"""What a candidate promises that declares nothing, and which entry points a promise takes, whatever the transport."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from conformance.subsystem import Subsystem


def usual(of: Subsystem) -> frozenset[str]:
    """Capabilities of a candidate that says nothing of them: all but those that must be declared."""
    return frozenset(of.capabilities) - of.declared


def entry_points(of: Subsystem, capabilities: frozenset[str]) -> Iterator[tuple[str, Callable[..., Any], str | None]]:
    """Those that a candidate with these capabilities must have.

    Name, what it takes, and the capability that asks for it; None: every candidate has it.
    """
    for name, takes in vars(of.candidate).items():
        if name.startswith("_") or not inspect.isfunction(takes):
            continue
        capability = of.optional.get(name)
        if capability is None or capability in capabilities:
            yield name, takes, capability
    for name, (capability, takes) in of.further.items():
        if capability in capabilities:
            yield name, takes, capability
