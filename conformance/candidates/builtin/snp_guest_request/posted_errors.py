"""The posted design, repaired, but for the way it tells errors."""

from __future__ import annotations

from typing import Any, ClassVar

from conformance.candidates.builtin.snp_guest_request.inplace import InPlace, Store
from conformance.candidates.builtin.snp_guest_request.upstream import Sev, Svm
from conformance.specs.snp_guest_request.constants import (
    GHCB_RAX,
    INVALID_ADDRESS,
    INVALID_GUEST,
    INVALID_PARAM,
    PAGE_SIZE,
)


class PostedErrors(InPlace):
    """The repaired design with the posted way of telling errors: all in the low half, the guest always goes on."""

    profile: ClassVar[str] = "as-posted"

    def vm_create(self, vm: int, kind: int) -> int:
        self.bugged.discard(vm)
        return super().vm_create(vm, kind)

    def validate_request(self, svm: Svm) -> int:
        return 0

    def locked_request(self, vcpu: int, svm: Svm, *, extended: bool) -> int:
        port, sev = self.port, svm.sev
        assert isinstance(sev, Store)
        if not self.is_snp(sev) or sev.moved:
            return self.complete(vcpu, 0, INVALID_GUEST)
        if extended and svm.regs[GHCB_RAX] % PAGE_SIZE:
            return self.complete(vcpu, 0, INVALID_ADDRESS)
        if svm.info1 % PAGE_SIZE or svm.info2 % PAGE_SIZE or svm.info1 == svm.info2:
            return self.complete(vcpu, 0, INVALID_PARAM)
        ret = port.mutex_lock_killable(sev.lock)
        if ret:
            return int(ret)
        ret, info2 = self.request_with_certs(svm) if extended else self.request_in_place(svm, 0)
        port.mutex_unlock(sev.lock)
        return self.posted(vcpu, sev, ret, info2)

    def posted(self, vcpu: int, sev: Sev, ret: int, info2: int) -> int:
        if ret and sev.vm in self.bugged:
            return ret
        return self.complete(vcpu, 0, INVALID_ADDRESS if ret else info2)

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.bugged: set[int] = set()

    def gave_up(self, sev: Sev, resp: int) -> tuple[int, int]:
        self.bugged.add(sev.vm)
        return super().gave_up(sev, resp)
