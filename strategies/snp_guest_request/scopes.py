"""Small worlds, explored without gaps."""

from __future__ import annotations

from typing import Any

from conformance.model.snp_guest_request.hosts import HOSTS
from conformance.model.snp_guest_request.messages import MESSAGES
from conformance.model.snp_guest_request.operations import (
    LATE_EFAULT,
    Boot,
    Close,
    CloseFd,
    Config,
    Continue,
    Decommission,
    EnableReqCerts,
    ExtGuestRequest,
    GetDerivedKey,
    GetExtReport,
    GetInstanceCerts,
    GetReport,
    GuestRequest,
    HostGetExtConfig,
    HostSetExtConfig,
    Kexec,
    LaunchFinish,
    LaunchStart,
    MirrorFrom,
    MoveFrom,
    Open,
    ParseCerts,
    RegisterGhcb,
    RemoveSlot,
    SetInstanceCerts,
    SevInit,
    SnpShutdown,
    UnknownExit,
    VcpuCreate,
    VmCreate,
    VmDestroy,
    Wait,
)
from conformance.model.snp_guest_request.tables import TABLES
from conformance.model.step import Fault, Parallel, Step
from conformance.specs.snp_guest_request.constants import (
    EAGAIN,
    EBADF,
    EFAULT,
    EIO,
    ENOMEM,
    ENOSPC,
    ETIMEDOUT,
    SEV,
    SEV_ES,
    SNP,
)
from conformance.strategies.domain import Scope
from conformance.strategies.snp_guest_request.domains import (
    DATA_WORD,
    FIELDS,
    KERNEL_CERTS,
    LAUNCH_FAULTS,
    MEMORY_FAULTS,
    REQUEST_FAULTS,
    RETS,
    STATUSES,
    STORE_FAULTS,
    TEARDOWN_FAULTS,
    UNKNOWN_CODES,
    VMPLS,
)
from conformance.strategies.snp_guest_request.shapes import SHAPES


def _each(*ops: object) -> tuple[Step, ...]:
    return tuple(Step(op) for op in ops)


