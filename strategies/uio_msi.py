"""What may happen to a UIO MSI-X driver: values of the fields, faults, company, and the small scopes."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import strategies as st

from conformance.model.step import Fault, Parallel, Step
from conformance.model.uio_msi import Config, State
from conformance.model.uio_msi.operations import (
    DUP_FD,
    FIRST_FD,
    NEVER_OPENED_FD,
    NOT_EVENTFDS,
    O_PATH_FD,
    PAGE,
    PAGE_END,
    STANDARD_FDS,
    Bar,
    Close,
    CloseFd,
    CompatIoctl,
    CompatIrqSet,
    ConfigIntx,
    DeviceReset,
    Eventfd,
    Flood,
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
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi.constants import (
    EBADF,
    EBUSY,
    EINVAL,
    EIO,
    ENOMEM,
    ENOSPC,
    ENOTCONN,
    EPROBE_DEFER,
    EVENTFD_MAX,
    MAX_MSIX_VECTORS,
    UIO_MSI_IRQ_SET,
)
from conformance.strategies.domain import BOOLEAN, Domain, Race, Scope, Shape

INT_MIN, INT_MAX = -(2**31), 2**31 - 1

VECTOR: Domain[object] = Domain(
    (0, 1),
    (2, 3, 4, 31, 32, 33, 62, 63, 64, 65, 256, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1),
    bounds=(0, MAX_MSIX_VECTORS - 1),
    usual=0.9,
)
"""Vectors on both sides of every limit, as u32."""
EVENT_VECTOR: Domain[object] = Domain((0, 1), (2, 4, 31, 32, 33, 62, 63), usual=0.95)
"""Vectors that the function may raise."""
HIGH_FDS = (511, 512, 1023, 1024, 2**16 - 1, 2**16)
"""Numbers about the sizes of descriptor tables; none is in use."""
FD: Domain[object] = Domain(
    (FIRST_FD, FIRST_FD + 1, -1),
    (
        FIRST_FD + 2,
        DUP_FD,
        NEVER_OPENED_FD,
        *NOT_EVENTFDS,
        O_PATH_FD,
        *STANDARD_FDS,
        -2,
        INT_MIN,
        INT_MAX,
        *HIGH_FDS,
        FIRST_FD + 2**16,
    ),
    usual=0.8,
)
"""Eventfds, fds that are none, and fds that unmap."""
USER_FD: Domain[object] = Domain((FIRST_FD, FIRST_FD + 1))
"""Numbers of the process's first eventfds: every configuration has two."""
WRITTEN: Domain[object] = Domain((1,), (0, 2, -1, INT_MIN), usual=0.7)
"""Numbers written to the device."""

COMMAND: Domain[object] = Domain(
    (UIO_MSI_IRQ_SET, 0),
    (
        0x8008_4987,  # direction read; also the write direction of alpha, mips, powerpc and sparc
        0xC008_4987,
        0x0000_4987,
        0x4004_4987,
        0x4010_4987,
        0x4008_4986,
        0x4008_4988,
        0x4008_4187,
        0x4009_4987,
        0xFFFF_FFFF,
        UIO_MSI_IRQ_SET | 1 << 32,
        1 << 32,
    ),
    bounds=(0, 2**32 - 1),
    usual=0.5,
)
"""The command, and what differs from it in one of its parts."""
POINTER: Domain[object] = Domain(
    (PAGE, 0),
    (
        PAGE + 1,
        PAGE_END - 8,
        PAGE_END - 7,
        PAGE_END - 4,
        PAGE_END - 1,
        PAGE_END,
        PAGE - 1,
        PAGE + 4,
        1,
        0x7FFF_FFFF_F000,
        0xFFFF_8000_0000_0000,
        2**64 - 8,
    ),
    bounds=(PAGE - 16, PAGE_END + 16),
    usual=0.5,
)
"""Pointers to the argument: mapped, not mapped, on the edge, unaligned, in the kernel's half."""
COMPAT_POINTER: Domain[object] = Domain(
    POINTER.scope,
    tuple(pointer for pointer in POINTER.edges if isinstance(pointer, int) and pointer < 2**32),
    bounds=POINTER.bounds,
    usual=0.5,
)
"""Those that a 32-bit process can have."""

# -- Worlds

_MEMORY = Bar(0xF000_0000, 0x1000)
_TABLE = Bar(0xF001_0000, 0x1000)
_PORT = Bar(0xE000, 0x20, io=True)
_NONE = Bar()
_ODD = (Eventfd(0x10, semaphore=True), Eventfd(2**64 - 4, nonblock=False), Eventfd())

