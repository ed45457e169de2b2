"""What the whole world finds, and what it lets pass."""

from __future__ import annotations

from conformance.candidates.builtin.snp_guest_request.guest import GuestDriver
from conformance.candidates.builtin.snp_guest_request.inplace import InPlace
from conformance.candidates.builtin.snp_guest_request.stub import Stub
from conformance.candidates.builtin.snp_guest_request.throttled import Throttled
from conformance.candidates.builtin.snp_guest_request.upstream import Sev, Svm, Upstream, psp_pa
from conformance.environment.snp_guest_request import checks
from conformance.environment.snp_guest_request.blobs import blob_bytes
from conformance.environment.snp_guest_request.frames import Page
from conformance.environment.snp_guest_request.taint import is_tainted
from conformance.model.snp_guest_request.operations import (
    Boot,
    CloseFd,
    Config,
    Continue,
    Decommission,
    ExtGuestRequest,
    GetReport,
    GuestRequest,
    HostSetExtConfig,
    LaunchStart,
    MoveFrom,
    ParseCerts,
    RemoveSlot,
    SetInstanceCerts,
    SevInit,
    SnpShutdown,
    VmCreate,
    VmDestroy,
    Wait,
)
from conformance.model.step import Fault, Parallel, Step
from conformance.specs.snp_guest_request import constants as k
from conformance.specs.snp_guest_request.constants import PAGE_SIZE
from tests.conformance.snp_guest_request.judging import S, blamed, run


def test_uninitialised_status_is_recognised() -> None:
    """SNP-047: half of a 64-bit variable is enough."""
    assert is_tainted(0xAAAAAAAA00000016)
    assert is_tainted(0x00000000AAAAAAAA)
    assert not is_tainted(0xFFFFFFFF00000000)


def test_a_guest_counts_by_key_alone() -> None:
    """There is no VM in what a guest's driver shows."""

    class NeverSends(GuestDriver):
        def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
            self.wipe()
            return -k.EIO, k.GENERIC_INFO2, b""

    report = run(NeverSends, GetReport(("lost",)), side="guest")

    assert report.failure is not None
    assert (report.failure.expected, report.failure.got) == ("numbers, VMPCK 0 = 2", "numbers, VMPCK 0 = 0")


