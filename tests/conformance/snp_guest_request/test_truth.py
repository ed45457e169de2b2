"""Right code that is built in another way than the shipped candidates is not accused; wrong code beside it still is.

Each row is a kind of design, with the shortest trace that shows it.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from conformance.candidates.builtin.snp_guest_request.as_posted import AsPosted
from conformance.candidates.builtin.snp_guest_request.guest import HEADER, GuestDriver
from conformance.candidates.builtin.snp_guest_request.inplace import InPlace
from conformance.candidates.builtin.snp_guest_request.linux import Linux, LinuxGuest
from conformance.candidates.builtin.snp_guest_request.linux.guest import GuestReq
from conformance.candidates.builtin.snp_guest_request.linux.host import SevInfo
from conformance.candidates.builtin.snp_guest_request.upstream import Sev, Svm, Upstream
from conformance.model.snp_guest_request.operations import (
    Close,
    CloseFd,
    Continue,
    Decommission,
    ExtGuestRequest,
    GetDerivedKey,
    GetExtReport,
    GetReport,
    GuestRequest,
    Open,
    RegisterGhcb,
    RemoveSlot,
    SetInstanceCerts,
    UnknownExit,
    VcpuCreate,
    VmDestroy,
)
from conformance.model.step import Fault, Parallel, Step
from conformance.specs.snp_guest_request.constants import (
    BUSY_INFO2,
    EAGAIN,
    EBADF,
    EBUSY,
    EFAULT,
    EINVAL,
    EIO,
    ENOMEM,
    ETIMEDOUT,
    EXT_GUEST_REQUEST,
    GHCB_SW_EXITCODE,
    GHCB_SW_EXITINFO1,
    GHCB_SW_EXITINFO2,
    GUEST_REQUEST,
    HEADER_SIZE,
    MSG_ALGO,
    PAGE_SIZE,
    REPORT_REQ,
    REPORT_RSP_SIZE,
    RESUME,
)
from tests.conformance.peers.linux_snp_guest_request import (
    ClearsResponse,
    KeepsMessage,
    LateOutput,
    Older,
    ProbesResponse,
    Strict,
    WholePages,
    Wipes,
)
from tests.conformance.snp_guest_request.judging import blamed, run


def refused(op: Any, call: str, value: int) -> Step:
    """The operation, with one call refused."""
    return Step(op, (Fault(call, value),))


def beside(left: Any, right: Any, point: int) -> Step:
    """Two operations on two threads that switch once."""
    return Step(Parallel(Step(left), Step(right), (point,)))


class Untouched(Upstream):
    """Goes back to the guest without a word when the GHCB cannot be mapped."""

    def vmgexit(self, vcpu: int, gpa: int) -> int:
        ret = super().vmgexit(vcpu, gpa)
        return ret if self.svms[vcpu].mapped else RESUME


class RefusesEarly(Upstream):
    """Looks for a response page that it can write before it asks userspace."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        pfn = self.port.gfn_to_pfn(svm.sev.vm, svm.info2 // PAGE_SIZE)
        if pfn < 0:
            return -EIO
        self.port.put_pfn(pfn)
        return super().ext_guest_request(vcpu, svm)


class ReadsOften(Upstream):
    """Looks at fields of the GHCB again and again, and uses what it found first."""

    def complete(self, vcpu: int, info1: int, info2: int) -> int:
        for offset in (GHCB_SW_EXITINFO1, GHCB_SW_EXITINFO2):
            self.port.ghcb_read(vcpu, offset, 8)
        return super().complete(vcpu, info1, info2)


class CopiesRequest(InPlace):
    """Copies the message to a page of its own; only the response is firmware's in place."""

    def request_in_place(self, svm: Svm, _pages: int) -> tuple[int, int]:
        port, sev = self.port, svm.sev
        if not sev.gctx or port.psp_is_dead() or self.is_ghcb(svm):
            return -EBUSY, 0
        copy = port.alloc_page(0)
        ret = port.read_guest(sev.vm, svm.info1, copy, PAGE_SIZE) if copy else -ENOMEM
        resp = -EFAULT if ret else port.gfn_to_pfn(sev.vm, svm.info2 >> 12)
        result = (-EIO, 0)
        if resp > 0:
            result = self.request_on_pages(sev, copy >> 12, resp)
            port.put_pfn(resp)
        if copy:
            port.free_page(copy)
        return result


