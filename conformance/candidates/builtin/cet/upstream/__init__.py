"""The design as merged for v6.18, a file per chapter."""

from conformance.candidates.builtin.cet.upstream.hypervisor import Upstream

__all__ = ["Upstream"]
