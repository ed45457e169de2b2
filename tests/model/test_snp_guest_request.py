"""The specification of guest requests: each answer, and the clause that decides it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from conformance.model import snp_guest_request as model
from conformance.model.matchers import ERRNO
from conformance.model.snp_guest_request.hosts import HOSTS
from conformance.model.snp_guest_request.operations import (
    LATE_EFAULT,
    Answers,
    Boot,
    CloseFd,
    Config,
    Continue,
    Decommission,
    ExtGuestRequest,
    GetExtReport,
    GetInstanceCerts,
    GetReport,
    GuestRequest,
    HostSetExtConfig,
    LaunchStart,
    SetInstanceCerts,
    UnknownExit,
)
from conformance.model.snp_guest_request.results import REFUSAL
from conformance.model.snp_guest_request.state import State
from conformance.model.step import Outcome, each
from conformance.specs import snp_guest_request as specs
from conformance.specs.snp_guest_request.constants import EAGAIN, EBADF, EIO, SEV_ES

NOTHING = Answers()


def start(profile: str = "upstream", **config: object) -> State:
    return model.initial(Config(**config), specs.PROFILES[profile])  # type: ignore[arg-type]  # fields by name


def outcomes(state: State, op: object, env: Answers = NOTHING, profile: str = "upstream") -> tuple[Outcome, ...]:
    return each(model.step(state, op, env, specs.PROFILES[profile]))  # type: ignore[arg-type]  # any operation


def plain(state: State, op: object, env: Answers = NOTHING, profile: str = "upstream") -> Outcome:
    return outcomes(state, op, env, profile)[0]


@pytest.mark.parametrize(
    ("op", "result", "clause"),
    [
        (GuestRequest(), (1, 0, 0, None), "SNP-017"),
        (GuestRequest(usage=1, missing="c12", req="R+8"), (1, 2, 2, None), "SNP-002"),
        (GuestRequest(missing="1", req="R+8"), (1, 2, 4, None), "SNP-003"),
        (GuestRequest(ghcb="spare", usage=1), -22, "SNP-004"),
        (GuestRequest(req="R+8"), (1, 2, 4, None), "SNP-005"),
        (GuestRequest(resp="P+1"), (1, 2, 4, None), "SNP-006"),
        (GuestRequest(resp="R"), (1, 2, 4, None), "SNP-007"),
        (ExtGuestRequest(missing="b"), (1, 2, 5, None), "SNP-008"),
        (ExtGuestRequest(data="D+8", npages=0), (1, 2, 5, None), "SNP-009"),
        (ExtGuestRequest(message="key", data="D+8", missing="ab"), (1, 0, 0, None), "SNP-010"),
        (GuestRequest(message="bad-tag"), (1, 0, 0xB, None), "SNP-018"),
        (GuestRequest(req="hole"), -5, "SNP-021"),
        (GuestRequest(resp="readonly"), -5, "SNP-021"),
        (ExtGuestRequest(data="hole"), -5, "SNP-052"),
        (ExtGuestRequest(data="hole", npages=0), (1, 0, 0, None), "SNP-051"),
    ],
)
def test_one_request(op: object, result: object, clause: str) -> None:
    """Result and deciding clause of a request to a VM that has just started."""
    outcome = plain(start(), op)

    assert (outcome.result, outcome.because.id) == (result, clause)


@pytest.mark.parametrize(
    ("given", "result", "clause"),
    [
        (-9, -9, "SNP-019"),
        (-19, -19, "SNP-019"),
        (-110, -110, "SNP-020"),
        (0x1D, (1, 0, 0x1D, None), "SNP-018"),
        (LATE_EFAULT, -14, "SNP-019"),
    ],
)
def test_failing_command(given: int, result: object, clause: str) -> None:
    """A command that fails is never a success."""
    outcome = plain(start(), GuestRequest(), Answers(snp_guest_request=given))

    assert (outcome.result, outcome.because.id) == (result, clause)


def test_late_failure_uses_the_number_up() -> None:
    """Firmware answered before the driver failed, so its counter moved."""
    outcome = plain(start(), GuestRequest(), Answers(snp_guest_request=LATE_EFAULT))

    assert outcome.state.vms[0].counts == (2, 0, 0, 0)


@pytest.mark.parametrize(("count", "status"), [(2**64 - 4, 0), (2**64 - 2, 0x1D)])
def test_counter_ends_at_its_last_value(count: int, status: int) -> None:
    """The message after the last count is refused."""
    assert plain(start(count=count), GuestRequest()).result == (1, 0, status, None)


@pytest.mark.parametrize(
    ("ret", "result"),
    [
        (0, (1, 0, 0, None)),
        (28, (1, 0, 1 << 32, 3)),
        (11, (1, 0, 2 << 32, None)),
        (5, (1, 0, 0xFFFFFFFF << 32, None)),
        (1, -22),
        (2**64 - 28, -22),
        (2**32 + 28, -22),
    ],
)
def test_answers_of_userspace(ret: int, result: object) -> None:
    """SNP-063, and that the exit comes before anything else."""
    asked = plain(start(certs=True), ExtGuestRequest())

    assert asked.result == (0, 42, 0x7000, 4, 0)
    assert plain(asked.state, Continue(0, ret, 3)).result == result


def test_other_vms_are_malformed_or_invalid_guest() -> None:
    """SNP-001 in both ways of telling errors."""
    ghcb, posted = (start(p, second=SEV_ES) for p in ("upstream", "as-posted"))

    assert plain(ghcb, GuestRequest(2)).result == (1, 2, 4, None)
    assert plain(posted, GuestRequest(2), profile="as-posted").result == (1, 0, 0x10, None)


def test_order_of_causes_is_left_open() -> None:
    """A closed fd and an unreadable page may be found in either order; what a closed fd is called is open as well."""
    closed = plain(start(), CloseFd()).state
    found = {o.because.id: o.result for o in outcomes(closed, GuestRequest(req="hole"))}

    assert set(found) == {"SNP-021", "SNP-068"}
    assert found["SNP-021"] == -EIO
    assert found["SNP-068"] == -EBADF
    assert found["SNP-068"] != -EAGAIN


def test_older_response_is_tolerated_with_a_breach() -> None:
    """SNP-023 is a SHOULD: the outcome is allowed, and says what it breaks."""
    once = plain(start(), GuestRequest()).state
    found = outcomes(once, GuestRequest(message="bad-tag", resp="P'"))

    assert not found[0].breaches
    assert [o.breaches[0].id for o in found if o.breaches] == ["SNP-023"]


@pytest.mark.parametrize(
    ("npages", "result"), [(0, (1, 0, 1 << 32, 1)), (1, (1, 0, 0, None)), (2**52, (1, 0, 0, None))]
)
def test_pages_needed_are_rounded_up_without_overflow(npages: int, result: object) -> None:
    """SNP-049 and SNP-014: 20 bytes need one page, and 2^52 pages are enough."""
    state = plain(start("kernel-certs"), SetInstanceCerts(0, "A", 20), profile="kernel-certs").state

    assert plain(state, ExtGuestRequest(npages=npages), profile="kernel-certs").result == result


def test_instance_certificates_win() -> None:
    """SNP-053: the data page holds the VM's own blob."""
    state = start("kernel-certs")
    for op in (HostSetExtConfig(), SetInstanceCerts(0, "A", 4096), ExtGuestRequest()):
        state = plain(state, op, profile="kernel-certs").state

    assert state.vms[0].pages[2] == ("A", 0, 4096)


