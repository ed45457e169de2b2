"""KVM as merged, built upon the deferred handler."""

from __future__ import annotations

from conformance.specs.snp_guest_request.constants import (
    EINVAL,
    EIO,
    ENOMEM,
    EXIT,
    EXIT_SNP_REQ_CERTS,
    GHCB_RAX,
    GHCB_RBX,
    GHCB_SW_EXITINFO1,
    GHCB_SW_EXITINFO2,
    MSG_TYPE,
    PAGE_SIZE,
    REPORT_REQ,
    RESUME,
)
from tests.conformance.peers.snp_guest_request.deferred import C, Cpu, Deferred, Vm


class Merged(Deferred):
    """In the order of the merged code: the type first and by itself, then the data page, then lock and message.

    The response buffer is written back after firmware errors as well. Both break a SHOULD, and no more than that.
    """

    def request(self, vcpu: int, cpu: Cpu, *, extended: bool, fetched: bool) -> int:
        port, it = self.port, cpu.vm
        req, resp = self.field(cpu, GHCB_SW_EXITINFO1), self.field(cpu, GHCB_SW_EXITINFO2)
        if extended and not fetched:
            kind = port.kzalloc(64)
            if not kind:
                return -ENOMEM
            failed = port.read_guest(it.number, req + MSG_TYPE, kind, 1)
            found = port.load(kind, 1)
            ret = -EIO if failed else None
            if not failed and found == REPORT_REQ:
                ret = self.table(vcpu, cpu)
            port.kfree(kind)
            if ret is not None:
                return ret
        ret = port.mutex_lock_killable(it.lock)
        if ret:
            return ret
        ret, status = self.locked(it, req, resp)
        port.mutex_unlock(it.lock)
        if not ret:
            cpu.answer = (0, status, None)
        return ret or RESUME

    def table(self, vcpu: int, cpu: Cpu) -> int | None:
        port = self.port
        gpa, npages = self.field(cpu, GHCB_RAX), self.field(cpu, GHCB_RBX)
        if not self.valid(cpu, GHCB_RAX) or not self.valid(cpu, GHCB_RBX) or gpa & 0xFFF:
            cpu.answer = (2, 5, None)
            return RESUME
        if cpu.vm.fetches:
            port.run_exit(vcpu, EXIT_SNP_REQ_CERTS, gpa, npages, 0)
            return EXIT
        return -EIO if npages and port.clear_guest(cpu.vm.number, gpa, 24) else None

    def locked(self, it: Vm, req: int, resp: int) -> tuple[int, int]:
        port = self.port
        if not it.context:
            return -EINVAL, 0
        if port.read_guest(it.number, req, it.request, PAGE_SIZE):
            return -EIO, 0
        ret, status = port.snp_guest_request(it.fd, it.context | C, it.request | C, it.response | C, 0)
        if ret and not status:
            return ret, 0
        if port.write_guest(it.number, resp, it.response, PAGE_SIZE):
            return -EIO, 0
        return 0, status