PLAIN = Config()
INTX = Config(vectors=0)
CONFIGS = (
    PLAIN,
    INTX,
    Config(eventfds=_ODD),
    Config(vectors=1, bars=(_TABLE,), table_bar=0, pba_bar=0),
    Config(vectors=3, bars=(_TABLE, _MEMORY, _PORT), table_bar=0, pba_bar=0, eventfds=(Eventfd(1), Eventfd(2**32))),
    Config(vectors=0, eventfds=_ODD, left_masked=True, bars=(_PORT,)),
    Config(core_41=True),
    Config(vectors=0, core_41=True),
    Config(vectors=64),
    Config(
        vectors=65,
        bars=(Bar(0xF000_0000, 0x4000), _NONE, Bar(0xF100_0000, 0x200), Bar(0xF200_0800, 0x1000), _PORT),
        table_bar=0,
        table_offset=0x2000,
        pba_bar=0,
        pba_offset=0x3000,
    ),
    Config(
        vectors=128,
        bars=tuple(Bar(0xF000_0000 + i * 0x10_0000, 0x1000) for i in range(6)),
        table_bar=5,
        pba_bar=4,
        pba_offset=0,
    ),
    Config(
        vectors=2048,
        bars=(_MEMORY, Bar(0x4_0000_0000, 16 << 30), _NONE, Bar(0xF010_0000, 0x8000), Bar(0xF020_0000, 0x1000)),
        table_bar=3,
        pba_bar=4,
        pba_offset=0,
        virtfn=True,
    ),
    Config(
        vectors=0,
        bars=(*(Bar(0xF000_0000 + i * 0x10_0000, 0x1000) for i in range(5)), _PORT),
    ),
    Config(vectors=0, bars=(_PORT, Bar(0, 0x1000), Bar(0xF000_0000, 0), Bar(0xF000_0100, 0x80))),
    Config(vectors=0, bars=()),
    Config(vectors=2, remapping=True, bars=(_TABLE,), table_bar=0, pba_bar=0),
    Config(vectors=0, intx=False),
    Config(bridge=True),
    Config(msix_broken=True),
    Config(msix_broken=True, intx=False),
    Config(vectors=0, bars=tuple(Bar(0xE000 + i * 0x100, 0x20, io=True) for i in range(6))),
    Config(vectors=0, bars=tuple(Bar(0xF000_0000 + i * 0x10_0000, 0x1000) for i in range(6))),
    Config(
        vectors=2048,
        bars=(Bar(0xE000_0000, 0x40_0000), _PORT),
        table_bar=0,
        table_offset=0x30_0000,
        pba_bar=0,
        pba_offset=0x2_1F80,
    ),
)
"""Plainest first; the odd ones are for probe."""

# -- Refusals

_ENABLE_DEVICE = ("pci_enable_device", (-EIO, -ENOMEM, -EINVAL, -EBUSY))
_REGIONS = ("pci_request_regions", (-EBUSY,))
_MSIX = ("pci_enable_msix", (-ENOMEM, -EINVAL, -ENOSPC, -EIO, 1, 2, 63))
_IOREMAP = ("ioremap", (-ENOMEM,))
_ALLOCATIONS = (("kzalloc", (-ENOMEM,)), ("kcalloc", (-ENOMEM,)), ("kasprintf", (-ENOMEM,)))
_REGISTER = ("uio_register_device", (-EINVAL, -ENOMEM, -EPROBE_DEFER))
_COPY = ("copy_from_user", (8, 1))
_FDGET = ("eventfd_ctx_fdget", (-EBADF, -EINVAL, -ENOMEM))
_REQUEST = ("request_irq", (-EBUSY, -ENOMEM, -EINVAL, -ENOTCONN))

_HARDWARE = (RaiseVector, SetIntx, OtherInterrupt)
_BYSTANDERS = (RaiseVector, SetIntx, OtherInterrupt, CloseFd, ReuseFd, ListInterrupts)

