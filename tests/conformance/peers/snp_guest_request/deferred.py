"""A handler that reads the GHCB where it needs a field, and answers when the guest is entered."""

from __future__ import annotations

from typing import Any

from conformance.specs.snp_guest_request.constants import (
    C_BIT,
    EAGAIN,
    EINVAL,
    EIO,
    ENOMEM,
    ENOSPC,
    EXIT,
    EXIT_SNP_REQ_CERTS,
    EXT_GUEST_REQUEST,
    GHCB_RAX,
    GHCB_RBX,
    GHCB_SW_EXITCODE,
    GHCB_SW_EXITINFO1,
    GHCB_SW_EXITINFO2,
    GHCB_USAGE,
    GHCB_VALID_BITMAP,
    GUEST_REQUEST,
    HEADER_SIZE,
    MSG_SIZE,
    MSG_TYPE,
    NO_FD,
    PAGE_SIZE,
    REPORT_REQ,
    RESUME,
    RUN_NPAGES,
    RUN_RET,
    SNP,
)

WORD = 2**64 - 1
C = 1 << C_BIT
REGS = {"a": GHCB_RAX, "b": GHCB_RBX}


class Blob:
    """Certificates that whoever uses them keeps from being freed."""

    def __init__(self, address: int, length: int) -> None:
        self.address, self.length, self.users = address, length, 1


class Vm:
    """Everything of a VM in one place."""

    def __init__(self, number: int, kind: int) -> None:
        self.number, self.kind = number, kind
        self.ready = self.fetches = False
        self.cpus = self.asid = self.context = self.request = self.response = self.certs = 0
        self.fd = -1
        self.lock = f"requests of {number}"
        self.blob: Blob | None = None
        self.gone = False