class Quick(GuestDriver):
    """Asks every second while it is told BUSY."""

    DELAY = 1

    def __init__(self, port: Any) -> None:
        super().__init__(Waits(port, self.DELAY))


class Slow(Quick):
    """Asks every ten seconds."""

    DELAY = 10


class Waits:
    """The port, but for how long it sleeps."""

    def __init__(self, port: Any, delay: int) -> None:
        self.port = port
        self.delay = delay

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)

    def sleep(self, _seconds: int) -> int:
        return int(self.port.sleep(self.delay))


class ReadsStatus(GuestDriver):
    """Gives an errno, and no answer, for an answer that says no."""

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        ret, info2, answer = super().get_derived_key(fields, vmpl, svn, tcb)
        return (-EIO, 0, b"") if any(answer[:4]) else (ret, info2, answer)


class PagesPerVcpu(Upstream):
    """Has a pair of pages for each vCPU, from its creation to the end of its VM."""

    def __init__(self, port: Any) -> None:
        super().__init__(port)
        self.pairs: dict[int, list[tuple[int, int]]] = {}

    def vcpu_create(self, vcpu: int, vm: int) -> int:
        first = self.port.alloc_page(1)
        second = self.port.kzalloc(PAGE_SIZE) if first else 0
        if not second:
            self.give_up(first)
            return -ENOMEM
        self.pairs.setdefault(vm, []).append((first, second))
        return super().vcpu_create(vcpu, vm)

    def give_up(self, first: int) -> None:
        if first:
            self.port.free_page(first)

    def vm_destroy(self, vm: int) -> int:
        for first, second in self.pairs.pop(vm, []):
            self.port.free_page(first)
            self.port.kfree(second)
        return super().vm_destroy(vm)


class ChecksLengthFirst(GuestDriver):
    """Looks at the length of a buffer before it looks whether there is one."""

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        if certs_len % PAGE_SIZE or certs_len > 4 * PAGE_SIZE:
            return -EINVAL, 0, b"", b"", 0
        return super().get_ext_report(data, vmpl, certs_len, address)


class OneAllocation(GuestDriver):
    """Has all its pages from one allocation: the host is given pages in the middle of it."""

    def open(self, vmpck: int) -> int:
        self.vmpck = vmpck
        base = 0 if self.is_disabled() else self.alloc_shared(6)
        if not base:
            return -EINVAL
        self.request, self.response, self.certs = base, base + PAGE_SIZE, base + 2 * PAGE_SIZE
        if not self.locked:
            self.port.mutex_init("snp_cmd_mutex")
            self.locked = True
        return 0

    def close(self) -> int:
        self.free_shared(self.request)
        return 0


