"""Every clause can fail: for each that is testable a wrong candidate is cited with it, or with the neighbour named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from conformance.candidates.defects.snp_guest_request import DEFECTS
from conformance.model.snp_guest_request import operations as o
from conformance.model.step import Fault, Parallel, Step
from conformance.specs import snp_guest_request as specs
from conformance.specs.snp_guest_request.constants import (
    EAGAIN,
    EBADF,
    EFAULT,
    EIO,
    ENOMEM,
    ETIMEDOUT,
    SEV_ES,
    SNP,
)
from tests.conformance.snp_guest_request.judging import run
from tests.conformance.snp_guest_request.mutants import MUTANTS

WRONG: dict[str, Any] = {defect.id: defect.candidate for defect in DEFECTS} | MUTANTS


@dataclass(frozen=True)
class Row:
    """A wrong candidate, and the shortest trace that shows it."""

    candidate: str
    """A defect of the zoo, or a mutant kept for this."""
    trace: tuple[Any, ...]
    cited: str = ""
    """The neighbour that is cited in place of the clause."""
    config: dict[str, Any] = field(default_factory=dict)


def refused(op: Any, call: str, value: int) -> Step:
    """The operation, with one call refused."""
    return Step(op, (Fault(call, value),))


def row(candidate: str, *trace: Any, cited: str = "", **config: Any) -> Row:
    """A row of the table."""
    return Row(candidate, trace, cited, config)


def guest(candidate: str, *trace: Any, cited: str = "") -> Row:
    """A row about a guest's driver."""
    return Row(candidate, trace, cited, {"side": "guest"})


SECOND_BLOB = refused(o.SetInstanceCerts(0, "B", 8192), "copy_from_user", -EFAULT)
NOT_DELIVERED = refused(o.GuestRequest(), "snp_guest_request", -EBADF)
TIMED_OUT = refused(o.GuestRequest(), "snp_guest_request", -ETIMEDOUT)

