"""What a candidate promises that declares nothing, whether a promise can be, and which entry points it takes.

All of it is the same whatever the transport.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from conformance.ports import methods
from conformance.subsystem import Subsystem
from conformance.verdict import UsageError


def usual(of: Subsystem) -> frozenset[str]:
    """Capabilities of a candidate that says nothing of them: all but those that must be declared."""
    return frozenset(of.capabilities) - of.declared


def protocols(of: Subsystem) -> tuple[type, ...]:
    """Protocols of the entry points that a candidate may have: what each has, and what some have besides."""
    module = sys.modules[of.candidate.__module__]
    own = [kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__]
    listed = [kind for kind in own if getattr(kind, "_is_protocol", False) and kind not in (of.port, of.candidate)]
    return (of.candidate, *listed)


def entry_points(of: Subsystem, capabilities: frozenset[str]) -> Iterator[tuple[str, Callable[..., Any], str | None]]:
    """Those that a candidate with these capabilities must have.

    Name, what it takes, and the capability that asks for it; None: every candidate has it.
    """
    for name, takes in methods(of.candidate).items():
        capability = of.optional.get(name)
        if capability is None or capability in capabilities:
            yield name, takes, capability
    for name, (capability, takes) in of.further.items():
        if capability in capabilities:
            yield name, takes, capability


def asked_for(of: Subsystem, capability: str) -> list[str]:
    """Entry points that one capability asks for."""
    return [name for name, _, needed in entry_points(of, frozenset({capability})) if needed is not None]


def check_profile(what: str, name: str, of: Subsystem) -> None:
    """UsageError when the subsystem has no such profile."""
    if name not in of.profiles:
        raise UsageError(f"{what}: {of.name} has no profile {name!r}{nearest(str(name), list(of.profiles))}")


def check_capabilities(spec: str, declared: Iterable[str], of: Subsystem) -> frozenset[str]:
    """Those declared; UsageError when the subsystem knows one of them not."""
    unknown = sorted(set(declared) - set(of.capabilities))
    if unknown:
        near = nearest(unknown[0], list(of.capabilities))
        raise UsageError(f"--candidate={spec}: {of.name} knows no capability {unknown[0]!r}{near}")
    return frozenset(declared)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a usage error: what was probably meant, or what there is."""
    listed = list(known)
    near = difflib.get_close_matches(name, listed, 1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; it has {', '.join(listed[:8])}{', …' if len(listed) > 8 else ''}" if listed else ""
