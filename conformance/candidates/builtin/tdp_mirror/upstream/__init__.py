"""A TDP MMU as Linux has it: an iterator over entries, atomic and exclusive setters, and the TDX hooks.

The parts are cut as the kernel's own files are.
"""

from __future__ import annotations

from conformance.candidates.builtin.tdp_mirror.upstream.memory import Memory
from conformance.candidates.builtin.tdp_mirror.upstream.protection import Protection
from conformance.candidates.builtin.tdp_mirror.upstream.tdx import Tdx

__all__ = ["Upstream"]


class Upstream(Protection, Memory, Tdx):
    """Linux 6.16 with the fixes that the specification states as clauses."""

    profile = "upstream"
    capabilities = frozenset({"small-tables", "seamcalls", "tables-of-512", "log-dirty"})
