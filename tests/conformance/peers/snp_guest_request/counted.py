"""A handler on guest pages whose certificates are counted references."""

from __future__ import annotations

from typing import Any

from conformance.specs.snp_guest_request.constants import (
    EBUSY,
    EFAULT,
    EINVAL,
    EIO,
    ENOENT,
    ENOMEM,
    ENOTTY,
    EPERM,
    FW_BLOB_MAX_SIZE,
    GHCB_RAX,
    GHCB_RBX,
    GHCB_SW_EXITINFO1,
    GHCB_SW_EXITINFO2,
    HYPERVISOR,
    MSG_TYPE,
    NO_FD,
    PAGE_SIZE,
    REPORT_REQ,
    RESUME,
    SNP,
)
from tests.conformance.peers.snp_guest_request.deferred import Blob, C, Cpu, Deferred, Vm


class Counted(Deferred):
    """Pages in place, certificates counted: a request holds the blob, not the lock under which it was found."""

    profile = "kernel-certs"
    capabilities = frozenset({"hypervisor", "kernel-certs"})
    HOST = "certificates of the host"

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.host: Blob | None = None
        port.mutex_init(self.HOST)

    def blob_lock(self, it: Vm) -> str:
        return f"certificates of {it.number}"

    def vm_create(self, vm: int, kind: int) -> int:
        ret = super().vm_create(vm, kind)
        self.port.mutex_init(self.blob_lock(self.vms[vm]))
        return ret

    def drop(self, blob: Blob | None) -> None:
        if blob is not None:
            blob.users -= 1
            if not blob.users:
                self.port.kfree(blob.address)

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        it, port = self.vms[vm], self.port
        if it.kind != SNP or it.context or not policy & 1 << 17:
            return -EINVAL
        context = self.firmware_page()
        if not context:
            return -ENOMEM
        ret, _ = port.snp_gctx_create(fd, context | C, 0)
        if ret:
            self.back(context)
            return ret
        ret, _ = port.snp_launch_start(fd, context | C, policy, 0)
        ret = ret or port.snp_activate(fd, context | C, it.asid, 0)[0]
        if ret:
            if port.snp_decommission(NO_FD, context | C, 0)[0]:
                port.leak_page(context >> 12)
                it.asid = 0
            else:
                self.back(context)
            return ret
        it.context, it.fd = context, fd
        return 0

    def end_context(self, it: Vm) -> int:
        blob, it.blob = it.blob, None
        self.drop(blob)
        return super().end_context(it)

    def request(self, vcpu: int, cpu: Cpu, *, extended: bool, fetched: bool) -> int:
        port, it = self.port, cpu.vm
        req, resp = self.field(cpu, GHCB_SW_EXITINFO1), self.field(cpu, GHCB_SW_EXITINFO2)
        source = port.gfn_to_pfn(it.number, req >> 12)
        if source < 0:
            return -EIO
        report = extended and port.load((source << 12) + MSG_TYPE, 1) == REPORT_REQ
        if report and self.misplaced(cpu):
            cpu.answer = (2, 5, None)
            ret = RESUME
        elif port.psp_is_dead():
            ret = -EBUSY
        else:
            target = port.gfn_to_pfn(it.number, resp >> 12)
            ret = -EIO if target < 0 else self.with_pages(cpu, source, target, resp, report)
            if target >= 0:
                port.put_pfn(target)
        port.put_pfn(source)
        return ret

    def misplaced(self, cpu: Cpu) -> bool:
        supplied = self.valid(cpu, GHCB_RAX) and self.valid(cpu, GHCB_RBX)
        return not supplied or bool(self.field(cpu, GHCB_RAX) & 0xFFF)

    def with_pages(self, cpu: Cpu, source: int, target: int, resp: int, report: bool) -> int:
        port, it = self.port, cpu.vm
        if not it.context or any(resp == other.gpa for other in self.cpus.values() if other.vm is it):
            return -EINVAL
        if report:
            ret = self.copy_blob(cpu, resp)
            if ret is not None:
                return ret
        ret = port.mutex_lock_killable(it.lock)
        if ret:
            return ret
        ret, status, stuck = self.in_place(it, source, target)
        port.mutex_unlock(it.lock)
        if stuck:
            port.vm_bug(it.number)
            return -EIO
        if ret and not status:
            return ret
        cpu.answer = (0, status, None)
        return RESUME

    def in_place(self, it: Vm, source: int, target: int) -> tuple[int, int, bool]:
        port = self.port
        if port.rmp_lookup(target) != HYPERVISOR:
            return -EINVAL, 0, False
        if port.rmp_make_private(target, 0, 0, 1):
            return -EIO, 0, False
        ret, status = port.snp_guest_request(it.fd, it.context | C, source << 12 | C, target << 12 | C, 0)
        if port.snp_page_reclaim(target) or port.rmp_make_shared(target):
            port.leak_page(target)
            return 0, 0, True
        return ret, status, False

    def copy_blob(self, cpu: Cpu, resp: int) -> int | None:
        port, it = self.port, cpu.vm
        gpa, npages = self.field(cpu, GHCB_RAX), self.field(cpu, GHCB_RBX)
        if resp - gpa >> 12 in range(npages):
            return -EINVAL
        blob, ret = self.hold(it)
        if ret:
            return ret
        needed = blob.length + 0xFFF >> 12 if blob else 0
        failed = 0
        if npages < needed:
            cpu.answer = (0, 1 << 32, needed)
        elif blob:
            failed = port.write_guest(it.number, gpa, blob.address, blob.length)
        elif npages:
            failed = port.clear_guest(it.number, gpa, PAGE_SIZE)
        self.drop(blob)
        return RESUME if npages < needed else -EIO if failed else None

    def hold(self, it: Vm) -> tuple[Blob | None, int]:
        """The blob that counts, and an errno."""
        port = self.port
        for lock in (self.blob_lock(it), self.HOST):
            ret = port.mutex_lock_killable(lock)
            if ret:
                return None, ret
            blob = self.host if lock == self.HOST else it.blob
            if blob:
                blob.users += 1
            port.mutex_unlock(lock)
            if blob:
                return blob, 0
        return None, 0

    def taken_in(self, user: int, length: int) -> tuple[Blob | None, int]:
        port = self.port
        address = port.kmalloc(length)
        if not address:
            return None, -ENOMEM
        if port.copy_from_user(address, user, length):
            port.kfree(address)
            return None, -EFAULT
        return Blob(address, length), 0

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        it, port = self.vms[vm], self.port
        if length > FW_BLOB_MAX_SIZE:
            return -EINVAL
        if it.kind != SNP or not it.context:
            return -EINVAL if it.kind == SNP else -ENOTTY
        blob = None
        if length:
            blob, ret = self.taken_in(user, length)
            if ret:
                return ret
        port.mutex_lock(self.blob_lock(it))
        blob, it.blob = it.blob, blob
        port.mutex_unlock(self.blob_lock(it))
        self.drop(blob)
        return 0

    def given_out(self, blob: Blob, user: int, length: int, small: int) -> tuple[int, int]:
        if length < blob.length:
            return small, blob.length
        return -EFAULT if self.port.copy_to_user(user, blob.address, blob.length) else 0, blob.length

    def get_instance_certs(self, vm: int, user: int, length: int) -> tuple[int, int]:
        it = self.vms[vm]
        if it.kind != SNP or not it.context:
            return -EINVAL if it.kind == SNP else -ENOTTY, 0
        return self.given_out(it.blob, user, length, -EINVAL) if it.blob else (-ENOENT, 0)

    def host_set_ext_config(self, tcb: int, user: int, length: int, writable: int) -> int:
        port = self.port
        if user and (not length or length % PAGE_SIZE):
            return -EINVAL
        if not writable:
            return -EPERM
        blob = None
        if user:
            blob, ret = self.taken_in(user, length)
            if ret:
                return ret
        port.mutex_lock(self.HOST)
        ret = port.snp_config(tcb) if tcb else 0
        if not ret:
            blob, self.host = self.host, blob
        port.mutex_unlock(self.HOST)
        self.drop(blob)
        return ret

    def host_get_ext_config(self, user: int, length: int) -> tuple[int, int]:
        return self.given_out(self.host, user, length, -EIO) if self.host else (-ENOENT, 0)

    def snp_shutdown(self) -> int:
        self.port.mutex_lock(self.HOST)
        blob, self.host = self.host, None
        self.port.mutex_unlock(self.HOST)
        self.drop(blob)
        return 0