class Cpu:
    """A vCPU: its GHCB as it was when it exited, and what it is told when it enters the guest."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.ghcb = self.told = None
        self.gpa = -1
        self.image = b""
        self.answer: tuple[int, int, int | None] | None = None


class Deferred:
    """Copies the GHCB at once, answers when the vCPU enters the guest, and holds the lock for the command alone.

    Buffers come with the guest context. The request is copied before the lock is taken, the response written after
    it was released, both through buffers of the vCPU's own; only the message itself is written.
    """

    profile = "upstream"
    capabilities = frozenset({"hypervisor", "userspace-certs", "move"})

    def __init__(self, port: Any) -> None:
        self.port = port
        self.vms: dict[int, Vm] = {}
        self.cpus: dict[int, Cpu] = {}

    # -- life

    def vm_create(self, vm: int, kind: int) -> int:
        self.vms[vm] = Vm(vm, kind)
        self.port.mutex_init(self.vms[vm].lock)
        return 0

    def sev_init(self, vm: int) -> int:
        if self.vms[vm].ready:
            return -EINVAL
        asid = self.port.alloc_asid()
        if asid < 0:
            return asid
        self.vms[vm].asid, self.vms[vm].ready = asid, True
        return 0

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        it, port = self.vms[vm], self.port
        if it.kind != SNP or it.context or not policy & 1 << 17:
            return -EINVAL
        request, response = port.alloc_page(0), self.firmware_page()
        context = self.firmware_page() if request and response else 0
        if not context:
            self.back(response)
            if request:
                port.free_page(request)
            return -ENOMEM
        port.memset(request, 0, PAGE_SIZE)
        created = started = False
        ret, _ = port.snp_gctx_create(fd, context | C, 0)
        if not ret:
            created = True
            ret, _ = port.snp_launch_start(fd, context | C, policy, 0)
        if not ret:
            started = True
            ret, _ = port.snp_activate(fd, context | C, it.asid, 0)
        if ret:
            assert created or not started
            if created and port.snp_decommission(NO_FD, context | C, 0)[0]:
                port.leak_page(context >> 12)
                it.asid = 0
            else:
                self.back(context)
            self.back(response)
            port.free_page(request)
            return ret
        it.request, it.response, it.context, it.fd = request, response, context, fd
        return 0

    def firmware_page(self) -> int:
        """A zeroed page, given to firmware by hand."""
        address = self.port.alloc_page(1)
        if address and self.port.rmp_make_private(address >> 12, 0, 0, 1):
            self.port.free_page(address)
            return 0
        return address

    def back(self, address: int) -> None:
        """Have a firmware page back, or give it up."""
        port = self.port
        if not address:
            return
        if port.snp_page_reclaim(address >> 12) == 0 and port.rmp_make_shared(address >> 12) == 0:
            port.free_page(address)
        else:
            port.leak_page(address >> 12)

    def launch_finish(self, vm: int) -> int:
        it = self.vms[vm]
        return self.port.snp_launch_finish(it.fd, it.context | C, 0)[0] if it.context else -EINVAL

    def enable_req_certs(self, vm: int) -> int:
        it = self.vms[vm]
        it.fetches = (it.kind == SNP and not it.cpus) or it.fetches
        return 0 if it.kind == SNP and not it.cpus else -EINVAL

    def has_req_certs(self) -> int:
        return 1

    def decommission(self, vm: int) -> int:
        it = self.vms[vm]
        return self.end_context(it) if it.context else 0

    def end_context(self, it: Vm) -> int:
        ret, _ = self.port.snp_decommission(NO_FD, it.context | C, 0)
        if ret:
            return ret
        self.back(it.context)
        it.context = 0
        return 0

    def vm_destroy(self, vm: int) -> int:
        it = self.vms.pop(vm)
        self.cpus = {n: cpu for n, cpu in self.cpus.items() if cpu.vm is not it}
        self.back(it.response)
        if it.request:
            self.port.free_page(it.request)
        if it.context and self.end_context(it):  # a second try, if the first one failed
            self.port.leak_page(it.context >> 12)
        elif it.asid:
            self.port.free_asid(it.asid)
        return 0

    def vm_move_from(self, dst: int, src: int) -> int:
        return -EINVAL

    vm_mirror_from = vm_move_from

    def snp_shutdown(self) -> int:
        return 0

    def vcpu_create(self, vcpu: int, vm: int) -> int:
        self.vms[vm].cpus += 1
        self.cpus[vcpu] = Cpu(self.vms[vm])
        return 0

    def ghcb_register(self, vcpu: int, gpa: int) -> int:
        self.cpus[vcpu].gpa = gpa
        return 0

    # -- exits

    def vmgexit(self, vcpu: int, gpa: int) -> int:
        cpu = self.cpus[vcpu]
        it = cpu.vm
        secure = it.kind == SNP and it.ready
        if secure and gpa != cpu.gpa:
            return -EINVAL
        ret = self.port.ghcb_map(vcpu, gpa)
        if ret:
            return ret
        cpu.image = self.port.ghcb_read(vcpu, 0, PAGE_SIZE).to_bytes(PAGE_SIZE, "little")
        self.port.ghcb_unmap(vcpu)
        cpu.ghcb = gpa
        reason = self.refused(cpu, secure)
        if reason:
            cpu.answer = (2, reason, None)
            return RESUME
        extended = self.field(cpu, GHCB_SW_EXITCODE) == EXT_GUEST_REQUEST
        return self.request(vcpu, cpu, extended=extended, fetched=False)

    def field(self, cpu: Cpu, offset: int, size: int = 8) -> int:
        return int.from_bytes(cpu.image[offset : offset + size], "little")

    def valid(self, cpu: Cpu, offset: int) -> bool:
        return bool(cpu.image[GHCB_VALID_BITMAP + offset // 64] >> offset // 8 % 8 & 1)

    def refused(self, cpu: Cpu, secure: bool) -> int:
        if self.field(cpu, GHCB_USAGE, 4):
            return 2
        needed = (GHCB_SW_EXITCODE, GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2)
        if not all(self.valid(cpu, offset) for offset in needed):
            return 4
        code, req, resp = (self.field(cpu, offset) for offset in needed)
        if code not in (GUEST_REQUEST, EXT_GUEST_REQUEST):
            return 6
        return 0 if secure and not (req | resp) & 0xFFF and req != resp else 4

    def request(self, vcpu: int, cpu: Cpu, *, extended: bool, fetched: bool) -> int:
        """Errors of every kind end here, so that the buffer is given back once."""
        buffer = self.port.kzalloc(2 * PAGE_SIZE)
        if not buffer:
            return -ENOMEM
        ret = self.request_with(buffer, vcpu, cpu, extended=extended and not fetched)
        self.port.kfree(buffer)
        return ret

    def request_with(self, buffer: int, vcpu: int, cpu: Cpu, *, extended: bool) -> int:
        port, it = self.port, cpu.vm
        req, resp = self.field(cpu, GHCB_SW_EXITINFO1), self.field(cpu, GHCB_SW_EXITINFO2)
        if port.read_guest(it.number, req, buffer, PAGE_SIZE):
            return -EIO
        if extended and port.load(buffer + MSG_TYPE, 1) == REPORT_REQ:
            ret = self.certificates(vcpu, cpu, buffer)
            if ret is not None:
                return ret
        ret = port.mutex_lock_killable(it.lock)
        if ret:
            return ret
        ret, status = self.command(it, buffer)
        port.mutex_unlock(it.lock)
        if ret and not status:
            return ret
        cpu.answer = (0, status, None)
        if status:
            return RESUME
        size = HEADER_SIZE + port.load(buffer + PAGE_SIZE + MSG_SIZE, 2)
        return -EIO if port.write_guest(it.number, resp, buffer + PAGE_SIZE, size) else RESUME

    def command(self, it: Vm, buffer: int) -> tuple[int, int]:
        port = self.port
        if not it.context:
            return -EINVAL, 0
        port.memcpy(it.request, buffer, PAGE_SIZE)
        ret, status = port.snp_guest_request(it.fd, it.context | C, it.request | C, it.response | C, 0)
        if not ret:
            port.memcpy(buffer + PAGE_SIZE, it.response, PAGE_SIZE)
        return ret, status & 0xFFFFFFFF

    def certificates(self, vcpu: int, cpu: Cpu, buffer: int) -> int | None:
        """What ends the request before it is forwarded, None when it goes on."""
        port = self.port
        gpa, npages = self.field(cpu, GHCB_RAX), self.field(cpu, GHCB_RBX)
        if not self.valid(cpu, GHCB_RAX) or not self.valid(cpu, GHCB_RBX) or gpa & 0xFFF:
            cpu.answer = (2, 5, None)
            return RESUME
        if cpu.vm.fetches:
            port.run_exit(vcpu, EXIT_SNP_REQ_CERTS, gpa, npages, 0)
            return EXIT
        if npages and port.write_guest(cpu.vm.number, gpa, buffer + PAGE_SIZE, 24):
            return -EIO
        return None

    def vcpu_continue(self, vcpu: int) -> int:
        cpu = self.cpus[vcpu]
        npages, ret = self.port.run_read(vcpu, RUN_NPAGES), self.port.run_read(vcpu, RUN_RET)
        if ret == 0:
            return self.request(vcpu, cpu, extended=True, fetched=True)
        answers = {ENOSPC: (1 << 32, npages), EAGAIN: (2 << 32, None), EIO: (0xFFFFFFFF << 32, None)}
        if ret not in answers:
            return -EINVAL
        cpu.answer = (0, *answers[ret])
        return RESUME

    def ghcb_leave(self, vcpu: int) -> int:
        cpu = self.cpus[vcpu]
        if cpu.answer is None:
            return 0
        port, (info1, info2, rbx) = self.port, cpu.answer
        cpu.answer = None
        if port.ghcb_map(vcpu, cpu.ghcb) == 0:
            port.ghcb_write(vcpu, GHCB_SW_EXITINFO2, info2)
            port.ghcb_write(vcpu, GHCB_SW_EXITINFO1, info1)
            if rbx is not None:
                port.ghcb_write(vcpu, GHCB_RBX, rbx)
            port.ghcb_unmap(vcpu)
        return 0
