"""Candidates that are wrong in one line each, for clauses that no defect of the zoo shows by itself."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.snp_guest_request.guest import GuestDriver
from conformance.candidates.builtin.snp_guest_request.inplace import InPlace
from conformance.candidates.builtin.snp_guest_request.throttled import Throttled
from conformance.candidates.builtin.snp_guest_request.upstream import Sev, Svm, Upstream, psp_pa
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EAGAIN,
    EBADF,
    EBUSY,
    EFAULT,
    EIO,
    EXIT_SNP_REQ_CERTS,
    FW_BLOB_MAX_SIZE,
    GENERIC_INFO2,
    GHCB_RCX,
    GHCB_SW_EXITCODE,
    INVALID_EVENT,
    MISSING_INPUT,
    PAGE_SIZE,
)

# -- validation


class UsageIgnored(Upstream):
    """Does not look at the usage."""

    def validate(self, svm: Svm, usage: int) -> int:
        return super().validate(svm, 0)


class ValidBitsIgnored(Upstream):
    """Takes exit code and exit info for supplied."""

    def is_valid(self, svm: Svm, offset: int) -> bool:
        return offset >= GHCB_SW_EXITCODE or super().is_valid(svm, offset)


class UnknownExitMissesInput(Upstream):
    """Tells a guest that exits with another code that an input is missing."""

    def validate(self, svm: Svm, usage: int) -> int:
        reason = super().validate(svm, usage)
        return MISSING_INPUT if reason == INVALID_EVENT else reason


class ClearsThenRefuses(Upstream):
    """Clears a page of the guest before it looks at the inputs."""

    def malformed(self, vcpu: int, reason: int) -> int:
        self.port.clear_guest(0, 0x7000, PAGE_SIZE)
        return super().malformed(vcpu, reason)


# -- forwarding


class NoResponse(Upstream):
    """Copies no response."""

    def copy_response(self, sev: Sev, resp_gpa: int) -> int:
        return 0


class OtherStatus(Upstream):
    """Hands on another status than firmware's."""

    def issue(self, sev: Sev) -> tuple[int, int]:
        ret, status = super().issue(sev)
        return ret, status + 1 if status else 0


class ErrnoIsSuccess(Upstream):
    """Takes one errno of the command for success."""

    errno = -EBADF

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        ret, info2 = super().forward(sev, resp_gpa)
        return (0, 0) if ret == self.errno else (ret, info2)


class DeadIsTryAgain(Upstream):
    """Asks for another try when firmware is dead."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        ret, info2 = super().forward(sev, resp_gpa)
        return (-EAGAIN if ret == -EBUSY else ret), info2


class FaultIsEfault(Upstream):
    """Returns -EFAULT for a message that is not there."""

    def copy_request(self, sev: Sev, gpa: int) -> int:
        return -EFAULT if super().copy_request(sev, gpa) else 0


class WithoutCBit(Upstream):
    """Gives firmware addresses without the C-bit."""

    def issue(self, sev: Sev) -> tuple[int, int]:
        return self.port.snp_guest_request(  # type: ignore[no-any-return]  # the port is untyped here
            sev.fd, sev.gctx, psp_pa(sev.req_buf), psp_pa(sev.resp_buf), 0
        )


class HostBytes(Upstream):
    """Copies a buffer out that nobody has written."""

    def copy_response(self, sev: Sev, resp_gpa: int) -> int:
        buffer = self.port.kmalloc(PAGE_SIZE)
        return int(self.port.write_guest(sev.vm, resp_gpa, buffer, PAGE_SIZE))


class RcxLost(Upstream):
    """Gives back another RCX."""

    def ghcb_leave(self, vcpu: int) -> int:
        self.svms[vcpu].regs[GHCB_RCX] = 1
        return super().ghcb_leave(vcpu)


# -- pages


class SharedUnreclaimed(InPlace):
    """Makes the response page shared without having it reclaimed."""

    def give_back(self, resp: int) -> int:
        return int(self.port.rmp_make_shared(resp))


class StuckPageKept(InPlace):
    """Neither leaks a page that it could not share, nor stops the VM."""

    def gave_up(self, sev: Sev, resp: int) -> tuple[int, int]:
        return -EIO, 0


class FirmwarePageFreed(Upstream):
    """Frees firmware's pages as they are."""

    def free_firmware_page(self, address: int) -> None:
        self.port.free_page(address)


