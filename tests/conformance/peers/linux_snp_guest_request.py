"""Legal variants of the candidate that is laid out as Linux is: other orders, other moments, other releases."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.snp_guest_request.linux import Linux, LinuxGuest
from conformance.candidates.builtin.snp_guest_request.linux.guest import NOT_ASKED, SNP_CMD_MUTEX, GuestReq
from conformance.candidates.builtin.snp_guest_request.linux.host import SevInfo
from conformance.specs.snp_guest_request.constants import (
    EBADMSG,
    EINTR,
    EINVAL,
    EIO,
    ENOMEM,
    ENOTTY,
    EXIT,
    FW_BLOB_MAX_SIZE,
    MSG_TYPE,
    PAGE_SIZE,
)
from conformance.specs.snp_guest_request.port import Port


class WholePages(Linux):
    """Clears every data page that the guest offers, up to the 16 KiB that certificates may have, not 24 bytes."""

    def clear_table(self, sev: SevInfo, data_gpa: int, data_npages: int) -> int:
        npages = min(data_npages, FW_BLOB_MAX_SIZE // PAGE_SIZE)
        return self.port.clear_guest(sev.vm, data_gpa, npages * PAGE_SIZE)


class ClearsResponse(Linux):
    """Clears the guest's response page before the command, so a request that then fails leaves zeroes, nothing old."""

    def forward(self, sev: SevInfo, vcpu: int, req_gpa: int, resp_gpa: int) -> int:
        if not sev.snp_context:
            return -EINVAL
        if self.port.read_guest(sev.vm, req_gpa, sev.guest_req_buf, PAGE_SIZE):
            return -EIO
        if self.port.clear_guest(sev.vm, resp_gpa, PAGE_SIZE):
            return -EIO
        ret, fw_err = self.command(sev)
        if ret and not fw_err:
            return ret
        if not fw_err and self.port.write_guest(sev.vm, resp_gpa, sev.guest_resp_buf, PAGE_SIZE):
            return -EIO
        return self.tell(vcpu, fw_err)