def test_nothing_but_tables_is_in_the_world_of_a_verifier() -> None:
    """No VM is made, no file is there, no lock is looked at; what a hypervisor or a guest owes does not apply."""

    class Parses:
        profile = "upstream"
        capabilities = frozenset({"verifier"})

        def __init__(self, port: object) -> None:
            self.port = port

        def parse_certs(self, _table: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
            return 0, ()

    report = run(Parses, ParseCerts("empty"), side="verifier")

    assert report.failure is None
    assert {clause.id for clause in report.tally.clauses} == {"SNP-093", "SNP-095"}
    state = S.initial(Config(side="verifier"), S.profiles["upstream"])
    assert not any(S.legal(state, op) for op in (Boot(), VmCreate(), SnpShutdown(), HostSetExtConfig(), Wait()))
    applying = {clause.id for clause in S.clauses if clause.applies("upstream", Parses.capabilities)}
    assert applying - {clause.id for clause in S.clauses if clause.untestable} == {"SNP-093", "SNP-095"}


def test_two_vcpus_get_their_own_responses() -> None:
    """SNP-065: every schedule of one switch."""
    for point in range(50):
        both = Parallel(Step(GuestRequest(0)), Step(GuestRequest(1)), (point,))
        assert run(Upstream, both, vcpus=2).failure is None, point


def test_page_removed_in_flight_stays_pinned() -> None:
    """SNP-038: in place, the response page is firmware's until the request ends, memslot or not."""
    for point in range(40):
        report = run(InPlace, Step(GuestRequest(), during=((point, Step(RemoveSlot(0, "P0"))),)))
        assert report.failure is None, point


def test_leak_is_found_when_the_vm_goes() -> None:
    """SNP-037: a bounce page that nobody frees."""

    class Forgets(Upstream):
        def guest_req_cleanup(self, sev: Sev) -> None:
            self.free_firmware_page(sev.resp_buf)

    assert blamed(run(Forgets, VmDestroy(0))) == "SNP-037"


def test_buffer_freed_without_reclaim_is_found() -> None:
    """SNP-035."""

    class Hasty(Upstream):
        def free_firmware_page(self, address: int) -> None:
            self.port.free_page(address)

    assert blamed(run(Hasty, VmDestroy(0))) == "SNP-035"


def test_ghcb_used_after_a_second_fetch_is_found() -> None:
    """SNP-012: also across a certificate exit; to look at it again is no harm."""

    class Refetches(Upstream):
        def vcpu_continue(self, vcpu: int) -> int:
            self.svms[vcpu].req = self.port.ghcb_read(vcpu, k.GHCB_SW_EXITINFO1, 8)
            return super().vcpu_continue(vcpu)

    class Looks(Upstream):
        def vcpu_continue(self, vcpu: int) -> int:
            self.port.ghcb_read(vcpu, k.GHCB_SW_EXITINFO1, 8)
            return super().vcpu_continue(vcpu)

    assert run(Refetches, ExtGuestRequest(), Continue(), certs=True).failure is None
    assert run(Refetches, ExtGuestRequest(), Continue(race="info1"), certs=True).failure is not None
    assert run(Looks, ExtGuestRequest(), Continue(race="info1"), certs=True).failure is None


def test_ghcb_changed_behind_every_field_is_found() -> None:
    """SNP-012: no decision is taken on what is fetched later."""

    class DecidesAgain(Upstream):
        def validate(self, svm: Svm, usage: int) -> int:
            reason = super().validate(svm, usage)
            read = self.port.ghcb_read
            if self.what == "usage":
                return super().validate(svm, read(0, k.GHCB_USAGE, 4))
            if self.what == "valid":
                svm.valid = read(0, k.GHCB_VALID_BITMAP, 16)
            fields = {"code": ("code", k.GHCB_SW_EXITCODE), "info2": ("info2", k.GHCB_SW_EXITINFO2)}
            if self.what in fields:
                name, offset = fields[self.what]
                setattr(svm, name, read(0, offset, 8))
            return reason

        what = ""

    for race in ("code", "valid", "usage", "info2"):
        DecidesAgain.what = race
        assert run(DecidesAgain, ExtGuestRequest()).failure is None
        assert blamed(run(DecidesAgain, ExtGuestRequest(race=race))) == "SNP-012", race


def test_ghcb_may_be_read_in_pieces() -> None:
    """Two halves of a field that the guest changes in between are no field read twice."""

    class Halves(Upstream):
        def if_valid(self, vcpu: int, svm: Svm, offset: int) -> int:
            low, high = (self.port.ghcb_read(vcpu, offset + half, 4) for half in (0, 4))
            return (high << 32 | low) if self.is_valid(svm, offset) else 0

    assert run(Halves, *(ExtGuestRequest(race=race) for race in ("rax", "rbx", "info1", "code"))).failure is None


def test_ghcb_that_stays_mapped_is_found() -> None:
    """SNP-036: the mapping is given back before the guest is entered."""

    class Keeps(Upstream):
        def ghcb_leave(self, vcpu: int) -> int:
            self.svms[vcpu].mapped = False
            return 0

    assert blamed(run(Keeps, GuestRequest())) == "SNP-036"


def test_request_read_in_two_pieces_is_found() -> None:
    """SNP-016: the page is taken as of one instant."""

    class Pieces(Upstream):
        def copy_request(self, sev: Sev, gpa: int) -> int:
            read = self.port.read_guest
            return read(sev.vm, gpa, sev.req_buf, 64) or read(sev.vm, gpa + 64, sev.req_buf + 64, k.PAGE_SIZE - 64)

    assert run(Pieces, GuestRequest()).failure is None
    assert blamed(run(Pieces, GuestRequest(race="type"))) == "SNP-016"


def test_page_leaked_for_no_reason_is_found() -> None:
    """SNP-037: firmware was never asked for it."""

    class Leaks(Upstream):
        def free_firmware_page(self, address: int) -> None:
            self.port.leak_page(address >> 12)

    assert blamed(run(Leaks, VmDestroy(0))) == "SNP-037"


def test_asid_of_somebody_else_is_refused() -> None:
    """SNP-070: firmware activates a guest only with the ASID that its VM was given."""

    class OtherAsid(Upstream):
        def launch_start(self, vm: int, fd: int, policy: int) -> int:
            sev = self.sevs[vm]
            asid, sev.asid = sev.asid, sev.asid + 1
            ret = super().launch_start(vm, fd, policy)
            sev.asid = asid
            return ret

    assert blamed(run(OtherAsid, VmCreate(0), SevInit(0), LaunchStart(0), started=False)) == "SNP-070"


def test_moved_vm_may_take_its_lock_along() -> None:
    """SNP-067, SNP-077: the source can issue no more requests, so the lock is the destination's alone."""

    class TakesLock(InPlace):
        def vm_move_from(self, dst: int, src: int) -> int:
            ret = super().vm_move_from(dst, src)
            if not ret:
                self.sevs[dst].lock = self.sevs[src].lock
            return ret

        def adopt_lock(self, target: Sev) -> None:
            pass

    steps = (GuestRequest(0), MoveFrom(), GuestRequest(2), VmDestroy(0), GuestRequest(2), VmDestroy(1), Boot(0))
    assert run(TakesLock, *steps).failure is None


def test_page_that_a_request_leaves_alone_still_holds_what_it_held() -> None:
    """It was firmware's for a while, and other certificates with the same beginning are installed since."""
    report = run(
        InPlace,
        CloseFd(0),
        SetInstanceCerts(0, "B", 4096),
        ExtGuestRequest(),
        SetInstanceCerts(0, "B", 1),
        GuestRequest(resp="D"),
    )

    assert report.failure is None


def test_registers_under_a_sibling_s_answer_are_nobody_s() -> None:
    """SNP-026: the guest has an answer put over the GHCB of a vCPU that waits for userspace."""

    class LeavesRegisters(Upstream):
        def ghcb_leave(self, vcpu: int) -> int:
            self.svms[vcpu].regs = {}
            return super().ghcb_leave(vcpu)

    steps = (ExtGuestRequest(1), GuestRequest(0, resp="G'"), Continue(1))

    assert run(LeavesRegisters, *steps, vcpus=2, certs=True).failure is None


def test_rate_may_be_asked_for_once_more_after_userspace() -> None:
    """SNP-045: a request that continues is told BUSY like any other."""
    steps = (ExtGuestRequest(), Continue(ret=28), ExtGuestRequest(), Continue())

    report = run(Throttled, *steps, certs=True, throttle=True)

    assert report.failure is None
    assert report.warnings == []


def test_certificates_being_set_again_belong_to_either_tcb() -> None:
    """SNP-060: the request runs between the exchange of the blob and the end of the call that made it."""
    both = Parallel(Step(ExtGuestRequest()), Step(HostSetExtConfig("I", 4096, 2)), (0, 10))

    report = run(InPlace, HostSetExtConfig("I", 4096, 1), Step(both))

    assert report.failure is None
    assert report.warnings == []


def test_decommissioned_asid_is_kept_back() -> None:
    """SNP-073: an ASID whose context firmware kept is never used again."""

    class Frees(Upstream):
        def decommission(self, vm: int) -> int:
            asid = self.sevs[vm].asid
            ret = super().decommission(vm)
            self.sevs[vm].asid = asid
            return ret

    fault = Step(VmDestroy(0), (Fault("snp_decommission", 0x10),))
    assert run(Upstream, fault).failure is None
    assert blamed(run(Frees, fault)) == "SNP-073"


def test_decommissioning_may_be_tried_again() -> None:
    """SNP-073 asks for a leak where firmware refuses, not where it changes its mind."""

    class Retries(Upstream):
        def decommission(self, vm: int) -> int:
            sev = self.sevs[vm]
            gctx = sev.gctx
            if gctx and self.port.snp_decommission(k.NO_FD, psp_pa(gctx), 0)[0]:
                return -5
            sev.gctx = 0
            if gctx:
                self.free_firmware_page(gctx)
            return 0

    report = run(Retries, Step(Decommission(0), (Fault("snp_decommission", 0x10),)), VmDestroy(0))

    assert report.failure is None


def test_moved_vm_is_usable() -> None:
    """SNP-075: the destination takes requests with the source's keys, the source no more."""
    report = run(InPlace, GuestRequest(), MoveFrom(), GuestRequest(2), GuestRequest(0), VmDestroy(0), VmDestroy(1))

    assert report.failure is None
    assert report.steps[2].result == (1, 0, 0, None)


def test_moved_vm_may_be_kept_by_firmware() -> None:
    """SNP-073: the ASID leaked with the destination is not missed when the source goes."""
    kept = Step(VmDestroy(1), (Fault("snp_decommission", -16),))

    assert run(InPlace, MoveFrom(), kept, VmDestroy(0)).failure is None
    export = GuestRequest(2, "export")
    assert run(InPlace, MoveFrom(), VmDestroy(0), export, Boot(0), VmDestroy(1), VmDestroy(0)).failure is None


def test_second_life_of_a_vm() -> None:
    """Everything is given back: the same number can be used again."""
    assert run(Upstream, GuestRequest(), VmDestroy(0), Boot(0), GuestRequest(), Decommission(0)).failure is None


def test_page_knows_a_blob_by_its_bytes() -> None:
    """Every 16 bytes of a blob say whose and which they are."""
    assert blob_bytes("A", 32) == b"A000200000000000A000200000000010"
    assert blob_bytes("A", 4097)[4096:] == b"a"
    assert Page(1, bytearray(PAGE_SIZE), 0, True).is_guest is False


def test_checks_find_a_command_after_busy() -> None:
    """SNP-043: a refused message leaves no trace but the command itself."""

    class AsksFirst(Upstream):
        def vcpu_continue(self, vcpu: int) -> int:
            svm = self.svms[vcpu]
            self.port.mutex_lock_killable(svm.sev.lock)
            self.copy_request(svm.sev, svm.req)
            self.issue(svm.sev)
            self.port.mutex_unlock(svm.sev.lock)
            return super().vcpu_continue(vcpu)

    ops = (ExtGuestRequest(message="bad-tag"), Continue(ret=k.EAGAIN))
    assert blamed(run(AsksFirst, *ops, certs=True)) in {"SNP-043", "SNP-044"}
    assert checks.CHECKS.keys() >= {GuestRequest, ExtGuestRequest, Continue}


def test_closed_fd_is_ignored_by_nobody() -> None:
    """SNP-068, in every design."""
    for factory in (Upstream, Stub, InPlace):
        report = run(factory, CloseFd(), GuestRequest(), ExtGuestRequest())
        assert [step.result for step in report.steps] == [0, -9, -9]


def test_one_blob_is_seen_whole() -> None:
    """SNP-056: a request beside SET gets the old blob or the new, at every point."""
    for point in range(0, 60, 3):
        both = Parallel(Step(ExtGuestRequest()), Step(SetInstanceCerts(0, "B", 8192)), (point,))
        assert run(InPlace, SetInstanceCerts(0, "A", 8192), both).failure is None, point


def test_tcb_and_certificates_change_together() -> None:
    """SNP-060: the report is of the TCB whose certificates came with it."""
    for point in range(0, 60, 3):
        both = Parallel(Step(HostSetExtConfig("I", 4096, 2)), Step(ExtGuestRequest()), (point,))
        assert run(InPlace, HostSetExtConfig("H", 4096, 1), both).failure is None, point