FETCHING = {"certs": True}
RIGHT: list[tuple[type, dict[str, Any], tuple[Any, ...]]] = [
    # what is decided counts, not how often the GHCB is looked at
    *(
        (Linux, FETCHING, (ExtGuestRequest(), Continue(ret=0, race=race)))
        for race in ("valid", "info1", "info2", "rax")
    ),
    *((Linux, FETCHING, (ExtGuestRequest(), Continue(ret=28, race=race))) for race in ("valid", "info1", "rbx")),
    *((ReadsOften, {}, (GuestRequest(race=race),)) for race in ("info1", "info2", "code", "valid", "usage")),
    # a response that the guest has put over its GHCB
    *((kind, {}, (op(resp="G"),)) for kind in (Linux, LateOutput) for op in (GuestRequest, ExtGuestRequest)),
    (Linux, FETCHING, (ExtGuestRequest(resp="G"), Continue(ret=0))),
    (Linux, {"vcpus": 2}, (GuestRequest(0, resp="G'"), GuestRequest(1))),
    # a GHCB that cannot be mapped: the guest finds its own inputs
    *(
        (kind, {}, (refused(op(req=req, resp=resp), "ghcb_map", -EFAULT),))
        for kind in (Linux, Untouched)
        for op in (GuestRequest, ExtGuestRequest)
        for req, resp in (("0", "P"), ("R", "P"), ("0", "0"))
    ),
    # certificates that the guest has put over its message
    (Linux, {}, (ExtGuestRequest(data="R"),)),
    (Upstream, {}, (ExtGuestRequest(data="R"),)),
    (WholePages, {}, (ExtGuestRequest(data="R"),)),
    (WholePages, {}, (ExtGuestRequest(data="G"),)),
    (Upstream, FETCHING, (ExtGuestRequest(data="R"), Continue())),
    (KeepsMessage, FETCHING, (ExtGuestRequest(data="R"), Continue())),
    # all pages that the guest offers are cleared
    (WholePages, {}, (ExtGuestRequest(),)),
    (WholePages, {}, (ExtGuestRequest(data="D3"),)),
    (WholePages, {}, (ExtGuestRequest(0, "bad-tag", data="D3"),)),
    (WholePages, {}, (CloseFd(), ExtGuestRequest(data="D3"))),
    # the response page is cleared first
    (ClearsResponse, {}, (refused(GuestRequest(), "clear_guest", -EFAULT),)),
    (ClearsResponse, {}, (refused(ExtGuestRequest(), "snp_guest_request", -EBADF),)),
    (ClearsResponse, {}, (refused(ExtGuestRequest(), "snp_guest_request", -ETIMEDOUT), GuestRequest())),
    (ClearsResponse, {}, (GuestRequest(resp="hole"),)),
    (ClearsResponse, {}, (CloseFd(), RemoveSlot(0, "P0"), ExtGuestRequest())),
    # the response page is looked for first
    (ProbesResponse, {}, (refused(GuestRequest(), "gfn_to_pfn", -EFAULT),)),
    (ProbesResponse, {}, (GuestRequest(resp="hole"),)),
    (
        ProbesResponse,
        {},
        (refused(GuestRequest(), "snp_guest_request", -ETIMEDOUT), refused(GuestRequest(), "gfn_to_pfn", -EFAULT)),
    ),
    (RefusesEarly, FETCHING, (ExtGuestRequest(resp="hole"),)),
    # memory of each vCPU's own
    *(
        (PagesPerVcpu, {}, (refused(VcpuCreate(1), call, -ENOMEM), VcpuCreate(1), GuestRequest(1), VmDestroy()))
        for call in ("alloc_page", "kzalloc")
    ),
    # a response behind the certificates, and in them
    *((InPlace, {}, (SetInstanceCerts(0, "A", length), ExtGuestRequest(resp="D1"))) for length in (4096, 8192)),
    # a message that can be read and not written, for whom translates it and for whom copies it
    *((kind, {}, (op(req="readonly"),)) for kind in (InPlace, CopiesRequest) for op in (GuestRequest, ExtGuestRequest)),
    *((CopiesRequest, {}, (GuestRequest(req=req, resp=resp),)) for req, resp in (("hole", "P"), ("R", "readonly"))),
    # the message is kept while userspace is asked, or read again
    (KeepsMessage, FETCHING, (ExtGuestRequest(), RemoveSlot(0, "R0"), Continue(ret=0))),
    (Linux, FETCHING, (ExtGuestRequest(), RemoveSlot(0, "R0"), Continue(ret=0))),
    (KeepsMessage, FETCHING, (ExtGuestRequest(), Decommission())),
]