def test_set_refuses_in_order() -> None:
    """SNP-054: too long, then short of memory, then a bad pointer; the old blob stays."""
    state = plain(start("kernel-certs"), SetInstanceCerts(), profile="kernel-certs").state
    refused = [
        plain(state, SetInstanceCerts(0, "B", 0x4001), profile="kernel-certs"),
        plain(state, SetInstanceCerts(0, "B"), Answers(kzalloc=-12, copy_from_user=-14), "kernel-certs"),
        plain(state, SetInstanceCerts(0, "B"), Answers(copy_from_user=-14), "kernel-certs"),
    ]

    assert [o.result for o in refused] == [-22, -12, -14]
    assert all(o.state == state for o in refused)


def test_reclaim_failure_kills_the_vm() -> None:
    """SNP-032: the page stays firmware's, the VM is bugged, and any errno will do."""
    outcome = plain(start("kernel-certs"), GuestRequest(), Answers(snp_page_reclaim=-5), "kernel-certs")

    assert outcome.because.id == "SNP-032"
    assert outcome.result == -5
    assert outcome.result == -22
    assert outcome.result != (1, 0, 9, None)
    assert outcome.state.vms[0].bugged


def test_export_drops_the_context() -> None:
    """SNP-076: later requests meet no guest, and decommissioning fails."""
    gone = plain(start(), GuestRequest(message="export")).state

    assert plain(gone, GuestRequest()).result == (1, 0, 0x10, None)
    assert plain(gone, Decommission()).because.id == "SNP-076"


