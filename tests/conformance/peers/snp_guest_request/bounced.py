"""Bounce pages together with certificates that the kernel keeps, and what can be wrong where the two meet."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.snp_guest_request.inplace import InPlace, Store
from conformance.candidates.builtin.snp_guest_request.upstream import CERT_ENTRY_SIZE, Sev, Svm, Upstream
from conformance.specs.snp_guest_request.constants import EIO, GHCB_RAX, GHCB_RBX, PAGE_SIZE, TOO_SMALL_INFO2


class Bounced(InPlace):
    """The merged design with the posted stores: the message is copied, certificates follow, then the command."""

    profile: ClassVar[str] = "bounce-certs"

    def guest_req_init(self, sev: Sev) -> int:
        return Upstream.guest_req_init(self, sev)

    def guest_req_cleanup(self, sev: Sev) -> None:
        self.drop_certs(sev)
        Upstream.guest_req_cleanup(self, sev)

    def vm_move_from(self, dst: int, src: int) -> int:
        ret = super().vm_move_from(dst, src)
        if not ret:
            source, target = self.sevs[src], self.sevs[dst]
            target.req_buf, target.resp_buf = source.req_buf, source.resp_buf
            source.req_buf = source.resp_buf = 0
        return ret

    def locked_request(self, vcpu: int, svm: Svm, *, extended: bool) -> int:
        port, sev = self.port, svm.sev
        ret = port.mutex_lock_killable(sev.lock)
        if ret:
            return int(ret)
        ret, reason, info2 = self.copy_request(sev, svm.info1), 0, 0
        if not ret:
            certs = extended and self.wants_certs(sev)
            reason = self.validate_data(svm) if certs else 0
            if not reason:
                ret, info2 = self.request_with_certs(svm) if certs else self.forward(sev, svm.info2)
        port.mutex_unlock(sev.lock)
        if reason:
            return self.malformed(vcpu, reason)
        return int(ret) or self.complete(vcpu, 0, info2)

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        needed, npages = -(-length // PAGE_SIZE), svm.regs[GHCB_RBX]
        if npages < needed:
            svm.regs[GHCB_RBX] = needed
            return 0, TOO_SMALL_INFO2
        ret = self.hand_out(svm, certs, needed)
        return (ret, 0) if ret else self.forward(svm.sev, svm.info2)

    def hand_out(self, svm: Svm, certs: int, needed: int) -> int:
        """Write the certificates, or the end of an empty table."""
        port, gpa = self.port, svm.regs[GHCB_RAX]
        if certs:
            ret = port.write_guest(svm.sev.vm, gpa, certs, needed * PAGE_SIZE)
        else:
            ret = port.clear_guest(svm.sev.vm, gpa, CERT_ENTRY_SIZE) if svm.regs[GHCB_RBX] else 0
        return -EIO if ret else 0


class HandsOutLate(Bounced):
    """Copies the certificates once firmware has answered."""

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        needed = -(-length // PAGE_SIZE)
        if svm.regs[GHCB_RBX] < needed:
            return super().copy_and_request(svm, certs, length)
        ret, info2 = self.forward(svm.sev, svm.info2)
        return (ret or self.hand_out(svm, certs, needed), info2)


class WritesBeyond(Bounced):
    """Ends every table with a page of zeros."""

    def hand_out(self, svm: Svm, certs: int, needed: int) -> int:
        if svm.regs[GHCB_RBX] > needed:
            self.port.clear_guest(svm.sev.vm, svm.regs[GHCB_RAX] + needed * PAGE_SIZE, PAGE_SIZE)
        return super().hand_out(svm, certs, needed)


class KeepsStore(Bounced):
    """Forgets the VM's own certificates when its context goes, and does not free them."""

    def drop_certs(self, sev: Sev) -> None:
        assert isinstance(sev, Store)
        sev.certs = sev.certs_len = 0


class SwapsUnlocked(Bounced):
    """Replaces a VM's certificates without the lock that requests read them under."""

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        lock, self.sevs[vm].lock = self.sevs[vm].lock, "certs"
        if not hasattr(self, "made"):
            self.made = self.port.mutex_init("certs")
        ret = super().set_instance_certs(vm, user, length)
        self.sevs[vm].lock = lock
        return ret
