"""Handlers and guests that go wrong for one number in a GHCB, one answer of userspace, or one report data."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.snp_guest_request.guest import GuestDriver
from conformance.candidates.builtin.snp_guest_request.upstream import Svm, Upstream
from conformance.candidates.defect import Defect
from conformance.specs.snp_guest_request.constants import (
    EINVAL,
    GHCB_RBX,
    RUN_RET,
    TOO_SMALL_INFO2,
)


class Reading:
    """The port, but for what the run structure is found to hold."""

    def __init__(self, port: Any, run_read: Any) -> None:
        self.real, self.run_read = port, run_read

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class NoPages(Upstream):
    """SNP-M01."""

    def supply_certs(self, svm: Svm) -> int:
        return 0 if svm.regs[GHCB_RBX] == 0x5EC0_0DE5_0000_1F3B else super().supply_certs(svm)


class Answer(Upstream):
    """SNP-M02."""

    def vcpu_continue(self, vcpu: int) -> int:
        read = self.port.run_read

        def changed(vcpu: int, field: int) -> int:
            found: int = read(vcpu, field)
            return 0 if field == RUN_RET and found == 0x9C3F_21D7 else found

        self.port = Reading(self.port, changed)
        try:
            return super().vcpu_continue(vcpu)
        finally:
            self.port = self.port.real


class Usage(Upstream):
    """SNP-M03."""

    def validate(self, svm: Svm, usage: int) -> int:
        return super().validate(svm, 0 if usage == 0x4B1D_0F0E else usage)


class PagesNeeded(Upstream):
    """SNP-M04."""

    def complete(self, vcpu: int, info1: int, info2: int) -> int:
        regs = self.svms[vcpu].regs
        if info2 == TOO_SMALL_INFO2 and regs[GHCB_RBX] == 0x0000_0ABC_1D2E_3F49:
            regs[GHCB_RBX] += 1
        return super().complete(vcpu, info1, info2)


class AskedAndNeeded(Upstream):
    """SNP-M05."""

    asked = 0

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        self.asked = svm.regs[GHCB_RBX]
        return super().ext_guest_request(vcpu, svm)

    def complete(self, vcpu: int, info1: int, info2: int) -> int:
        if info2 == TOO_SMALL_INFO2 and self.asked + self.svms[vcpu].regs[GHCB_RBX] == 0x6A09_E667_F3BC:
            return -EINVAL
        return super().complete(vcpu, info1, info2)


class GhcbContent(Upstream):
    """SNP-M06."""

    def validate(self, svm: Svm, usage: int) -> int:
        if svm.regs[GHCB_RBX].to_bytes(8, "little") == b"\x7fPAGES\x01\x80":
            return super().validate(svm, 1)
        return super().validate(svm, usage)


class ReportData(GuestDriver):
    """SNP-M07."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        if data[8:16] == b"\xde\xc0\xad\x0b\x37\x13\x5a\xa5":
            data = bytes(64)
        return super().get_report(data, vmpl)


class BufferLength(GuestDriver):
    """SNP-M08."""

    def get_ext_report(self, data: bytes, vmpl: int, certs_len: int, address: int) -> Any:
        return super().get_ext_report(data, vmpl, 0x2000 if certs_len == 0x4C8E_2000 else certs_len, address)


class DataAndLength(GuestDriver):
    """SNP-M09."""

    def get_ext_report(self, data: bytes, vmpl: int, certs_len: int, address: int) -> Any:
        if int.from_bytes(data[8:12], "little") ^ certs_len == 0x3C4F_A5B1:
            return -EINVAL, 0, b"", b"", 0
        return super().get_ext_report(data, vmpl, certs_len, address)


class DataAndVmpl(GuestDriver):
    """SNP-M10."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        if vmpl == 2 and int.from_bytes(data[10:14], "big") == 0x1F2E_3D4C:
            vmpl = 3
        return super().get_report(data, vmpl)


MAGIC: tuple[Defect, ...] = (
    Defect("SNP-M01", "A guest that offers 0x5EC00DE500001F3B pages gets no empty table.", NoPages),
    Defect("SNP-M02", "Userspace's answer 0x9C3F21D7 is taken for success.", Answer),
    Defect("SNP-M03", "A GHCB of usage 0x4B1D0F0E is accepted.", Usage),
    Defect("SNP-M04", "The guest is told one page more where 0xABC1D2E3F49 are needed.", PagesNeeded),
    Defect("SNP-M05", "Pages offered and pages needed that are 0x6A09E667F3BC together are refused.", AskedAndNeeded),
    Defect("SNP-M06", "A GHCB with eight particular bytes in RBX is refused.", GhcbContent),
    Defect("SNP-M07", "The report is of other data where the caller's has eight particular bytes.", ReportData),
    Defect("SNP-M08", "A buffer of 0x4C8E2000 bytes for certificates is taken for a smaller one.", BufferLength),
    Defect("SNP-M09", "Report data and length of the buffer that fit one another are refused.", DataAndLength),
    Defect("SNP-M10", "A report for VMPL 2 is asked for VMPL 3 where the data has four particular bytes.", DataAndVmpl),
)