def test_second_context_is_refused() -> None:
    """SNP-071."""
    assert plain(start(), LaunchStart()).result == -22


def test_booting_is_only_for_absent_vms() -> None:
    """`legal` keeps the world possible."""
    assert not model.legal(start(), Boot(0))
    assert model.legal(start(), Boot(1))


@pytest.mark.parametrize(
    ("host", "result", "clause"),
    [
        ((), (0, 0, "report", None, 0), "SNP-085"),
        (("busy",), (0, 0, "report", None, 0), "SNP-087"),
        (("busy-forever",), (-110, 2 << 32, None, None, 0), "SNP-087"),
        (("replay",), (-74, 0, None, None, 0), "SNP-090"),
        (("corrupt",), (-74, 0, None, None, 0), "SNP-089"),
        (("status",), (-5, 0x16, None, None, 0), "SNP-088"),
        (("too-small",), (-5, 1 << 32, None, None, 0), "SNP-088"),
    ],
)
def test_driver_with_a_host(host: tuple[str, ...], result: object, clause: str) -> None:
    """What the caller of the driver gets, and why."""
    outcome = plain(start(side="guest"), GetReport(host))

    assert outcome.result == result
    assert outcome.because.id == clause


def test_every_doubt_wipes_the_key() -> None:
    """SNP-088: after anything but success or BUSY the key is gone."""
    for host in HOSTS:
        outcome = plain(start(side="guest"), GetReport((host,)))
        wiped = outcome.state.guest.wiped[0]

        assert wiped == (host not in ("ok", "toctou", "busy", "busy-long")), host


def test_too_small_keeps_the_key_and_counts() -> None:
    """SNP-086."""
    outcome = plain(start(side="guest"), GetExtReport((), 4096))

    assert outcome.result == (-5, 1 << 32, None, None, 8192)
    assert outcome.state.guest.counts == (2, 2, 4, 6)
    assert not outcome.state.guest.wiped[0]


def test_last_number_is_not_sent() -> None:
    """SNP-085: 2^32-1 is never reached."""
    assert plain(start(side="guest", count=2**32 - 4), GetReport()).result == (0, 0, "report", None, 0)
    assert plain(start(side="guest", count=2**32 - 2), GetReport()).result == (-5, 0xFF, None, None, 0)


def test_get_takes_rounded_and_exact_lengths() -> None:
    """SNP-055 asks for zeros after the blob, not for how long the store says it is."""
    state = plain(start("kernel-certs"), SetInstanceCerts(0, "A", 4097), profile="kernel-certs").state
    found = outcomes(state, GetInstanceCerts(0, 4097), profile="kernel-certs")

    assert [o.result[0] for o in found] == [0, -22]


@pytest.mark.parametrize("predicate", [ERRNO, REFUSAL])
def test_open_results_never_equal_success(predicate: Callable[..., bool]) -> None:
    """Where the clause leaves the error open, success is still no error."""
    assert predicate != (1, 0, 0, None)
    assert predicate == -5


@pytest.mark.parametrize("code", [0x81, 0x8000_0010, 0x8000_0011, 0x8000_0012, 0x8000_FFFF, 2**64 - 1])
def test_no_exit_with_a_code_that_somebody_defined(code: int) -> None:
    """A driver may know what to do with it."""
    assert not model.legal(start(), UnknownExit(0, code=code))
    assert model.legal(start(), UnknownExit(0, code=1 << 32 | code & 0xFFFF_FFFF))
