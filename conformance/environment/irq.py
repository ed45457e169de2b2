"""Interrupt lines and their actions, as the kernel's irq core keeps them."""

from __future__ import annotations

from collections.abc import Callable
from errno import EBUSY, EINVAL

IRQF_SHARED = 0x80
"""Flag of a request: others may have the line, too."""


class Action:
    """One installed handler."""

    __slots__ = ("dev_id", "flags", "irq", "name", "running")

    def __init__(self, irq: int, flags: int, name: int, dev_id: int) -> None:
        self.irq = irq
        self.flags = flags
        self.name = name
        self.dev_id = dev_id
        self.running = 0
        """Handlers of this action under way."""


class IrqCore:
    """Lines by irq number; a line has several actions only while all are shared."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: dict[int, list[Action]] = {}

    def add_line(self, irq: int) -> None:
        """Make a line exist."""
        self.lines[irq] = []

    def drop_line(self, irq: int) -> None:
        """Make a line cease to exist."""
        del self.lines[irq]

    def request(self, irq: int, flags: int, name: int, dev_id: int) -> Action | int:
        """A new action on the line, or -EINVAL, -EBUSY."""
        line = self.lines.get(irq)
        if line is None or (flags & IRQF_SHARED and not dev_id):
            return -EINVAL
        if line and not (flags & IRQF_SHARED and line[0].flags & IRQF_SHARED):
            return -EBUSY
        action = Action(irq, flags, name, dev_id)
        line.append(action)
        return action

    def find(self, irq: int, dev_id: int) -> Action | None:
        """The action that free_irq would remove."""
        for action in self.lines.get(irq, ()):
            if action.dev_id == dev_id:
                return action
        return None

    def actions(self) -> list[Action]:
        """Every action, by line."""
        return [action for line in self.lines.values() for action in line]

    def is_quiet(self, irq: int) -> Callable[[], bool]:
        """A predicate: no handler of the line is under way."""
        line = self.lines.get(irq, [])
        return lambda: not any(action.running for action in line)
