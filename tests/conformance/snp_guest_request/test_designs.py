"""Designs of strangers: each right one is not accused, and what is wrong in its place still is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from conformance.candidates.builtin.snp_guest_request.guest import GuestDriver
from conformance.candidates.builtin.snp_guest_request.inplace import InPlace
from conformance.candidates.builtin.snp_guest_request.upstream import Sev, Svm, Upstream
from conformance.candidates.load import Candidate
from conformance.engines import campaign, explore
from conformance.engines.context import Context
from conformance.model.snp_guest_request.operations import (
    Boot,
    Close,
    Decommission,
    ExtGuestRequest,
    GetExtReport,
    GetReport,
    GuestRequest,
    HostSetExtConfig,
    LaunchFinish,
    LaunchStart,
    MoveFrom,
    Open,
    RegisterGhcb,
    SetInstanceCerts,
    SevInit,
    UnknownExit,
    VcpuCreate,
    VmCreate,
    VmDestroy,
)
from conformance.model.step import Fault, Parallel, Step
from conformance.specs.snp_guest_request.constants import (
    EBUSY,
    EINVAL,
    EIO,
    ENODEV,
    ENOMEM,
    FW_BLOB_MAX_SIZE,
    HEADER_SIZE,
    PAGE_SIZE,
    SNP,
)
from conformance.strategies.snp_guest_request.races import RACES
from tests.conformance.peers.snp_guest_request.bounced import (
    Bounced,
    HandsOutLate,
    KeepsStore,
    SwapsUnlocked,
    WritesBeyond,
)
from tests.conformance.snp_guest_request.judging import S, blamed, run


class Moves(Upstream):
    """Lets a VM be moved; what is left of the source notices late that it has no context."""

    def vm_move_from(self, dst: int, src: int) -> int:
        source, target = self.sevs[src], self.sevs[dst]
        for name in ("active", "asid", "fd", "gctx", "req_buf", "resp_buf", "lock", "certs_enabled"):
            setattr(target, name, getattr(source, name))
        source.asid = source.gctx = source.req_buf = source.resp_buf = 0
        return 0

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        return super().guest_request(vcpu, svm) if svm.sev.gctx else -EINVAL

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        if svm.sev.gctx:
            return super().ext_guest_request(vcpu, svm)
        return self.supply_certs(svm) or -EINVAL


class MovedAtOnce(Moves):
    """Refuses every exit of the source."""

    def vmgexit(self, vcpu: int, gpa: int) -> int:
        return super().vmgexit(vcpu, gpa) if self.svms[vcpu].sev.gctx else -EIO


class MovedClears(Moves):
    """Clears where a basic request of the source has no certificates."""

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        if not svm.sev.gctx:
            self.port.clear_guest(svm.sev.vm, svm.info1 + 4 * PAGE_SIZE, 24)
        return super().guest_request(vcpu, svm)


class MovedAnswers(Moves):
    """Tells the source that its request was answered."""

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        return super().guest_request(vcpu, svm) if svm.sev.gctx else self.complete(vcpu, 0, 0)


class HasScratch(InPlace):
    """Has a buffer for messages as long as the VM is there, whatever becomes of its context."""

    def guest_req_init(self, sev: Sev) -> int:
        self.scratch = self.port.kzalloc(PAGE_SIZE)
        return super().guest_req_init(sev) if self.scratch else -12

    def guest_req_cleanup(self, sev: Sev) -> None:
        self.port.kfree(self.scratch)
        super().guest_req_cleanup(sev)


class KeepsCopy(HasScratch):
    """Has a copy of the certificates in it."""

    def set_instance_certs(self, vm: int, user: int, length: int) -> int:
        ret = super().set_instance_certs(vm, user, length)
        if not ret:
            self.port.memcpy(self.scratch, self.sevs[vm].certs, length)  # type: ignore[attr-defined]  # a Store
        return ret


class ContextFirst(InPlace):
    """Looks for the context before anything of the request."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        return super().ext_guest_request(vcpu, svm) if svm.sev.gctx else -EINVAL


class ContextOnly(ContextFirst):
    """Looks for nothing else: the pages for certificates may be anywhere."""

    def validate_data(self, svm: Svm) -> int:
        return 0


class LockOfOpening(GuestDriver):
    """Makes one of its locks when it is opened."""

    lock_of_opening = "opening"

    def open(self, vmpck: int) -> int:
        self.port.mutex_init(self.lock_of_opening)
        return super().open(vmpck)