def _refused(ops: tuple[Any, ...], faults: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[Step, ...]:
    """Every operation with every refusal, one at a time."""
    return tuple(Step(op, (Fault(call, value),)) for op in ops for call, values in faults for value in values)


_ADDRESSES = ("R", "P", "hole", "private", "readonly", "R+8", "R+2048", "0", "2^63")
_PLACES = ("P", "P'", "R", "G", "G'", "hole", "private", "readonly", "P+8", "P+2048", "D", "0", "-4096")

_BASIC_INPUTS = _each(
    *(GuestRequest(0, "report", req, resp) for req in _ADDRESSES for resp in _PLACES),
    *(GuestRequest(0, message) for message in MESSAGES),
    *(GuestRequest(0, missing=m, usage=u) for m in ("", "1", "2", "c", "a", "abxd") for u in (0, 1)),
    *(GuestRequest(0, usage=u) for u in (2, 0x10000, 2**31, 0xFFFFFFFF)),
    *(GuestRequest(0, "report", "R+8", "P+8", m, u) for m in ("", "1") for u in (0, 1)),
    *(GuestRequest(0, ghcb=ghcb) for ghcb in ("spare", "sibling")),
    *(GuestRequest(0, race=race) for race in ("type", "info1", "info2", "code", "valid", "usage")),
    *(UnknownExit(0, m, u, code) for m in ("", "c") for u in (0, 1) for code in UNKNOWN_CODES.values),
)

_EXTENDED_INPUTS = _each(
    *(
        ExtGuestRequest(0, message, data=data, npages=npages, missing=missing)
        for message in ("report", "key", "bad-tag", "key-bad-tag")
        for data in ("D", "D3", "D+8", "D+2048", "hole", "P", "private", "readonly", "2^63")
        for npages in (0, 1, 2, 2**52)
        for missing in ("", "a", "b")
    ),
    *(ExtGuestRequest(0, resp=resp, data=data) for resp in _PLACES for data in ("D", "P", "G")),
    *(ExtGuestRequest(0, message, data="R", npages=npages) for message in ("report", "key") for npages in (1, 4)),
    *(ExtGuestRequest(0, req=req) for req in _ADDRESSES),
    *(ExtGuestRequest(0, message) for message in MESSAGES),
    *(ExtGuestRequest(0, npages=npages) for npages in (3, 4, 5, 2**20, 2**51, 2**52 - 1, 2**52 + 1, 2**63, 2**64 - 1)),
    *(ExtGuestRequest(0, race=race) for race in ("type", "rax", "rbx", "info1", "info2", "code", "valid", "usage")),
    *(ExtGuestRequest(0, missing=m, usage=u) for m in ("1", "2", "c", "ab", "xd") for u in (0, 1)),
    *(ExtGuestRequest(0, ghcb=ghcb) for ghcb in ("spare", "sibling")),
)

_ONE_OF_EACH = (GuestRequest(0), ExtGuestRequest(0), GuestRequest(0, "bad-tag"))

_UNMAPPED = _refused((GuestRequest(0, req="0"), ExtGuestRequest(0, req="0")), (("ghcb_map", (-EFAULT,)),))

_REFUSED = (
    _refused(_ONE_OF_EACH, REQUEST_FAULTS)
    + _UNMAPPED
    + tuple(
        Step(op, (Fault("snp_guest_request", command), Fault(call, -EIO)))
        for op in _ONE_OF_EACH[:2]
        for command in (0x16, -EBADF, -ETIMEDOUT, LATE_EFAULT)
        for call in ("snp_page_reclaim", "rmp_make_shared")
    )
)

_STATUS_TABLE = tuple(
    Step(op, (Fault("snp_guest_request", status),))
    for op in (GuestRequest(0), ExtGuestRequest(0))
    for status in STATUSES
)

_LIFE = (
    *_each(
        VmCreate(0),
        SevInit(0),
        *(LaunchStart(0, fd, valid) for fd in ("open", "closed", "foreign") for valid in (True, False)),
        LaunchFinish(0),
        EnableReqCerts(0),
        VcpuCreate(0),
        RegisterGhcb(0),
        Decommission(0),
        VmDestroy(0),
        GuestRequest(0),
        ExtGuestRequest(0),
    ),
    *_refused((VmCreate(0), SevInit(0)), SHAPES[SevInit].faults),
    *_refused((LaunchStart(0),), LAUNCH_FAULTS),
    *_refused((LaunchFinish(0),), SHAPES[LaunchFinish].faults),
    *_refused((Decommission(0), VmDestroy(0)), TEARDOWN_FAULTS),
    Step(LaunchStart(0), (Fault("snp_activate", 0x0D), Fault("snp_decommission", 0x10))),
)

_VCPUS = (
    *_each(VcpuCreate(1), RegisterGhcb(1), GuestRequest(1), VmDestroy(0)),
    *_refused((VcpuCreate(1),), MEMORY_FAULTS),
)

_RUNNING = _each(
    GuestRequest(0),
    GuestRequest(0, "export"),
    GuestRequest(0, "bad-tag", resp="P'"),
    ExtGuestRequest(0),
    CloseFd(0),
    CloseFd(0, True),
    RemoveSlot(0, "R0"),
    RemoveSlot(0, "P0"),
    RemoveSlot(0, "D0"),
    Decommission(0),
    VmDestroy(0),
    LaunchStart(0),
    LaunchStart(0, valid=False),
    LaunchStart(0, reserved=True),
    VcpuCreate(1),
    RegisterGhcb(1),
    GuestRequest(1),
    RegisterGhcb(0, "spare"),
    GuestRequest(0, ghcb="spare"),
    SevInit(0),
    LaunchFinish(0),
)

_ANSWERS = _each(
    ExtGuestRequest(0),
    ExtGuestRequest(0, npages=0),
    ExtGuestRequest(0, "key"),
    GuestRequest(0),
    ExtGuestRequest(1),
    GuestRequest(1),
    *(Continue(0, ret, 2) for ret in (0, ENOSPC, EAGAIN, EIO, 1, 22, 2**64 - ENOSPC, 2**32 + ENOSPC)),
    *(Continue(0, 0, 1, race) for race in ("ret", "rax", "rbx", "info1", "info2")),
    Continue(1, 0),
    CloseFd(0),
    RemoveSlot(0, "D0"),
    RemoveSlot(0, "R0"),
    Decommission(0),
    EnableReqCerts(0),
    Wait(),
)

_ANSWER_TABLE = _each(
    ExtGuestRequest(0),
    *(ExtGuestRequest(0, data=data) for data in ("0", "2^51", "2^63", "-4096")),
    *(ExtGuestRequest(0, npages=n) for n in (0, 1, 5, 2**20, 2**32, 2**51, 2**52 - 1, 2**52, 2**63, 2**64 - 1)),
    *(Continue(0, ret) for ret in (0, ENOSPC, EAGAIN, EIO, *RETS, 2**32, 2**32 + ENOSPC, 2**63, 2**64 - 1)),
    *(Continue(0, 2**64 - errno) for errno in (EIO, EAGAIN, ENOSPC)),
    *(Continue(0, ENOSPC, n) for n in (0, 2, 5, 2**32 + 1, 2**52, 2**64 - 1)),
    Continue(0, race="valid"),
)

_OTHER_KIND = _each(
    *(VmCreate(0, kind) for kind in (SEV_ES, SEV)),
    SevInit(0),
    LaunchStart(0),
    LaunchFinish(0),
    EnableReqCerts(0),
    VcpuCreate(0),
    GuestRequest(0),
    ExtGuestRequest(0),
    UnknownExit(0),
    VmDestroy(0),
)

_FILES = _each(
    VmCreate(0),
    SevInit(0),
    LaunchStart(0),
    CloseFd(0),
    CloseFd(0, True),
    LaunchFinish(0),
    VcpuCreate(0),
    RegisterGhcb(0),
    GuestRequest(0),
    ExtGuestRequest(0),
    Decommission(0),
)

_AGAIN = _each(
    VmDestroy(0),
    VmCreate(0),
    SevInit(0),
    LaunchStart(0),
    LaunchFinish(0),
    EnableReqCerts(0),
    VcpuCreate(0),
    RegisterGhcb(0),
    GuestRequest(0),
    ExtGuestRequest(0),
    Decommission(0),
)

_FIRST_FAULTS = tuple((call, values[:1]) for call, values in LAUNCH_FAULTS)

_TRIED_AGAIN = (
    *_each(VmCreate(0), SevInit(0), LaunchStart(0), VmDestroy(0)),
    *_refused((VmCreate(0), SevInit(0)), SHAPES[SevInit].faults),
    *_refused((LaunchStart(0),), _FIRST_FAULTS),
)

_TWO_FETCH = _each(
    ExtGuestRequest(0),
    ExtGuestRequest(2),
    GuestRequest(2),
    Continue(0),
    Continue(2),
    Continue(0, ENOSPC, 2),
    VmDestroy(0),
    VmDestroy(1),
    Boot(0),
    Boot(0, certs=True),
    Boot(1),
    Boot(1, certs=True),
)

_TWO = (GuestRequest(0), GuestRequest(1), GuestRequest(1, resp="P'"), ExtGuestRequest(1), GuestRequest(1, "bad-tag"))

_SIDE_BY_SIDE = tuple(
    Step(Parallel(Step(GuestRequest(0, "key") if other.vcpu else ExtGuestRequest(0)), Step(other), (k,)))
    for other in (GuestRequest(1), GuestRequest(1, resp="P'"), ExtGuestRequest(1))
    for k in range(44)
)

_OTHER_VM = (
    *_each(
        GuestRequest(0),
        GuestRequest(2),
        GuestRequest(2, "key"),
        ExtGuestRequest(2),
        GuestRequest(0, "bad-tag", resp="P'"),
        VmDestroy(1),
        Boot(1),
        MoveFrom(),
        MirrorFrom(),
        CloseFd(1),
        VmDestroy(0),
    ),
    Step(GuestRequest(0), (Fault("snp_guest_request", -ETIMEDOUT),)),
)

_BLOBS = (
    *_each(
        *(
            SetInstanceCerts(0, blob, length)
            for blob, length in (("A", 8192), ("B", 4097), ("B", 20), ("A", 0), ("A", 0x4000), ("A", 0x4001))
        ),
        *(GetInstanceCerts(0, length) for length in (0, 4096, 4097, 0x4000)),
        *(HostSetExtConfig("H", length) for length in (4096, 8192, 0, 4097, 0x1800)),
        HostSetExtConfig("", 0),
        HostSetExtConfig("I", 4096, 2),
        HostSetExtConfig("H", 4096, 1),
        HostSetExtConfig("H", 4096, writable=False),
        HostGetExtConfig(0),
        HostGetExtConfig(),
        *(ExtGuestRequest(0, npages=npages) for npages in (0, 1, 2, 4, 5, 2**52, 2**64 - 1)),
        ExtGuestRequest(0, data="D3", npages=2),
        ExtGuestRequest(0, data="hole"),
        ExtGuestRequest(0, data="P"),
        ExtGuestRequest(0, resp="D"),
        Decommission(0),
        VmDestroy(0),
    ),
    *_refused(
        (SetInstanceCerts(0, "B", 8192), HostSetExtConfig("I", 8192, 2)), (*STORE_FAULTS, ("snp_config", (-EIO,)))
    ),
    *_refused((GetInstanceCerts(0), HostGetExtConfig()), (("copy_to_user", (-EFAULT,)),)),
)

_MOVED_BLOBS = _each(
    SetInstanceCerts(0, "A", 8192),
    SetInstanceCerts(1, "B", 4096),
    SetInstanceCerts(1, "B", 0),
    HostSetExtConfig("H", 4096),
    MoveFrom(),
    ExtGuestRequest(0),
    ExtGuestRequest(2),
    GetInstanceCerts(0),
    GetInstanceCerts(1),
    Decommission(1),
    VmDestroy(0),
    VmDestroy(1),
    Boot(0),
    Boot(1),
)

_STORES = tuple(
    Step(Parallel(Step(ExtGuestRequest(0)), Step(other), (k,)))
    for other in (SetInstanceCerts(0, "B", 8192), HostSetExtConfig("I", 8192, 2))
    for k in range(60)
) + tuple(
    Step(Parallel(Step(other), Step(ExtGuestRequest(0)), (k,)))
    for other in (SetInstanceCerts(0, "B", 8192), HostSetExtConfig("I", 8192, 2))
    for k in range(24)
)

_SHUTDOWN = _each(
    HostSetExtConfig("H", 8192),
    SnpShutdown(),
    HostGetExtConfig(),
    Boot(0),
    VmDestroy(0),
    ExtGuestRequest(0, npages=0),
    ExtGuestRequest(0),
)

_DRIVER = (
    *_each(
        *(GetReport((host,)) for host in HOSTS),
        GetReport(),
        GetReport((), 0),
        GetDerivedKey(),
        GetDerivedKey((), 63),
        GetDerivedKey((), 9, 1),
        *(GetDerivedKey((host,)) for host in ("status", "sealed-size", "sealed-type")),
        *(GetExtReport((host,)) for host in HOSTS),
        *(
            GetExtReport(hosts)
            for hosts in (
                ("too-small", "too-small"),
                ("too-small", "busy"),
                ("busy", "too-small"),
                ("too-small", "drop"),
                ("too-small", "status"),
                ("too-small", "lost"),
                ("too-small", "tag"),
            )
        ),
        *(GetExtReport((), length) for length in (0, 4096, 8192, 1, 2048, 0x1800, 4095, 0x4001, 0x5000)),
        GetExtReport((), 0x4000, False),
        GetExtReport((), 1, False),
        Close(),
        Open(0),
        *(Open(vmpck) for vmpck in (1, 2, 3, 4)),
        Kexec(0),
        Kexec(1),
    ),
    Step(Close(), (Fault("set_encrypted", -EIO),)),
    Step(Close(), tuple(Fault("set_encrypted", -EIO, nth) for nth in (1, 2, 3))),
    Step(Open(0), (Fault("set_decrypted", -EIO, 2),)),
    Step(Open(0), (Fault("alloc_pages", -ENOMEM, 3),)),
)

_ASKED = _each(
    *(GetReport((), vmpl) for vmpl in VMPLS.values),
    *(GetReport((), 3, word) for word in DATA_WORD.values),
    *(GetDerivedKey((), 9, vmpl) for vmpl in VMPLS.values),
    *(GetDerivedKey((), fields) for fields in FIELDS.values),
)

_DRIVERS = tuple(
    Step(Parallel(Step(left), Step(right), (k,)))
    for left, right in (
        (GetReport(), GetReport()),
        (GetExtReport(), GetExtReport((), 0)),
        (GetExtReport(), GetExtReport()),
        (GetExtReport(("busy",)), GetDerivedKey()),
        (GetReport(("status",)), GetDerivedKey()),
    )
    for k in range(44)
)

_H = frozenset({"hypervisor"})
_G = frozenset({"guest"})

SCOPES: dict[str, Scope] = {
    "basic inputs": Scope(Config(), _BASIC_INPUTS, depth=2, needs=_H, in_gate=False),
    "inputs": Scope(Config(), _BASIC_INPUTS + _EXTENDED_INPUTS, depth=1, states=16, transitions=750, needs=_H),
    "refusals": Scope(Config(), _each(*_ONE_OF_EACH) + _REFUSED, depth=2, states=18, transitions=624, needs=_H),
    "life": Scope(Config(started=False), _LIFE, depth=7, states=101, transitions=1399, needs=_H),
    "vCPUs": Scope(Config(), _VCPUS, depth=4, states=6, transitions=15, needs=_H),
    "running": Scope(Config(), _RUNNING, depth=3, states=291, transitions=1310, needs=_H),
    "last numbers": Scope(
        Config(count=2**64 - 4),
        _each(GuestRequest(0), GuestRequest(0, "key")),
        depth=3,
        states=2,
        transitions=4,
        needs=_H,
    ),
    "answers": Scope(
        Config(certs=True, vcpus=2),
        _ANSWERS,
        depth=3,
        states=167,
        transitions=707,
        needs=_H,
        profiles=frozenset({"upstream"}),
    ),
    "statuses": Scope(Config(), _STATUS_TABLE, depth=1, states=2, transitions=76, needs=_H),
    "table of answers": Scope(
        Config(certs=True),
        _ANSWER_TABLE,
        depth=2,
        states=18,
        transitions=870,
        needs=_H,
        profiles=frozenset({"upstream"}),
    ),
    "other kinds": Scope(Config(started=False), _OTHER_KIND, depth=5, states=7, transitions=38, needs=_H),
    "files": Scope(Config(started=False), _FILES, depth=8, states=44, transitions=240, needs=_H),
    "life again": Scope(Config(), _AGAIN, depth=8, states=62, transitions=356, needs=_H),
    "tried again": Scope(Config(started=False), _TRIED_AGAIN, depth=4, states=4, transitions=51, sequences=4, needs=_H),
    "two that fetch": Scope(
        Config(certs=True, second=SNP),
        _TWO_FETCH,
        depth=4,
        states=62,
        transitions=177,
        needs=_H,
        profiles=frozenset({"upstream"}),
    ),
    "side by side": Scope(
        Config(vcpus=2),
        _each(*_TWO) + _SIDE_BY_SIDE,
        depth=1,
        states=9,
        transitions=137,
        needs=_H,
    ),
    "other GHCB": Scope(
        Config(vcpus=2),
        _each(
            *(GuestRequest(0, resp=p) for p in _PLACES),
            *(kind(vcpu, ghcb="sibling") for kind in (GuestRequest, ExtGuestRequest) for vcpu in (0, 1)),
        ),
        depth=1,
        states=5,
        transitions=17,
        needs=_H,
    ),
    "other VM": Scope(Config(second=SNP), _OTHER_VM, depth=3, states=67, transitions=232, needs=_H),
    "moved VM": Scope(Config(), _OTHER_VM, depth=3, states=35, transitions=93, needs=_H),
    "moved VM that fetches": Scope(
        Config(certs=True),
        _each(MoveFrom(), ExtGuestRequest(2), Continue(2), GuestRequest(2), VmDestroy(1), VmDestroy(0)),
        depth=4,
        states=2,
        transitions=2,
        needs=_H,
        profiles=frozenset({"upstream"}),
    ),
    "not SNP": Scope(
        Config(second=SEV_ES),
        _each(GuestRequest(2), ExtGuestRequest(2), UnknownExit(2), EnableReqCerts(1)),
        depth=2,
        states=1,
        transitions=4,
        needs=_H,
    ),
    "throttle": Scope(
        Config(throttle=True, second=SNP),
        _each(GuestRequest(0), GuestRequest(2), ExtGuestRequest(0), Wait()),
        depth=4,
        states=56,
        transitions=112,
        needs=_H,
    ),
    "refused pages": Scope(
        Config(vcpus=2),
        _each(
            SetInstanceCerts(0, "A", 8192),
            *(GuestRequest(0, resp=resp) for resp in ("private", "readonly", "G'")),
            *(ExtGuestRequest(0, resp=resp) for resp in ("D", "D1", "private", "hole")),
            VmDestroy(0),
        ),
        depth=3,
        needs=_H,
        profiles=KERNEL_CERTS,
    ),
    "blobs": Scope(Config(), _BLOBS, depth=3, needs=_H, profiles=KERNEL_CERTS),
    "blobs in motion": Scope(
        Config(),
        _each(SetInstanceCerts(), HostSetExtConfig("H", 4096, 1)) + _STORES,
        depth=2,
        needs=_H,
        profiles=KERNEL_CERTS,
    ),
    "blobs that move": Scope(Config(), _MOVED_BLOBS, depth=4, needs=_H, profiles=KERNEL_CERTS),
    "shutdown": Scope(Config(started=False), _SHUTDOWN, depth=4, needs=_H, profiles=KERNEL_CERTS),
    "driver": Scope(Config(side="guest"), _DRIVER, depth=3, states=64, transitions=1426, needs=_G),
    "driver in the loop": Scope(
        Config(side="guest", host="hypervisor"), _DRIVER, depth=1, states=6, transitions=87, needs=_G
    ),
    "driver's last numbers": Scope(
        Config(side="guest", count=2**32 - 6),
        _each(GetReport(), GetDerivedKey(), Kexec(0)),
        depth=4,
        states=3,
        transitions=9,
        needs=_G,
    ),
    "what is asked": Scope(Config(side="guest"), _ASKED, depth=1, states=2, transitions=18, needs=_G),
    "drivers side by side": Scope(
        Config(side="guest"), _each(GetReport()) + _DRIVERS, depth=1, states=5, transitions=221, needs=_G
    ),
    "tables": Scope(
        Config(side="verifier"),
        _each(*(ParseCerts(table) for table in TABLES)),
        depth=1,
        states=1,
        transitions=14,
        needs=frozenset({"verifier"}),
    ),
}
"""What is explored without gaps. The same inputs, refusals and schedules serve every profile that has them; the
pinned counts are those of `upstream` and `guest`."""
