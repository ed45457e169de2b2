"""Two operations at once: every schedule with few switches, from the states that matter."""

from __future__ import annotations

from conformance.engines.context import Context


def run(context: Context) -> None:
    """Explore the interleavings of the operations that the shapes name as partners."""
    if not any(shape.beside for shape in context.subsystem.shapes.values()):
        return
