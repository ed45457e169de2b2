"""A handler in the shape of merged KVM: bounce pages, certificates from userspace."""

from __future__ import annotations

from typing import Any, ClassVar

from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    C_BIT,
    EAGAIN,
    EINVAL,
    EIO,
    ENOMEM,
    ENOSPC,
    ENOTTY,
    EXIT,
    EXIT_SNP_REQ_CERTS,
    EXT_GUEST_REQUEST,
    GENERIC_INFO2,
    GHCB_RAX,
    GHCB_RBX,
    GHCB_RCX,
    GHCB_RDX,
    GHCB_SW_EXITCODE,
    GHCB_SW_EXITINFO1,
    GHCB_SW_EXITINFO2,
    GHCB_USAGE,
    GHCB_VALID_BITMAP,
    GUEST_REQUEST,
    INVALID_EVENT,
    INVALID_INPUT,
    INVALID_USAGE,
    MALFORMED,
    MISSING_INPUT,
    MSG_TYPE,
    NO_FD,
    PAGE_SIZE,
    REPORT_REQ,
    RESUME,
    RUN_NPAGES,
    RUN_RET,
    SNP,
    TOO_SMALL_INFO2,
)

REGISTERS = (GHCB_RAX, GHCB_RBX, GHCB_RCX, GHCB_RDX)
CERT_ENTRY_SIZE = 24
ANSWERED = sum(1 << offset // 8 - 64 for offset in (GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2, GHCB_RBX))
"""Valid bits of the fields that may hold an answer, in the upper half of the bitmap."""


def psp_pa(address: int) -> int:
    """Address as firmware wants it."""
    return address | 1 << C_BIT


class Sev:
    """What is kept per VM."""

    def __init__(self, vm: int, kind: int) -> None:
        self.vm = vm
        self.kind = kind
        self.active = False
        self.asid = 0
        self.fd = -1
        self.gctx = 0
        self.req_buf = 0
        self.resp_buf = 0
        self.certs_enabled = False
        self.vcpus = 0
        self.lock = f"vm{vm}.guest_req_mutex"


class Svm:
    """What is kept per vCPU."""

    def __init__(self, sev: Sev) -> None:
        self.sev = sev
        self.registered = -1
        self.mapped = False
        self.regs: dict[int, int] = {}
        self.valid = 0
        self.code = 0
        self.info1 = 0
        self.info2 = 0
        self.req = 0
        self.resp = 0


class Upstream:
    """The merged design, with the message type and the forwarded bytes taken from one copy."""

    profile: ClassVar[str] = "upstream"
    capabilities: ClassVar[frozenset[str]] = frozenset({"hypervisor", "userspace-certs", "move"})

    def __init__(self, port: Any) -> None:
        self.port = port
        self.sevs: dict[int, Sev] = {}
        self.svms: dict[int, Svm] = {}

    # -- VM lifecycle

    def vm_create(self, vm: int, kind: int) -> int:
        self.sevs[vm] = Sev(vm, kind)
        return 0

    def sev_init(self, vm: int) -> int:
        sev = self.sevs[vm]
        if sev.active:
            return -EINVAL
        asid = self.port.alloc_asid()
        if asid < 0:
            return int(asid)
        ret = self.guest_req_init(sev) if sev.kind == SNP else 0
        if ret:
            self.port.free_asid(asid)
            return ret
        sev.asid, sev.active = asid, True
        return 0

    def guest_req_init(self, sev: Sev) -> int:
        port = self.port
        req = port.alloc_page(1)
        if not req:
            return -ENOMEM
        resp = port.alloc_fw_page()
        if not resp:
            port.free_page(req)
            return -EIO
        port.mutex_init(sev.lock)
        sev.req_buf, sev.resp_buf = req, resp
        return 0

    def guest_req_cleanup(self, sev: Sev) -> None:
        if sev.resp_buf:
            self.free_firmware_page(sev.resp_buf)
        if sev.req_buf:
            self.port.free_page(sev.req_buf)
        sev.req_buf = sev.resp_buf = 0

    def free_firmware_page(self, address: int) -> None:
        port, pfn = self.port, address >> 12
        if port.snp_page_reclaim(pfn) or port.rmp_make_shared(pfn):
            port.leak_page(pfn)
            return
        port.free_page(address)

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        port, sev = self.port, self.sevs[vm]
        if sev.kind != SNP or not sev.active:
            return -ENOTTY
        if sev.gctx:
            return -EINVAL
        if not policy >> 17 & 1:
            return -EINVAL
        gctx = port.alloc_fw_page()
        if not gctx:
            return -ENOTTY
        ret, _ = port.snp_gctx_create(fd, psp_pa(gctx), 0)
        if ret:
            self.free_firmware_page(gctx)
            return int(ret)
        sev.gctx, sev.fd = gctx, fd
        ret, _ = port.snp_launch_start(fd, psp_pa(gctx), policy, 0)
        if not ret:
            ret, _ = port.snp_activate(fd, psp_pa(gctx), sev.asid, 0)
        if ret:
            self.decommission(vm)
        return int(ret)

    def launch_finish(self, vm: int) -> int:
        sev = self.sevs[vm]
        if not sev.gctx:
            return -EINVAL
        return int(self.port.snp_launch_finish(sev.fd, psp_pa(sev.gctx), 0)[0])

    def enable_req_certs(self, vm: int) -> int:
        sev = self.sevs[vm]
        if sev.kind != SNP or not sev.active or sev.vcpus:
            return -EINVAL
        sev.certs_enabled = True
        return 0

    def has_req_certs(self) -> int:
        return 1

    def decommission(self, vm: int) -> int:
        sev = self.sevs[vm]
        if not sev.gctx:
            return 0
        ret, _ = self.port.snp_decommission(NO_FD, psp_pa(sev.gctx), 0)
        gctx, sev.gctx = sev.gctx, 0
        if ret:
            self.port.leak_page(gctx >> 12)
            sev.asid = 0
            return int(ret)
        self.free_firmware_page(gctx)
        return 0

    def vm_destroy(self, vm: int) -> int:
        sev = self.sevs.pop(vm)
        for vcpu in [v for v, svm in self.svms.items() if svm.sev is sev]:
            del self.svms[vcpu]
        if not sev.active:
            return 0
        self.guest_req_cleanup(sev)
        self.sevs[vm] = sev
        self.decommission(vm)
        del self.sevs[vm]
        if sev.asid:
            self.port.free_asid(sev.asid)
        return 0

    def vm_move_from(self, dst: int, src: int) -> int:
        return -EINVAL

    def vm_mirror_from(self, dst: int, src: int) -> int:
        return -EINVAL

    def snp_shutdown(self) -> int:
        return 0

    def vcpu_create(self, vcpu: int, vm: int) -> int:
        sev = self.sevs[vm]
        sev.vcpus += 1
        self.svms[vcpu] = Svm(sev)
        return 0

    def ghcb_register(self, vcpu: int, gpa: int) -> int:
        self.svms[vcpu].registered = gpa
        return 0

    # -- VMGEXIT

    def vmgexit(self, vcpu: int, gpa: int) -> int:
        port, svm = self.port, self.svms[vcpu]
        ret = port.ghcb_map(vcpu, gpa)
        if ret:
            return int(ret)
        svm.mapped = True
        if self.is_snp(svm.sev) and svm.registered != gpa:
            return -EINVAL
        usage = self.sync_from_ghcb(vcpu, svm)
        reason = self.validate(svm, usage)
        if reason:
            return self.malformed(vcpu, reason)
        if svm.code == GUEST_REQUEST:
            return self.guest_request(vcpu, svm)
        return self.ext_guest_request(vcpu, svm)

    def is_snp(self, sev: Sev) -> bool:
        return sev.kind == SNP and sev.active

    def sync_from_ghcb(self, vcpu: int, svm: Svm) -> int:
        read = self.port.ghcb_read
        svm.valid = read(vcpu, GHCB_VALID_BITMAP, 8) | read(vcpu, GHCB_VALID_BITMAP + 8, 8) << 64
        svm.regs = {offset: self.if_valid(vcpu, svm, offset) for offset in REGISTERS}
        svm.code = self.if_valid(vcpu, svm, GHCB_SW_EXITCODE)
        svm.info1 = self.if_valid(vcpu, svm, GHCB_SW_EXITINFO1)
        svm.info2 = self.if_valid(vcpu, svm, GHCB_SW_EXITINFO2)
        return int(read(vcpu, GHCB_USAGE, 4))

    def if_valid(self, vcpu: int, svm: Svm, offset: int) -> int:
        return int(self.port.ghcb_read(vcpu, offset, 8)) if self.is_valid(svm, offset) else 0

    def is_valid(self, svm: Svm, offset: int) -> bool:
        return bool(svm.valid >> offset // 8 & 1)

    def validate(self, svm: Svm, usage: int) -> int:
        if usage:
            return INVALID_USAGE
        if not all(self.is_valid(svm, o) for o in (GHCB_SW_EXITCODE, GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2)):
            return MISSING_INPUT
        if svm.code not in (GUEST_REQUEST, EXT_GUEST_REQUEST):
            return INVALID_EVENT
        return self.validate_request(svm)

    def validate_request(self, svm: Svm) -> int:
        if not self.is_snp(svm.sev):
            return MISSING_INPUT
        if svm.info1 % PAGE_SIZE or svm.info2 % PAGE_SIZE or svm.info1 == svm.info2:
            return MISSING_INPUT
        return 0

    def complete(self, vcpu: int, info1: int, info2: int) -> int:
        self.port.ghcb_write(vcpu, GHCB_SW_EXITINFO1, info1)
        self.port.ghcb_write(vcpu, GHCB_SW_EXITINFO2, info2)
        self.port.ghcb_write(vcpu, GHCB_VALID_BITMAP + 8, self.svms[vcpu].valid >> 64 | ANSWERED)
        return RESUME

    def malformed(self, vcpu: int, reason: int) -> int:
        return self.complete(vcpu, MALFORMED, reason)

    def ghcb_leave(self, vcpu: int) -> int:
        svm = self.svms[vcpu]
        if svm.mapped:
            for offset in REGISTERS:
                if offset in svm.regs:
                    self.port.ghcb_write(vcpu, offset, svm.regs[offset])
            self.port.ghcb_unmap(vcpu)
        svm.mapped, svm.regs = False, {}
        return 0

    # -- requests

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        sev = svm.sev
        ret = self.port.mutex_lock_killable(sev.lock)
        if ret:
            return int(ret)
        ret = self.copy_request(sev, svm.info1)
        ret, info2 = (ret, 0) if ret else self.forward(sev, svm.info2)
        self.port.mutex_unlock(sev.lock)
        return int(ret) if ret else self.complete(vcpu, 0, info2)

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        """The request page is copied once: what decides about certificates is what is forwarded."""
        port, sev = self.port, svm.sev
        ret = port.mutex_lock_killable(sev.lock)
        if ret:
            return int(ret)
        ret, reason, info2, exits = self.copy_request(sev, svm.info1), 0, 0, False
        if not ret and self.wants_certs(sev):
            reason = self.validate_data(svm)
            exits = not reason and self.asks_userspace(sev)
            if not reason and not exits:
                ret = self.supply_certs(svm)
        if not (ret or reason or exits):
            ret, info2 = self.forward(sev, svm.info2)
        port.mutex_unlock(sev.lock)
        if ret:
            return int(ret)
        if reason:
            return self.malformed(vcpu, reason)
        if exits:
            svm.req, svm.resp = svm.info1, svm.info2
            port.run_exit(vcpu, EXIT_SNP_REQ_CERTS, svm.regs[GHCB_RAX], svm.regs[GHCB_RBX], 0)
            return EXIT
        return self.complete(vcpu, 0, info2)

    def wants_certs(self, sev: Sev) -> bool:
        return bool(self.port.load(sev.req_buf + MSG_TYPE, 1) == REPORT_REQ)

    def validate_data(self, svm: Svm) -> int:
        if not (self.is_valid(svm, GHCB_RAX) and self.is_valid(svm, GHCB_RBX)):
            return INVALID_INPUT
        return INVALID_INPUT if svm.regs[GHCB_RAX] % PAGE_SIZE else 0

    def asks_userspace(self, sev: Sev) -> bool:
        return sev.certs_enabled

    def supply_certs(self, svm: Svm) -> int:
        """An empty table."""
        if not svm.regs[GHCB_RBX]:
            return 0
        ret = self.port.clear_guest(svm.sev.vm, svm.regs[GHCB_RAX], CERT_ENTRY_SIZE)
        return -EIO if ret else 0

    def copy_request(self, sev: Sev, gpa: int) -> int:
        return -EIO if self.port.read_guest(sev.vm, gpa, sev.req_buf, PAGE_SIZE) else 0

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        """Result for KVM_RUN, and SW_EXITINFO2 when it is 0. Called with the lock held."""
        if not sev.gctx:
            return -EINVAL, 0
        ret, status = self.issue(sev)
        if ret and not status:
            return ret, 0
        if status:
            return 0, status
        return self.copy_response(sev, resp_gpa), 0

    def issue(self, sev: Sev) -> tuple[int, int]:
        """Result of the command, and the status variable, which starts as 0."""
        return self.port.snp_guest_request(  # type: ignore[no-any-return]  # the port is untyped here
            sev.fd, psp_pa(sev.gctx), psp_pa(sev.req_buf), psp_pa(sev.resp_buf), 0
        )

    def copy_response(self, sev: Sev, resp_gpa: int) -> int:
        return -EIO if self.port.write_guest(sev.vm, resp_gpa, sev.resp_buf, PAGE_SIZE) else 0

    def vcpu_continue(self, vcpu: int) -> int:
        port, svm = self.port, self.svms[vcpu]
        ret = port.run_read(vcpu, RUN_RET)
        if ret == 0:
            svm.info1, svm.info2 = svm.req, svm.resp
            return self.guest_request(vcpu, svm)
        if ret == ENOSPC:
            svm.regs[GHCB_RBX] = port.run_read(vcpu, RUN_NPAGES)
            return self.complete(vcpu, 0, TOO_SMALL_INFO2)
        if ret == EAGAIN:
            return self.complete(vcpu, 0, BUSY_INFO2)
        if ret == EIO:
            return self.complete(vcpu, 0, GENERIC_INFO2)
        return -EINVAL
