"""The posted patch."""

from __future__ import annotations

from typing import ClassVar

from conformance.candidates.builtin.snp_guest_request.inplace import HOST_CERTS_LOCK, Store
from conformance.candidates.builtin.snp_guest_request.posted_errors import PostedErrors
from conformance.candidates.builtin.snp_guest_request.upstream import Svm, psp_pa
from conformance.specs.snp_guest_request.constants import (
    EFAULT,
    EINVAL,
    ENOENT,
    ENOMEM,
    ENOTTY,
    EPERM,
    FW_BLOB_MAX_SIZE,
    GHCB_RAX,
    GHCB_RBX,
    INVALID_ADDRESS,
    INVALID_GUEST,
    INVALID_PARAM,
    NO_FD,
    PAGE_SIZE,
    SEV_CMD_MUTEX,
    SNP,
    TOO_SMALL_INFO2,
    UNINITIALISED,
)


class AsPosted(PostedErrors):
    """RFC v7 as it was posted, its defects and all."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"hypervisor", "kernel-certs"})

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        """The certificate buffer comes with the context, and a second call replaces both."""
        port, sev = self.port, self.sevs[vm]
        assert isinstance(sev, Store)
        if sev.kind != SNP or not sev.active:
            return -ENOTTY
        certs = port.kzalloc(FW_BLOB_MAX_SIZE)
        if not certs:
            return -ENOMEM
        gctx = port.alloc_fw_page()
        if not gctx:
            port.kfree(certs)
            return -ENOTTY
        ret, _ = port.snp_gctx_create(fd, psp_pa(gctx), 0)
        if ret:
            self.free_firmware_page(gctx)
            port.kfree(certs)
            return -ENOTTY
        sev.gctx, sev.fd, sev.certs, sev.certs_len = gctx, fd, certs, 0
        ret, _ = port.snp_launch_start(fd, psp_pa(gctx), policy, 0)
        if not ret:
            ret, _ = port.snp_activate(fd, psp_pa(gctx), sev.asid, 0)
        if ret:
            self.decommission(vm)
        return int(ret)

    def decommission(self, vm: int) -> int:
        sev = self.sevs[vm]
        assert isinstance(sev, Store)
        if not sev.gctx:
            return 0
        ret, _ = self.port.snp_decommission(NO_FD, psp_pa(sev.gctx), 0)
        if ret:
            return int(ret)
        self.free_firmware_page(sev.gctx)
        sev.gctx = 0
        self.port.kfree(sev.certs)
        return 0

    def vm_destroy(self, vm: int) -> int:
        sev = self.sevs[vm]
        for vcpu in [v for v, svm in self.svms.items() if svm.sev is sev]:
            del self.svms[vcpu]
        if sev.active and not self.decommission(vm):
            self.port.free_asid(sev.asid)
        del self.sevs[vm]
        return 0

    def validate_request(self, svm: Svm) -> int:
        return 0

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        sev, port = svm.sev, self.port
        if sev.kind != SNP:
            return self.complete(vcpu, 0, INVALID_GUEST)
        port.mutex_lock(sev.lock)
        rc, req, resp = self.setup(svm)
        if not rc:
            ret, err = port.snp_guest_request(
                sev.fd, psp_pa(sev.gctx), psp_pa(req << 12), psp_pa(resp << 12), UNINITIALISED
            )
            rc = self.cleanup(resp, err & 0xFFFFFFFF if ret else 0)
        port.mutex_unlock(sev.lock)
        return self.complete(vcpu, 0, rc)

    def setup(self, svm: Svm) -> tuple[int, int, int]:
        port, vm = self.port, svm.sev.vm
        if svm.info1 % PAGE_SIZE or svm.info2 % PAGE_SIZE:
            return INVALID_PARAM, 0, 0
        req = port.gfn_to_pfn(vm, svm.info1 >> 12)
        if req < 0:
            return INVALID_ADDRESS, 0, 0
        resp = port.gfn_to_pfn(vm, svm.info2 >> 12)
        if resp < 0:
            return INVALID_ADDRESS, 0, 0
        if port.rmp_make_private(resp, 0, 0, 1):
            return INVALID_ADDRESS, 0, 0
        return 0, req, resp

    def cleanup(self, resp: int, rc: int) -> int:
        if self.port.snp_page_reclaim(resp):
            rc = INVALID_ADDRESS
        if self.port.rmp_make_shared(resp):
            rc = INVALID_ADDRESS
        return rc

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        sev, port = svm.sev, self.port
        assert isinstance(sev, Store)
        if sev.kind != SNP:
            return self.complete(vcpu, 0, INVALID_GUEST)
        gpa, npages = svm.regs[GHCB_RAX], svm.regs[GHCB_RBX]
        if gpa % PAGE_SIZE:
            return self.complete(vcpu, 0, INVALID_ADDRESS)
        port.mutex_lock(sev.lock)
        rc, req, resp = self.setup(svm)
        if not rc:
            port.mutex_lock(HOST_CERTS_LOCK)
            rc = self.ext_command(svm, sev, req, resp, gpa, npages)
            port.mutex_unlock(HOST_CERTS_LOCK)
            rc = self.cleanup(resp, rc)
        port.mutex_unlock(sev.lock)
        return self.complete(vcpu, 0, rc)

    def ext_command(self, svm: Svm, sev: Store, req: int, resp: int, gpa: int, npages: int) -> int:
        """Straight to the firmware driver, past the VM's own fd."""
        port = self.port
        certs, length = (sev.certs, sev.certs_len) if sev.certs_len else (self.host_certs, self.host_certs_len)
        needed = -(-length // PAGE_SIZE)
        if certs and needed > npages:
            svm.regs[GHCB_RBX] = needed
            return TOO_SMALL_INFO2
        ret, err = port.snp_guest_request(NO_FD, psp_pa(sev.gctx), psp_pa(req << 12), psp_pa(resp << 12), UNINITIALISED)
        if ret:
            return int(err)
        if length and port.write_guest(sev.vm, gpa, certs, length):
            return INVALID_ADDRESS
        return 0

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        """Copies into the live buffer, under another lock than the requests."""
        port, sev = self.port, self.sevs[vm]
        assert isinstance(sev, Store)
        if sev.kind != SNP:
            return -ENOTTY
        if not sev.gctx:
            return -EINVAL
        if length > FW_BLOB_MAX_SIZE:
            return -EINVAL
        if length and port.copy_from_user(sev.certs, user, length):
            return -EFAULT
        sev.certs_len = -(-length // PAGE_SIZE) * PAGE_SIZE
        return 0

    def get_instance_certs(self, vm: int, user: int, length: int) -> tuple[int, int]:
        sev = self.sevs[vm]
        assert isinstance(sev, Store)
        if sev.kind == SNP and sev.gctx and not sev.certs_len:
            return -ENOENT, 0
        return super().get_instance_certs(vm, user, length)

    def host_set_ext_config(self, tcb: int, user: int, length: int, writable: int) -> int:
        """Firmware's TCB first, certificates later, and the two locks in the other order."""
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
        port.mutex_lock(SEV_CMD_MUTEX)
        ret = port.snp_config(tcb) if tcb else 0
        if not ret:
            self.host_lock()
            new, self.host_certs = self.host_certs, new
            self.host_certs_len = length if user else 0
            self.host_unlock()
        port.mutex_unlock(SEV_CMD_MUTEX)
        port.kfree(new)
        return int(ret)

    def snp_shutdown(self) -> int:
        """Frees the blob outside its lock, and forgets the length."""
        self.port.kfree(self.host_certs)
        self.host_certs = 0
        return 0