class LockOfCall(LockOfOpening):
    """Makes it for each call."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        self.port.mutex_init(self.lock_of_opening)
        return super().get_report(data, vmpl)


class BuffersAtFinish(Upstream):
    """Has pages for requests from the end of the launch on."""

    def guest_req_init(self, sev: Sev) -> int:
        self.port.mutex_init(sev.lock)
        return 0

    def launch_finish(self, vm: int) -> int:
        sev = self.sevs[vm]
        sev.req_buf, sev.resp_buf = self.port.alloc_page(1), self.port.alloc_fw_page()
        return super().launch_finish(vm)

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        return super().forward(sev, resp_gpa) if sev.resp_buf else (-ENODEV, 0)

    def copy_request(self, sev: Sev, gpa: int) -> int:
        return super().copy_request(sev, gpa) if sev.req_buf else -ENODEV


class FinishForgiven(BuffersAtFinish):
    """Takes a request that it has no pages for as answered."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        return super().forward(sev, resp_gpa) if sev.resp_buf else (0, 0)

    def copy_request(self, sev: Sev, gpa: int) -> int:
        return super().copy_request(sev, gpa) if sev.req_buf else 0


UNFINISHED = (VmCreate(), SevInit(), VcpuCreate(), RegisterGhcb(), LaunchStart(), GuestRequest())

RIGHT: list[tuple[type, dict[str, Any], tuple[Any, ...]]] = [
    (Moves, {}, (MoveFrom(), ExtGuestRequest(0), GuestRequest(0), GuestRequest(2))),
    (MovedAtOnce, {}, (MoveFrom(), UnknownExit(0), GuestRequest(0))),
    (HasScratch, {}, (Decommission(0), VmDestroy(0))),
    (BuffersAtFinish, {"started": False}, UNFINISHED),
    (Upstream, {"started": False}, UNFINISHED),
    (ContextFirst, {}, (Decommission(0), ExtGuestRequest(0, missing="a"), ExtGuestRequest(0, data="D+8"))),
    (LockOfOpening, {"side": "guest"}, (Close(), Open(), GetReport())),
    (Bounced, {}, (SetInstanceCerts(), ExtGuestRequest(), ExtGuestRequest(npages=0), Decommission(), VmDestroy())),
]


@pytest.mark.parametrize(("kind", "config", "trace"), RIGHT)
def test_right_designs_are_not_accused(kind: type, config: dict[str, Any], trace: tuple[Any, ...]) -> None:
    """The shortest trace that shows what is another way there."""
    assert run(kind, *trace, **config).failure is None


WRONG: list[tuple[type, dict[str, Any], tuple[Any, ...], str]] = [
    (MovedClears, {}, (MoveFrom(), GuestRequest(0)), "SNP-075"),
    (MovedAnswers, {}, (MoveFrom(), GuestRequest(0)), "SNP-075"),
    (KeepsCopy, {}, (SetInstanceCerts(), Decommission(0)), "SNP-072"),
    (FinishForgiven, {"started": False}, UNFINISHED, "SNP-018"),
    (ContextOnly, {}, (ExtGuestRequest(0, data="D+8"),), "SNP-009"),
    (LockOfCall, {"side": "guest"}, (GetReport(),), "SNP-067"),
    (HandsOutLate, {}, (SetInstanceCerts(), ExtGuestRequest(data="hole")), "SNP-052"),
    (WritesBeyond, {}, (SetInstanceCerts(), ExtGuestRequest()), "SNP-050"),
    (KeepsStore, {}, (SetInstanceCerts(), Decommission()), "SNP-072"),
]


@pytest.mark.parametrize(("kind", "config", "trace", "clause"), WRONG)
def test_wrong_designs_still_are(kind: type, config: dict[str, Any], trace: tuple[Any, ...], clause: str) -> None:
    """What could be taken for the same freedom, and is none."""
    assert blamed(run(kind, *trace, **config)) == clause


def test_certificates_that_are_swapped_under_a_request() -> None:
    """With bounce pages as well, some schedule shows the memory that was freed."""
    swap = [Step(Parallel(Step(ExtGuestRequest()), Step(SetInstanceCerts(0, "B", 8192)), (n,))) for n in range(40)]
    found = [blamed(r) for s in swap if (r := run(SwapsUnlocked, SetInstanceCerts(), s)).failure is not None]

    assert found
    assert set(found) <= {"SNP-056", "SNP-072"}


