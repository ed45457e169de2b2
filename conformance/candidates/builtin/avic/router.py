"""A router that goes by the manuals."""

from __future__ import annotations

from typing import Any

from conformance.specs.avic import Apics, Message
from conformance.specs.avic.constants import LOWEST, X2_ICR_RESERVED


def _match_dest(apic: tuple[int, int, int, int, int], dest: int, logical: int) -> bool:
    """Whether one enabled APIC is named by a destination."""
    ident, mode, _, ldr, dfr = apic
    if mode == 2:
        if dest == 0xFFFFFFFF:
            return True
        if logical:
            return (dest ^ ldr) >> 16 == 0 and bool(dest & ldr & 0xFFFF)
        return dest == ident & 0xFFFFFFFF
    if dest == 0xFF:
        return True
    if not logical:
        own = ident >> 32 & 0xFF if ident >> 40 & 1 else ident & 0xFF
        return dest == own
    logical_id = ldr >> 24
    if dfr >> 28 == 0xF:
        return bool(logical_id & dest)
    return logical_id >> 4 == dest >> 4 and bool(logical_id & dest & 0xF)


class Router:
    """Route by the manuals, asking each APIC in turn."""

    capabilities = frozenset({"layer-r"})

    def __init__(self, port: Any) -> None:
        self.port = port

    def route(self, apics: Apics, message: Message) -> int:
        """Collect the APICs that match, then drop those that do not accept."""
        sender, dest, logical, shorthand, mode, vector, level, asserted, hint, flags = message
        if sender >= 0 and apics[sender][1] == 2 and flags >> 32 & X2_ICR_RESERVED:
            return -1
        hits = []
        for n, apic in enumerate(apics):
            if apic[1] == 0:
                continue
            if shorthand == 1:
                wanted = n == sender
            elif shorthand:
                wanted = shorthand == 2 or n != sender
            else:
                wanted = _match_dest(apic, dest, logical)
            if wanted:
                hits.append(n)
        if mode in (3, 7) or (mode == 5 and level and not asserted):
            return 0
        if mode in (0, 1):
            if vector < 16 or (level and not asserted):
                return 0
            hits = [n for n in hits if apics[n][2] >> 8 & 1]
            if (mode == LOWEST or (hint and sender < 0)) and hits:
                hits = hits[:1]
        bits = 0
        for n in hits:
            bits |= 1 << n
        return bits