class ProbesResponse(Linux):
    """Asks for the response page's frame before the command, so that a page it cannot write costs no message number."""

    def forward(self, sev: SevInfo, vcpu: int, req_gpa: int, resp_gpa: int) -> int:
        pfn = self.port.gfn_to_pfn(sev.vm, resp_gpa // PAGE_SIZE)
        if pfn < 0:
            return -EIO
        ret = super().forward(sev, vcpu, req_gpa, resp_gpa)
        self.port.put_pfn(pfn)
        return ret


class KeepsMessage(Linux):
    """Decides and forwards on one copy of the message, kept over the certificate exit, whatever becomes of its slot."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.kept: dict[int, int] = {}
        """A vCPU's copy of its message."""

    def vmgexit(self, vcpu: int, gpa: int) -> int:
        ret = super().vmgexit(vcpu, gpa)
        if ret != EXIT:
            self.drop(vcpu)
        return ret

    def vcpu_continue(self, vcpu: int) -> int:
        ret = super().vcpu_continue(vcpu)
        self.drop(vcpu)
        return ret

    def ghcb_leave(self, vcpu: int) -> int:
        self.drop(vcpu)
        return super().ghcb_leave(vcpu)

    def drop(self, vcpu: int) -> None:
        self.port.kfree(self.kept.pop(vcpu, 0))

    def snp_handle_ext_guest_req(self, vcpu: int, req_gpa: int, resp_gpa: int) -> int:
        self.drop(vcpu)
        copy = self.port.kzalloc(PAGE_SIZE)
        if not copy:
            return -ENOMEM
        self.kept[vcpu] = copy
        if self.port.read_guest(self.vcpus[vcpu].vm, req_gpa, copy, PAGE_SIZE):
            return -EIO
        return super().snp_handle_ext_guest_req(vcpu, req_gpa, resp_gpa)

    def read_msg_type(self, sev: SevInfo, vcpu: int, req_gpa: int) -> int:
        return self.port.load(self.kept[vcpu] + MSG_TYPE, 1)

    def fetch(self, sev: SevInfo, vcpu: int, req_gpa: int) -> int:
        if vcpu not in self.kept:
            return super().fetch(sev, vcpu, req_gpa)
        return self.port.memcpy(sev.guest_req_buf, self.kept[vcpu], PAGE_SIZE)


class Killable(Linux):
    """Waits killably, and copies nothing back when firmware refused."""

    def snp_handle_guest_req(self, vcpu: int, req_gpa: int, resp_gpa: int) -> int:
        sev = self.kvm[self.vcpus[vcpu].vm]
        if not sev.snp_active:
            return -EINVAL
        if self.port.mutex_lock_killable(sev.guest_req_mutex):
            return -EINTR
        ret = self.forward(sev, vcpu, req_gpa, resp_gpa)
        self.port.mutex_unlock(sev.guest_req_mutex)
        return ret

    def forward(self, sev: SevInfo, vcpu: int, req_gpa: int, resp_gpa: int) -> int:
        if not sev.snp_context:
            return -EINVAL
        if self.fetch(sev, vcpu, req_gpa):
            return -EIO
        ret, fw_err = self.command(sev)
        if ret and not fw_err:
            return ret
        if not fw_err and self.port.write_guest(sev.vm, resp_gpa, sev.guest_resp_buf, PAGE_SIZE):
            return -EIO
        return self.tell(vcpu, fw_err)


class LateOutput(Linux):
    """Writes the whole answer, and the valid bits, when the guest is about to be entered."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.output: dict[int, dict[int, int]] = {}

    def ghcb_set(self, vcpu: int, offset: int, value: int) -> None:
        self.output.setdefault(vcpu, {})[offset] = value

    def ghcb_leave(self, vcpu: int) -> int:
        svm = self.vcpus[vcpu]
        if svm.mapped:
            self.sev_es_sync_to_ghcb(vcpu)
            for offset, value in self.output.pop(vcpu, {}).items():
                super().ghcb_set(vcpu, offset, value)
            self.port.ghcb_unmap(vcpu)
            svm.mapped = False
        return 0


class Wipes(LinuxGuest):
    """The guest driver with one line more: an error of the request after "too small" wipes the key."""

    profile = "upstream"
    WIPE_AFTER_FAILED_RESEND = True


class Older(LinuxGuest):
    """The guest driver before 6.14: the ioctl takes the lock first, certificate pages are shared once, at probe."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.certs_data = 0

    def snp_msg_alloc(self) -> int:
        ret = super().snp_msg_alloc()
        if ret:
            return ret
        self.certs_data = self.alloc_shared_pages(FW_BLOB_MAX_SIZE // PAGE_SIZE)
        if not self.certs_data:
            super().snp_msg_free()
            return -ENOMEM
        return 0

    def snp_msg_free(self) -> None:
        self.free_shared_pages(self.certs_data)
        self.certs_data = 0
        super().snp_msg_free()

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        self.port.mutex_lock(SNP_CMD_MUTEX)
        told = super().get_report(data, vmpl)
        self.port.mutex_unlock(SNP_CMD_MUTEX)
        return told

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        self.port.mutex_lock(SNP_CMD_MUTEX)
        told = super().get_derived_key(fields, vmpl, svn, tcb)
        self.port.mutex_unlock(SNP_CMD_MUTEX)
        return told

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        self.port.mutex_lock(SNP_CMD_MUTEX)
        told = (-ENOTTY, NOT_ASKED, b"", b"", 0)
        if self.vmpck:
            told = super().get_ext_report(data, vmpl, certs_len, address)
        self.port.mutex_unlock(SNP_CMD_MUTEX)
        return told

    def snp_send_guest_request(self, req: GuestReq) -> tuple[int, bytes]:
        return self.exchange(req)

    def get_certs_pages(self, req: GuestReq, npages: int) -> int:
        self.port.shared_write(self.certs_data, bytes(npages * PAGE_SIZE))
        req.certs_data = self.certs_data
        return 0

    def put_certs_pages(self, req: GuestReq) -> None:
        pass


class Strict(LinuxGuest):
    """The guest driver in the strict reading: the resend's answer is checked too, and any doubt wipes the key."""

    profile = "upstream"
    WIPE_AFTER_FAILED_RESEND = True

    def conclude(self, req: GuestReq, ret: int, is_too_small: bool) -> tuple[int, bytes]:
        if ret:
            self.snp_disable_vmpck()
            return ret, b""
        ret, answer = self.verify_and_dec_payload(req)
        if ret:
            self.snp_disable_vmpck()
            return -EBADMSG, b""
        return (-EIO, b"") if is_too_small else (0, answer)


PEERS: dict[str, type[Any]] = {
    peer.__name__: peer
    for peer in (
        WholePages,
        ClearsResponse,
        ProbesResponse,
        KeepsMessage,
        Killable,
        LateOutput,
        Wipes,
        Older,
        Strict,
    )
}