SHAPES: dict[type, Shape] = {
    Probe: Shape(
        {},
        weight=2,
        faults=(_ENABLE_DEVICE, _REGIONS, _IOREMAP, *_ALLOCATIONS, _REGISTER),
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
        faults=(_MSIX, _MSIX, *_ALLOCATIONS),
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
        faults=(_COPY, _FDGET, _REQUEST, _REQUEST, *_ALLOCATIONS),
        interrupts=_BYSTANDERS,
        beside=(RaiseVector, IrqSet, CloseFd, ReuseFd, Open, Close, SetIntx, OtherInterrupt),
        points=24,
    ),
    CompatIrqSet: Shape(
        {"vector": VECTOR, "fd": FD},
        weight=0.4,
        faults=(_COPY, _REQUEST, *_ALLOCATIONS),
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
        faults=(_COPY, *_ALLOCATIONS),
    ),
    CompatIoctl: Shape(
        {
            "cmd": COMMAND,
            "pointer": COMPAT_POINTER,
            "vector": Domain((0, 1), (2**32 - 1,)),
            "fd": Domain((-1, FIRST_FD), (NEVER_OPENED_FD,)),
        },
        weight=0.4,
        faults=(_COPY, *_ALLOCATIONS),
    ),
    RaiseVector: Shape(
        {"vector": EVENT_VECTOR}, weight=5, interrupts=(CloseFd, ReuseFd), beside=(IrqSet, RaiseVector, Close, Remove)
    ),
    RaiseMany: Shape({"vector": EVENT_VECTOR, "count": Domain((2, 300))}, weight=0.05),
    SetIntx: Shape({"level": Domain((True, False))}, weight=3, beside=(OtherInterrupt, IrqSet, Close, Remove)),
    OtherInterrupt: Shape({}, weight=1.5),
    ConfigIntx: Shape({"disable": Domain((True, False))}, weight=0.3),
    Write: Shape(
        {"value": WRITTEN},
        weight=1,
        interrupts=(SetIntx, OtherInterrupt),
        beside=(SetIntx, OtherInterrupt, IrqSet, Close, Remove),
    ),
    CloseFd: Shape({"fd": USER_FD}, weight=0.3),
    ReuseFd: Shape({"fd": USER_FD, "pipe": BOOLEAN}, weight=0.3),
    ReadEventfd: Shape({"fd": USER_FD}, weight=1),
    DeviceReset: Shape({}, weight=0.15),
    ListInterrupts: Shape({}, weight=0.2),
    Flood: Shape(
        {
            "vector": Domain((2**32 - 1, 0)),
            "fd": Domain((FIRST_FD, NEVER_OPENED_FD)),
            "cmd": Domain((UIO_MSI_IRQ_SET, 0)),
            "pointer": Domain((PAGE, 0)),
            "refusal": Domain((0, -EBUSY)),
        },
        weight=0,
    ),
}


def opening(_config: Config, _profile: Profile) -> tuple[Step, ...]:
    """Bind and open the device: without that little can happen."""
    return (Step(Probe()), Step(Open()))


def suggest(state: State, random: Random) -> Step | None:
    """Sets of mapped vectors, and events of the vectors that exist."""
    if state.life == "unbound":
        return Step(Probe())
    if not state.opens:
        return Step(Open())
    vector = random.randrange(min(state.limit, 3))
    if random.random() < 0.5:
        return Step(RaiseVector(vector) if state.msix else SetIntx(not state.asserted))
    fd = FIRST_FD + random.randrange(2)
    return Step(IrqSet(vector, fd if state.wired[vector] is None or random.random() < 0.7 else -1))


_MAPPED = (Probe(), Open(), IrqSet(0, FIRST_FD))
STARTS = (
    (PLAIN, tuple(Step(op) for op in (*_MAPPED, IrqSet(1, FIRST_FD + 1)))),
    (INTX, tuple(Step(op) for op in _MAPPED)),
    (Config(core_41=True), tuple(Step(op) for op in _MAPPED)),
    (PLAIN, tuple(Step(op) for op in (*_MAPPED, Open(), RaiseVector(1)))),
    (INTX, tuple(Step(op) for op in (*_MAPPED, SetIntx(True), SetIntx(False)))),
    (Config(vectors=0, core_41=True), tuple(Step(op) for op in _MAPPED)),
    (Config(core_41=True), (Step(Probe()),)),
)
"""(world, steps): the states in which two operations are run side by side, most telling first."""


