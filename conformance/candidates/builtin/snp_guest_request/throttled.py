"""A handler in the shape of merged KVM that limits the rate of requests."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.snp_guest_request.upstream import Svm, Upstream
from conformance.specs.snp_guest_request.constants import BUSY_INFO2


class Throttled(Upstream):
    """With a limit on the rate of requests, asked before anything is locked."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"hypervisor", "userspace-certs", "move", "throttle"})

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        if not self.port.ratelimit(svm.sev.vm):
            return self.complete(vcpu, 0, BUSY_INFO2)
        return super().guest_request(vcpu, svm)

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        if not self.port.ratelimit(svm.sev.vm):
            return self.complete(vcpu, 0, BUSY_INFO2)
        return super().ext_guest_request(vcpu, svm)
