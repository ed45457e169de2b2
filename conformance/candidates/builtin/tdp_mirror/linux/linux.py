"""Everything together: the candidate."""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.linux.tdx import Tdx


class Linux(Tdx):
    """KVM of Linux 6.16 with TDX."""

    profile = "upstream"
    capabilities = frozenset({"small-tables", "seamcalls", "tables-of-512", "log-dirty"})
