"""An interrupt router in forty lines: a first draft, with what a first draft gets wrong.

conformance run avic --candidate examples/avic_router.py:Router
"""

ONLY_SELF, EVERYBODY, ALL_BUT_SELF = 1, 2, 3
BROADCAST = 0xFF
ENABLED = 1 << 8


class Router:
    """Names the APICs that accept a message; it asks nothing of its environment."""

    capabilities = frozenset({"layer-r"})  # no tables, no exits, no posted interrupts

    def __init__(self, port):
        self.port = port

    def route(self, apics, message):
        sender, destination, logical, shorthand, _mode, _vector, _level, _asserted, _hint, _flags = message
        accepted = 0
        for position, (ident, mode, spiv, ldr, _dfr) in enumerate(apics):
            if shorthand == ONLY_SELF:
                named = position == sender
            elif shorthand == EVERYBODY:
                named = True
            elif shorthand == ALL_BUT_SELF:
                named = position != sender
            elif destination == BROADCAST:
                named = True
            elif logical:
                named = ldr >> 24 & destination
            else:
                named = ident == destination
            if named and mode and spiv & ENABLED:
                accepted |= 1 << position
        return accepted
