"""The posted design, repaired: the guest's pages in place, certificates in the kernel."""

from __future__ import annotations

from typing import Any, ClassVar

from conformance.candidates.builtin.snp_guest_request.upstream import CERT_ENTRY_SIZE, Sev, Svm, Upstream, psp_pa
from conformance.specs.snp_guest_request.constants import (
    EBUSY,
    EFAULT,
    EINVAL,
    EIO,
    ENOENT,
    ENOMEM,
    ENOSR,
    ENOTTY,
    EPERM,
    FW_BLOB_MAX_SIZE,
    GHCB_RAX,
    GHCB_RBX,
    HYPERVISOR,
    MISSING_INPUT,
    MSG_TYPE,
    PAGE_SIZE,
    REPORT_REQ,
    SNP,
    TOO_SMALL_INFO2,
)

HOST_CERTS_LOCK = "host_certs"


class Store(Sev):
    """A VM with certificates of its own."""

    def __init__(self, vm: int, kind: int) -> None:
        super().__init__(vm, kind)
        self.certs = 0
        self.certs_len = 0
        self.moved = False


class InPlace(Upstream):
    """The posted design with its faults repaired: every page comes back, or is leaked and the VM dies."""

    profile: ClassVar[str] = "kernel-certs"
    capabilities: ClassVar[frozenset[str]] = frozenset({"hypervisor", "kernel-certs", "move"})

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.host_certs = 0
        self.host_certs_len = 0
        port.mutex_init(HOST_CERTS_LOCK)

    # -- lifecycle

    def vm_create(self, vm: int, kind: int) -> int:
        self.sevs[vm] = Store(vm, kind)
        return 0

    def guest_req_init(self, sev: Sev) -> int:
        self.port.mutex_init(sev.lock)
        return 0

    def guest_req_cleanup(self, sev: Sev) -> None:
        self.drop_certs(sev)

    def drop_certs(self, sev: Sev) -> None:
        assert isinstance(sev, Store)
        certs, sev.certs, sev.certs_len = sev.certs, 0, 0
        self.port.kfree(certs)

    def decommission(self, vm: int) -> int:
        self.drop_certs(self.sevs[vm])
        return super().decommission(vm)

    def vm_move_from(self, dst: int, src: int) -> int:
        source, target = self.sevs[src], self.sevs[dst]
        assert isinstance(source, Store)
        assert isinstance(target, Store)
        if source.kind != SNP or not source.gctx:
            return -EINVAL
        self.adopt_lock(target)
        target.active, target.asid, target.fd, target.gctx = True, source.asid, source.fd, source.gctx
        target.certs, target.certs_len = source.certs, source.certs_len
        source.asid, source.gctx, source.certs, source.certs_len = 0, 0, 0, 0
        source.moved = True
        return 0

    def adopt_lock(self, target: Sev) -> None:
        self.port.mutex_init(target.lock)

    def vm_mirror_from(self, dst: int, src: int) -> int:
        return 0

    # -- requests

    def validate_request(self, svm: Svm) -> int:
        sev = svm.sev
        assert isinstance(sev, Store)
        return MISSING_INPUT if sev.moved else super().validate_request(svm)

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        return self.locked_request(vcpu, svm, extended=False)

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        return self.locked_request(vcpu, svm, extended=True)

    def locked_request(self, vcpu: int, svm: Svm, *, extended: bool) -> int:
        port, sev = self.port, svm.sev
        certs = False
        if extended:
            kind = self.message_type(svm)
            if kind < 0:
                return kind
            certs = kind == REPORT_REQ
            if certs:
                reason = self.validate_data(svm)
                if reason:
                    return self.malformed(vcpu, reason)
        ret = port.mutex_lock_killable(sev.lock)
        if ret:
            return int(ret)
        ret, info2 = self.request_with_certs(svm) if certs else self.request_in_place(svm, 0)
        port.mutex_unlock(sev.lock)
        return ret or self.complete(vcpu, 0, info2)

    def message_type(self, svm: Svm) -> int:
        """MSG_TYPE of the request page, or -EIO; a small allocation stands for the byte on the stack."""
        port = self.port
        byte = port.kzalloc(8)
        if not byte:
            return -ENOMEM
        ret = port.read_guest(svm.sev.vm, svm.info1 + MSG_TYPE, byte, 1)
        kind = int(port.load(byte, 1))
        port.kfree(byte)
        return -EIO if ret else kind

    def request_with_certs(self, svm: Svm) -> tuple[int, int]:
        """Result for KVM_RUN and SW_EXITINFO2; certificates first, so that no number is used up in vain."""
        sev = svm.sev
        assert isinstance(sev, Store)
        if sev.certs:
            return self.copy_and_request(svm, sev.certs, sev.certs_len)
        ret = self.host_lock()
        if ret:
            return ret, 0
        ret, info2 = self.copy_and_request(svm, self.host_certs, self.host_certs_len)
        self.host_unlock()
        return ret, info2

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        port, gpa, npages = self.port, svm.regs[GHCB_RAX], svm.regs[GHCB_RBX]
        needed = -(-length // PAGE_SIZE)
        if npages < needed:
            svm.regs[GHCB_RBX] = needed
            return 0, TOO_SMALL_INFO2
        pages = max(needed, min(npages, 1))
        if self.overlaps(svm, gpa, pages):
            return -EINVAL, 0
        if certs:
            ret = port.write_guest(svm.sev.vm, gpa, certs, needed * PAGE_SIZE)
        else:
            ret = port.clear_guest(svm.sev.vm, gpa, CERT_ENTRY_SIZE) if npages else 0
        return (-EIO, 0) if ret else self.request_in_place(svm, pages)

    def overlaps(self, svm: Svm, gpa: int, pages: int) -> bool:
        return 0 <= svm.info2 - gpa < pages * PAGE_SIZE

    def host_lock(self) -> int:
        return int(self.port.mutex_lock_killable(HOST_CERTS_LOCK))

    def host_unlock(self) -> None:
        self.port.mutex_unlock(HOST_CERTS_LOCK)

    def request_in_place(self, svm: Svm, _pages: int) -> tuple[int, int]:
        port, sev = self.port, svm.sev
        if not sev.gctx:
            return -EINVAL, 0
        if port.psp_is_dead():
            return -EBUSY, 0
        if self.is_ghcb(svm):
            return -EINVAL, 0
        req = port.gfn_to_pfn(sev.vm, svm.info1 >> 12)
        if req < 0:
            return -EIO, 0
        resp = port.gfn_to_pfn(sev.vm, svm.info2 >> 12)
        if resp < 0:
            port.put_pfn(req)
            return -EIO, 0
        ret, info2 = self.request_on_pages(sev, req, resp)
        port.put_pfn(req)
        port.put_pfn(resp)
        return ret, info2

    def is_ghcb(self, svm: Svm) -> bool:
        return any(other.registered == svm.info2 for other in self.svms.values() if other.sev is svm.sev)

    def request_on_pages(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        port = self.port
        if not self.may_take(resp):
            return -EINVAL, 0
        if port.rmp_make_private(resp, 0, 0, 1):
            return -EIO, 0
        ret, status = self.command(sev, req, resp)
        if self.give_back(resp):
            return self.gave_up(sev, resp)
        if ret and not status:
            return ret, 0
        return 0, status

    def may_take(self, resp: int) -> bool:
        return bool(self.port.rmp_lookup(resp) == HYPERVISOR)

    def command(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        return self.port.snp_guest_request(  # type: ignore[no-any-return]  # the port is untyped here
            sev.fd, psp_pa(sev.gctx), psp_pa(req << 12), psp_pa(resp << 12), 0
        )

    def give_back(self, resp: int) -> int:
        return int(self.port.snp_page_reclaim(resp) or self.port.rmp_make_shared(resp))

    def gave_up(self, sev: Sev, resp: int) -> tuple[int, int]:
        self.port.leak_page(resp)
        self.port.vm_bug(sev.vm)
        return -EIO, 0

    # -- the VM's own certificates

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        port, sev = self.port, self.sevs[vm]
        assert isinstance(sev, Store)
        if sev.kind != SNP:
            return -ENOTTY
        if not sev.gctx:
            return -EINVAL
        if length > FW_BLOB_MAX_SIZE:
            return -EINVAL
        new = 0
        if length:
            new = port.kzalloc(-(-length // PAGE_SIZE) * PAGE_SIZE)
            if not new:
                return -ENOMEM
            if port.copy_from_user(new, user, length):
                port.kfree(new)
                return -EFAULT
        port.mutex_lock(sev.lock)
        old, sev.certs, sev.certs_len = sev.certs, new, length
        port.mutex_unlock(sev.lock)
        port.kfree(old)
        return 0

    def get_instance_certs(self, vm: int, user: int, length: int) -> tuple[int, int]:
        port, sev = self.port, self.sevs[vm]
        assert isinstance(sev, Store)
        if sev.kind != SNP:
            return -ENOTTY, 0
        if not sev.gctx:
            return -EINVAL, 0
        if not sev.certs:
            return -ENOENT, 0
        if length < sev.certs_len:
            return -EINVAL, sev.certs_len
        if port.copy_to_user(user, sev.certs, sev.certs_len):
            return -EFAULT, sev.certs_len
        return 0, sev.certs_len

    # -- the host's certificates

    def host_set_ext_config(self, tcb: int, user: int, length: int, writable: int) -> int:
        port = self.port
        if not writable:
            return -EPERM
        if user and (not length or length % PAGE_SIZE):
            return -EINVAL
        new = 0
        if user:
            new = port.kzalloc(length)
            if not new:
                return -ENOMEM
            if port.copy_from_user(new, user, length):
                port.kfree(new)
                return -EFAULT
        port.mutex_lock(HOST_CERTS_LOCK)
        ret = port.snp_config(tcb) if tcb else 0
        if not ret:
            new, self.host_certs = self.host_certs, new
            self.host_certs_len = length if user else 0
        self.host_unlock()
        port.kfree(new)
        return int(ret)

    def host_get_ext_config(self, user: int, length: int) -> tuple[int, int]:
        if length < self.host_certs_len:
            return -ENOSR, self.host_certs_len
        if self.host_certs and self.port.copy_to_user(user, self.host_certs, self.host_certs_len):
            return -EFAULT, self.host_certs_len
        return 0, self.host_certs_len

    def snp_shutdown(self) -> int:
        self.port.mutex_lock(HOST_CERTS_LOCK)
        certs, self.host_certs, self.host_certs_len = self.host_certs, 0, 0
        self.host_unlock()
        self.port.kfree(certs)
        return 0
