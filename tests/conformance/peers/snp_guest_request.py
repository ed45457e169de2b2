"""Correct guest-request handlers and a guest driver that are built in other ways than the shipped ones."""

from __future__ import annotations

import struct
from typing import Any

from conformance.specs.snp_guest_request.constants import (
    C_BIT,
    EAGAIN,
    EBADMSG,
    EBUSY,
    EFAULT,
    EINVAL,
    EIO,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOTTY,
    EPERM,
    ETIMEDOUT,
    EXIT,
    EXIT_SNP_REQ_CERTS,
    EXT_GUEST_REQUEST,
    FW_BLOB_MAX_SIZE,
    GHCB_RAX,
    GHCB_RBX,
    GHCB_SW_EXITCODE,
    GHCB_SW_EXITINFO1,
    GHCB_SW_EXITINFO2,
    GHCB_USAGE,
    GHCB_VALID_BITMAP,
    GUEST_REQUEST,
    HEADER_SIZE,
    HYPERVISOR,
    KEY_REQ,
    MSG_SIZE,
    MSG_TYPE,
    NO_FD,
    PAGE_SIZE,
    REPORT_REQ,
    RESUME,
    RUN_NPAGES,
    RUN_RET,
    SECRETS_SEQNO,
    SECRETS_VMPCK,
    SNP,
)

WORD = 2**64 - 1
C = 1 << C_BIT
REGS = {"a": GHCB_RAX, "b": GHCB_RBX}


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
        asid = self.port.alloc_asid()
        if asid < 0:
            return asid
        self.vms[vm].asid, self.vms[vm].ready = asid, True
        return 0

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        it, port = self.vms[vm], self.port
        if it.context or not policy & 1 << 17:
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


class Blob:
    """Certificates that whoever uses them keeps from being freed."""

    def __init__(self, address: int, length: int) -> None:
        self.address, self.length, self.users = address, length, 1


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
        if it.context or not policy & 1 << 17:
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


class PerCall:
    """A guest driver that keeps key and number itself, and has shared pages only while it talks to the host."""

    profile = "upstream"
    capabilities = frozenset({"guest", "verifier"})
    LOCK = "messages"

    def __init__(self, port: Any) -> None:
        self.port = port
        self.number = self.slot = 0
        self.secret = b""
        self.pages: list[int] = []
        port.mutex_init(self.LOCK)

    def open(self, vmpck: int) -> int:
        if vmpck not in range(4):
            return -EINVAL
        self.slot = vmpck
        self.secret = self.port.read_secrets(SECRETS_VMPCK + 32 * vmpck, 32)
        self.number = int.from_bytes(self.port.read_secrets(SECRETS_SEQNO + 4 * vmpck, 4), "little")
        return 0 if self.secret.strip(b"\0") else -EINVAL

    def close(self) -> int:
        self.secret = b""
        return 0

    def shared(self, npages: int) -> int:
        gpa = self.port.alloc_pages(npages)
        if gpa:
            self.pages.append(gpa)
            if self.port.set_decrypted(gpa):
                return 0
        return gpa

    def unshare(self) -> None:
        for gpa in self.pages:
            (self.port.leak_pages if self.port.set_encrypted(gpa) else self.port.free_pages)(gpa)
        self.pages = []

    def forget(self) -> None:
        self.secret = b""
        self.port.write_secrets(SECRETS_VMPCK + 32 * self.slot, bytes(32))

    def talk(self, kind: int, payload: bytes, room: int, pages: int | None) -> tuple[int, int, bytes, bytes, int]:
        self.port.mutex_lock(self.LOCK)
        if not self.secret:
            result: tuple[int, int, bytes, bytes, int] = (-ENOTTY, 0, b"", b"", 0)
        elif self.number >= 2**32 - 2:
            result = (-EIO, 0, b"", b"", 0)
        else:
            request, response = self.shared(1), self.shared(1)
            certs = self.shared(pages) if pages else 0
            if not request or not response or (pages and not certs):
                result = (-ENOMEM, 0, b"", b"", 0)
            else:
                result = self.exchange(kind, payload, room, pages, request, response, certs)
            self.unshare()
        self.port.mutex_unlock(self.LOCK)
        return result

    def exchange(
        self, kind: int, payload: bytes, room: int, pages: int | None, request: int, response: int, certs: int
    ) -> tuple[int, int, bytes, bytes, int]:
        port, number = self.port, self.number + 1
        aad = struct.pack("<BBHBBH4xB35x", 1, 1, HEADER_SIZE, kind, 1, len(payload), self.slot)
        sealed = port.gcm_encrypt(self.secret, struct.pack("<Q4x", number), aad, payload)
        port.shared_write(request, sealed[-16:] + struct.pack("<16xQ8x", number) + aad + sealed[:-16])
        port.shared_write(response, bytes(PAGE_SIZE))
        code = EXT_GUEST_REQUEST if pages is not None else GUEST_REQUEST
        tries = needed = 0
        while True:
            told, info2, rbx = port.guest_exit(code, request, response, certs, pages or 0)
            if (told, info2) == (0, 2 << 32):
                tries += 1
                if tries > 30:
                    self.forget()
                    return -ETIMEDOUT, 2 << 32, b"", b"", 0
                port.sleep(2)
            elif (told, info2) == (0, 1 << 32) and code == EXT_GUEST_REQUEST:
                code, needed, pages = GUEST_REQUEST, rbx << 12, 0
            else:
                break
        if told or info2:
            self.forget()
            return -EIO, info2, b"", b"", 0
        message = port.shared_read(response, PAGE_SIZE)
        self.number += 2
        port.write_secrets(SECRETS_SEQNO + 4 * self.slot, struct.pack("<I", self.number))
        body = self.opened(message, kind, room)
        if not body:
            self.forget()
            return -EBADMSG, 0, b"", b"", 0
        if needed:
            return -EIO, 1 << 32, b"", b"", needed
        return 0, 0, body, port.shared_read(certs, pages << 12) if certs and pages else b"", 0

    def opened(self, message: bytes, kind: int, room: int) -> bytes:
        number, found, version, size = struct.unpack_from("<32xQ12xBBH", message)
        wanted = (self.number, kind + 1, 1)
        if (number, found, version) != wanted or size + 16 > room + 16 or HEADER_SIZE + size > PAGE_SIZE:
            return b""
        body = message[HEADER_SIZE : HEADER_SIZE + size] + message[:16]
        return bytes(self.port.gcm_decrypt(self.secret, struct.pack("<Q4x", number), message[48:HEADER_SIZE], body))

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        return self.talk(REPORT_REQ, data + struct.pack("<I28x", vmpl), 4000, None)[:3]

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        return self.talk(KEY_REQ, struct.pack("<8xQIIQ", fields, vmpl, svn, tcb), 64, None)[:3]

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        length = certs_len if address else 0
        if length & 0xFFF or length > FW_BLOB_MAX_SIZE:
            return -EINVAL, 0, b"", b"", 0
        return self.talk(REPORT_REQ, data + struct.pack("<I28x", vmpl), 4000, length >> 12)

    def parse_certs(self, table: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        found = []
        for at in range(0, len(table) - 23, 24):
            entry = table[at : at + 24]
            if entry == bytes(24):
                return 0, tuple(found)
            start, length = struct.unpack_from("<II", entry, 16)
            if length > len(table) or start > len(table) - length:
                return 0, tuple(found)
            found.append((entry[:16], table[start : start + length]))
        return -EINVAL, ()