ROWS: dict[str, Row] = {
    "SNP-001": row("SNP-D09", o.GuestRequest(2), second=SEV_ES),
    "SNP-002": row("UsageIgnored", o.GuestRequest(usage=1)),
    "SNP-003": row("ValidBitsIgnored", o.GuestRequest(missing="1")),
    "SNP-004": row("SNP-V11", o.RegisterGhcb(0, "spare"), o.GuestRequest()),
    "SNP-005": row("SNP-V07", o.GuestRequest(req="R+2048")),
    "SNP-006": row("SNP-V07", o.GuestRequest(resp="P+2048")),
    "SNP-007": row("SNP-D11", o.GuestRequest(resp="R")),
    "SNP-008": row("SNP-D19", o.ExtGuestRequest(missing="b")),
    "SNP-009": row("SNP-D08", o.ExtGuestRequest(data="D+8")),
    "SNP-010": row("SNP-D20", o.ExtGuestRequest(0, "key", data="D+8")),
    "SNP-011": row("ClearsThenRefuses", o.GuestRequest(usage=1)),
    "SNP-012": row("SNP-V02", o.GuestRequest(race="code")),
    "SNP-013": row("UnknownExitMissesInput", o.UnknownExit()),
    "SNP-014": row("SNP-D29", o.SetInstanceCerts(0, "A", 4096), o.ExtGuestRequest(npages=2**52)),
    "SNP-015": row("WithoutCBit", o.GuestRequest()),
    "SNP-016": row("SNP-V03", o.GuestRequest(race="type")),
    "SNP-017": row("NoResponse", o.GuestRequest()),
    "SNP-018": row("OtherStatus", o.GuestRequest(0, "bad-tag")),
    "SNP-019": row("ErrnoIsSuccess", NOT_DELIVERED),
    "SNP-020": row("SNP-D02", TIMED_OUT),
    "SNP-021": row("FaultIsEfault", o.GuestRequest(req="hole")),
    "SNP-022": row("HostBytes", o.GuestRequest()),
    "SNP-023": row("SNP-U10", o.GuestRequest(), o.GuestRequest(0, "bad-tag", resp="P'")),
    "SNP-024": row("SNP-U11", o.ExtGuestRequest(race="type")),
    "SNP-025": row("SNP-V14", refused(o.Decommission(), "snp_decommission", 0x10), o.GuestRequest()),
    "SNP-026": row("RcxLost", o.GuestRequest()),
    "SNP-027": row("ResponseIsHosts", o.GuestRequest()),
    "SNP-028": row("SeizesResponse", o.GuestRequest()),
    "SNP-029": row("SNP-D15", o.GuestRequest(resp="private")),
    "SNP-030": row("SNP-U05", o.GuestRequest(0, "bad-tag")),
    "SNP-031": row("SharedUnreclaimed", o.GuestRequest()),
    "SNP-032": row("SNP-D16", refused(o.GuestRequest(), "snp_page_reclaim", -EIO)),
    "SNP-033": row("StuckPageKept", refused(o.GuestRequest(), "rmp_make_shared", -EFAULT)),
    "SNP-034": row("WritesFirmwarePage", o.GuestRequest()),
    "SNP-035": row("FirmwarePageFreed", o.VmDestroy()),
    "SNP-036": row("SNP-D10", o.GuestRequest(), o.VmDestroy()),
    "SNP-037": row("BuffersKept", o.VmDestroy()),
    "SNP-038": row("DropsEarly", o.GuestRequest()),
    "SNP-039": row("SNP-D23", o.SetInstanceCerts(0, "A", 8192), o.ExtGuestRequest(npages=0), cited="SNP-048"),
    "SNP-040": row("SNP-U04", o.GuestRequest(0, "bad-tag")),
    "SNP-041": row("IssuesException", o.GuestRequest()),
    "SNP-042": row("SNP-D17", refused(o.GuestRequest(), "rmp_make_shared", -EFAULT)),
    "SNP-043": row("BusyAfterCommand", o.ExtGuestRequest(), o.Continue(0, EAGAIN), certs=True),
    "SNP-044": row("GenericAfterCommand", o.ExtGuestRequest(0, "bad-tag"), o.Continue(0, EIO), certs=True),
    "SNP-045": row("RateUnknown", *(o.GuestRequest(),) * 3, throttle=True),
    "SNP-046": row("DeadIsTryAgain", TIMED_OUT, o.GuestRequest()),
    "SNP-047": row("SNP-D01", NOT_DELIVERED),
    "SNP-048": row("SNP-D23", o.SetInstanceCerts(0, "A", 8192), o.ExtGuestRequest(npages=0)),
    "SNP-049": row("RoundsDown", o.SetInstanceCerts(0, "A", 4097), o.ExtGuestRequest(npages=1)),
    "SNP-050": row("NoBlob", o.SetInstanceCerts(0, "B", 4096), o.ExtGuestRequest()),
    "SNP-051": row("SNP-D22", o.ExtGuestRequest()),
    "SNP-052": row("SNP-U01", o.ExtGuestRequest(data="hole")),
    "SNP-053": row("HostFirst", o.HostSetExtConfig(), o.SetInstanceCerts(), o.ExtGuestRequest()),
    "SNP-054": row("LongBlobsCut", o.SetInstanceCerts(0, "A", 0x4001)),
    "SNP-055": row("SNP-D30", o.SetInstanceCerts(0, "A", 8192), o.SetInstanceCerts(0, "B", 4097), o.GetInstanceCerts()),
    "SNP-056": row("SNP-D31", o.SetInstanceCerts(0, "A", 8192), SECOND_BLOB, o.GetInstanceCerts()),
    "SNP-057": row("EverybodyWrites", o.HostSetExtConfig(writable=False)),
    "SNP-058": row("SNP-D33", o.HostSetExtConfig("H", 8192), o.SnpShutdown(), o.HostGetExtConfig(0), started=False),
    "SNP-059": row("SNP-D32", o.HostSetExtConfig(), o.ExtGuestRequest()),
    "SNP-060": row("TcbKept", o.HostSetExtConfig("H", 4096, 2), o.ExtGuestRequest()),
    "SNP-061": row("EnablesAnytime", o.EnableReqCerts()),
    "SNP-062": row("OnePageMore", o.ExtGuestRequest(), certs=True),
    "SNP-063": row("SNP-U12", o.ExtGuestRequest(), o.Continue(0, 22), certs=True),
    "SNP-064": row("SNP-D20", o.ExtGuestRequest(0, "key"), certs=True),
    "SNP-065": row(
        "SNP-V06",
        o.ExtGuestRequest(),
        Step(Parallel(Step(o.Continue()), Step(o.GuestRequest(1)), (4,))),
        certs=True,
        vcpus=2,
    ),
    "SNP-066": row("KeepsLock", o.GuestRequest(req="hole")),
    "SNP-067": row("LockOfNobody", o.GuestRequest()),
    "SNP-068": row("SNP-D18", o.CloseFd(), o.ExtGuestRequest()),
    "SNP-069": row("SNP-U07", o.VmCreate(), refused(o.SevInit(), "alloc_page", -ENOMEM), started=False),
    "SNP-070": row(
        "LosesContextPage",
        o.VmCreate(),
        o.SevInit(),
        refused(o.LaunchStart(), "snp_gctx_create", 0x1A),
        started=False,
    ),
    "SNP-071": row("SNP-U08", o.LaunchStart(valid=False)),
    "SNP-072": row("ContextKept", o.Decommission()),
    "SNP-073": row("FreesAsid", refused(o.VmDestroy(), "snp_decommission", 0x10)),
    "SNP-074": row("AsidFirst", o.VmDestroy()),
    "SNP-075": row("MovesNothing", o.MoveFrom(), o.GuestRequest()),
    "SNP-076": row("DropsQuietly", o.GuestRequest(0, "export"), o.Decommission()),
    "SNP-077": row("OneLockForAll", o.GuestRequest(), o.GuestRequest(2), second=SNP),
    "SNP-078": row("SNP-D36", o.GuestRequest()),
    "SNP-079": row("ExitsLocked", o.ExtGuestRequest(), certs=True),
    "SNP-080": row("GenericAfterCommand", o.ExtGuestRequest(), o.Continue(0, EIO), certs=True),
    "SNP-083": guest("SignedByte", o.GetReport()),
    "SNP-084": guest("SNP-G06", o.GetReport(), o.Kexec(), o.GetReport()),
    "SNP-085": guest("SNP-G06", o.Kexec(1), o.GetReport()),
    "SNP-086": guest("SNP-G02", o.GetExtReport((), 4096)),
    "SNP-087": guest("SNP-G03", o.GetReport(("busy",))),
    "SNP-088": guest("SNP-G01", o.GetReport(("status",))),
    "SNP-089": guest("TakesAnything", o.GetReport(("tag",))),
    "SNP-090": guest("TakesAnything", o.GetReport(("drop",))),
    "SNP-091": guest("AnyLength", o.GetExtReport((), 1)),
    "SNP-092": guest("SNP-G04", Step(Parallel(Step(o.GetExtReport()), Step(o.GetExtReport()), (4,)))),
    "SNP-093": guest("SNP-V15", o.ParseCerts("beyond")),
    "SNP-094": guest("SharedPagesFreed", o.Close()),
    "SNP-095": row("SNP-U13", o.ExtGuestRequest()),
    "SNP-096": guest("SNP-V21", o.GetReport(("sealed-type",))),
    "SNP-097": guest("SNP-V17", o.GetReport((), 0)),
    "SNP-098": guest("SNP-V18", o.GetExtReport()),
    "SNP-099": guest("SNP-V16", o.GetReport(("status",))),
    "SNP-100": row("AlwaysFinishes", o.LaunchFinish()),
    "SNP-101": row("SNP-V19", o.GuestRequest()),
    "SNP-102": row("SNP-V20", NOT_DELIVERED),
}


@pytest.mark.parametrize("clause", ROWS)
def test_a_wrong_candidate_is_cited_with_it(clause: str) -> None:
    """The failure, or the warning where the clause is a SHOULD, names the clause that the table says."""
    it = ROWS[clause]
    report = run(WRONG[it.candidate], *it.trace, **it.config)
    found = {told.clause.id for told in (report.failure, *report.warnings) if told is not None}

    assert (it.cited or clause) in found


def test_the_table_has_no_gaps() -> None:
    """Each testable clause has its row, no other has one, and a neighbour is testable too."""
    testable = [clause.id for clause in specs.CLAUSES if not clause.untestable]

    assert list(ROWS) == testable
    assert {it.cited for it in ROWS.values() if it.cited} <= set(testable)


def test_the_others_say_why() -> None:
    """A clause that no candidate can break through this port has a sentence that says so."""
    assert [clause.id for clause in specs.CLAUSES if clause.untestable] == ["SNP-081", "SNP-082"]
