"""A handler in the shape of Linux 6.11."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.snp_guest_request.upstream import Sev, Upstream


class Stub(Upstream):
    """Linux 6.11: no certificates but the empty table."""

    profile: ClassVar[str] = "stub"
    capabilities: ClassVar[frozenset[str]] = frozenset({"hypervisor", "move"})

    def asks_userspace(self, sev: Sev) -> bool:
        return False