def test_bounce_pages_with_certificates_of_the_kernel() -> None:
    """Random walks find nothing wrong where the two meet."""
    context = Context(
        S, Candidate("test", Bounced, Bounced.profile, Bounced.capabilities), Bounced.profile, steps=2_000
    )

    campaign.run(context)

    assert [failure.signature for failure in context.failures + context.warnings] == []


class KeepsLength(InPlace):
    """Keeps the length that comes with no certificates."""

    def host_set_ext_config(self, tcb: int, user: int, length: int, writable: int) -> int:
        ret = super().host_set_ext_config(tcb, user, length, writable)
        if not ret:
            self.host_certs_len = length
        return ret


def test_no_certificates_have_no_length() -> None:
    """A null pointer removes them, whatever length comes with it."""
    trace = (HostSetExtConfig(""), ExtGuestRequest(npages=0))

    assert run(InPlace, *trace).failure is None
    assert blamed(run(KeepsLength, *trace)) == "SNP-051"


class ReadsTwice(Upstream):
    """Copies the page, and then its header again."""

    def copy_request(self, sev: Sev, gpa: int) -> int:
        return super().copy_request(sev, gpa) or (-EIO if self.again(sev, gpa, sev.req_buf) else 0)

    def again(self, sev: Sev, gpa: int, buffer: int) -> int:
        return int(self.port.read_guest(sev.vm, gpa, buffer, 0x60))


class ReadsInHalves(Upstream):
    """Copies the header, and then the rest."""

    def copy_request(self, sev: Sev, gpa: int) -> int:
        read: Callable[..., int] = self.port.read_guest
        failed = read(sev.vm, gpa, sev.req_buf, 0x60)
        return -EIO if failed or read(sev.vm, gpa + 0x60, sev.req_buf + 0x60, PAGE_SIZE - 0x60) else 0


@pytest.mark.parametrize("kind", [ReadsTwice, ReadsInHalves])
def test_a_message_of_two_instants_is_found(kind: type) -> None:
    """Whichever part was read last: the guest has changed its header and its end by then."""
    assert run(Upstream, GuestRequest(race="type")).failure is None
    assert blamed(run(kind, GuestRequest(race="type"))) == "SNP-016"


class NeverFinishes(Upstream):
    """No guest of it ever runs."""

    def launch_finish(self, vm: int) -> int:
        return -38


@pytest.mark.parametrize(("trace", "started", "vm"), [((GuestRequest(),), True, 0), ((Boot(1),), False, 1)])
def test_what_does_not_start_is_told_by_name(trace: tuple[Any, ...], started: bool, vm: int) -> None:
    """Which entry point it was, of which VM, and what it returned."""
    failure = run(NeverFinishes, *trace, started=started).failure

    assert failure is not None
    assert f"launch_finish({vm}) returned -ENOSYS" in str(failure.detail)


class HalfGhcb(Upstream):
    """Compares 32 bits of a GHCB's address with the registered one."""

    def vmgexit(self, vcpu: int, gpa: int) -> int:
        svm = self.svms[vcpu]
        if svm.registered >= 0 and not (svm.registered ^ gpa) & 0xFFFFFFFF:
            svm.registered = gpa
        return super().vmgexit(vcpu, gpa)


class HalfResponse(Upstream):
    """Keeps 32 bits of a response page's address."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        return super().forward(sev, resp_gpa & 0xFFFFFFFF)


class HalfPolicy(Upstream):
    """Keeps 32 bits of a policy."""

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        return super().launch_start(vm, fd, policy & 0xFFFFFFFF)


class LatePolicy(Upstream):
    """Looks at reserved bits of a policy when it has its page already."""

    def launch_start(self, vm: int, fd: int, policy: int) -> int:
        if policy >> 26 and self.port.alloc_page(1):
            return -EINVAL
        return super().launch_start(vm, fd, policy)


@pytest.mark.parametrize(
    ("kind", "trace", "clause"),
    [
        (HalfGhcb, (GuestRequest(ghcb="spare"),), "SNP-004"),
        (HalfResponse, (GuestRequest(resp="far P"),), "SNP-021"),
        (HalfPolicy, (VmDestroy(), VmCreate(), SevInit(), LaunchStart(reserved=True)), "SNP-071"),
        (LatePolicy, (VmDestroy(), VmCreate(), SevInit(), LaunchStart(reserved=True)), "SNP-071"),
    ],
)
def test_what_is_above_32_bits_counts(kind: type, trace: tuple[Any, ...], clause: str) -> None:
    """A page above 4 GiB is another page, and the highest bit of a policy is one of it."""
    assert run(Upstream, *trace).failure is None
    assert blamed(run(kind, *trace)) == clause


class Text(GuestDriver):
    """Takes report data for a string."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        return super().get_report(data[:16] + data[16:].split(b"\0")[0].ljust(48, b"\0"), vmpl)


