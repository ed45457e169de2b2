"""The toy subsystem as if it were shipped: `conformance list` shows it, and runs find it by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ClassVar

import pytest

from conformance import subsystem
from conformance.candidates.defect import Defect
from conformance.engines import machine
from conformance.runs.request import GATE_STEPS
from conformance.runs.workers import Jobs
from tests import toy
from tests.toy import TOY, Shelf


class Leaky(Shelf):
    """Forgets to free what was put second."""

    def take(self) -> int:
        """Skip the free for the last slot."""
        if len(self.items) == 2:
            value, _ = self.items.pop()
            self._show()
            return value
        return super().take()


class Unlocked(Shelf):
    """Puts without the lock."""

    def put(self, value: int) -> int:
        """Two of them at once show it."""
        return self._put(value)


class Untidy(Shelf):
    """Leaves the first number when it clears, which a SHOULD clause advises against."""

    def clear(self) -> int:
        """Keep one."""
        while len(self.items) > 1:
            self.port.free(self.items.pop()[1])
        self._show()
        return 0


class Crashing(Shelf):
    """Raises in the middle of an operation."""

    def take(self) -> int:
        """Never returns."""
        raise ValueError("out of numbers")


class Typed(Shelf):
    """Returns what no errno is."""

    def clear(self) -> int:
        """A string."""
        super().clear()
        return "0"  # type: ignore[return-value]  # that is the point


class Remembering(Shelf):
    """Keeps state in its class, so that what it does depends on what other objects did."""

    made: ClassVar[list[int]] = []

    def take(self) -> int:
        """Wrong once only."""
        result = super().take()
        self.made.append(result)
        return 5 if len(self.made) == 20 else result


CANDIDATES: dict[str, type] = {
    "upstream": Shelf,
    "as-posted": Leaky,
    "unlocked": Unlocked,
    "untidy": Untidy,
    "crashing": Crashing,
    "typed": Typed,
    "remembering": Remembering,
}
ZOO = (
    Defect("TOY-D01", "Memory leaks.", Leaky, ("TOY-007",), 3),
    Defect("TOY-D02", "Two threads collide.", Unlocked, ("TOY-001", "TOY-007"), 1),
    Defect("TOY-D03", "The shelf falls down.", why_not="Nothing observes that."),
)


@contextmanager
def shipped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the toy's parts where each room of a subsystem would have them."""
    constants = {name: value for name, value in vars(toy).items() if name.isupper()}
    rooms: dict[str, dict[str, Any]] = {
        "conformance.specs": {
            "CLAUSES": TOY.clauses,
            "PROFILES": TOY.profiles,
            "CAPABILITIES": {"colour": "It has a colour."},
            "ROBUSTNESS": TOY.robustness,
            "Candidate": TOY.candidate,
            "Port": TOY.port,
            **constants,
        },
        "conformance.model": {
            "Config": TOY.config,
            "OPERATIONS": tuple(TOY.operations.values()),
            "Answers": TOY.answers,
            "initial": TOY.initial,
            "legal": TOY.legal,
            "step": TOY.step,
            "view": TOY.view,
            "VIEW_CLAUSES": TOY.view_clauses,
        },
        "conformance.strategies": {"CONFIGS": TOY.configs, "SHAPES": {**TOY.shapes}, "SCOPES": TOY.scopes},
        "conformance.environment": {"ENVIRONMENT": TOY.environment, "CHECKS": TOY.checks},
        "conformance.candidates.builtin": {"CANDIDATES": CANDIDATES},
        "conformance.candidates.defects": {"DEFECTS": ZOO},
        "conformance.candidates.magic": {"MAGIC": ()},
    }
    for room, contents in rooms.items():
        name = f"{room}.toy"
        module = ModuleType(name, "A shelf.")
        module.__spec__ = ModuleSpec(name, None)
        module.__file__ = toy.__file__
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(importlib.import_module(room), "toy", module, raising=False)
    monkeypatch.setattr(subsystem, "NAMES", ("toy",))
    monkeypatch.setattr(Jobs, "run", Jobs._one_by_one)  # no other process knows the toy
    _forget()
    try:
        yield
    finally:
        monkeypatch.undo()
        _forget()


def in_short(monkeypatch: pytest.MonkeyPatch, campaign: int = 4_000) -> None:
    """A gate with steps and examples enough to find what is wrong here, and no more."""
    monkeypatch.setitem(GATE_STEPS, "campaign", campaign)
    monkeypatch.setattr(machine, "EXAMPLES", 40)


def _forget() -> None:
    subsystem.available.cache_clear()
    subsystem.subsystem.cache_clear()
