"""The zoo of snp_guest_request: handlers and drivers that are right but for one known defect.

SNP-D… are those of the posted design (RFC v7 and v8), SNP-U… of later revisions and of merged code,
SNP-G… of guest drivers; SNP-V… break a clause in a way that no posted code did. Each lives in the correct
design in which it can be told apart.
"""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.snp_guest_request import GuestDriver, InPlace, Upstream
from conformance.candidates.builtin.snp_guest_request.kvm import CERT_ENTRY_SIZE, Sev, Svm, psp_pa
from conformance.candidates.builtin.snp_guest_request.posted import Store
from conformance.candidates.defect import Defect
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EFAULT,
    EINVAL,
    EIO,
    ENODEV,
    ENOMEM,
    ENOTTY,
    ETIMEDOUT,
    FW_BLOB_MAX_SIZE,
    GENERIC_INFO2,
    GHCB_RAX,
    GHCB_RBX,
    GHCB_SW_EXITCODE,
    HEADER_SIZE,
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

WORD = 2**64 - 1

# -- the posted design


class StackBytesReachGuest(Upstream):
    """Returns the status variable, which a command that was not delivered never wrote."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        ret, status = self.command(sev) if sev.gctx else (-EINVAL, 0)
        if ret:
            return 0, status & 0xFFFFFFFF
        return self.copy_response(sev, resp_gpa), 0

    def command(self, sev: Sev) -> tuple[int, int]:
        return self.port.snp_guest_request(  # type: ignore[no-any-return]  # the port is untyped here
            sev.fd, psp_pa(sev.gctx), psp_pa(sev.req_buf), psp_pa(sev.resp_buf), UNINITIALISED
        )


class TimeoutIsSuccess(Upstream):
    """Copies the status 0 that the driver stores when a command times out."""

    def issue(self, sev: Sev) -> tuple[int, int]:
        ret, status = super().issue(sev)
        return (0 if ret == -ETIMEDOUT else ret), status


class NegativeStatusWidened(Upstream):
    """Keeps -1 for `no command reached firmware` in an int, and widens it to 64 bits."""

    def issue(self, sev: Sev) -> tuple[int, int]:
        ret, status = super().issue(sev)
        return ret, WORD if ret and not status else status


class HighHalfGarbage(InPlace):
    """In the extended path the status is a 64-bit variable of which firmware's driver writes the low half."""

    initial = 0

    def request_with_certs(self, svm: Svm) -> tuple[int, int]:
        self.initial = UNINITIALISED
        try:
            return super().request_with_certs(svm)
        finally:
            self.initial = 0

    def command(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        ret, status = self.port.snp_guest_request(
            sev.fd, psp_pa(sev.gctx), psp_pa(req << 12), psp_pa(resp << 12), self.initial
        )
        return ret, status if ret == -EIO else 0


class StatusWrittenToPointer(HighHalfGarbage):
    """Passes the address of the pointer: the status variable itself is never written."""

    def command(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        ret, status = self.port.snp_guest_request(sev.fd, psp_pa(sev.gctx), psp_pa(req << 12), psp_pa(resp << 12), 0)
        return ret, (self.initial or status) if ret else 0


class EarlyFailureLeavesStatus(HighHalfGarbage):
    """In the extended path a missing device or platform returns before the status is set."""

    def command(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        ret, status = self.port.snp_guest_request(
            sev.fd, psp_pa(sev.gctx), psp_pa(req << 12), psp_pa(resp << 12), self.initial
        )
        return ret, status if ret in (-ENODEV, -EINVAL) else status & 0xFFFFFFFF if ret == -EIO else 0


class FaultsInLowHalf(Upstream):
    """Tells the guest of its own mistakes with firmware statuses."""

    def malformed(self, vcpu: int, reason: int) -> int:
        return self.complete(vcpu, 0, INVALID_PARAM)


class DataFaultIsInvalidAddress(Upstream):
    """A misaligned data page gives INVALID_ADDRESS where other pages are malformed."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        valid = self.is_valid(svm, GHCB_RAX) and self.is_valid(svm, GHCB_RBX)
        if (
            valid
            and svm.regs[GHCB_RAX] % PAGE_SIZE
            and self.port.read_guest(svm.sev.vm, svm.info1, svm.sev.req_buf, 64) == 0
        ):
            if self.wants_certs(svm.sev):
                return self.complete(vcpu, 0, INVALID_ADDRESS)
        return super().ext_guest_request(vcpu, svm)


class OtherVmsAnswered(Upstream):
    """The validator lets VMs that are not SNP pass; the handler answers INVALID_GUEST."""

    def validate_request(self, svm: Svm) -> int:
        return super().validate_request(svm) if self.is_snp(svm.sev) else 0

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        return super().guest_request(vcpu, svm) if self.is_snp(svm.sev) else self.complete(vcpu, 0, INVALID_GUEST)

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        return super().ext_guest_request(vcpu, svm) if self.is_snp(svm.sev) else self.complete(vcpu, 0, INVALID_GUEST)


class ReferencesKept(InPlace):
    """Never drops the references that translating the guest's addresses took."""

    def __init__(self, port: Any) -> None:
        super().__init__(_WithoutPut(port))


class _WithoutPut:
    """The port, with put_pfn forgotten."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return (lambda _pfn: 0) if name == "put_pfn" else getattr(self._port, name)


class SamePageTwice(Upstream):
    """Takes equal request and response pages."""

    def validate_request(self, svm: Svm) -> int:
        info2 = svm.info2
        svm.info2 += PAGE_SIZE if svm.info1 == svm.info2 else 0
        reason = super().validate_request(svm)
        svm.info2 = info2
        return reason


class ResponseMayBeGhcb(InPlace):
    """Gives firmware a GHCB as the response page."""

    def is_ghcb(self, svm: Svm) -> bool:
        return False


class ResponseMayBeOtherGhcb(InPlace):
    """Compares the response page with the GHCB of this vCPU only."""

    def is_ghcb(self, svm: Svm) -> bool:
        return svm.registered == svm.info2


class CertsIntoResponsePage(InPlace):
    """Copies the certificates while the response page, which may be the same, is still firmware's."""

    svm: Svm | None = None
    blob = (0, 0)

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        npages = svm.regs[GHCB_RBX]
        if npages < -(-length // PAGE_SIZE):
            return super().copy_and_request(svm, certs, length)
        self.svm, self.blob = svm, (certs, length)
        result = self.request_in_place(svm, 0)
        self.svm = None
        return result

    def command(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        ret, status = super().command(sev, req, resp)
        if self.svm is not None and not ret:
            gpa, (certs, length) = self.svm.regs[GHCB_RAX], self.blob
            if certs:
                failed = self.port.write_guest(sev.vm, gpa, certs, -(-length // PAGE_SIZE) * PAGE_SIZE)
            else:
                failed = self.svm.regs[GHCB_RBX] and self.port.clear_guest(sev.vm, gpa, CERT_ENTRY_SIZE)
            ret = -EIO if failed else 0
        return ret, status


class GuestPageSeized(InPlace):
    """Makes whatever page the guest names firmware's, its private ones too."""

    def may_take(self, resp: int) -> bool:
        return True


class RmpUpdateAfterFailedReclaim(InPlace):
    """Goes on to RMPUPDATE after a failed reclaim, and neither leaks the page nor stops the VM."""

    def give_back(self, resp: int) -> int:
        self.port.snp_page_reclaim(resp)
        self.port.rmp_make_shared(resp)
        return 0


class CleanupOverwritesResult(InPlace):
    """Reports a failed cleanup as INVALID_ADDRESS, over whatever the command came to."""

    def gave_up(self, sev: Sev, resp: int) -> tuple[int, int]:
        super().gave_up(sev, resp)
        return 0, INVALID_ADDRESS


class ExtendedIgnoresFd(Upstream):
    """The extended path calls the firmware driver directly, past the VM's fd."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        fd, svm.sev.fd = svm.sev.fd, NO_FD
        ret = super().ext_guest_request(vcpu, svm)
        svm.sev.fd = fd
        return ret


class MissingRegistersAreZero(Upstream):
    """Takes registers whose valid bit is clear for 0."""

    def validate_data(self, svm: Svm) -> int:
        svm.valid |= 1 << GHCB_RAX // 8 | 1 << GHCB_RBX // 8
        return super().validate_data(svm)


class CertsForEveryType(Upstream):
    """Supplies certificates whatever the message asks for."""

    def wants_certs(self, sev: Sev) -> bool:
        return True


class CertsAfterCommand(CertsIntoResponsePage):
    """Finds out that the data pages cannot be written after firmware has used the number up."""

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        if self.overlaps(svm, svm.regs[GHCB_RAX], 4):
            return InPlace.copy_and_request(self, svm, certs, length)
        return super().copy_and_request(svm, certs, length)


class NoTerminator(Upstream):
    """Writes nothing where there are no certificates."""

    def supply_certs(self, svm: Svm) -> int:
        return 0


class TooSmallAfterTransition(InPlace):
    """Sees that the data buffer is too small when the response page is firmware's already."""

    needed = 0

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        self.needed = -(-length // PAGE_SIZE)
        if svm.regs[GHCB_RBX] >= self.needed:
            self.needed = 0
            return super().copy_and_request(svm, certs, length)
        ret, _ = self.request_in_place(svm, 0)
        svm.regs[GHCB_RBX], self.needed = self.needed, 0
        return (ret, 0) if ret else (0, TOO_SMALL_INFO2)

    def command(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        return (0, 0) if self.needed else super().command(sev, req, resp)


class CertsPointerKept(InPlace):
    """Frees the certificates with the context and keeps the pointer."""

    def drop_certs(self, sev: Sev) -> None:
        assert isinstance(sev, Store)
        self.port.kfree(sev.certs)


class SecondContext(InPlace):
    """A second LAUNCH_START replaces the context."""

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        gctx, self.sevs[vm].gctx = self.sevs[vm].gctx, 0
        ret = super().launch_start(vm, fd, policy)
        self.sevs[vm].gctx = self.sevs[vm].gctx or gctx
        return ret


class NoContextCheck(Upstream):
    """Forwards without a context."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        ret, status = self.issue(sev)
        if ret and not status:
            return ret, 0
        return (0, status) if status else (self.copy_response(sev, resp_gpa), 0)


class MoveWithoutLock(InPlace):
    """A VM that was moved here has an uninitialised lock."""

    def adopt_lock(self, target: Sev) -> None:
        pass


class FourPagesAtMost(InPlace):
    """Refuses data buffers of more than 4 pages, and shifts their size out of 64 bits before it looks."""

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        if svm.regs[GHCB_RBX] * PAGE_SIZE & WORD > FW_BLOB_MAX_SIZE:
            return 0, INVALID_PARAM
        return super().copy_and_request(svm, certs, length)


class SizeShiftedAway(InPlace):
    """Compares sizes in bytes, after a shift that overflows."""

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        if svm.regs[GHCB_RBX] * PAGE_SIZE & WORD < length:
            svm.regs[GHCB_RBX] = -(-length // PAGE_SIZE)
            return 0, TOO_SMALL_INFO2
        return super().copy_and_request(svm, certs, length)


class LiveBuffer(InPlace):
    """Base of two: the certificates live in one buffer of full size that SET writes to."""

    rounds = True
    in_order = True

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        port, sev = self.port, self.sevs[vm]
        assert isinstance(sev, Store)
        if sev.kind != SNP or not sev.gctx or not length or length > FW_BLOB_MAX_SIZE or not sev.certs:
            ret = super().set_instance_certs(vm, user, min(length, FW_BLOB_MAX_SIZE + 1))
            return ret if ret or not length else self.grow(sev)
        return self.overwrite(port, sev, user, length)

    def grow(self, sev: Store) -> int:
        """Replace the exact buffer by one of full size."""
        whole = self.port.kzalloc(FW_BLOB_MAX_SIZE)
        if whole:
            self.port.memcpy(whole, sev.certs, -(-sev.certs_len // PAGE_SIZE) * PAGE_SIZE)
            self.port.kfree(sev.certs)
            sev.certs = whole
        return 0

    def overwrite(self, port: Any, sev: Store, user: int, length: int) -> int:
        raise NotImplementedError


class RoundedLength(LiveBuffer):
    """Rounds the length up to pages and replaces only the bytes it was given."""

    def overwrite(self, port: Any, sev: Store, user: int, length: int) -> int:
        fresh = port.kzalloc(FW_BLOB_MAX_SIZE)
        if not fresh:
            return -12
        port.memcpy(fresh, sev.certs, sev.certs_len)
        if port.copy_from_user(fresh, user, length):
            port.kfree(fresh)
            return -EFAULT
        port.mutex_lock(sev.lock)
        old, sev.certs, sev.certs_len = sev.certs, fresh, -(-length // PAGE_SIZE) * PAGE_SIZE
        port.mutex_unlock(sev.lock)
        port.kfree(old)
        return 0


class CopiesIntoLiveBuffer(LiveBuffer):
    """Copies user memory into the buffer that requests read, under no lock that they take."""

    def overwrite(self, port: Any, sev: Store, user: int, length: int) -> int:
        if port.copy_from_user(sev.certs, user, length):
            return -EFAULT
        whole = -(-length // PAGE_SIZE) * PAGE_SIZE
        if whole > length:
            port.memset(sev.certs + length, 0, whole - length)
        sev.certs_len = length
        return 0


class LocksInverted(InPlace):
    """The host's SET takes the certificate lock under the firmware mailbox's, requests the other way round."""

    def host_set_ext_config(self, tcb: int, user: int, length: int, writable: int) -> int:
        self.port.mutex_lock(SEV_CMD_MUTEX)
        ret = super().host_set_ext_config(tcb, user, length, writable)
        self.port.mutex_unlock(SEV_CMD_MUTEX)
        return ret


class ShutdownKeepsLength(InPlace):
    """Shutting SNP down frees the blob outside its lock and keeps the length."""

    def snp_shutdown(self) -> int:
        certs, self.host_certs = self.host_certs, 0
        self.port.kfree(certs)
        return 0


class TcbFirst(InPlace):
    """The host's SET changes firmware's TCB, and the certificates only later."""

    def host_set_ext_config(self, tcb: int, user: int, length: int, writable: int) -> int:
        early = writable and tcb and (not user or (length and length % PAGE_SIZE == 0))
        if early and self.port.snp_config(tcb):
            return -EIO
        return super().host_set_ext_config(0 if early else tcb, user, length, writable)


class BufferNotZeroed(InPlace):
    """The certificate buffer comes from an allocator that does not zero, and a page is lost on the way."""

    def __init__(self, port: Any) -> None:
        super().__init__(_WithoutZeroing(port))

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        lost = self.port.alloc_page(1) if not self.sevs[vm].gctx else 0
        ret = super().launch_start(vm, fd, policy)
        if ret and lost:
            self.port.free_page(lost)
        return ret


class _WithoutZeroing:
    """The port, with kmalloc where kzalloc was meant."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, "kmalloc" if name == "kzalloc" else name)


class Unkillable(Upstream):
    """Waits uninterruptibly for a lock that is held while firmware works."""

    def __init__(self, port: Any) -> None:
        super().__init__(_Unkillable(port))


class _Unkillable:
    """The port, with mutex_lock for every lock."""

    def __init__(self, port: Any) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, "mutex_lock" if name == "mutex_lock_killable" else name)


# -- later revisions


class SetupFailureIsSuccess(Upstream):
    """In the extended path a failure before the command sets one variable, and the other is written."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        ret = super().ext_guest_request(vcpu, svm)
        return self.complete(vcpu, 0, 0) if ret == -EIO else ret


class ExtendedStatusUnset(Upstream):
    """Only the basic path makes an error of a status that is 0."""

    extended = False

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        self.extended = True
        ret = super().ext_guest_request(vcpu, svm)
        self.extended = False
        return ret

    def issue(self, sev: Sev) -> tuple[int, int]:
        ret, status = super().issue(sev)
        return (0 if self.extended and not status else ret), status


class NoLock(InPlace):
    """Two vCPUs may use the same response page at the same time."""

    def locked_request(self, vcpu: int, svm: Svm, *, extended: bool) -> int:
        svm.sev = _Relocked(svm.sev, f"vcpu{vcpu}.private")
        ret = super().locked_request(vcpu, svm, extended=extended)
        svm.sev = svm.sev.inner
        return ret

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        for vcpu in range(3):
            port.mutex_init(f"vcpu{vcpu}.private")


class _Relocked(Store):
    """A VM as one vCPU sees it, with a lock of its own."""

    def __init__(self, inner: Sev, lock: str) -> None:
        self.__dict__["inner"] = inner
        self.__dict__["lock"] = lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


class GenericErrorToo(Upstream):
    """Marks every firmware status as a generic error of the hypervisor too."""

    def issue(self, sev: Sev) -> tuple[int, int]:
        ret, status = super().issue(sev)
        return ret, status | 1 << 63 if status else 0


class ErrorSkipsCleanup(InPlace):
    """Returns early when firmware refuses, and leaves the page firmware's."""

    status = 0

    def command(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        ret, self.status = super().command(sev, req, resp)
        return ret, self.status

    def give_back(self, resp: int) -> int:
        return 0 if self.status else super().give_back(resp)


class GuestGoesOnWithoutPage(InPlace):
    """Leaks the page that was not reclaimed, and tells the guest of a hypervisor error."""

    def gave_up(self, sev: Sev, resp: int) -> tuple[int, int]:
        self.port.leak_page(resp)
        return 0, GENERIC_INFO2


class InitFailureIsSuccess(Upstream):
    """Returns 0 when the request buffers cannot be had."""

    def sev_init(self, vm: int) -> int:
        super().sev_init(vm)
        return 0


class ContextBeforeChecks(Upstream):
    """Creates the guest context before the inputs are looked at."""

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        if not policy >> 17 & 1:
            self.port.alloc_fw_page()
        return super().launch_start(vm, fd, policy)


class OldResponseCopied(Upstream):
    """Copies the whole response buffer to the guest after a firmware error too."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        ret, status = super().forward(sev, resp_gpa)
        if status:
            ret = self.copy_response(sev, resp_gpa)
        return ret, status


class TypeReadTwice(Upstream):
    """Reads MSG_TYPE for its decision, and the page once more to forward it."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        ret = self.copy_request(sev, self.gpa)
        return (ret, 0) if ret else super().forward(sev, resp_gpa)

    gpa = 0

    def copy_request(self, sev: Sev, gpa: int) -> int:
        self.gpa = gpa
        return super().copy_request(sev, gpa)


class UnknownRetToGuest(Upstream):
    """Tells the guest of a generic error whatever userspace answers."""

    def vcpu_continue(self, vcpu: int) -> int:
        ret = super().vcpu_continue(vcpu)
        return self.complete(vcpu, 0, GENERIC_INFO2) if ret == -EINVAL and self.svms[vcpu].sev.gctx else ret


class PanicOnExtended(Upstream):
    """Answers an extended request by copying 8 bytes where 16 are wanted, and dies of it."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        raise ValueError("source slice length (8) does not match destination slice length (16)")


class DecommissionMustNotFail(Upstream):
    """Takes a failing decommission for impossible, though a guest can bring it about."""

    def decommission(self, vm: int) -> int:
        ret = super().decommission(vm)
        if ret:
            raise RuntimeError("WARN_ON with panic_on_warn")
        return ret


# -- guest drivers


class ErrorKeepsNumber(GuestDriver):
    """After an error neither counts nor wipes: the next message has the same number."""

    def wipe(self) -> None:
        pass


class TooSmallReturnsZero(GuestDriver):
    """Returns 0 where the data buffer was too small."""

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        ret, info2, answer, certs, needed = super().get_ext_report(data, vmpl, certs_len, address)
        return (0 if needed else ret), info2, answer, certs, needed


class BusyIsFatal(GuestDriver):
    """Takes BUSY for an error like any other."""

    def send(self, code: int, npages: int) -> tuple[int, int, int]:
        info1, info2, rbx = super().send(code, npages)
        return info1, GENERIC_INFO2 if info2 == 2 << 32 else info2, rbx


class PagesOutsideLock(GuestDriver):
    """Prepares the certificate pages before it takes the lock."""

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        if address and certs_len and certs_len % PAGE_SIZE == 0 and certs_len <= FW_BLOB_MAX_SIZE:
            self.port.shared_write(self.certs, bytes(certs_len))
        return super().get_ext_report(data, vmpl, certs_len, address)


class ErrorValueUnset(GuestDriver):
    """Copies an error value back to the caller that only firmware errors set."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        ret, info2, answer = super().get_report(data, vmpl)
        return ret, UNINITIALISED if ret and not info2 else info2, answer


class OwnCounter(GuestDriver):
    """Counts in its own memory, from 0 whenever it is loaded."""

    def open(self, vmpck: int) -> int:
        self.counted = 0
        return super().open(vmpck)

    def stored(self) -> int:
        return self.counted

    def count_exchange(self) -> None:
        self.counted += 2


# -- breaches of a clause that nobody has posted


class AnyGhcbOfTheVm(Upstream):
    """Takes an exit through whatever page a vCPU of the VM has registered."""

    def ghcb_register(self, vcpu: int, gpa: int) -> int:
        for svm in self.svms.values():
            if svm.sev is self.svms[vcpu].sev:
                svm.others = (*getattr(svm, "others", ()), gpa)  # type: ignore[attr-defined]  # this defect's own
        return super().ghcb_register(vcpu, gpa)

    def vmgexit(self, vcpu: int, gpa: int) -> int:
        svm = self.svms[vcpu]
        registered = svm.registered
        svm.registered = gpa if gpa in getattr(svm, "others", ()) else registered
        ret = super().vmgexit(vcpu, gpa)
        svm.registered = registered
        return ret


class CodeFetchedAgain(Upstream):
    """Checks the exit code it has fetched, and fetches it once more to choose the handler."""

    def validate(self, svm: Svm, usage: int) -> int:
        reason = super().validate(svm, usage)
        if not reason:
            vcpu = next(number for number, other in self.svms.items() if other is svm)
            svm.code = self.port.ghcb_read(vcpu, GHCB_SW_EXITCODE, 8)
        return reason


class RequestInTwoPieces(Upstream):
    """Reads the header of the message, and then the rest of its page."""

    def copy_request(self, sev: Sev, gpa: int) -> int:
        read, half = self.port.read_guest, HEADER_SIZE
        ret = read(sev.vm, gpa, sev.req_buf, half) or read(sev.vm, gpa + half, sev.req_buf + half, PAGE_SIZE - half)
        return -EIO if ret else 0


class FetchingOutlivesVm(Upstream):
    """Notes by the number of the VM that certificates are fetched, and never forgets it."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.fetching: set[int] = set()

    def enable_req_certs(self, vm: int) -> int:
        ret = super().enable_req_certs(vm)
        if not ret:
            self.fetching.add(vm)
        return ret

    def asks_userspace(self, sev: Sev) -> bool:
        return sev.vm in self.fetching


class StatusOfTheVm(Upstream):
    """Keeps the status in the VM, where it is read once the lock is free."""

    def complete(self, vcpu: int, info1: int, info2: int) -> int:
        sev = self.svms[vcpu].sev
        return super().complete(vcpu, info1, info2 if info1 or info2 >> 32 else getattr(sev, "status", info2))

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        ret, status = super().forward(sev, resp_gpa)
        sev.status = status  # type: ignore[attr-defined]  # this defect's own
        return ret, status


class ContinuesUnlocked(Upstream):
    """Takes the lock for a request, but not when it goes on after userspace."""

    continuing = False

    def vcpu_continue(self, vcpu: int) -> int:
        self.continuing = True
        try:
            return super().vcpu_continue(vcpu)
        finally:
            self.continuing = False

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        if not self.continuing:
            return super().guest_request(vcpu, svm)
        self.continuing = False
        ret = self.copy_request(svm.sev, svm.info1)
        ret, info2 = (ret, 0) if ret else self.forward(svm.sev, svm.info2)
        return ret or self.complete(vcpu, 0, info2)


class HalfPagesPass(Upstream):
    """Masks one bit too few when it looks for misaligned pages."""

    def validate_request(self, svm: Svm) -> int:
        info1, info2 = svm.info1, svm.info2
        svm.info1, svm.info2 = info1 & ~0x800, info2 & ~0x800
        reason = super().validate_request(svm)
        svm.info1, svm.info2 = info1, info2
        return reason


class LengthAfterUnlock(InPlace):
    """Exchanges the certificates under the lock, and notes their length when it is free again."""

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        port, sev = self.port, self.sevs[vm]
        assert isinstance(sev, Store)
        if sev.kind != SNP or not sev.gctx or not 0 < length <= FW_BLOB_MAX_SIZE:
            return super().set_instance_certs(vm, user, length)
        new = port.kzalloc(-(-length // PAGE_SIZE) * PAGE_SIZE)
        if not new:
            return -ENOMEM
        if port.copy_from_user(new, user, length):
            port.kfree(new)
            return -EFAULT
        port.mutex_lock(sev.lock)
        old, sev.certs = sev.certs, new
        port.mutex_unlock(sev.lock)
        sev.certs_len = length
        port.kfree(old)
        return 0


class KeySeenBeforeLock(GuestDriver):
    """Looks whether the key is wiped before it takes the lock."""

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        if self.is_disabled():
            return -ENOTTY, 0, b""
        self.looked = True
        result = super().get_derived_key(fields, vmpl, svn, tcb)
        self.looked = False
        return result

    looked = False

    def is_disabled(self) -> bool:
        return False if self.looked else super().is_disabled()


class GivesUpEarly(GuestDriver):
    """Tries again for half the time that a host may say BUSY."""

    def send(self, code: int, npages: int) -> tuple[int, int, int]:
        started = self.port.now() if self.first else self.started
        self.started, self.first = started, False
        info1, info2, rbx = super().send(code, npages)
        busy = info1 == 0 and info2 == BUSY_INFO2
        late = busy and self.port.now() - started >= 30
        self.first = not busy or late
        return info1, GENERIC_INFO2 if late else info2, rbx

    first = True
    started = 0


DEFECTS: tuple[Defect, ...] = (
    Defect(
        "SNP-D01",
        "The status variable reaches the guest though no command wrote it.",
        StackBytesReachGuest,
        ("SNP-047", "SNP-019"),
        2,
    ),
    Defect("SNP-D02", "A timeout stores status 0, and the guest sees success.", TimeoutIsSuccess, ("SNP-020",), 1),
    Defect(
        "SNP-D03",
        "A negative status is widened and invents a hypervisor error.",
        NegativeStatusWidened,
        ("SNP-040",),
        2,
    ),
    Defect(
        "SNP-D04",
        "In the extended path firmware's driver writes half of the status variable.",
        HighHalfGarbage,
        ("SNP-047", "SNP-040"),
        1,
    ),
    Defect(
        "SNP-D05", "The status lands in the pointer, never in the variable.", StatusWrittenToPointer, ("SNP-047",), 1
    ),
    Defect(
        "SNP-D06",
        "Early failures of the extended path leave the status unset.",
        EarlyFailureLeavesStatus,
        ("SNP-047", "SNP-019"),
        1,
    ),
    Defect(
        "SNP-D07",
        "Faults that the hypervisor finds are told as firmware statuses.",
        FaultsInLowHalf,
        ("SNP-005", "SNP-040", "SNP-001", "SNP-002", "SNP-003", "SNP-006", "SNP-007", "SNP-008", "SNP-009", "SNP-013"),
        1,
        note="every malformed input shows it, and each has a clause of its own",
    ),
    Defect(
        "SNP-D08",
        "A misaligned data page has another code than misaligned others.",
        DataFaultIsInvalidAddress,
        ("SNP-009",),
        1,
    ),
    Defect("SNP-D09", "VMs that are not SNP are answered as if a command had run.", OtherVmsAnswered, ("SNP-001",), 1),
    Defect("SNP-D10", "References to guest pages are never dropped.", ReferencesKept, ("SNP-036",), 2),
    Defect("SNP-D11", "Equal request and response pages are processed.", SamePageTwice, ("SNP-007",), 1),
    Defect("SNP-D12", "The response page may be a GHCB.", ResponseMayBeGhcb, ("SNP-029", "SNP-034"), 1),
    Defect(
        "SNP-D13", "The response page may be another vCPU's GHCB.", ResponseMayBeOtherGhcb, ("SNP-029", "SNP-034"), 1
    ),
    Defect(
        "SNP-D14",
        "Certificates are copied while the response page, maybe the same, is firmware's.",
        CertsIntoResponsePage,
        ("SNP-029", "SNP-034", "SNP-052", "SNP-051"),
        2,
        note="copying after the command finds bad data pages too late, and copies nothing after a refusal",
    ),
    Defect("SNP-D15", "A guest's private page is seized.", GuestPageSeized, ("SNP-029",), 1),
    Defect(
        "SNP-D16",
        "RMPUPDATE follows a failed reclaim, and nothing is leaked.",
        RmpUpdateAfterFailedReclaim,
        ("SNP-031", "SNP-032", "SNP-033", "SNP-035", "SNP-046"),
        1,
        note="a page that could not be made shared is not leaked either",
    ),
    Defect(
        "SNP-D17",
        "A failed cleanup overwrites the result.",
        CleanupOverwritesResult,
        ("SNP-042", "SNP-032", "SNP-033"),
        1,
        note="the guest goes on after a failed cleanup, which its own clauses forbid",
    ),
    Defect("SNP-D18", "The extended path ignores the VM's fd.", ExtendedIgnoresFd, ("SNP-068",), 2),
    Defect("SNP-D19", "Missing registers count as 0.", MissingRegistersAreZero, ("SNP-008",), 1),
    Defect(
        "SNP-D20",
        "Certificates are returned for every message type.",
        CertsForEveryType,
        ("SNP-010", "SNP-064", "SNP-018", "SNP-017"),
        1,
        note="the pages written for it, or the exit, are seen at the answer to the basic request",
    ),
    Defect(
        "SNP-D21",
        "Certificates are copied after the command.",
        CertsAfterCommand,
        ("SNP-052", "SNP-044", "SNP-051"),
        2,
        note="nothing is copied after a refusal, not even the empty table",
    ),
    Defect(
        "SNP-D22",
        "Without certificates nothing is written.",
        NoTerminator,
        ("SNP-051", "SNP-052"),
        1,
        note="a data page that cannot be written is not found either",
    ),
    Defect(
        "SNP-D23",
        "Too small is found once the response page is firmware's.",
        TooSmallAfterTransition,
        ("SNP-039", "SNP-048"),
        2,
    ),
    Defect("SNP-D24", "Freed certificates stay reachable.", CertsPointerKept, ("SNP-072", "SNP-073", "SNP-056"), 3),
    Defect("SNP-D25", "A second LAUNCH_START replaces the context.", SecondContext, ("SNP-071",), 1),
    Defect("SNP-D26", "Requests are forwarded without a context.", NoContextCheck, ("SNP-025",), 2),
    Defect("SNP-D27", "A moved VM has an uninitialised lock.", MoveWithoutLock, ("SNP-067", "SNP-075"), 2),
    Defect(
        "SNP-D28",
        "Data buffers above 4 pages are refused, but for those that overflow.",
        FourPagesAtMost,
        ("SNP-014", "SNP-051", "SNP-044"),
        1,
        note="without certificates a large buffer is refused as well",
    ),
    Defect("SNP-D29", "A shift that overflows calls 2^52 pages too small.", SizeShiftedAway, ("SNP-014",), 2),
    Defect(
        "SNP-D30",
        "The length is rounded up, the bytes are not cleared.",
        RoundedLength,
        ("SNP-055", "SNP-050"),
        3,
        note="a running request shows the stale bytes as well as GET",
    ),
    Defect(
        "SNP-D31",
        "SET copies into the live buffer.",
        CopiesIntoLiveBuffer,
        ("SNP-054", "SNP-056", "SNP-050", "SNP-017"),
        3,
        note="a request that runs beside SET is handed new bytes with the old length, and its answer is judged whole",
    ),
    Defect("SNP-D32", "Mailbox and certificate locks are taken in both orders.", LocksInverted, ("SNP-059",), 2),
    Defect(
        "SNP-D33",
        "Shutdown keeps the length of the freed blob.",
        ShutdownKeepsLength,
        ("SNP-058", "SNP-051"),
        4,
        note="a request after it is told too small where there are no certificates",
    ),
    Defect("SNP-D34", "The TCB changes before the certificates do.", TcbFirst, ("SNP-060",), 2),
    Defect(
        "SNP-D35",
        "The certificate buffer is not zeroed, and a page is lost.",
        BufferNotZeroed,
        ("SNP-022", "SNP-070", "SNP-055", "SNP-072"),
        2,
        note="GET shows the uncleared tail too; the lost page is missed when the VM goes",
    ),
    Defect("SNP-D36", "The per-VM lock is waited for uninterruptibly.", Unkillable, ("SNP-078", "SNP-045"), 1),
    Defect(
        "SNP-D37",
        "16 KiB per VM are pinned even without certificates.",
        why_not="It costs memory but breaks no clause: no view shows how much a hypervisor keeps in reserve.",
    ),
    Defect(
        "SNP-U01",
        "A failed setup of an extended request is told as success.",
        SetupFailureIsSuccess,
        ("SNP-019", "SNP-021", "SNP-052"),
        1,
        note="a data page that cannot be written is such a failure",
    ),
    Defect(
        "SNP-U02",
        "Only the basic path makes an error of status 0.",
        ExtendedStatusUnset,
        ("SNP-020", "SNP-047", "SNP-019", "SNP-046", "SNP-068"),
        1,
        note="every command that was not delivered has status 0",
    ),
    Defect(
        "SNP-U03",
        "No lock keeps two vCPUs apart.",
        NoLock,
        ("SNP-065", "SNP-031", "SNP-029"),
        1,
        note="the second finds the page taken",
    ),
    Defect("SNP-U04", "A firmware status comes with a generic error.", GenericErrorToo, ("SNP-040",), 1),
    Defect("SNP-U05", "A firmware error skips the cleanup.", ErrorSkipsCleanup, ("SNP-030",), 1),
    Defect(
        "SNP-U06",
        "The guest goes on after a failed reclaim.",
        GuestGoesOnWithoutPage,
        ("SNP-032", "SNP-033", "SNP-042"),
        1,
        note="the same holds where making the page shared fails",
    ),
    Defect("SNP-U07", "A failed init returns 0.", InitFailureIsSuccess, ("SNP-069",), 2),
    Defect("SNP-U08", "Invalid LAUNCH_START inputs leak a context page.", ContextBeforeChecks, ("SNP-071",), 1),
    Defect(
        "SNP-U09",
        "Misaligned and equal pages answer MISSING_INPUT.",
        why_not="Merged KVM answers so and the specification follows it; to wish for another reason is no defect.",
    ),
    Defect("SNP-U10", "After a firmware error an older response is copied out.", OldResponseCopied, ("SNP-023",), 2),
    Defect("SNP-U11", "MSG_TYPE is read apart from what is forwarded.", TypeReadTwice, ("SNP-024",), 1),
    Defect("SNP-U12", "Unknown answers of userspace become generic errors.", UnknownRetToGuest, ("SNP-063",), 2),
    Defect(
        "SNP-U13",
        "Any extended request kills the VMM.",
        PanicOnExtended,
        ("SNP-047", "SNP-095"),
        1,
        note="a panic is what the clause on robustness is for",
    ),
    Defect(
        "SNP-U14",
        "A guest makes decommissioning fail, and the host does not tolerate it.",
        DecommissionMustNotFail,
        ("SNP-076", "SNP-073", "SNP-095"),
        2,
        note="the crash itself cites robustness",
    ),
    Defect(
        "SNP-G01",
        "After an error the number is used again.",
        ErrorKeepsNumber,
        ("SNP-084", "SNP-088", "SNP-087", "SNP-089", "SNP-090"),
        2,
        note="the key that was not wiped is seen before the number is used again",
    ),
    Defect("SNP-G02", "Too small returns 0.", TooSmallReturnsZero, ("SNP-086",), 1),
    Defect(
        "SNP-G03",
        "BUSY is fatal.",
        BusyIsFatal,
        ("SNP-087", "SNP-085"),
        1,
        note="the answer that is missing is the request's own",
    ),
    Defect("SNP-G04", "Certificate pages are prepared outside the lock.", PagesOutsideLock, ("SNP-092",), 1),
    Defect("SNP-G05", "An unset error value reaches the caller.", ErrorValueUnset, ("SNP-047",), 1),
    Defect("SNP-G06", "The counter starts at 0 with every load.", OwnCounter, ("SNP-085",), 2),
    Defect("SNP-V01", "A vCPU may exit through a GHCB that another one registered.", AnyGhcbOfTheVm, ("SNP-004",), 1),
    Defect("SNP-V02", "The exit code is fetched once more to choose the handler.", CodeFetchedAgain, ("SNP-012",), 1),
    Defect("SNP-V03", "The request page is read in two pieces.", RequestInTwoPieces, ("SNP-016",), 1),
    Defect(
        "SNP-V04",
        "A VM fetches certificates since the VM before it did.",
        FetchingOutlivesVm,
        ("SNP-061", "SNP-062", "SNP-051"),
        3,
    ),
    Defect(
        "SNP-V05",
        "The status is kept in the VM and read without its lock.",
        StatusOfTheVm,
        ("SNP-065", "SNP-017", "SNP-018"),
        1,
        note="a request that firmware refused is told the success of its sibling's, or the other way round",
    ),
    Defect("SNP-V06", "A request that continues after userspace takes no lock.", ContinuesUnlocked, ("SNP-065",), 2),
    Defect("SNP-V07", "Pages may begin in the middle of a page.", HalfPagesPass, ("SNP-005", "SNP-006"), 1),
    Defect(
        "SNP-V08",
        "The length of new certificates is noted after the lock was released.",
        LengthAfterUnlock,
        ("SNP-056", "SNP-050", "SNP-055", "SNP-017", "SNP-051"),
        1,
        note="a request in between is handed new certificates with the old length, and its answer is judged whole",
    ),
    Defect(
        "SNP-V09",
        "The key is looked at before the lock is taken, and may be wiped by then.",
        KeySeenBeforeLock,
        ("SNP-084", "SNP-088", "SNP-092"),
        1,
    ),
    Defect("SNP-V10", "The driver gives up on BUSY after half the time.", GivesUpEarly, ("SNP-087",), 1),
)
"""Every defect of the facts, in their order, and then the others."""