AFTER_TOO_SMALL = ("too-small", "drop", "tag", "lost", "status", "exception", "malformed", "busy-forever")
RIGHT_GUESTS: list[tuple[type, tuple[Any, ...]]] = [
    # one allocation for all pages
    *(
        (OneAllocation, (GetExtReport((host,)), GetReport((host,)), GetExtReport()))
        for host in ("ok", "toctou", "too-small", "busy", "tag", "replay")
    ),
    (OneAllocation, (GetExtReport(), beside(GetExtReport(), GetReport(), 9), Close())),
    # a key of fields that firmware does not know
    *(
        (kind, (GetDerivedKey((), fields), GetReport()))
        for kind in (GuestDriver, ReadsStatus)
        for fields in (64, 2**63)
    ),
    # how often BUSY is waited for
    *(
        (kind, (GetExtReport(hosts), GetReport(hosts[:1])))
        for kind in (Quick, Slow, GuestDriver, LinuxGuest)
        for hosts in (("busy-forever",), ("busy-long",), ("busy", "busy-long"), ("too-small", "busy-long", "status"))
    ),
    # a driver that does not start has nothing, whatever it was that could not be had
    *(
        (kind, (Close(), Step(Open(), (Fault(call, error, nth),)), Open(1), GetReport(), Close()))
        for kind in (GuestDriver, LinuxGuest, OneAllocation)
        for call, error in (("alloc_pages", -ENOMEM), ("set_decrypted", -EIO))
        for nth in (1, 2, 3)
    ),
    # the length of a buffer that is not there
    *((kind, (GetExtReport((), 1, buffer=False), GetReport())) for kind in (GuestDriver, ChecksLengthFirst)),
    (ChecksLengthFirst, (GetExtReport(("status",), 0x5000, buffer=False), GetReport())),
    (ChecksLengthFirst, (GetReport(("status",)), GetExtReport((), 1, buffer=False))),
    # what the caller is told after too small, whose response nobody waits for, and what becomes of the key
    *(
        (kind, (GetExtReport(("too-small", then)), GetReport(), GetReport()))
        for kind in (LinuxGuest, Wipes, Older, Strict, GuestDriver)
        for then in AFTER_TOO_SMALL
    ),
    # pages of one request's own need no lock
    *(
        (kind, (beside(GetExtReport(), right, point),))
        for kind in (LinuxGuest, Wipes, Older)
        for right in (GetDerivedKey(), GetExtReport())
        for point in range(0, 24, 3)
    ),
]


@pytest.mark.parametrize(("kind", "config", "trace"), RIGHT)
def test_right_hypervisors_are_not_accused(kind: type, config: dict[str, Any], trace: tuple[Any, ...]) -> None:
    """No MUST is broken on a trace that shows how it is built."""
    report = run(kind, *trace, **config)

    assert report.failure is None, report.failure.signature


@pytest.mark.parametrize(("kind", "trace"), RIGHT_GUESTS)
def test_right_guests_are_not_accused(kind: type, trace: tuple[Any, ...]) -> None:
    """The same for guests."""
    report = run(kind, *trace, side="guest")

    assert report.failure is None, report.failure.signature


# -- wrong code beside them


class FetchesAgain(Upstream):
    """Uses the response page that the GHCB names when the request is forwarded."""

    def forward(self, sev: Sev, resp_gpa: int) -> tuple[int, int]:
        vcpu = next(number for number, svm in self.svms.items() if svm.sev is sev)
        return super().forward(sev, self.port.ghcb_read(vcpu, GHCB_SW_EXITINFO2, 8))


class SilentFailure(Upstream):
    """Tells a guest of success whose request was not delivered."""

    def guest_request(self, vcpu: int, svm: Svm) -> int:
        ret = super().guest_request(vcpu, svm)
        return self.complete(vcpu, 0, 0) if ret < 0 else ret


class ClearsBeyond(WholePages):
    """Clears one page more than the guest offers."""

    def clear_table(self, sev: SevInfo, data_gpa: int, data_npages: int) -> int:
        return self.port.clear_guest(sev.vm, data_gpa, (data_npages + 1) * PAGE_SIZE)


class ClearsAfter(Linux):
    """Clears the response page once it holds the answer."""

    def tell(self, vcpu: int, info_2: int) -> int:
        svm = self.vcpus[vcpu]
        self.port.clear_guest(svm.vm, svm.exit_info_2, PAGE_SIZE)
        return super().tell(vcpu, info_2)


class ProbeIsSuccess(ProbesResponse):
    """Tells the guest of success when the response page is not there."""

    def forward(self, sev: SevInfo, vcpu: int, req_gpa: int, resp_gpa: int) -> int:
        ret = super().forward(sev, vcpu, req_gpa, resp_gpa)
        return self.tell(vcpu, 0) if ret == -EIO else ret


