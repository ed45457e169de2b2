"""How often the garbage collector runs while an engine does.

A judged step makes dozens of small objects, hardly one of which is in a cycle: with the interpreter's own thresholds a
tenth to a fifth of an engine's time went into looking through them. A candidate's cycles are still collected.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 20, 20)
"""Of the three generations; 50,000 objects that live for a step or a walk are a few megabytes."""


@contextmanager
def collected_seldom() -> Iterator[None]:
    """While this lasts the collector runs seldom; afterwards as often as before."""
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