class HalfLength(GuestDriver):
    """Keeps 16 bits of the size that certificates need."""

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        ret, info2, answer, certs, needed = super().get_ext_report(data, vmpl, certs_len, address)
        return ret, info2, answer, certs, needed & 0xFFFF


@pytest.mark.parametrize(
    ("kind", "trace", "clause"),
    [(Text, GetReport(), "SNP-097"), (HalfLength, GetExtReport(("too-small-much",)), "SNP-086")],
)
def test_all_bytes_count(kind: type, trace: Any, clause: str) -> None:
    """Zero bytes of the caller's data, and a size that no caller could give."""
    assert run(GuestDriver, trace, side="guest").failure is None
    assert blamed(run(kind, trace, side="guest")) == clause


class Piecewise(GuestDriver):
    """Seals its messages where the host can see it, four bytes after the other, each in place of its own."""

    step = 4

    def seal(self, number: int, kind: int, payload: bytes) -> bytes:
        for at in range(0, len(payload), self.step):
            self.port.shared_write(self.request + HEADER_SIZE + at, payload[at : at + self.step])
            self.port.shared_write(self.request + HEADER_SIZE + at, bytes(self.step))
        return super().seal(number, kind, payload)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_pieces_of_a_message_are_seen_too(step: int) -> None:
    """Four bytes at once are enough, though they never stand beside the next four; or eight, one after the other."""
    pieces = type("Pieces", (Piecewise,), {"step": step})

    assert blamed(run(pieces, GetReport(), side="guest")) == "SNP-090"


class Sealing(GuestDriver):
    """Stores its sealed messages byte by byte."""

    def send(self, code: int, npages: int) -> tuple[int, int, int]:
        message = self.port.shared_read(self.request, PAGE_SIZE)
        for at in range(256):
            self.port.shared_write(self.request + at, message[at : at + 1])
        return super().send(code, npages)


def test_sealed_bytes_are_no_pieces_of_a_message() -> None:
    """Those of them that happen to be as the message's are few."""
    for word in range(8):
        assert run(Sealing, *[GetReport(data_word=word)] * 8, side="guest").failure is None


class TwoTables(Upstream):
    """Keeps two tables of each VM, had when it is created."""

    def vm_create(self, vm: int, kind: int) -> int:
        first = self.port.kzalloc(64)
        second = self.port.kmalloc(64) if first else 0
        if not second:
            self.give_up(first)
            return -ENOMEM
        super().vm_create(vm, kind)
        self.tables = {**getattr(self, "tables", {}), vm: (first, second)}
        return 0

    def give_up(self, first: int) -> None:
        self.port.kfree(first)

    def vm_destroy(self, vm: int) -> int:
        for table in self.tables.pop(vm):
            self.port.kfree(table)
        return super().vm_destroy(vm)


class LosesTheFirst(TwoTables):
    """Gives nothing back where the second table cannot be had."""

    def give_up(self, first: int) -> None:
        pass


class CreatesAnyhow(TwoTables):
    """Creates the VM whatever could be had."""

    def vm_create(self, vm: int, kind: int) -> int:
        super().vm_create(vm, kind)
        return 0


def test_a_vm_may_be_refused_when_it_is_created() -> None:
    """SNP-069: an error, nothing is left, and a later attempt can succeed."""
    refusals = [Step(VmCreate(), (Fault(call, -ENOMEM),)) for call in ("kzalloc", "kmalloc")]
    again = (VmDestroy(), *refusals, VmCreate(), SevInit(), LaunchStart(), VmDestroy())

    assert run(TwoTables, *again).failure is None
    assert blamed(run(LosesTheFirst, *again)) == "SNP-069"
    assert blamed(run(CreatesAnyhow, *again)) == "SNP-069"