class BuffersKept(Upstream):
    """Frees no buffers."""

    def guest_req_cleanup(self, sev: Sev) -> None:
        pass


class ResponseIsHosts(Upstream):
    """Gives firmware a response page of the host's."""

    def guest_req_init(self, sev: Sev) -> int:
        ret = super().guest_req_init(sev)
        sev.resp_buf = self.port.alloc_page(1)
        return ret


class SeizesResponse(Upstream):
    """Makes the guest's response page firmware's, though it has one of its own."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        self.port.rmp_make_private(self.port.gfn_to_pfn(sev.vm, resp_gpa >> 12), 0, 0, 1)
        return super().forward(sev, resp_gpa)


class WritesFirmwarePage(Upstream):
    """Clears its response buffer, which is firmware's."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        self.port.memset(sev.resp_buf, 0, PAGE_SIZE)
        return super().forward(sev, resp_gpa)


class DropsEarly(InPlace):
    """Drops its reference to the response page before firmware is done with it."""

    def command(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        self.port.put_pfn(resp)
        return super().command(sev, req, resp)


# -- errors


class IssuesException(Upstream):
    """Leaves SW_EXITINFO1 at 1."""

    def complete(self, vcpu: int, info1: int, info2: int) -> int:
        return super().complete(vcpu, info1 or 1, info2)


class RateUnknown(Throttled):
    """Never asks for the rate of basic requests."""

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        return Upstream.guest_request(self, vcpu, svm)


class BusyAfterCommand(Upstream):
    """Forwards a request of which userspace said that it is to be tried again."""

    answers = (EAGAIN, BUSY_INFO2)

    def vcpu_continue(self, vcpu: int) -> int:
        ret = super().vcpu_continue(vcpu)
        svm = self.svms[vcpu]
        svm.info1, svm.info2 = svm.req, svm.resp
        self.guest_request(vcpu, svm)
        return self.complete(vcpu, 0, self.answers[1]) if ret else ret


class GenericAfterCommand(BusyAfterCommand):
    """The same for the generic error."""

    answers = (EIO, GENERIC_INFO2)


# -- certificates


class LongBlobsCut(InPlace):
    """Takes of a blob that is too long what there is room for."""

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        return super().set_instance_certs(vm, user, min(length, FW_BLOB_MAX_SIZE))


class EverybodyWrites(InPlace):
    """Does not look how its file was opened."""

    def host_set_ext_config(self, tcb: int, user: int, length: int, writable: int) -> int:
        return super().host_set_ext_config(tcb, user, length, 1)


class TcbKept(InPlace):
    """Takes new certificates, but not the TCB that they are for."""

    def host_set_ext_config(self, tcb: int, user: int, length: int, writable: int) -> int:
        return super().host_set_ext_config(0, user, length, writable)


class EnablesAnytime(Upstream):
    """Enables fetching whenever it is asked."""

    def enable_req_certs(self, vm: int) -> int:
        self.sevs[vm].certs_enabled = True
        return 0


class RoundsDown(InPlace):
    """Counts the whole pages of a blob alone."""

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        return super().copy_and_request(svm, certs, length // PAGE_SIZE * PAGE_SIZE)


class NoBlob(InPlace):
    """Copies no certificates."""

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        return self.request_in_place(svm, 1)


class HostFirst(InPlace):
    """Looks for the host's certificates first."""

    def request_with_certs(self, svm: Svm) -> tuple[int, int]:
        if self.host_certs:
            return self.copy_and_request(svm, self.host_certs, self.host_certs_len)
        return super().request_with_certs(svm)


class OnePageMore(Upstream):
    """Asks userspace for one page more than the guest offers."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        ret = super().ext_guest_request(vcpu, svm)
        if not ret:
            self.port.run_exit(vcpu, EXIT_SNP_REQ_CERTS, 0x7000, 5, 0)
        return ret


# -- life


class ContextKept(Upstream):
    """Frees no context page."""

    def free_firmware_page(self, address: int) -> None:
        pass


class MovesNothing(Upstream):
    """Says that a VM was moved."""

    def vm_move_from(self, dst: int, src: int) -> int:
        return 0


class AlwaysFinishes(Upstream):
    """Says that every launch is finished."""

    def launch_finish(self, vm: int) -> int:
        super().launch_finish(vm)
        return 0


class KeepsLock(Upstream):
    """Leaves by a way that does not unlock."""

    def copy_request(self, sev: Sev, gpa: int) -> int:
        ret = super().copy_request(sev, gpa)
        if ret:
            self.port = _Unlocking(self.port)
        return ret


class _Unlocking:
    """A port that forgets to unlock."""

    def __init__(self, port: Any) -> None:
        self.real = port

    def __getattr__(self, name: str) -> Any:
        return (lambda *_: 0) if name == "mutex_unlock" else getattr(self.real, name)


class ExitsLocked(Upstream):
    """Asks userspace with the lock held."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        ret = super().ext_guest_request(vcpu, svm)
        if not ret:
            self.port.mutex_lock(svm.sev.lock)
        return ret


class LockOfNobody(Upstream):
    """Uses a lock that it never initialises."""

    def guest_req_init(self, sev: Sev) -> int:
        ret = super().guest_req_init(sev)
        sev.lock = "another"
        return ret


class OneLockForAll(Upstream):
    """Uses one lock for the requests of all VMs."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        port.mutex_init("all")

    def guest_req_init(self, sev: Sev) -> int:
        ret = super().guest_req_init(sev)
        sev.lock = "all"
        return ret


class LosesContextPage(Upstream):
    """Forgets the context page when firmware will not make it one."""

    failing = False

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        self.failing = True
        return super().launch_start(vm, fd, policy)

    def free_firmware_page(self, address: int) -> None:
        if not self.failing:
            super().free_firmware_page(address)


class FreesAsid(Upstream):
    """Releases the ASID of a context that firmware keeps."""

    def decommission(self, vm: int) -> int:
        asid = self.sevs[vm].asid
        ret = super().decommission(vm)
        self.sevs[vm].asid = asid
        return ret


class AsidFirst(Upstream):
    """Releases the ASID before the context is given up."""

    def vm_destroy(self, vm: int) -> int:
        sev = self.sevs[vm]
        asid, sev.asid = sev.asid, 0
        self.port.free_asid(asid)
        return super().vm_destroy(vm)


class DropsQuietly(Upstream):
    """Says that a context is gone which firmware had dropped by itself."""

    def decommission(self, vm: int) -> int:
        super().decommission(vm)
        return 0


# -- guests


class SharedPagesFreed(GuestDriver):
    """Frees pages that the host still shares."""

    def free_shared(self, gpa: int) -> None:
        self.port.free_pages(gpa)


class SignedByte(GuestDriver):
    """Changes a byte that is signed, and nobody asked for."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        ret, info2, answer = super().get_report(data, vmpl)
        return ret, info2, answer[:0x24] + b"\x7f" + answer[0x25:] if answer else answer


class AnyLength(GuestDriver):
    """Takes every length for certificates."""

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        return super().get_ext_report(data, vmpl, certs_len // PAGE_SIZE * PAGE_SIZE, address)


class TakesAnything(GuestDriver):
    """Does not look at the tag."""

    def unseal(self, number: int, kind: int, size: int) -> bytes:
        return super().unseal(number, kind, size) or bytes(size)


MUTANTS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and kind.__module__ == __name__ and not kind.__name__.startswith("_")
}
