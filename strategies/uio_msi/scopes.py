"""Worlds explored without gaps."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.step import Fault, Parallel, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    DUP_FD,
    FIRST_FD,
    NEVER_OPENED_FD,
    NOT_EVENTFDS,
    O_PATH_FD,
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
    EBUSY,
    EINVAL,
    EIO,
    ENOMEM,
    ENOSPC,
    ENOTCONN,
    EVENTFD_MAX,
    IRQ_NOTCONNECTED,
    MAX_MSIX_VECTORS,
    UIO_MSI_IRQ_SET,
)
from conformance.strategies.domain import Scope
from conformance.strategies.uio_msi.domains import (
    COMMAND,
    COMPAT_POINTER,
    CONFIGS,
    HIGH_FDS,
    INT_MAX,
    INT_MIN,
    INTX,
    LAYOUTS,
    MEMORY,
    PLAIN,
    POINTER,
    WRITTEN,
    ZERO,
)
from conformance.strategies.uio_msi.races import MAPPING
from conformance.strategies.uio_msi.shapes import (
    ALLOCATIONS,
    COPY,
    ENABLE_DEVICE,
    FDGET,
    IOREMAP,
    REGIONS,
    REGISTER,
    REQUEST,
    TRIAL,
)


def _world(vectors: int, eventfds: int, handles: int) -> Config:
    """A world small enough to explore to its end: counters up to 2, the eventfds empty at the start."""
    return Config(vectors=vectors, eventfds=ZERO[:eventfds], ceiling=2, handles=handles)


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
        for call, values in (ENABLE_DEVICE, REGIONS, IOREMAP, *ALLOCATIONS, REGISTER)
        for value in values
        for nth in (1, 2, 3)
    ]
    probes += [Step(Probe(), (Fault(call, value),)) for call, values in (TRIAL, REQUEST) for value in values]
    opens = [Step(Open(), (Fault("pci_enable_msix", value),)) for value in (-ENOMEM, -ENOSPC, -EINVAL, -EIO, 1)]
    opens += [Step(Open(), (Fault(call, values[0]),)) for call, values in (ENABLE_DEVICE, REGIONS, IOREMAP)]
    opens += [Step(Open(), (Fault("request_irq", -EBUSY, nth),)) for nth in (1, 2)]
    sets = [
        Step(IrqSet(0, fd), (Fault(call, value),))
        for fd in (FIRST_FD, FIRST_FD + 1)
        for call, values in (COPY, FDGET, REQUEST)
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
        for call, values in ALLOCATIONS
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
    Flood(0, -1),
    FloodOpens(),
    FloodOpens(rawio=False),
    FloodWrites(),
    FloodWrites(0),
    FloodWrites(-1),
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
    **{
        f"world-{layout}": Scope(config, (Step(Probe()), Step(Remove())), depth=2) for layout, config in LAYOUTS.items()
    },
    "1,1,1": Scope(_world(1, 1, 1), _plain(1, 1), states=44, transitions=237),
    "intx-1,1": Scope(_world(0, 1, 1), _plain(0, 1), states=82, transitions=598),
    "intx-fallback": Scope(replace(_world(2, 1, 1), msix_broken=True), _plain(0, 1), states=82, transitions=598),
    "inputs": Scope(PLAIN, (*_walk_through(2), *_INPUTS), depth=4, states=69, transitions=2139),
    "intx-inputs": Scope(INTX, (*_walk_through(0), *_INTX_INPUTS), depth=4, states=49, transitions=879),
    **{
        f"beyond-{size}": Scope(
            Config(vectors=size, bars=(MEMORY, Bar(0xF010_0000, 0x1_0000))),
            tuple(Step(op) for op in (Probe(), Open(), *_beyond(size))),
            depth=3,
            states=states,
            transitions=transitions,
        )
        for size, states, transitions in (
            *((1, 5, 14), (63, 5, 10), (64, 5, 10), (65, 5, 12), (2048, 5, 14)),
            *((size, 5, 14) for size in (129, 257, 513, 1025)),
        )
    },
    "reset": Scope(
        PLAIN,
        tuple(
            Step(op)
            for op in (*MAPPING, _SET_B, _UNSET, IrqSet(1, FIRST_FD), DeviceReset(), RaiseVector(0), RaiseVector(1))
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
                *(*MAPPING, IrqSet(1, FIRST_FD), IrqSet(1, DUP_FD), _UNSET, RaiseVector(0)),
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
        states=5,
        transitions=20,
    ),
    "intx-flood": Scope(
        INTX,
        tuple(Step(op) for op in (Probe(), Open(), *_FLOODS[:9])),
        depth=3,
        states=5,
        transitions=18,
    ),
    "probes": Scope(PLAIN, (*_refusals(), *_walk_through(2)), depth=5, states=58, transitions=1667),
    "intx-probes": Scope(INTX, (*_refusals(), *_walk_through(0)), depth=5, states=42, transitions=1141),
    "probes-64": Scope(
        Config(vectors=64), (Step(Probe()), *_late_refusals(ALLOCATIONS)), depth=1, states=3, transitions=43
    ),
    "probes-six-bars": Scope(
        Config(vectors=0, bars=_SIX),
        (Step(Probe()), *_late_refusals((IOREMAP, *ALLOCATIONS))),
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
        states=497,
        transitions=1750,
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
    "inside-open": Scope(
        PLAIN,
        (Step(Probe()), *_inside((Open(),), (RaiseVector(0), RaiseVector(1)), 16), Step(_SET_A), Step(RaiseVector(0))),
        depth=4,
        states=24,
        transitions=441,
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
        states=75,
        transitions=332,
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
        states=9,
        transitions=27,
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
    "intx-config": Scope(
        INTX,
        (
            *_walk_through(0),
            *(Step(op) for op in (ConfigIntx(True), ConfigIntx(False), Write(1), Write(0), OtherInterrupt())),
        ),
        depth=6,
        states=148,
        transitions=844,
        profiles=frozenset({"upstream", "vfio-like"}),
    ),
    "intx-unserved": Scope(
        replace(INTX, ceiling=0x12),
        tuple(
            Step(op)
            for op in (
                *(Probe(), Open(), IrqSet(0, FIRST_FD), _UNSET, Close(), Remove()),
                *(SetIntx(True), SetIntx(False), Write(1), Write(0), ConfigIntx(False)),
            )
        )
        + (Step(IrqSet(0, FIRST_FD), (Fault("request_irq", -EBUSY),)),),
        depth=7,
        states=121,
        transitions=730,
    ),
    **{
        name: Scope(
            config,
            (
                *(Step(Probe(), (Fault("pci_enable_msix", value),)) for value in TRIAL[1]),
                *(Step(op) for op in (*MAPPING, IrqSet(1, FIRST_FD), SetIntx(True), RaiseVector(0), Close(), Remove())),
            ),
            depth=depth,
            states=states,
            transitions=transitions,
        )
        for name, config, depth, states, transitions in (
            ("intx-trial", PLAIN, 6, 88, 308),
            ("trial-irq-0", Config(irq=0), 4, 18, 53),
            ("trial-irq-notconnected", Config(irq=IRQ_NOTCONNECTED), 4, 18, 53),
        )
    },
    "irq-0": Scope(
        Config(vectors=0, irq=0),
        tuple(Step(op) for op in (*MAPPING, _UNSET, Write(1), Close(), Remove())),
        depth=5,
        states=1,
        transitions=2,
    ),
    "irq-notconnected": Scope(
        Config(vectors=0, irq=IRQ_NOTCONNECTED),
        tuple(Step(op) for op in (*MAPPING, _UNSET, Write(1), Close(), Remove())),
        depth=5,
        states=1,
        transitions=2,
    ),
    "irqs-reused": Scope(
        Config(vectors=3),
        tuple(
            Step(op)
            for op in (
                *(Probe(), Open(), Close(), IrqSet(1, FIRST_FD), IrqSet(2, FIRST_FD + 1)),
                *(RaiseVector(1), RaiseVector(2)),
            )
        ),
        depth=8,
        states=247,
        transitions=856,
    ),
    "vectors-apart": Scope(
        Config(vectors=64),
        tuple(
            Step(op)
            for op in (
                *(Probe(), Open(), Close(), IrqSet(1, FIRST_FD), IrqSet(33, FIRST_FD + 1), IrqSet(33, -1)),
                *(IrqSet(1, -1), RaiseVector(1), RaiseVector(33)),
            )
        ),
        depth=6,
        states=97,
        transitions=355,
    ),
    "intx-writes": Scope(
        INTX,
        (*_walk_through(0), *(Step(Write(value)) for value in WRITTEN.values if isinstance(value, int))),
        depth=6,
        states=101,
        transitions=527,
    ),
    "intx-swapped": Scope(
        INTX,
        (*_BRIEF, *_beside(((SetIntx(True), _SET_B), (_SET_B, SetIntx(True))), 10)),
        depth=4,
        states=12,
        transitions=91,
    ),
    "intx-resent": Scope(
        INTX,
        (*_BRIEF, Step(SetIntx(True)), *_beside(((Write(), _SET_B), (_UNSET, Write())), 14)),
        depth=5,
        states=35,
        transitions=382,
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