class FinishesAnyhow(Upstream):
    """Takes a launch for finished that firmware would not finish."""

    def launch_finish(self, vm: int) -> int:
        super().launch_finish(vm)
        return 0


def test_a_launch_may_be_refused_at_its_end() -> None:
    """The guest does not run."""
    begun = (
        VmDestroy(),
        VmCreate(),
        SevInit(),
        LaunchStart(),
        Step(LaunchFinish(), (Fault("snp_launch_finish", -EBUSY),)),
    )

    assert run(Upstream, *begun, LaunchFinish()).failure is None
    assert blamed(run(FinishesAnyhow, *begun)) == "SNP-019"


class HalfFields(GuestDriver):
    """Keeps 32 bits of the fields that a key is derived from."""

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        return super().get_derived_key(fields & 0xFFFFFFFF, vmpl, svn, tcb)


class NotTheHighest(GuestDriver):
    """Takes VMPL 0 for none given."""

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        return super().get_derived_key(fields, vmpl or 1, svn, tcb)


class EndsAtNothing(GuestDriver):
    """Takes a certificate of no bytes for the end of the table."""

    def parse_certs(self, table: bytes) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
        ended = bytearray(table)
        for at in range(0, len(table) - 23, 24):
            if not any(table[at + 20 : at + 24]):
                ended[at : at + 24] = bytes(24)
                break
        return super().parse_certs(bytes(ended))


@pytest.mark.parametrize(
    ("kind", "scope", "clause"),
    [
        (HalfFields, "what is asked", "SNP-097"),
        (NotTheHighest, "what is asked", "SNP-097"),
        (EndsAtNothing, "tables", "SNP-093"),
    ],
)
def test_scopes_of_values_find_what_is_lost(kind: type[GuestDriver], scope: str, clause: str) -> None:
    """Each value that a field may have is asked for once, and each table parsed."""
    for driver, wanted in ((GuestDriver, set[str]()), (kind, {clause})):
        candidate = Candidate("test", driver, driver.profile, driver.capabilities)
        context = Context(replace(S, scopes={scope: S.scopes[scope]}), candidate, driver.profile, stop_at_first=True)
        explore.run(context)
        assert {failure.clause.id for failure in context.failures} == wanted


class LooksBeforeTheLock(GuestDriver):
    """Fetches the key before it has the lock, and keeps to it."""

    def get_report(self, data: bytes, vmpl: int) -> tuple[int, int, bytes]:
        self.seen = super().key()
        answer = super().get_report(data, vmpl)
        self.seen = b""
        return answer

    def key(self) -> bytes:
        return getattr(self, "seen", b"") or super().key()


def test_a_key_that_another_thread_wipes() -> None:
    """Whoever waits for the lock finds it gone (SNP-088), and sends nothing under its numbers."""
    race = RACES["refused-key-report"]
    found = set()
    for at in range(12):
        for left, right in ((race.left, race.right), (race.right, race.left)):
            step = Step(Parallel(left, right, (at,)))
            assert run(GuestDriver, step, side="guest").failure is None
            report = run(LooksBeforeTheLock, step, side="guest")
            found |= {report.failure.clause.id} if report.failure else set()

    assert found == {"SNP-084"}


class OneScratch(InPlace):
    """Hands certificates out through pages of the whole host, under the lock of the VM alone."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.scratch = 0

    def copy_and_request(self, svm: Svm, certs: int, length: int) -> tuple[int, int]:
        if certs:
            self.scratch = self.scratch or self.port.kzalloc(FW_BLOB_MAX_SIZE)
            self.port.memcpy(self.scratch, certs, -(-length // PAGE_SIZE) * PAGE_SIZE)
        return super().copy_and_request(svm, certs and self.scratch, length)


def test_two_vms_may_be_given_two_blobs_at_once() -> None:
    """SNP-056 speaks of one request; certificates of the other VM are another matter."""
    race = RACES["two-blobs"]

    def found(kind: type[InPlace]) -> set[str]:
        reports = []
        for at in range(60):
            together = Parallel(race.left, race.right, (at,))
            reports.append(run(kind, *race.steps, together, second=SNP))
        return {blamed(report) for report in reports if report.failure is not None}

    assert not found(InPlace)
    assert found(OneScratch) & {"SNP-022", "SNP-053", "SNP-056"}
