"""Handlers on the guest's own pages that are right but for one defect."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.snp_guest_request.inplace import InPlace, Store
from conformance.candidates.builtin.snp_guest_request.upstream import CERT_ENTRY_SIZE, Sev, Svm, psp_pa
from conformance.candidates.defect import Defect
from conformance.specs.snp_guest_request.constants import (
    EFAULT,
    EINVAL,
    EIO,
    ENODEV,
    ENOMEM,
    FW_BLOB_MAX_SIZE,
    GENERIC_INFO2,
    GHCB_RAX,
    GHCB_RBX,
    INVALID_ADDRESS,
    INVALID_PARAM,
    PAGE_SIZE,
    SEV_CMD_MUTEX,
    SNP,
    TOO_SMALL_INFO2,
    UNINITIALISED,
)

WORD = 2**64 - 1


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


class CertsAfterCommand(CertsIntoResponsePage):
    """Finds out that the data pages cannot be written after firmware has used the number up."""

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        if self.overlaps(svm, svm.regs[GHCB_RAX], 4):
            return InPlace.copy_and_request(self, svm, certs, length)
        return super().copy_and_request(svm, certs, length)


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


class ReplacesInPlace(InPlace):
    """New certificates of the old length are copied over those, whole and readable, but under no lock of requests."""

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        port, sev = self.port, self.sevs[vm]
        assert isinstance(sev, Store)
        if not sev.certs or length != sev.certs_len:
            return super().set_instance_certs(vm, user, length)
        spare = port.kmalloc(length)
        if not spare:
            return -ENOMEM
        ret: int = port.copy_from_user(spare, user, length)
        if not ret:
            port.memcpy(sev.certs, spare, length)
        port.kfree(spare)
        return ret


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


DEFECTS: tuple[Defect, ...] = (
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
    Defect("SNP-D10", "References to guest pages are never dropped.", ReferencesKept, ("SNP-036",), 2),
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
    Defect(
        "SNP-D21",
        "Certificates are copied after the command.",
        CertsAfterCommand,
        ("SNP-052", "SNP-044", "SNP-051"),
        2,
        note="nothing is copied after a refusal, not even the empty table",
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
    Defect(
        "SNP-D37",
        "16 KiB per VM are pinned even without certificates.",
        why_not="It costs memory but breaks no clause: no view shows how much a hypervisor keeps in reserve.",
    ),
    Defect(
        "SNP-U03",
        "No lock keeps two vCPUs apart.",
        NoLock,
        ("SNP-065", "SNP-031", "SNP-029"),
        1,
        note="the second finds the page taken",
    ),
    Defect("SNP-U05", "A firmware error skips the cleanup.", ErrorSkipsCleanup, ("SNP-030",), 1),
    Defect(
        "SNP-U06",
        "The guest goes on after a failed reclaim.",
        GuestGoesOnWithoutPage,
        ("SNP-032", "SNP-033", "SNP-042"),
        1,
        note="the same holds where making the page shared fails",
    ),
    Defect(
        "SNP-V08",
        "The length of new certificates is noted after the lock was released.",
        LengthAfterUnlock,
        ("SNP-056", "SNP-050", "SNP-055", "SNP-017", "SNP-051"),
        1,
        note="a request in between is handed new certificates with the old length, and its answer is judged whole",
    ),
    Defect(
        "SNP-V27",
        "New certificates of the old length are copied over those.",
        ReplacesInPlace,
        ("SNP-056",),
        2,
        note="a request in between is handed the first page of the new ones and the second of the old",
    ),
)
