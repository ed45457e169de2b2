"""What may go wrong in each operation and beside it; strategies for Hypothesis made from that."""

from __future__ import annotations

from conformance.model.uio_msi.operations import (
    FIRST_FD,
    NEVER_OPENED_FD,
    PAGE,
    Close,
    CloseFd,
    CompatIoctl,
    CompatIrqSet,
    ConfigIntx,
    DeviceReset,
    Flood,
    FloodOpens,
    FloodWrites,
    IrqSet,
    ListInterrupts,
    Open,
    OtherInterrupt,
    Probe,
    RaiseMany,
    RaiseVector,
    RawIoctl,
    ReadEventfd,
    Remove,
    ReuseFd,
    SetIntx,
    Write,
)
from conformance.specs.uio_msi.constants import (
    EBADF,
    EBUSY,
    EINVAL,
    EIO,
    ENOMEM,
    ENOSPC,
    ENOTCONN,
    EPROBE_DEFER,
    UIO_MSI_IRQ_SET,
)
from conformance.strategies.domain import BOOLEAN, Domain, Shape
from conformance.strategies.uio_msi.domains import (
    COMMAND,
    COMPAT_POINTER,
    EVENT_VECTOR,
    FD,
    POINTER,
    USER_FD,
    VECTOR,
    WRITTEN,
)

ENABLE_DEVICE = ("pci_enable_device", (-EIO, -ENOMEM, -EINVAL, -EBUSY))
REGIONS = ("pci_request_regions", (-EBUSY,))
TRIAL = ("pci_enable_msix", (-ENOSPC, -ENOMEM, -EIO))
_MSIX = ("pci_enable_msix", (-ENOMEM, -EINVAL, -ENOSPC, -EIO, 1, 2, 63))
IOREMAP = ("ioremap", (-ENOMEM,))
ALLOCATIONS = (("kzalloc", (-ENOMEM,)), ("kcalloc", (-ENOMEM,)), ("kasprintf", (-ENOMEM,)))
REGISTER = ("uio_register_device", (-EINVAL, -ENOMEM, -EPROBE_DEFER))
COPY = ("copy_from_user", (8, 1))
FDGET = ("eventfd_ctx_fdget", (-EBADF, -EINVAL, -ENOMEM))
REQUEST = ("request_irq", (-EBUSY, -ENOMEM, -EINVAL, -ENOTCONN))
_HARDWARE = (RaiseVector, SetIntx, OtherInterrupt)
_BYSTANDERS = (RaiseVector, SetIntx, OtherInterrupt, CloseFd, ReuseFd, ListInterrupts)

SHAPES: dict[type, Shape] = {
    Probe: Shape(
        {},
        weight=2,
        faults=(ENABLE_DEVICE, REGIONS, IOREMAP, *ALLOCATIONS, REGISTER, TRIAL, REQUEST),
        deepest=4,
        interrupts=(Open, ListInterrupts),
        points=128,
    ),
    Remove: Shape(
        {},
        weight=0.4,
        interrupts=(*_BYSTANDERS, IrqSet, Open, Close),
        beside=(IrqSet, Open, Close, RaiseVector),
        points=24,
    ),
    Open: Shape(
        {"rawio": Domain((True,), (False,), usual=0.9)},
        weight=1.5,
        faults=(_MSIX, _MSIX, *ALLOCATIONS, REQUEST, ENABLE_DEVICE),
        deepest=3,
        interrupts=(RaiseVector, SetIntx, CloseFd),
        beside=(Open, Close),
        points=12,
    ),
    Close: Shape(
        {},
        weight=0.8,
        interrupts=_BYSTANDERS,
        beside=(RaiseVector, SetIntx, OtherInterrupt, Open),
        points=16,
    ),
    IrqSet: Shape(
        {"vector": VECTOR, "fd": FD},
        weight=6,
        faults=(COPY, FDGET, REQUEST, REQUEST, *ALLOCATIONS),
        interrupts=_BYSTANDERS,
        beside=(RaiseVector, IrqSet, CloseFd, ReuseFd, Open, Close, SetIntx, OtherInterrupt),
        points=24,
    ),
    CompatIrqSet: Shape(
        {"vector": VECTOR, "fd": FD},
        weight=0.4,
        faults=(COPY, REQUEST, *ALLOCATIONS),
        beside=(IrqSet, RaiseVector, Close, Remove),
    ),
    RawIoctl: Shape(
        {
            "cmd": COMMAND,
            "pointer": POINTER,
            "vector": Domain((0, 1), (2**32 - 1,)),
            "fd": Domain((-1, FIRST_FD), (NEVER_OPENED_FD,)),
        },
        weight=1,
        faults=(COPY, *ALLOCATIONS),
    ),
    CompatIoctl: Shape(
        {
            "cmd": COMMAND,
            "pointer": COMPAT_POINTER,
            "vector": Domain((0, 1), (2**32 - 1,)),
            "fd": Domain((-1, FIRST_FD), (NEVER_OPENED_FD,)),
        },
        weight=0.4,
        faults=(COPY, *ALLOCATIONS),
    ),
    RaiseVector: Shape(
        {"vector": EVENT_VECTOR}, weight=5, interrupts=(CloseFd, ReuseFd), beside=(IrqSet, RaiseVector, Close, Remove)
    ),
    RaiseMany: Shape({"vector": EVENT_VECTOR, "count": Domain((2, 300))}, weight=0.05),
    SetIntx: Shape({"level": Domain((True, False))}, weight=3, beside=(OtherInterrupt, IrqSet, Close, Remove)),
    OtherInterrupt: Shape({}, weight=1.5),
    ConfigIntx: Shape({"disable": Domain((True, False))}, weight=0.6, beside=(SetIntx, IrqSet, Write)),
    Write: Shape(
        {"value": WRITTEN},
        weight=1,
        interrupts=(SetIntx, OtherInterrupt),
        beside=(SetIntx, OtherInterrupt, IrqSet, Close, Remove, Write),
    ),
    CloseFd: Shape({"fd": USER_FD}, weight=0.3),
    ReuseFd: Shape({"fd": USER_FD, "pipe": BOOLEAN}, weight=0.3),
    ReadEventfd: Shape({"fd": USER_FD}, weight=1),
    DeviceReset: Shape({}, weight=0.15),
    ListInterrupts: Shape({}, weight=0.2),
    Flood: Shape(
        {
            "vector": Domain((2**32 - 1, 0)),
            "fd": Domain((FIRST_FD, NEVER_OPENED_FD, -1)),
            "cmd": Domain((UIO_MSI_IRQ_SET, 0)),
            "pointer": Domain((PAGE, 0)),
            "refusal": Domain((0, -EBUSY)),
        },
        weight=0,
    ),
    FloodOpens: Shape({"rawio": BOOLEAN}, weight=0),
    FloodWrites: Shape({"value": WRITTEN}, weight=0),
}