class ForwardsNothing(CopiesRequest):
    """Forwards what its page holds when the message cannot be read."""

    def request_on_pages(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        self.port.memset(req << 12, 0, PAGE_SIZE)
        return super().request_on_pages(sev, req, resp)


class LosesPage(PagesPerVcpu):
    """Forgets the first page of a vCPU when the second cannot be had."""

    def give_up(self, first: int) -> None:
        pass


class CodeCut(Upstream):
    """Compares the lower half of the exit code."""

    def __init__(self, port: Any) -> None:
        super().__init__(CutCode(port))


class CutCode:
    """The port, but for the upper half of SW_EXITCODE."""

    def __init__(self, port: Any) -> None:
        self.port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)

    def ghcb_read(self, vcpu: int, offset: int, size: int) -> int:
        value = int(self.port.ghcb_read(vcpu, offset, size))
        return value & 0xFFFFFFFF if offset == GHCB_SW_EXITCODE else value


class FirstPageAlone(InPlace):
    """Looks at the first page for certificates alone when it looks whether the response is there."""

    def overlaps(self, svm: Svm, gpa: int, pages: int) -> bool:
        return svm.info2 == gpa


class ReadonlyIsDone(CopiesRequest):
    """Tells a guest of success whose message firmware refused."""

    def request_on_pages(self, sev: Sev, req: int, resp: int) -> tuple[int, int]:
        ret, _ = super().request_on_pages(sev, req, resp)
        return ret, 0


class KeepsNothing(Linux):
    """Forwards whatever its buffer holds when the message is gone."""

    def fetch(self, sev: SevInfo, vcpu: int, req_gpa: int) -> int:
        super().fetch(sev, vcpu, req_gpa)
        return 0


class AsksToTryAgain(Linux):
    """Makes -EAGAIN of a file that is closed, so that its caller tries for ever."""

    def command(self, sev: SevInfo) -> tuple[int, int]:
        ret, status = super().command(sev)
        return (-EAGAIN if ret == -EBADF else ret), status


class EditsMessage(Linux):
    """Changes the reserved bytes of the message on its way."""

    def fetch(self, sev: SevInfo, vcpu: int, req_gpa: int) -> int:
        ret = super().fetch(sev, vcpu, req_gpa)
        self.port.memset(sev.guest_req_buf + 0x28, 1, 1)
        return ret


class LeaksMessage(KeepsMessage):
    """Keeps its copy of the message for good."""

    def drop(self, vcpu: int) -> None:
        self.kept.pop(vcpu, 0)


class FirstGhcb(Linux):
    """The first page that is registered stays the GHCB."""

    def ghcb_register(self, vcpu: int, gpa: int) -> int:
        return 0 if self.vcpus[vcpu].ghcb_registered_gpa is not None else super().ghcb_register(vcpu, gpa)


WRONG: list[tuple[type, dict[str, Any], tuple[Any, ...], str]] = [
    (FetchesAgain, {}, (GuestRequest(race="info2"),), "SNP-012"),
    (SilentFailure, {}, (refused(GuestRequest(), "snp_guest_request", -EBADF),), "SNP-019"),
    (ClearsBeyond, {}, (ExtGuestRequest(npages=1),), "SNP-051"),
    (ClearsAfter, {}, (GuestRequest(),), "SNP-017"),
    (ProbeIsSuccess, {}, (GuestRequest(resp="hole"),), "SNP-021"),
    (ForwardsNothing, {}, (GuestRequest(),), "SNP-017"),
    (LosesPage, {}, (refused(VcpuCreate(1), "kzalloc", -ENOMEM),), "SNP-069"),
    (CodeCut, {}, (UnknownExit(code=1 << 32 | GUEST_REQUEST),), "SNP-013"),
    (FirstPageAlone, {}, (SetInstanceCerts(0, "A", 8192), ExtGuestRequest(resp="D1")), "SNP-029"),
    (ReadonlyIsDone, {}, (GuestRequest(req="readonly"),), "SNP-018"),
    (KeepsNothing, FETCHING, (ExtGuestRequest(), RemoveSlot(0, "R0"), Continue(ret=0)), "SNP-016"),
    (AsksToTryAgain, {}, (CloseFd(), GuestRequest()), "SNP-068"),
    (EditsMessage, {}, (GuestRequest(),), "SNP-016"),
    (LeaksMessage, {}, (ExtGuestRequest(), VmDestroy()), "SNP-072"),
    (FirstGhcb, {}, (RegisterGhcb(0, "spare"), GuestRequest(0)), "SNP-004"),
]