def _races() -> dict[str, Race]:
    """The pairs of threads of the race list, each in the plainest state in which they meet.

    An ioctl keeps its file open, so it meets a release only through another handle; then that release is not
    the last one, which must change nothing. The 6.x core excludes open, release and write from one another; where
    the driver must do that itself, the world is that of the old core.
    """
    world = Config(eventfds=_ZERO[:2], handles=2, ceiling=4)
    intx = Config(vectors=0, eventfds=_ZERO[:2], handles=2, ceiling=4)
    old, old_intx = replace(world, core_41=True), replace(intx, core_41=True)
    bound = (Step(Probe()),)
    opened = (*bound, Step(Open()))
    mapped = (*opened, Step(IrqSet(0, FIRST_FD)))
    shared = (*mapped, Step(Open()))
    attach, move, detach = Step(IrqSet(0, FIRST_FD)), Step(IrqSet(0, FIRST_FD + 1)), Step(IrqSet(0, -1))
    raised, asserted = Step(RaiseVector(0)), Step(SetIntx(level=True))
    refused = Step(Open(), (Fault("pci_enable_msix", -ENOMEM),))
    close, remove, write = Step(Close()), Step(Remove()), Step(Write(1))
    both = (*mapped, Step(IrqSet(1, FIRST_FD + 1)))
    fails = Step(IrqSet(0, FIRST_FD + 1), (Fault("request_irq", -EBUSY),))
    up = (*mapped, asserted)
    return {
        "set-raise": Race(world, opened, attach, raised),
        "replace-raise": Race(world, mapped, move, raised),
        "unset-raise": Race(world, mapped, detach, raised),
        "set-set": Race(world, opened, attach, move),
        "replace-unset": Race(world, mapped, move, detach),
        "set-release": Race(world, shared, move, close),
        "open-release": Race(world, mapped, Step(Open()), close),
        "open-open": Race(world, bound, Step(Open()), Step(Open())),
        "open-open-refused": Race(world, bound, refused, Step(Open())),
        "open-set": Race(world, opened, Step(Open()), attach),
        "release-raise": Race(world, mapped, close, raised),
        "remove-set": Race(world, mapped, remove, move),
        "remove-open": Race(world, mapped, remove, Step(Open())),
        "remove-release": Race(world, mapped, remove, close),
        "remove-raise": Race(world, mapped, remove, raised),
        "close-fd-set": Race(world, opened, Step(CloseFd(FIRST_FD)), attach),
        "reuse-fd-set": Race(world, opened, Step(ReuseFd(FIRST_FD)), attach),
        "set-intx": Race(intx, opened, attach, asserted),
        "replace-intx": Race(intx, mapped, move, asserted),
        "unset-intx": Race(intx, mapped, detach, asserted),
        "release-intx": Race(intx, mapped, close, asserted),
        "remove-intx": Race(intx, mapped, remove, asserted),
        "write-intx": Race(intx, mapped, write, asserted),
        "raise-raise": Race(world, both, raised, Step(RaiseVector(1))),
        "compat-set": Race(world, mapped, Step(CompatIrqSet(0, FIRST_FD)), move),
        "set-other-vector": Race(world, mapped, move, Step(IrqSet(1, FIRST_FD))),
        "refused-raise": Race(world, mapped, fails, raised),
        "replace-other": Race(intx, up, move, Step(OtherInterrupt())),
        "write-replace": Race(intx, up, write, move),
        "write-unset": Race(intx, up, write, detach),
        "old-open-open": Race(old, bound, Step(Open()), Step(Open())),
        "old-open-open-refused": Race(old, bound, refused, Step(Open())),
        "old-open-release": Race(old, mapped, Step(Open()), close),
        "old-release-release": Race(old, shared, close, close),
        "old-remove-set": Race(old, mapped, remove, move),
        "old-remove-open": Race(old, mapped, remove, Step(Open())),
        "old-remove-release": Race(old, mapped, remove, close),
        "old-write-release": Race(old_intx, (*up, Step(Open())), write, close),
        "old-write-remove": Race(old_intx, up, write, remove),
    }


_ZERO = (Eventfd(), Eventfd(), Eventfd())
RACES = _races()
"""Pairs whose schedules of up to two switches are all tried, in both orders of starting."""

# -- Worlds explored without gaps


def _world(vectors: int, eventfds: int, handles: int) -> Config:
    """A world small enough to explore to its end: counters up to 2, the eventfds empty at the start."""
    return Config(vectors=vectors, eventfds=_ZERO[:eventfds], ceiling=2, handles=handles)


def _plain(vectors: int, eventfds: int) -> tuple[Step, ...]:
    """What happens when nobody refuses anything, with so many vectors (0: INTx) and eventfds."""
    fds = [FIRST_FD + i for i in range(eventfds)]
    return (
        *(Step(op) for op in (Probe(), Remove(), Open(), Close())),
        *(Step(IrqSet(vector, fd)) for vector in range(vectors or 1) for fd in (*fds, -1)),
        *(Step(RaiseVector(vector)) for vector in range(vectors)),
        *(Step(op) for op in (SetIntx(True), SetIntx(False), OtherInterrupt()) if not vectors),
        *(Step(op) for fd in fds for op in (CloseFd(fd), ReadEventfd(fd))),
    )


def _walk_through(vectors: int) -> tuple[Step, ...]:
    """The shortest way to each kind of state, for scopes whose point is something else."""
    return (
        *(Step(op) for op in (Probe(), Open(), IrqSet(0, FIRST_FD), IrqSet(0, FIRST_FD + 1), IrqSet(0, -1))),
        *(
            Step(op)
            for op in ((RaiseVector(0), IrqSet(1, FIRST_FD + 1)) if vectors else (SetIntx(True), SetIntx(False)))
        ),
        *(Step(op) for op in (Close(), Remove())),
    )


