"""How operations are drawn: a domain for each field, what may be refused, and what may happen beside."""

from __future__ import annotations

from conformance.model.snp_guest_request import operations as o
from conformance.model.snp_guest_request.hosts import HOSTS
from conformance.model.snp_guest_request.operations import OPERATIONS
from conformance.model.snp_guest_request.tables import TABLES
from conformance.specs.snp_guest_request.constants import (
    EAGAIN,
    EBUSY,
    EFAULT,
    EIO,
    ENOMEM,
    ENOSPC,
    INVALID_GUEST,
    SEV,
    SEV_ES,
    SNP,
)
from conformance.strategies.domain import Domain, Shape, just
from conformance.strategies.snp_guest_request.domains import (
    ASID_FAULT,
    DATA,
    DATA_WORD,
    FIELDS,
    GHCB,
    LAUNCH_FAULTS,
    LENGTHS,
    MEMORY_FAULTS,
    MESSAGE_NAMES,
    MISSING,
    NPAGES,
    REQUEST_FAULTS,
    REQUESTS,
    RESPONSES,
    RETS,
    ROOM,
    STATUSES,
    STORE_FAULTS,
    TEARDOWN_FAULTS,
    UNKNOWN_CODES,
    USAGE,
    VCPUS,
    VMPLS,
    VMS,
)