@pytest.mark.parametrize(("kind", "config", "trace", "clause"), WRONG)
def test_wrong_hypervisors_are_found(kind: type, config: dict[str, Any], trace: tuple[Any, ...], clause: str) -> None:
    """What was loosened for right code still finds the wrong code that is nearest to it."""
    assert blamed(run(kind, *trace, **config)) == clause


class Careless(GuestDriver):
    """Leaves it at the tag."""

    def unseal(self, number: int, kind: int, size: int) -> bytes:
        message = bytes(self.port.shared_read(self.response, PAGE_SIZE))
        tag, got, *_, got_size, _ = HEADER.unpack_from(message)
        body = message[HEADER_SIZE : HEADER_SIZE + got_size]
        aad = message[MSG_ALGO:HEADER_SIZE]
        return bytes(self.port.gcm_decrypt(self.key(), struct.pack("<Q4x", got), aad, body + tag))


@pytest.mark.parametrize("host", ["sealed-number", "sealed-type", "sealed-version"])
def test_what_only_a_holder_of_the_key_can_forge_is_defence_in_depth(host: str) -> None:
    """Who believes it breaks a SHOULD, and the run goes on."""
    report = run(Careless, GetReport((host,)), GetReport(), side="guest")

    assert report.failure is None
    assert [warning.clause.id for warning in report.warnings] == ["SNP-096"]


class TakesAnything(GuestDriver):
    """Does not look at the tag."""

    def unseal(self, number: int, kind: int, size: int) -> bytes:
        return super().unseal(number, kind, size) or bytes(size)


class WantsBuffer(GuestDriver):
    """Refuses a caller without a buffer, whatever the length."""

    def get_ext_report(
        self, data: bytes, vmpl: int, certs_len: int, address: int
    ) -> tuple[int, int, bytes, bytes, int]:
        if not address:
            return -EINVAL, 0, b"", b"", 0
        return super().get_ext_report(data, vmpl, certs_len, address)


class FieldsCut(GuestDriver):
    """Asks for the fields that it knows."""

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        return super().get_derived_key(fields & 0xFFFFFFFF, vmpl, svn, tcb)


class NeverKeys(GuestDriver):
    """Gives an errno for every key."""

    def get_derived_key(self, fields: int, vmpl: int, svn: int, tcb: int) -> tuple[int, int, bytes]:
        super().get_derived_key(fields, vmpl, svn, tcb)
        return -EIO, 0, b""


class ForgetsPrivatePage(GuestDriver):
    """Does not free the page that it could not share, and so does not start."""

    def alloc_shared(self, npages: int) -> int:
        gpa = self.port.alloc_pages(npages)
        return 0 if gpa and self.port.set_decrypted(gpa) else gpa


class CountsTries(GuestDriver):
    """Gives up on BUSY after so many tries, however long they take."""

    tries = 0

    def send(self, code: int, npages: int) -> tuple[int, int, int]:
        info1, info2, rbx = super().send(code, npages)
        self.tries = self.tries + 1 if (info1, info2) == (0, BUSY_INFO2) else 0
        if 0 < self.tries < 40:
            self.port.sleep(2)
            return self.send(code, npages)
        return info1, info2, rbx


class SealsInPlace(GuestDriver):
    """Has the second half of a message in the shared page while it encrypts it."""

    def seal(self, number: int, kind: int, payload: bytes) -> bytes:
        half = len(payload) // 2
        self.port.shared_write(self.request + HEADER_SIZE + half, payload[half:])
        return super().seal(number, kind, payload)


