"""The shipped AVIC drivers and routers."""

from conformance.candidates.builtin.avic.as_posted import AsPosted
from conformance.candidates.builtin.avic.kvm_lapic import KvmLapic
from conformance.candidates.builtin.avic.linux import Linux
from conformance.candidates.builtin.avic.router import Router
from conformance.candidates.builtin.avic.upstream import Upstream

CANDIDATES = {"upstream": Upstream, "as-posted": AsPosted, "kvm-lapic": KvmLapic, "router": Router, "linux": Linux}

__all__ = ["CANDIDATES"]
