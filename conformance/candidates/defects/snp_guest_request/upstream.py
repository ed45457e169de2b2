"""Handlers in the shape of merged KVM that are right but for one defect."""

from __future__ import annotations

from typing import Any

from conformance.candidates.builtin.snp_guest_request.upstream import Sev, Svm, Upstream, psp_pa
from conformance.candidates.defect import Defect
from conformance.specs.snp_guest_request.constants import (
    EINVAL,
    EIO,
    ENOMEM,
    ETIMEDOUT,
    GENERIC_INFO2,
    GHCB_RAX,
    GHCB_RBX,
    GHCB_SW_EXITCODE,
    GHCB_VALID_BITMAP,
    HEADER_SIZE,
    INVALID_ADDRESS,
    INVALID_GUEST,
    INVALID_PARAM,
    NO_FD,
    PAGE_SIZE,
    UNINITIALISED,
)

WORD = 2**64 - 1


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


class SamePageTwice(Upstream):
    """Takes equal request and response pages."""

    def validate_request(self, svm: Svm) -> int:
        info2 = svm.info2
        svm.info2 += PAGE_SIZE if svm.info1 == svm.info2 else 0
        reason = super().validate_request(svm)
        svm.info2 = info2
        return reason


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


class NoTerminator(Upstream):
    """Writes nothing where there are no certificates."""

    def supply_certs(self, svm: Svm) -> int:
        return 0


class NoContextCheck(Upstream):
    """Forwards without a context."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        ret, status = self.issue(sev)
        if ret and not status:
            return ret, 0
        return (0, status) if status else (self.copy_response(sev, resp_gpa), 0)


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


class GenericErrorToo(Upstream):
    """Marks every firmware status as a generic error of the hypervisor too."""

    def issue(self, sev: Sev) -> tuple[int, int]:
        ret, status = super().issue(sev)
        return ret, status | 1 << 63 if status else 0


class InitFailureIsSuccess(Upstream):
    """Returns 0 when the request buffers cannot be had."""

    def sev_init(self, vm: int) -> int:
        was_active = self.sevs[vm].active
        ret = super().sev_init(vm)
        return ret if was_active else 0


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


class FirstGhcbStays(Upstream):
    """Keeps the page that was registered first."""

    def ghcb_register(self, vcpu: int, gpa: int) -> int:
        return 0 if self.svms[vcpu].registered >= 0 else super().ghcb_register(vcpu, gpa)


class InitTwice(Upstream):
    """Initialises a VM again that was initialised before."""

    def sev_init(self, vm: int) -> int:
        self.sevs[vm].active = False
        return super().sev_init(vm)


class LeaksAgain(Upstream):
    """Leaks a page that could not be reclaimed where that is found, and where it is reported once more."""

    def free_firmware_page(self, address: int) -> None:
        port, pfn = self.port, address >> 12
        if port.snp_page_reclaim(pfn) or port.rmp_make_shared(pfn):
            port.leak_page(pfn)
            port.leak_page(pfn)
            return
        port.free_page(address)


class UsesLeakedContext(Upstream):
    """Leaks a context that firmware would not decommission, and goes on with it."""

    kept: dict[int, int]

    def decommission(self, vm: int) -> int:
        gctx = self.sevs[vm].gctx
        ret = super().decommission(vm)
        if ret:
            self.kept = {vm: gctx}
        return ret

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        gctx = sev.gctx
        sev.gctx = gctx or getattr(self, "kept", {}).get(sev.vm, 0)
        ret = super().forward(sev, resp_gpa)
        sev.gctx = gctx
        return ret


class ValidBitsCleared(Upstream):
    """Takes the guest's valid bits for its own input alone, and leaves none behind."""

    def complete(self, vcpu: int, info1: int, info2: int) -> int:
        ret = super().complete(vcpu, info1, info2)
        self.port.ghcb_write(vcpu, GHCB_VALID_BITMAP + 8, 0)
        return ret


class SuccessBeforehand(Upstream):
    """Stores success before it knows, and leaves it there when it fails."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        for vcpu, svm in self.svms.items():
            if svm.sev is sev and svm.mapped:
                self.complete(vcpu, 0, 0)
        return super().forward(sev, resp_gpa)


class CreatesInParts(Upstream):
    """Keeps two tables of each VM, and loses the first where the second cannot be had."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.tables: dict[int, tuple[int, int]] = {}

    def vm_create(self, vm: int, kind: int) -> int:
        first = self.port.kzalloc(64)
        second = self.port.kmalloc(64) if first else 0
        if not second:
            return -ENOMEM
        self.tables[vm] = first, second
        return super().vm_create(vm, kind)

    def vm_destroy(self, vm: int) -> int:
        for table in self.tables.pop(vm):
            self.port.kfree(table)
        return super().vm_destroy(vm)


class FinishesAnyhow(Upstream):
    """Takes a launch for finished that firmware would not finish."""

    def launch_finish(self, vm: int) -> int:
        super().launch_finish(vm)
        return 0


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
    Defect("SNP-D11", "Equal request and response pages are processed.", SamePageTwice, ("SNP-007",), 1),
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
        "SNP-D22",
        "Without certificates nothing is written.",
        NoTerminator,
        ("SNP-051", "SNP-052"),
        1,
        note="a data page that cannot be written is not found either",
    ),
    Defect("SNP-D26", "Requests are forwarded without a context.", NoContextCheck, ("SNP-025",), 2),
    Defect("SNP-D36", "The per-VM lock is waited for uninterruptibly.", Unkillable, ("SNP-078", "SNP-045"), 1),
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
    Defect("SNP-U04", "A firmware status comes with a generic error.", GenericErrorToo, ("SNP-040",), 1),
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
    Defect("SNP-V11", "The GHCB that was registered first stays it.", FirstGhcbStays, ("SNP-004",), 2),
    Defect("SNP-V12", "A VM is initialised twice.", InitTwice, ("SNP-067", "SNP-100"), 1),
    Defect("SNP-V13", "A page is leaked twice.", LeaksAgain, ("SNP-037", "SNP-072"), 1),
    Defect("SNP-V14", "A context that was leaked is used.", UsesLeakedContext, ("SNP-025",), 2),
    Defect("SNP-V19", "The answer's valid bits are cleared.", ValidBitsCleared, ("SNP-101",), 1),
    Defect("SNP-V20", "Success is stored before it is known.", SuccessBeforehand, ("SNP-102",), 1),
    Defect("SNP-V22", "A VM that is not created leaves a table.", CreatesInParts, ("SNP-069",), 1),
    Defect("SNP-V23", "A launch is finished without firmware.", FinishesAnyhow, ("SNP-019", "SNP-100"), 4),
)
