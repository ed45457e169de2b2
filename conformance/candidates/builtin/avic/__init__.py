"""The shipped AVIC drivers and routers."""

from conformance.candidates.builtin.avic.router import KvmLapic, Router
from conformance.candidates.builtin.avic.upstream import Upstream

CANDIDATES = {"upstream": Upstream, "kvm-lapic": KvmLapic, "router": Router}

__all__ = ["CANDIDATES"]
