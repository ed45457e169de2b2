"""A driver in the shape of Linux's avic.c and the local APIC it stands on: a class a chapter, each on the one below."""

from conformance.candidates.builtin.avic.upstream.driver import Upstream
from conformance.candidates.builtin.avic.upstream.inhibits import DERIVED
from conformance.candidates.builtin.avic.upstream.module import TAG_MASK, TAG_SHIFT
from conformance.candidates.builtin.avic.upstream.tables import GA_LOG_INTR
from conformance.candidates.builtin.avic.upstream.vm import ACCESS_SLOT, HOST_ID, LVR, Kvm, Vcpu

__all__ = [
    "ACCESS_SLOT",
    "DERIVED",
    "GA_LOG_INTR",
    "HOST_ID",
    "LVR",
    "TAG_MASK",
    "TAG_SHIFT",
    "Kvm",
    "Upstream",
    "Vcpu",
]