def _refusals() -> tuple[Step, ...]:
    """Each call refused once, in the operations that make it."""
    probes = [
        Step(Probe(), (Fault(call, value, nth),))
        for call, values in (_ENABLE_DEVICE, _REGIONS, _IOREMAP, *_ALLOCATIONS, _REGISTER)
        for value in values
        for nth in (1, 2, 3)
    ]
    opens = [Step(Open(), (Fault("pci_enable_msix", value),)) for value in (-ENOMEM, -ENOSPC, -EINVAL, -EIO, 1)]
    sets = [
        Step(IrqSet(0, fd), (Fault(call, value),))
        for fd in (FIRST_FD, FIRST_FD + 1)
        for call, values in (_COPY, _FDGET, _REQUEST)
        for value in values
    ]
    twice = [
        Step(IrqSet(0, fd), (Fault("request_irq", first), Fault("request_irq", second, 2)))
        for fd in (FIRST_FD, FIRST_FD + 1)
        for first, second in ((-EBUSY, -ENOMEM), (-ENOMEM, -ENOTCONN))
    ]
    starved = [
        Step(op, (Fault(call, values[0], nth),))
        for op in (Open(), IrqSet(0, FIRST_FD), IrqSet(0, FIRST_FD + 1))
        for call, values in _ALLOCATIONS
        for nth in (1, 2)
    ]
    return (*probes, *opens, *sets, *twice, *starved)


