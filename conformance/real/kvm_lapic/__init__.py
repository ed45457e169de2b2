"""`real:kvm-lapic`: the local APICs of the host's KVM, as far as messages are routed to them (layer R of avic)."""

from conformance.real.kvm_lapic.adapter import KvmLapic

__all__ = ["KvmLapic"]