SHAPES: dict[type, Shape] = {
    o.GuestRequest: Shape(
        {
            "vcpu": VCPUS,
            "message": MESSAGE_NAMES,
            "req": REQUESTS,
            "resp": RESPONSES,
            "missing": MISSING,
            "usage": USAGE,
            "ghcb": GHCB,
            "race": Domain(("",), ("type", "info1", "info2", "code", "valid", "usage"), usual=0.92),
        },
        weight=6,
        faults=(("snp_guest_request", STATUSES), *REQUEST_FAULTS),
        deepest=2,
        interrupts=(o.GuestRequest, o.RemoveSlot, o.CloseFd),
        beside=(o.GuestRequest, o.ExtGuestRequest, o.RemoveSlot),
        points=40,
    ),
    o.ExtGuestRequest: Shape(
        {
            "vcpu": VCPUS,
            "message": MESSAGE_NAMES,
            "req": REQUESTS,
            "resp": RESPONSES,
            "data": DATA,
            "npages": NPAGES,
            "missing": MISSING,
            "usage": USAGE,
            "ghcb": GHCB,
            "race": Domain(("",), ("type", "rax", "rbx", "info1", "info2", "code", "valid", "usage"), usual=0.88),
        },
        weight=6,
        faults=REQUEST_FAULTS,
        deepest=2,
        interrupts=(o.GuestRequest, o.RemoveSlot, o.CloseFd),
        beside=(o.GuestRequest, o.ExtGuestRequest, o.SetInstanceCerts, o.HostSetExtConfig),
        points=40,
    ),
    o.UnknownExit: Shape({"vcpu": VCPUS, "missing": MISSING, "usage": USAGE, "code": UNKNOWN_CODES}, weight=0.2),
    o.Continue: Shape(
        {
            "vcpu": VCPUS,
            "ret": Domain(
                (0, ENOSPC, EAGAIN, EIO), (*RETS, 2**64 - ENOSPC, 2**32 + ENOSPC, 2**32, 2**63, 2**64 - 1), usual=0.8
            ),
            "npages": Domain((1, 2, 0), (5, 2**32 + 1, 2**52, 2**64 - 1), usual=0.9),
            "race": Domain(("",), ("ret", "rax", "rbx", "info1", "info2", "valid"), usual=0.8),
        },
        weight=6,
        faults=REQUEST_FAULTS[:6],
        beside=(o.GuestRequest, o.ExtGuestRequest),
        points=40,
    ),
    o.Boot: Shape({"vm": VMS, "kind": Domain((SNP,), (SEV_ES, SEV)), "certs": Domain((False, True))}, weight=1),
    o.VmCreate: Shape(
        {"vm": just(0), "kind": Domain((SNP,), (SEV_ES, SEV))}, weight=1, faults=(*MEMORY_FAULTS, ASID_FAULT)
    ),
    o.SevInit: Shape(
        {"vm": just(0)},
        weight=1,
        faults=(*MEMORY_FAULTS, ASID_FAULT),
    ),
    o.LaunchStart: Shape(
        {
            "vm": VMS,
            "fd": Domain(("open",), ("closed", "foreign")),
            "valid": Domain((True,), (False,)),
            "reserved": Domain((False,), (True,)),
        },
        weight=1,
        faults=LAUNCH_FAULTS,
    ),
    o.LaunchFinish: Shape({"vm": VMS}, weight=1, faults=(("snp_launch_finish", (INVALID_GUEST, -EBUSY)),)),
    o.EnableReqCerts: Shape({"vm": VMS}, weight=0.5),
    o.VcpuCreate: Shape({"vcpu": VCPUS}, weight=1, faults=MEMORY_FAULTS),
    o.RegisterGhcb: Shape({"vcpu": VCPUS, "ghcb": GHCB}, weight=1),
    o.Decommission: Shape({"vm": VMS}, weight=0.3, faults=TEARDOWN_FAULTS, deepest=2),
    o.VmDestroy: Shape({"vm": VMS}, weight=0.5, faults=TEARDOWN_FAULTS, deepest=2),
    o.MoveFrom: Shape({}, weight=0.4),
    o.MirrorFrom: Shape({}, weight=0.2),
    o.SnpShutdown: Shape({}, weight=0.3),
    o.SetInstanceCerts: Shape(
        {"vm": VMS, "blob": Domain(("A", "B")), "length": LENGTHS}, weight=2, faults=STORE_FAULTS
    ),
    o.GetInstanceCerts: Shape({"vm": VMS, "length": ROOM}, weight=1, faults=(("copy_to_user", (-EFAULT,)),)),
    o.HostSetExtConfig: Shape(
        {
            "blob": Domain(("H", "I"), ("",)),
            "length": Domain((4096, 8192), (0, 1, 2048, 4097, 0x1800, 0x4000)),
            "tcb": Domain((0,), (1, 2)),
            "writable": Domain((True,), (False,), usual=0.95),
        },
        weight=1.5,
        faults=(*STORE_FAULTS, ("snp_config", (-EIO,))),
        beside=(o.ExtGuestRequest,),
    ),
    o.HostGetExtConfig: Shape({"length": ROOM}, weight=0.5, faults=(("copy_to_user", (-EFAULT,)),)),
    o.CloseFd: Shape({"vm": VMS, "foreign": Domain((False, True))}, weight=0.2),
    o.RemoveSlot: Shape({"vm": VMS, "page": Domain(("P0", "R0", "D0"), ("D1", "P1", "R1"))}, weight=0.2),
    o.Wait: Shape({"seconds": Domain((2, 1))}, weight=0.3),
    o.Open: Shape(
        {"vmpck": Domain((0, 1), (2, 3, 4))}, weight=1, faults=(("alloc_pages", (-ENOMEM,)), ("set_decrypted", (-EIO,)))
    ),
    o.GetReport: Shape(
        {"host": Domain(((), ("busy",)), tuple((h,) for h in HOSTS), usual=0.5), "vmpl": VMPLS, "data_word": DATA_WORD},
        weight=4,
        beside=(o.GetReport, o.GetDerivedKey, o.GetExtReport),
    ),
    o.GetDerivedKey: Shape(
        {
            "host": Domain(((), ("busy",)), tuple((h,) for h in HOSTS), usual=0.5),
            "fields": FIELDS,
            "vmpl": VMPLS,
        },
        weight=2,
        beside=(o.GetReport, o.GetDerivedKey),
    ),
    o.GetExtReport: Shape(
        {
            "host": Domain(
                ((), ("too-small",), ("busy",)),
                (
                    *((h,) for h in HOSTS),
                    ("too-small", "too-small"),
                    ("too-small", "status"),
                    ("too-small", "tag"),
                    ("too-small", "lost"),
                    ("too-small", "busy"),
                    ("busy", "too-small"),
                    ("too-small", "drop"),
                    ("busy", "status"),
                ),
                usual=0.5,
            ),
            "certs_len": Domain((0x4000, 0), (4096, 8192, 1, 2048, 4095, 0x1800, 0x4001, 0x5000, 2**32 - 1), usual=0.6),
            "buffer": Domain((True,), (False,)),
            "vmpl": VMPLS,
            "data_word": DATA_WORD,
        },
        weight=4,
        beside=(o.GetReport, o.GetExtReport),
    ),
    o.Close: Shape({}, weight=0.3, faults=(("set_encrypted", (-EIO,)),), deepest=3),
    o.Kexec: Shape({"vmpck": Domain((0, 1))}, weight=0.5),
    o.ParseCerts: Shape({"table": Domain(tuple(TABLES))}, weight=1),
}


assert set(SHAPES) == set(OPERATIONS)