def _late_refusals(calls: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[Step, ...]:
    """Probe, with each of these calls refused early and late."""
    return tuple(
        Step(Probe(), (Fault(call, values[0], nth),))
        for call, values in calls
        for nth in (*range(1, 8), 31, 32, 33, 62, 63, 64, 65)
    )


def _inside(outer: tuple[object, ...], inner: tuple[object, ...], points: int) -> tuple[Step, ...]:
    """Each of `inner` at each point of each of `outer`."""
    return tuple(Step(op, during=((k, Step(event)),)) for op in outer for event in inner for k in range(points))


def _inside_refused(event: object, points: int) -> tuple[Step, ...]:
    """An event at each point of a replacement that request_irq refuses."""
    refusal = (Fault("request_irq", -EBUSY),)
    return tuple(Step(IrqSet(0, FIRST_FD + 1), refusal, ((k, Step(event)),)) for k in range(points))


_COMMANDS = (
    *(value for value in (0, *COMMAND.edges) if isinstance(value, int)),
    *(UIO_MSI_IRQ_SET ^ 1 << bit for bit in range(32)),
)
_POINTERS = tuple(value for value in POINTER.values if isinstance(value, int))
_COMPAT_POINTERS = tuple(value for value in COMPAT_POINTER.values if isinstance(value, int))
_BAD_FDS = (NEVER_OPENED_FD, O_PATH_FD, *STANDARD_FDS, *NOT_EVENTFDS, *HIGH_FDS, INT_MAX, FIRST_FD + 2**16)
_INPUTS = (
    *(Step(IrqSet(0, fd)) for fd in (*_BAD_FDS, DUP_FD, -2, INT_MIN)),
    *(
        Step(IrqSet(vector, fd))
        for vector in (2, 256, 2**16, 2**31, 2**32 - 1)
        for fd in (FIRST_FD, -1, NEVER_OPENED_FD)
    ),
    *(Step(kind(cmd)) for kind in (RawIoctl, CompatIoctl) for cmd in _COMMANDS),
    *(Step(RawIoctl(pointer=pointer)) for pointer in _POINTERS),
    *(Step(CompatIoctl(pointer=pointer)) for pointer in _COMPAT_POINTERS),
    *(
        Step(kind(cmd, pointer))
        for kind in (RawIoctl, CompatIoctl)
        for cmd in (0, 0x4010_4987)
        for pointer in (0, PAGE_END - 7)
    ),
    *(Step(CompatIrqSet(vector, fd)) for vector in (0, 2) for fd in (FIRST_FD, -1, NEVER_OPENED_FD)),
    *(Step(op) for op in (Open(rawio=False), ListInterrupts(), DeviceReset(), Write(1), Write(0))),
    *(Step(op) for pipe in (False, True) for op in (ReuseFd(FIRST_FD, pipe), CloseFd(FIRST_FD))),
)
_INTX_INPUTS = (
    *(Step(kind(0, fd)) for kind in (IrqSet, CompatIrqSet) for fd in (*_BAD_FDS, DUP_FD, -2, INT_MIN)),
    *(
        Step(kind(vector, fd))
        for kind in (IrqSet, CompatIrqSet)
        for vector in (1, 2, 64, 2**16, 2**31, 2**32 - 1)
        for fd in (FIRST_FD, -1, NEVER_OPENED_FD)
    ),
    *(Step(RawIoctl(cmd)) for cmd in (0, 0x8008_4987)),
    *(Step(RawIoctl(pointer=pointer, fd=FIRST_FD)) for pointer in (PAGE_END - 8, PAGE_END - 7, 0)),
    *(Step(op) for op in (Open(rawio=False), ListInterrupts(), ReuseFd(FIRST_FD), CloseFd(FIRST_FD))),
)


def _beyond(size: int) -> tuple[IrqSet, ...]:
    """Vectors about both limits, the table's size and the driver's."""
    about = (size - 1, size, size + 1, MAX_MSIX_VECTORS - 1, MAX_MSIX_VECTORS)
    return tuple(IrqSet(vector, fd) for vector in dict.fromkeys(about) for fd in (FIRST_FD, -1))


_SETS = (IrqSet(0, FIRST_FD), IrqSet(0, FIRST_FD + 1), IrqSet(0, -1))


def _beside(pairs: tuple[tuple[object, object], ...], points: int) -> tuple[Step, ...]:
    """Each pair side by side, with one switch at each point (locks and ends switch anyway)."""
    return tuple(Step(Parallel(Step(left), Step(right), (k,))) for left, right in pairs for k in range(points))


def _handled_inside(callbacks: tuple[object, ...], event: object, points: int, length: int) -> tuple[Step, ...]:
    """Each callback left alone for the start of a handler, up to `length` points, and again for its end."""
    return tuple(
        Step(Parallel(Step(callback), Step(event), (k, k + n)))
        for callback in callbacks
        for k in range(points)
        for n in range(1, length + 1)
    )


_SET_A, _SET_B, _UNSET = _SETS
_HARDWARE_PAIRS: tuple[tuple[object, object], ...] = (
    *((op, RaiseVector(0)) for op in (*_SETS, Close(), Remove())),
    *((RaiseVector(0), op) for op in (*_SETS, Close(), Remove())),
    *((op, CloseFd(FIRST_FD)) for op in (_SET_A, _SET_B)),
)
_CALLBACK_PAIRS: tuple[tuple[object, object], ...] = (
    *((left, right) for left in (_SET_A, _UNSET) for right in _SETS),
    *((op, Remove()) for op in (_SET_A, Open(), Close())),
    *((Remove(), op) for op in (_SET_A, Open(), Close())),
    *((Open(), op) for op in (Open(), Close())),
    (Close(), Open()),
)
_INTX_PAIRS: tuple[tuple[object, object], ...] = (
    *((SetIntx(True), op) for op in (*_SETS, Close(), Remove(), Write(), OtherInterrupt())),
    *((op, SetIntx(True)) for op in (*_SETS, Close(), Remove(), Write())),
    *((op, OtherInterrupt()) for op in (*_SETS, Close())),
)
_FLOODS = (
    Flood(),
    Flood(0, NEVER_OPENED_FD),
    Flood(0, FIRST_FD, refusal=-EBUSY),
    Flood(cmd=0),
    Flood(pointer=0),
)
_BRIEF = tuple(Step(op) for op in (Probe(), Open(), _SET_A))

_SIX = tuple(Bar(0xF000_0000 + i * 0x10_0000, 0x1000) for i in range(6))
_EVERY_VECTOR = tuple(IrqSet(vector, FIRST_FD) for vector in range(64))
_FAR = (4, 31, 32, 33, 62, 63)
_FAR_END = tuple(Step(op) for op in (IrqSet(31, -1), Close()))

_FULL = (Eventfd(EVENTFD_MAX - 1, semaphore=True), Eventfd(1, nonblock=False))
_COUNTING = tuple(
    Step(op)
    for op in (Probe(), Open(), _SET_A, _SET_B, RaiseVector(0), ReadEventfd(FIRST_FD), ReadEventfd(FIRST_FD + 1))
)
_UNMERGED = tuple(Step(op) for op in (Probe(), Open(), *_SETS, RaiseVector(0), Close(), Remove()))

# A count of such worlds by state alone (life, handles, map, pending, counters, fds) gives for
# "1,1,1" 36 states, "1,2,2" 432, "2,2,2" 1296, "3,2,2" 4752, "2,3,2" 11664. Here a device that was
# never bound, or never opened, is told apart from one that was, so that UIO-056 and UIO-077 can be
# blamed: that adds 8, 40, 40, 40 and 224 states, and their transitions. With INTx (324 there) the level
# and the disable bit are remembered while the device is closed or unbound as well.
SCOPES: dict[str, Scope] = {
    **{
        f"world-{i}": Scope(config, tuple(Step(op) for op in (Probe(), Open(), Close(), Remove())), depth=5)
        for i, config in enumerate(CONFIGS)
    },
    "1,1,1": Scope(_world(1, 1, 1), _plain(1, 1), states=44, transitions=237),
    "intx-1,1": Scope(_world(0, 1, 1), _plain(0, 1), states=82, transitions=598),
    "intx-fallback": Scope(replace(_world(2, 1, 1), msix_broken=True), _plain(0, 1), states=82, transitions=598),
    "inputs": Scope(PLAIN, (*_walk_through(2), *_INPUTS), depth=4, states=68, transitions=2106),
    "intx-inputs": Scope(INTX, (*_walk_through(0), *_INTX_INPUTS), depth=4, states=49, transitions=879),
    **{
        f"beyond-{size}": Scope(
            Config(vectors=size, bars=(_MEMORY, Bar(0xF010_0000, 0x1_0000))),
            tuple(Step(op) for op in (Probe(), Open(), *_beyond(size))),
            depth=3,
            states=states,
            transitions=transitions,
        )
        for size, states, transitions in ((1, 5, 14), (63, 5, 10), (64, 5, 10), (65, 5, 12), (2048, 5, 14))
    },
    "reset": Scope(
        PLAIN,
        tuple(
            Step(op)
            for op in (*_MAPPED, _SET_B, _UNSET, IrqSet(1, FIRST_FD), DeviceReset(), RaiseVector(0), RaiseVector(1))
        ),
        depth=6,
        states=212,
        transitions=735,
    ),
    "numbers": Scope(
        PLAIN,
        tuple(
            Step(op)
            for op in (
                *(*_MAPPED, IrqSet(1, FIRST_FD), IrqSet(1, DUP_FD), _UNSET, RaiseVector(0)),
                *(CloseFd(FIRST_FD), ReuseFd(FIRST_FD), ReuseFd(FIRST_FD, pipe=True)),
            )
        ),
        depth=6,
        states=151,
        transitions=683,
    ),
    "counters": Scope(Config(vectors=1, eventfds=_FULL), _COUNTING, depth=6, states=121, transitions=403),
    "flood": Scope(
        PLAIN,
        tuple(Step(op) for op in (Probe(), Open(), *_FLOODS)),
        depth=3,
        states=4,
        transitions=9,
    ),
    "intx-flood": Scope(
        INTX,
        tuple(Step(op) for op in (Probe(), Open(), *_FLOODS[:3])),
        depth=3,
        states=4,
        transitions=7,
    ),
    "probes": Scope(PLAIN, (*_refusals(), *_walk_through(2)), depth=5, states=46, transitions=1094),
    "intx-probes": Scope(INTX, (*_refusals(), *_walk_through(0)), depth=5, states=42, transitions=1003),
    "probes-64": Scope(
        Config(vectors=64), (Step(Probe()), *_late_refusals(_ALLOCATIONS)), depth=1, states=2, transitions=43
    ),
    "probes-six-bars": Scope(
        Config(vectors=0, bars=_SIX),
        (Step(Probe()), *_late_refusals((_IOREMAP, *_ALLOCATIONS))),
        depth=1,
        states=2,
        transitions=57,
    ),
    "vectors": Scope(
        Config(vectors=64),
        tuple(Step(op) for op in (Probe(), Open(), *_EVERY_VECTOR)),
        depth=3,
        states=68,
        transitions=68,
    ),
    "vectors-far": Scope(
        Config(vectors=64),
        (*_BRIEF, *(Step(op) for v in _FAR for op in (IrqSet(v, FIRST_FD), RaiseVector(v))), *_FAR_END),
        depth=5,
        states=481,
        transitions=1734,
    ),
    "many": Scope(
        PLAIN,
        tuple(Step(op) for op in (Probe(), Open(), _SET_A, RaiseMany(0, 300), RaiseMany(0, 2), RaiseMany(1, 300))),
        depth=5,
        states=33,
        transitions=79,
    ),
    "open-inside-probe": Scope(
        PLAIN, (*_inside((Probe(),), (Open(),), 128), Step(Close())), depth=2, states=4, transitions=129
    ),
    "remove-inside": Scope(
        PLAIN,
        (*_walk_through(2), *_inside((Remove(),), (IrqSet(0, FIRST_FD), Open(), Close(), ListInterrupts()), 32)),
        depth=4,
        states=24,
        transitions=1098,
    ),
    "races": Scope(
        PLAIN,
        (
            *_BRIEF,
            *_beside(_HARDWARE_PAIRS, 16),
        ),
        depth=4,
        states=57,
        transitions=1978,
    ),
    "handled": Scope(
        PLAIN,
        (*_BRIEF, *_handled_inside((_SET_B, _UNSET, Close(), Remove()), RaiseVector(0), 16, 2)),
        depth=4,
        states=28,
        transitions=818,
    ),
    "races-6.x": Scope(PLAIN, (*_BRIEF, *_beside(_CALLBACK_PAIRS, 16)), depth=4, states=22, transitions=2459),
    "races-4.1": Scope(
        Config(core_41=True), (*_BRIEF, *_beside(_CALLBACK_PAIRS, 16)), depth=4, states=22, transitions=2459
    ),
    "short": Scope(
        Config(vectors=4),
        (
            *(Step(Open(), (Fault("pci_enable_msix", had),)) for had in (1, 3)),
            *(Step(op) for op in (Probe(), Open(), Close(), Remove(), IrqSet(0, FIRST_FD), IrqSet(2, FIRST_FD + 1))),
            *(Step(op) for op in (IrqSet(1, -1), IrqSet(3, FIRST_FD), RaiseVector(0), RaiseVector(2))),
        ),
        depth=5,
        states=63,
        transitions=303,
    ),
    "opens": Scope(
        _world(1, 2, 2),
        (
            *(Step(op) for op in (Probe(), Open(), Close(), Open(rawio=False))),
            Step(Open(), (Fault("pci_enable_msix", -ENOMEM),)),
        ),
        states=6,
        transitions=18,
        sequences=5,
    ),
    "intx-bindings": Scope(
        INTX,
        tuple(Step(op) for op in (Probe(), Remove(), ConfigIntx(True), ConfigIntx(False))),
        states=3,
        transitions=9,
        sequences=6,
    ),
    "intx-user": Scope(
        INTX,
        (*_walk_through(0), Step(ConfigIntx(True)), Step(ConfigIntx(False)), Step(OtherInterrupt())),
        depth=6,
        states=158,
        transitions=810,
        profiles=frozenset({"as-posted"}),
    ),
    "intx-writes": Scope(
        INTX,
        (*_walk_through(0), *(Step(Write(value)) for value in WRITTEN.values if isinstance(value, int))),
        depth=6,
        states=101,
        transitions=527,
    ),
    "intx-races": Scope(
        INTX,
        (
            *_BRIEF,
            Step(SetIntx(True)),
            *_beside(_INTX_PAIRS, 16),
        ),
        depth=4,
        states=32,
        transitions=2425,
    ),
    "intx-handled": Scope(
        INTX,
        (*_BRIEF, *_handled_inside((_SET_B, _UNSET, Close()), SetIntx(True), 14, 5)),
        depth=4,
        states=20,
        transitions=1064,
    ),
    "intx-races-4.1": Scope(
        Config(vectors=0, core_41=True),
        (*_BRIEF, *_beside(((Write(), Remove()), (Remove(), Write())), 16)),
        depth=4,
        states=9,
        transitions=107,
    ),
    "inside": Scope(
        PLAIN,
        (
            *_walk_through(2),
            *_inside((*_SETS, Close(), Remove()), (RaiseVector(0), CloseFd(FIRST_FD)), 24),
            *_inside_refused(RaiseVector(0), 24),
        ),
        depth=4,
        states=73,
        transitions=3651,
    ),
    "intx-inside": Scope(
        INTX,
        (
            *_walk_through(0),
            *_inside((*_SETS, Close(), Remove()), (SetIntx(True), OtherInterrupt()), 24),
            *_inside_refused(SetIntx(True), 24),
        ),
        depth=4,
        states=37,
        transitions=2574,
    ),
    "unmerged": Scope(_world(1, 2, 1), _UNMERGED, states=73, transitions=333, sequences=6),
    "1,2,2": Scope(_world(1, 2, 2), _plain(1, 2), states=472, transitions=3948),
    "intx-2,2": Scope(_world(0, 2, 2), _plain(0, 2), states=944, transitions=9736),
    "2,2,2": Scope(_world(2, 2, 2), _plain(2, 2), states=1336, transitions=16660),
    "3,2,2": Scope(_world(3, 2, 2), _plain(3, 2), states=4792, transitions=79268, in_gate=False),
    "2,3,2": Scope(_world(2, 3, 2), _plain(2, 3), states=11888, transitions=189608, in_gate=False),
}
"""By vectors, eventfds and handles where everything is explored; else by what they are about."""


# -- For Hypothesis


def configs() -> st.SearchStrategy[Config]:
    """Worlds, the plain one first."""
    return st.sampled_from(CONFIGS)


def operations(kind: type) -> st.SearchStrategy[object]:
    """Operations of one kind, each field from its domain."""
    return st.builds(kind, **{name: domain.strategy() for name, domain in SHAPES[kind].fields.items()})


def faults(kind: type) -> st.SearchStrategy[tuple[Fault, ...]]:
    """No refusal, or one that the operation may meet."""
    planned = [
        st.builds(Fault, st.just(call), st.sampled_from(values), st.integers(1, SHAPES[kind].deepest))
        for call, values in SHAPES[kind].faults
    ]
    return st.one_of(st.just(()), st.tuples(st.one_of(planned))) if planned else st.just(())


def during(kind: type) -> st.SearchStrategy[tuple[tuple[int, Step], ...]]:
    """Nothing, or one other operation in the middle."""
    shape = SHAPES[kind]
    if not shape.interrupts:
        return st.just(())
    others = st.one_of([st.builds(Step, operations(other)) for other in shape.interrupts])
    return st.one_of(st.just(()), st.tuples(st.tuples(st.integers(0, shape.points - 1), others)))