class OpensInPlace(GuestDriver):
    """Puts an answer in the clear where the encrypted one was."""

    def unseal(self, number: int, kind: int, size: int) -> bytes:
        answer = super().unseal(number, kind, size)
        self.port.shared_write(self.response + HEADER_SIZE, answer)
        return answer


class ReadsTwice(OneAllocation):
    """Looks at the header, and then at the whole response, of a page in the middle of an allocation."""

    def unseal(self, number: int, kind: int, size: int) -> bytes:
        self.port.shared_read(self.response, HEADER_SIZE)
        return super().unseal(number, kind, size)


class CertsUncleared(OneAllocation):
    """Clears one page less than it offers."""

    def ext_locked(self, payload: bytes, certs_len: int) -> tuple[int, int, bytes, bytes, int]:
        self.port.shared_write(self.certs, bytes(certs_len - PAGE_SIZE))
        code, npages = EXT_GUEST_REQUEST, certs_len // PAGE_SIZE
        ret, info2, answer, needed = self.exchange(REPORT_REQ, payload, REPORT_RSP_SIZE, code, npages)
        return ret, info2, answer, b"", needed


class KeepsKey(LinuxGuest):
    """Neither wipes nor counts after an error of the request that follows too small."""

    def snp_inc_msg_seqno(self) -> None:
        pass


class PagesOfAll(LinuxGuest):
    """Shares one set of pages for certificates, and uses it without the lock."""

    certs = 0

    def get_certs_pages(self, req: GuestReq, npages: int) -> int:
        self.certs = self.certs or self.alloc_shared_pages(4)
        self.port.shared_write(self.certs, bytes(npages * PAGE_SIZE))
        req.certs_data = self.certs
        return 0

    def put_certs_pages(self, req: GuestReq) -> None:
        pass


WRONG_GUESTS: list[tuple[type, tuple[Any, ...], str]] = [
    (TakesAnything, (GetReport(("tag",)),), "SNP-089"),
    (TakesAnything, (GetReport(("drop",)),), "SNP-090"),
    (FieldsCut, (GetDerivedKey((), 2**32),), "SNP-097"),
    (NeverKeys, (GetDerivedKey((), 63),), "SNP-085"),
    (ForgetsPrivatePage, (Close(), refused(Open(), "set_decrypted", -EIO)), "SNP-094"),
    (CountsTries, (GetReport(("busy-forever",)),), "SNP-087"),
    (SealsInPlace, (GetReport(),), "SNP-090"),
    (SealsInPlace, (GetDerivedKey(),), "SNP-090"),
    (OpensInPlace, (GetDerivedKey(),), "SNP-090"),
    (ReadsTwice, (GetReport(("toctou",)),), "SNP-089"),
    (CertsUncleared, (GetExtReport(),), "SNP-098"),
    (WantsBuffer, (GetExtReport((), 4096, buffer=False),), "SNP-086"),
    (KeepsKey, (GetExtReport(("too-small", "status")), GetReport()), "SNP-084"),
    (PagesOfAll, (GetExtReport(), beside(GetExtReport(), GetExtReport(), 3)), "SNP-092"),
]


@pytest.mark.parametrize(("kind", "trace", "clause"), WRONG_GUESTS)
def test_wrong_guests_are_found(kind: type, trace: tuple[Any, ...], clause: str) -> None:
    """The same for guests."""
    assert blamed(run(kind, *trace, side="guest")) == clause


def test_a_request_page_may_be_refused_before_certificates_are_looked_for() -> None:
    """In place, a page that firmware could not read is found by whoever looks first; the size is still wanted."""
    stored = SetInstanceCerts(0, "A", 1)

    assert run(AsPosted, stored, ExtGuestRequest(req="readonly", npages=0)).failure is None
    assert blamed(run(NeverTooSmall, stored, ExtGuestRequest(npages=0))) == "SNP-041"


class NeverTooSmall(AsPosted):
    """Takes any number of pages for enough, and answers that the request page cannot be read."""

    def ext_guest_request(self, vcpu: int, svm: Svm) -> int:
        return self.complete(vcpu, 1, 9)
