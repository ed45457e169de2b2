"""What a UIO driver that binds MSI-X vectors to eventfds may do, step by step.

The state is what the specification must remember: who has the device open, which eventfd each
vector signals, which events the hardware holds back, and what user space did to its own fds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, assert_never

from conformance.model.step import Outcome, Outcomes
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import (
    COMMAND_MASK,
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    EFAULT,
    EINVAL,
    EIO,
    ENODEV,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
    EVENTFD_MAX,
    IRQ_SET_SIZE,
    MAX_MSIX_VECTORS,
    PAGE_SIZE,
    UIO_MSI_IRQ_SET,
)

Errno = int
"""0, or the negative errno a Linux entry point returns."""

# -- The world


@dataclass(frozen=True, slots=True)
class Eventfd:
    """An eventfd that user space has open when a trace starts."""

    count: int = 0
    """Initial counter, up to 2**64 - 2."""
    semaphore: bool = False
    """EFD_SEMAPHORE: a read takes 1."""
    nonblock: bool = True
    """EFD_NONBLOCK."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A base address register; size 0 stands for none, as in the upper half of a 64-bit one."""

    start: int = 0
    size: int = 0
    io: bool = False
    """Port space rather than memory."""


@dataclass(frozen=True, slots=True)
class Config:
    """A PCI function, and the eventfds of the process that uses it."""

    vectors: int = 2
    """Size of the MSI-X table, 1 to 2048; 0 without MSI-X."""
    eventfds: tuple[Eventfd, ...] = (Eventfd(0x10), Eventfd(0x20))
    """User fds FIRST_FD, FIRST_FD + 1, …; another one, the decoy, is behind them."""
    bars: tuple[Bar, ...] = (Bar(0xF000_0000, 0x1000), Bar(0xF001_0000, 0x1000))
    table_bar: int = 1
    table_offset: int = 0
    pba_bar: int = 1
    pba_offset: int = 0x800
    intx: bool = True
    """Whether the function has INTx with a working disable bit."""
    bridge: bool = False
    virtfn: bool = False
    msix_broken: bool = False
    """The capability is there, and every attempt to enable MSI-X gives -EINVAL."""
    remapping: bool = False
    """Interrupt remapping protects the host from forged messages."""
    left_masked: bool = False
    """The disable bit is set when the driver first sees the function."""
    core_41: bool = False
    """UIO core of Linux 4.1, whatever the profile says."""
    ceiling: int = 0
    """For exhaustive runs: counters above this are out of scope; 0 for no limit."""
    handles: int = 0
    """For exhaustive runs: more open handles are out of scope; 0 for no limit."""


FIRST_FD = 256
"""User fd of the first eventfd; the process keeps its own below."""
DUP_FD = 484
"""A second descriptor of the first eventfd."""
NOT_EVENTFDS = (480, 481, 482, 483)
"""A pipe, /dev/null, an epoll, /dev/uioN itself."""
STANDARD_FDS = (0, 1, 2)
"""Standard input, output and error of the process: pipes."""
O_PATH_FD = 485
"""An O_PATH descriptor of the first eventfd."""
NEVER_OPENED_FD = 500
"""A number that is never in use."""
DECOY_COUNT = 0x5000
"""Counter of the decoy at the start."""

CLOSED = -1
"""In `State.fds`: the number is not in use."""
PIPE = -2
"""In `State.fds`: the number names a pipe."""

PAGE = 0x1_0000
"""The one page of user memory that is mapped."""
PAGE_END = PAGE + PAGE_SIZE


# -- Operations


@dataclass(frozen=True, slots=True)
class Probe:
    """Bind the driver to the device."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Unbind the driver, or unplug the device; handles may be open."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open /dev/uioN."""

    rawio: bool = True
    """Whether the process has CAP_SYS_RAWIO."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close one handle of /dev/uioN."""


@dataclass(frozen=True, slots=True)
class IrqSet:
    """UIO_MSI_IRQ_SET: signal `fd` whenever `vector` fires."""

    vector: int = 0
    """Vector number, u32."""
    fd: int = FIRST_FD
    """Eventfd to signal, s32; negative unmaps the vector."""


@dataclass(frozen=True, slots=True)
class CompatIrqSet:
    """UIO_MSI_IRQ_SET by a 32-bit process."""

    vector: int = 0
    fd: int = FIRST_FD


@dataclass(frozen=True, slots=True)
class RawIoctl:
    """An ioctl with any command and any pointer; `vector` and `fd` lie there as far as memory is mapped."""

    cmd: int = UIO_MSI_IRQ_SET
    """The system call keeps the low 32 bits."""
    pointer: int = PAGE
    vector: int = 0
    fd: int = -1


@dataclass(frozen=True, slots=True)
class CompatIoctl:
    """The same by a 32-bit process."""

    cmd: int = UIO_MSI_IRQ_SET
    pointer: int = PAGE
    vector: int = 0
    fd: int = -1


@dataclass(frozen=True, slots=True)
class RaiseVector:
    """The function has an event for an MSI-X vector."""

    vector: int = 0


@dataclass(frozen=True, slots=True)
class RaiseMany:
    """The function has an event for an MSI-X vector again and again, and nobody reads in between."""

    vector: int = 0
    count: int = 300
    """How many, 2 or more."""


@dataclass(frozen=True, slots=True)
class SetIntx:
    """The function asserts or deasserts INTx."""

    level: bool = True


@dataclass(frozen=True, slots=True)
class OtherInterrupt:
    """Another device on the INTx line interrupts; its own handler serves it."""


@dataclass(frozen=True, slots=True)
class ConfigIntx:
    """User space writes the disable bit of the command register through sysfs."""

    disable: bool = True


@dataclass(frozen=True, slots=True)
class Write:
    """User space writes a number to /dev/uioN: irqcontrol(value)."""

    value: int = 1
    """s32; any but 0 unmasks INTx."""


@dataclass(frozen=True, slots=True)
class CloseFd:
    """User space closes the fd of an eventfd."""

    fd: int = FIRST_FD


@dataclass(frozen=True, slots=True)
class ReuseFd:
    """User space opens something else under a number of its eventfds: the decoy, or a pipe."""

    fd: int = FIRST_FD
    pipe: bool = False


@dataclass(frozen=True, slots=True)
class ReadEventfd:
    """User space reads an eventfd without blocking."""

    fd: int = FIRST_FD


@dataclass(frozen=True, slots=True)
class DeviceReset:
    """The function is reset behind the driver's back: its MSI-X table loses the messages."""


@dataclass(frozen=True, slots=True)
class ListInterrupts:
    """Somebody reads /proc/interrupts, and so the name of every action."""


@dataclass(frozen=True, slots=True)
class Flood:
    """User space repeats the same bad ioctl a thousand times."""

    vector: int = 2**32 - 1
    fd: int = FIRST_FD
    cmd: int = UIO_MSI_IRQ_SET
    pointer: int = PAGE
    refusal: int = 0
    """What request_irq answers meanwhile; 0 where it is not what makes the ioctl bad."""


OPERATIONS = (
    Probe,
    Remove,
    Open,
    Close,
    IrqSet,
    CompatIrqSet,
    RawIoctl,
    CompatIoctl,
    RaiseVector,
    RaiseMany,
    SetIntx,
    OtherInterrupt,
    ConfigIntx,
    Write,
    CloseFd,
    ReuseFd,
    ReadEventfd,
    DeviceReset,
    ListInterrupts,
    Flood,
)

Operation = (
    Probe
    | Remove
    | Open
    | Close
    | IrqSet
    | CompatIrqSet
    | RawIoctl
    | CompatIoctl
    | RaiseVector
    | RaiseMany
    | SetIntx
    | OtherInterrupt
    | ConfigIntx
    | Write
    | CloseFd
    | ReuseFd
    | ReadEventfd
    | DeviceReset
    | ListInterrupts
    | Flood
)

_COMPAT = frozenset({"compat"})
NEEDS = {CompatIrqSet: _COMPAT, CompatIoctl: _COMPAT, Write: frozenset({"irqcontrol", "intx"})}


def requires(config: Config) -> frozenset[str]:
    """Capabilities without which a driver cannot be held to this world."""
    intx = {"intx"} if not config.vectors and config.intx else set()
    return frozenset(intx | ({"core-4.1"} if config.core_41 else set()))


@dataclass(frozen=True, slots=True)
class Answers:
    """What the environment refused; 0 where it did not."""

    pci_enable_device: int = 0
    pci_request_regions: int = 0
    pci_enable_msix: int = 0
    """Negative errno, or k > 0 when only k vectors could be had."""
    ioremap: int = 0
    kzalloc: int = 0
    kcalloc: int = 0
    kasprintf: int = 0
    uio_register_device: int = 0
    copy_from_user: int = 0
    """Number of bytes that could not be copied."""
    eventfd_ctx_fdget: int = 0
    request_irq: int = 0


NOTHING_REFUSED = Answers()


# -- State and view

Life = Literal["unbound", "bound", "gone"]
"""`gone`: removed while handles are open."""


Past = Literal["new", "used", "refused"]
"""`used`: bound or opened before; `refused`: the last open failed; `new` otherwise, and while open."""


class State(NamedTuple):
    """The device as driver, hardware and user space left it."""

    config: Config
    life: Life
    past: Past
    """While unbound or closed, what happened before."""
    opens: int
    """Handles open."""
    msix: bool | None
    """MSI-X mode, else INTx; None while it is open whether the driver fell back."""
    limit: int
    """max_vectors."""
    wired: tuple[int | None, ...]
    """The eventfd each vector signals, by vector number; None while unmapped."""
    pending: tuple[bool, ...]
    """Events the function holds back, by vector number."""
    lost: frozenset[int]
    """Vectors whose message a reset cleared."""
    counters: tuple[int, ...]
    """Of each eventfd, the decoy last."""
    fds: tuple[int, ...]
    """What user fd FIRST_FD + i names: an eventfd's index, CLOSED or PIPE."""
    asserted: bool
    """The function asserts INTx."""
    masked: bool
    """The disable bit, as far as it matters; False where the driver may leave it either way."""
    user_unmasks: bool
    """Whether user space writes the disable bit while the device is open, because nothing else unmasks INTx."""
    was_reset: bool
    """The function was reset since MSI-X was enabled: what `lost` says of an unmapped vector is a guess."""


class View(NamedTuple):
    """What can be observed from outside."""

    leftovers: tuple[str, ...]
    """Resources the driver holds while it is not bound."""
    registered: bool
    """/dev/uioN exists."""
    enabled: int
    """Number of MSI-X vectors enabled."""
    actions: tuple[int, ...]
    """Handlers installed, by vector."""
    references: tuple[int, ...]
    """eventfd references the driver holds, by eventfd."""
    counters: tuple[int, ...]
    """By eventfd, the decoy last."""
    pending: tuple[bool, ...]
    """Pending bits, by vector."""
    masked: bool
    """INTx is mapped and its disable bit is set."""
    lost: frozenset[int]
    """Mapped vectors whose message in the MSI-X table is cleared."""


VIEW_CLAUSES: dict[str, Clause] = {
    "leftovers": c.FAILED_PROBE_LEAVES_NOTHING,
    "registered": c.PROBE_MEANS_REGISTERED,
    "enabled": c.FIRST_OPEN_ENABLES,
    "actions": c.NEVER_HALF_MAPPED,
    "references": c.ONE_REFERENCE_EACH,
    "counters": c.ONE_EVENT_ONE_SIGNAL,
    "pending": c.UNMAPPED_EVENT_HELD,
    "masked": c.INTX_MASKED_AND_SIGNALLED,
    "lost": c.MESSAGE_REWRITTEN,
}

NONE_LOST: frozenset[int] = frozenset()


def number_of_vectors(config: Config) -> int:
    """max_vectors in the mode that the function's capabilities ask for (UIO-065)."""
    return min(config.vectors, MAX_MSIX_VECTORS) if config.vectors and not config.msix_broken else 1


def initial(config: Config, profile: Profile) -> State:
    """Before the first probe."""
    vectors = number_of_vectors(config)
    return State(
        config=config,
        life="unbound",
        past="new",
        opens=0,
        msix=None if config.msix_broken else bool(config.vectors),
        limit=vectors,
        wired=(None,) * vectors,
        pending=(False,) * vectors,
        lost=NONE_LOST,
        counters=(*(eventfd.count for eventfd in config.eventfds), DECOY_COUNT),
        fds=tuple(range(len(config.eventfds))),
        asserted=False,
        masked=config.left_masked and profile.intx_unmask == "user",
        user_unmasks=profile.intx_unmask == "user",
        was_reset=False,
    )


def view(state: State) -> View:
    """What can be observed of this state."""
    wired = state.wired
    bound = state.life == "bound"
    return View(
        (),
        bound,
        state.limit if state.msix and bound and state.opens else 0,
        tuple([0 if w is None else 1 for w in wired]),
        tuple([wired.count(o) for o in range(len(state.counters))]),
        state.counters,
        state.pending,
        state.masked and wired[0] is not None,
        frozenset([v for v in state.lost if wired[v] is not None]) if state.lost else NONE_LOST,
    )


# -- What the world can do


def legal(state: State, op: Operation) -> bool:
    """Whether the world can do `op` at all; bad arguments are fair."""
    match op:
        case Flood():
            return state.opens > 0 and _is_refused(state, op)
        case IrqSet() | CompatIrqSet() | RawIoctl() | CompatIoctl():
            return state.opens > 0 and (not state.config.ceiling or _set_within_ceiling(state, op))
        case RaiseVector(vector):
            return vector < state.limit and state.config.vectors > 0 and _gain_within_ceiling(state, vector)
        case RaiseMany(vector):
            return vector < state.limit and state.config.vectors > 0 and not state.config.ceiling
        case Open():
            return not state.config.handles or state.opens < state.config.handles
        case Close():
            return state.opens > 0
        case Probe():
            return state.life == "unbound"
        case Remove():
            return state.life == "bound"
        case SetIntx(level):
            return _has_intx(state) and (not level or state.asserted or _gain_within_ceiling(state, 0))
        case OtherInterrupt():
            return _has_intx(state)
        case ConfigIntx():
            return bool(state.msix) or state.opens == 0 or (state.user_unmasks and _gain_within_ceiling(state, 0))
        case Write():
            return state.opens > 0 and (bool(state.msix) or _gain_within_ceiling(state, 0))
        case CloseFd() | ReuseFd():
            return True
        case ReadEventfd(fd):
            return state.fds[fd - FIRST_FD] >= 0
        case DeviceReset():
            return bool(state.msix) and state.opens > 0 and state.life == "bound"
        case ListInterrupts():
            return True
        case _:
            assert_never(op)


def _has_intx(state: State) -> bool:
    """Whether the function interrupts by INTx: it has no MSI-X, or none that works."""
    return not state.config.vectors or (state.config.msix_broken and state.config.intx)


def _is_refused(state: State, op: Flood) -> bool:
    """Whether an ioctl changes nothing however often it is repeated."""
    if op.cmd & COMMAND_MASK != UIO_MSI_IRQ_SET or not is_readable(op.pointer):
        return not op.refusal
    if op.vector >= state.limit or (op.fd >= 0 and eventfd_of(state, op.fd) < 0):
        return not op.refusal
    return op.fd >= 0 and op.refusal < 0


def _gain_within_ceiling(state: State, vector: int) -> bool:
    wired, ceiling = state.wired[vector], state.config.ceiling
    return not ceiling or wired is None or state.counters[wired] < ceiling


def _set_within_ceiling(state: State, op: IrqSet | CompatIrqSet | RawIoctl | CompatIoctl) -> bool:
    if op.vector >= len(state.wired):
        return True
    found = eventfd_of(state, op.fd)
    return (
        found < 0 or not (state.pending[op.vector] or state.asserted) or (state.counters[found] < state.config.ceiling)
    )


def eventfd_of(state: State, fd: int) -> int:
    """The eventfd that `fd` names in the process, or the errno of looking it up (UIO-015)."""
    slot = fd - FIRST_FD
    if 0 <= slot < len(state.fds):
        found = state.fds[slot]
        return found if found >= 0 else -EBADF if found == CLOSED else -EINVAL
    if fd == DUP_FD:
        return 0
    return -EINVAL if fd in NOT_EVENTFDS or fd in STANDARD_FDS else -EBADF


def is_readable(pointer: int) -> bool:
    """Whether all 8 bytes at a user pointer are mapped."""
    return PAGE <= pointer <= PAGE_END - IRQ_SET_SIZE


# -- The operations


def step(state: State, op: Operation, answers: Answers, profile: Profile) -> Outcomes:
    """What the specification allows `op` to do here."""
    match op:
        case IrqSet(vector, fd):
            return irq_set(state, vector, fd, answers, profile)
        case RaiseVector():
            return raise_vector(state, op.vector)
        case RaiseMany():
            return raise_many(state, op)
        case RawIoctl():
            return raw_ioctl(state, op, answers, profile)
        case CompatIoctl():
            return _because(raw_ioctl(state, op, answers, profile), c.COMPAT_IDENTICAL)
        case CompatIrqSet(vector, fd):
            return _because(irq_set(state, vector, fd, answers, profile), c.COMPAT_IDENTICAL)
        case Open():
            return open_device(state, op, answers, profile)
        case Close():
            return close_device(state, profile)
        case Probe():
            return probe(state, answers, profile)
        case Remove():
            return remove(state, profile)
        case SetIntx():
            return set_intx(state, op)
        case OtherInterrupt():
            return other_interrupt(state)
        case ConfigIntx():
            return config_intx(state, op, profile)
        case Write():
            return write(state, op, profile)
        case CloseFd(fd):
            was_open = state.fds[fd - FIRST_FD] != CLOSED
            return Outcome(_with_fd(state, fd, CLOSED), 0 if was_open else -EBADF, c.CLOSED_FD_STILL_SIGNALLED)
        case ReuseFd():
            named = PIPE if op.pipe else len(state.config.eventfds)
            return Outcome(_with_fd(state, op.fd, named), 0, c.FD_NAMES_OBJECT)
        case ReadEventfd():
            return read_eventfd(state, op)
        case DeviceReset():
            lost = frozenset(range(state.limit))
            return Outcome(state._replace(lost=lost, was_reset=True), 0, c.MESSAGE_REWRITTEN)
        case ListInterrupts():
            return Outcome(state, 0, c.MEMORY_SAFE)
        case Flood():
            return flood(state, op, answers, profile)
        case _:
            assert_never(op)


def probe(state: State, answers: Answers, profile: Profile) -> Outcomes:
    """Bind the device.

    What the environment refused       its errno, -ENOMEM for NULL; nothing is left (UIO-060, UIO-061)
    no MSI-X, and INTx not maskable    -EINVAL or -ENODEV (UIO-066)
    a bridge                           -ENODEV; 0 breaks UIO-073
    otherwise                          0, registered (UIO-059); afresh if bound before (UIO-077)

    Source: uio_msi as posted, uio_msi_probe.
    """
    config = state.config
    refusals: dict[int, Clause] = {}
    for errno in _probe_refusals(answers, profile):
        refusals.setdefault(errno, c.PROBE_FORWARDS_ERRNO)
    if not config.vectors and not config.intx:
        refusals.setdefault(-EINVAL, c.NO_USABLE_INTERRUPT)
        refusals.setdefault(-ENODEV, c.NO_USABLE_INTERRUPT)
    if config.bridge:
        refusals.setdefault(-ENODEV, c.BRIDGES_REFUSED)
    if config.msix_broken and answers == NOTHING_REFUSED:
        return _probe_of_broken_msix(state)
    refused = tuple(
        Outcome(state, errno, because, effect=c.FAILED_PROBE_LEAVES_NOTHING) for errno, because in refusals.items()
    )
    if not refused:
        return _bound(state)
    if list(refusals.values()) == [c.BRIDGES_REFUSED]:
        return (*refused, replace(_bound(state), breaches=(c.BRIDGES_REFUSED,)))
    return refused


def _probe_refusals(answers: Answers, profile: Profile) -> tuple[Errno, ...]:
    """What probe may answer to what it met."""
    memory = answers.kzalloc or answers.kcalloc or answers.kasprintf or answers.ioremap
    found = [answers.pci_enable_device, answers.pci_request_regions, answers.uio_register_device]
    found.append(-ENOMEM if memory else 0)
    found.append(-EINVAL if answers.ioremap and profile.ioremap_einval else 0)
    return tuple(errno for errno in found if errno)


def _probe_of_broken_msix(state: State) -> Outcomes:
    """MSI-X is there and cannot be enabled: fall back, or fail; which of the two the first open shows."""
    refused = tuple(
        Outcome(state, errno, c.UNUSABLE_MSIX, effect=c.FAILED_PROBE_LEAVES_NOTHING)
        for errno in (-EINVAL, -ENODEV, -ENOSPC)
    )
    return (replace(_bound(state), also=(c.UNUSABLE_MSIX,)), *refused)


def _bound(state: State) -> Outcome:
    config = state.config
    also: tuple[Clause, ...] = (c.PROBE_MEANS_REGISTERED,)
    if not config.vectors:
        also = (*also, c.INTX_FALLBACK)
    if not any(bar.start and bar.size and not bar.io for bar in config.bars):
        also = (*also, c.PORT_ONLY_DEVICES)
    if state.past == "used":
        also = (*also, c.PROBED_AGAIN)
    bound = state._replace(life="bound", past="new")
    return Outcome(bound, 0, also[-1], c.PROBED_AGAIN if state.past == "used" else None, also[:-1])


def remove(state: State, profile: Profile) -> Outcomes:
    """Unbind: nothing is left, with or without open handles (UIO-074, UIO-075)."""
    # The next probe asks for all vectors again, however few there were (UIO-077).
    torn = _torn_down(state, profile)._replace(limit=number_of_vectors(state.config))
    msix = None if state.config.msix_broken else state.msix
    if state.opens:
        gone, because = torn._replace(life="gone", msix=msix, past="new"), c.REMOVE_WHILE_OPEN
    else:
        gone, because = torn._replace(life="unbound", msix=msix, past="used"), c.REMOVE_LEAVES_NOTHING
    return tuple(Outcome(left, 0, because, effect=because) for left in _masked_or_not(gone))


def _masked_or_not(state: State) -> tuple[State, ...]:
    """A driver that never unmasks may still leave the disable bit as it found it (UIO-084)."""
    if not state.user_unmasks or state.msix:
        return (state,)
    return (state, state._replace(masked=not state.masked))


def open_device(state: State, op: Open, answers: Answers, profile: Profile) -> Outcomes:
    """Open a handle.

    no device                          -ENODEV, by the core
    enabling MSI-X refused             its errno; not counted (UIO-048, UIO-051); or 0, enabled at a further attempt
    only k vectors to be had           -ENOSPC, or 0 with max_vectors up to k (UIO-050)
    without CAP_SYS_RAWIO              -EPERM or -EACCES; 0 breaks UIO-089
    otherwise                          0; the first open enables all vectors (UIO-047)

    Source: uio_msi as posted, uio_msi_open; drivers/uio/uio.c uio_open.
    """
    if state.life != "bound":
        return _refusals(state, (-ENODEV, -EINVAL), c.PROBE_MEANS_REGISTERED)
    opened = _opened(state, answers, profile)
    if op.rawio:
        return opened
    denied = [
        Outcome(state, errno, c.OPEN_IS_PRIVILEGED, effect=c.FAILED_OPEN_NOT_COUNTED) for errno in (-EPERM, -EACCES)
    ]
    tolerated = (
        replace(o, breaches=(*o.breaches, c.OPEN_IS_PRIVILEGED)) if o.result == 0 else o for o in _outcomes(opened)
    )
    return (*denied, *tolerated)


def _opened(state: State, answers: Answers, profile: Profile) -> Outcomes:
    more = state._replace(opens=state.opens + 1, past="new")
    refused = state if state.opens else state._replace(past="refused")
    if answers.kzalloc or answers.kcalloc or answers.kasprintf:
        return Outcome(refused, -ENOMEM, c.FAILED_OPEN_NOT_COUNTED, effect=c.FAILED_OPEN_NOT_COUNTED)
    if state.config.msix_broken and state.msix is not False:
        useless = Outcome(refused._replace(msix=True), -EINVAL, c.UNUSABLE_MSIX, breaches=(c.UNUSABLE_MSIX,))
        fallen = Outcome(more._replace(msix=False), 0, c.UNUSABLE_MSIX)
        return useless if state.msix or not state.config.intx else (fallen, useless)
    because = _OPENED_AFTER[state.past]
    if not state.msix:
        return Outcome(more, 0, c.INTX_FALLBACK if because is c.FIRST_OPEN_ENABLES else because)
    if state.opens:
        return Outcome(more, 0, because, effect=c.FIRST_OPEN_ENABLES)
    had, full = answers.pci_enable_msix, number_of_vectors(state.config)
    if had < 0:
        effect = c.FAILED_OPEN_NOT_COUNTED
        given_up = Outcome(refused, had, c.ENABLE_ERRNO_FORWARDED, effect, also=(c.OPEN_NEVER_POSITIVE, effect))
        return (given_up, *_with_fewer(more, full, c.ENABLE_ERRNO_FORWARDED))
    if had > 0:
        return _short_of_vectors(refused, more, had, profile)
    if state.limit < full:
        return (
            Outcome(_resized(more, full), 0, because, effect=because),
            Outcome(more, 0, because, effect=because),
        )
    return Outcome(more, 0, because, effect=because)


_OPENED_AFTER: dict[Past, Clause] = {
    "new": c.FIRST_OPEN_ENABLES,
    "used": c.REOPEN_STARTS_CLEAN,
    "refused": c.FAILED_OPEN_NOT_COUNTED,
}
"""What an open that succeeds shows, by what came before it."""


def _short_of_vectors(state: State, more: State, had: int, profile: Profile) -> Outcomes:
    """-ENOSPC, or fewer vectors; a positive result is the one thing that cannot be (UIO-049).

    Another errno breaks UIO-050, except where any that is like -ENOSPC will do.
    """
    because, effect, also = c.OPEN_NEVER_POSITIVE, c.FAILED_OPEN_NOT_COUNTED, (c.SHORT_OF_VECTORS,)
    refused = Outcome(state, -ENOSPC, because, effect, also)
    breaches = () if profile.short_enable == "negative" else also
    others = (Outcome(state, errno, because, effect, breaches=breaches) for errno in _LIKE_ENOSPC)
    return (refused, *_with_fewer(more, had, because), *others)


_LIKE_ENOSPC = (-ENOMEM, -EBUSY, -EINVAL, -EIO, -ENODEV, -EAGAIN, -ERANGE)


def _with_fewer(opened: State, most: int, because: Clause) -> tuple[Outcome, ...]:
    """Enabled at a further attempt, with some number of vectors; the view tells how many."""
    return tuple(Outcome(_resized(opened, count), 0, because, c.SHORT_OF_VECTORS) for count in range(most, 0, -1))


def _resized(state: State, limit: int) -> State:
    """Another max_vectors; nothing is mapped beyond it."""
    return state._replace(limit=limit)


def close_device(state: State, profile: Profile) -> Outcomes:
    """Close a handle: the last one tears everything down (UIO-053), others nothing (UIO-052).

    After remove nothing is left to tear down (UIO-076).
    """
    opens = state.opens - 1
    if state.life == "gone":
        life: Life = "gone" if opens else "unbound"
        old_core = profile.core == "4.1" or state.config.core_41
        because = c.CLOSE_AFTER_REMOVE if old_core else c.RELEASE_RETURNS_ZERO
        return Outcome(state._replace(opens=opens, life=life, past="new" if opens else "used"), 0, because, because)
    if opens:
        return Outcome(state._replace(opens=opens), 0, c.RELEASE_RETURNS_ZERO, c.RELEASE_WITH_OTHERS)
    closed = _torn_down(state, profile)._replace(opens=0, past="used")
    return tuple(Outcome(left, 0, c.RELEASE_RETURNS_ZERO, c.LAST_RELEASE_TEARS_DOWN) for left in _masked_or_not(closed))


def _torn_down(state: State, profile: Profile) -> State:
    """Nothing mapped, MSI-X off."""
    vectors = len(state.wired)
    return state._replace(
        wired=(None,) * vectors,
        pending=(False,) * vectors,
        lost=NONE_LOST,
        was_reset=False,
        masked=state.masked and profile.intx_unmask == "user",
    )


def raw_ioctl(state: State, op: RawIoctl | CompatIoctl, answers: Answers, profile: Profile) -> Outcomes:
    """Decode a command.

    not UIO_MSI_IRQ_SET                unknown_cmd, whatever the pointer (UIO-001 to UIO-003)
    8 bytes not all mapped             -EFAULT (UIO-004)
    """
    if state.life == "gone":
        return _after_remove(state)
    cmd = op.cmd & COMMAND_MASK
    if cmd != UIO_MSI_IRQ_SET:
        clause = c.UNKNOWN_COMMAND
        if not is_readable(op.pointer):
            clause = c.UNKNOWN_IGNORES_ARGUMENT
        elif cmd & 0xFFFF == UIO_MSI_IRQ_SET & 0xFFFF:
            clause = c.WHOLE_COMMAND_COMPARED
        return Outcome(state, profile.unknown_cmd, clause, clause, also=(c.UNKNOWN_COMMAND, c.ORDER_OF_CHECKS))
    if not is_readable(op.pointer):
        refused = Outcome(state, -EFAULT, c.BAD_POINTER, c.BAD_POINTER, also=(c.ORDER_OF_CHECKS,))
        return (refused, _out_of_memory(state)) if _lacks_memory(answers) else refused
    outcomes = irq_set(state, op.vector, op.fd, answers, profile)
    if op.pointer == PAGE:
        return outcomes
    return _because(outcomes, c.ARGUMENT_IS_EIGHT_BYTES)


def flood(state: State, op: Flood, answers: Answers, profile: Profile) -> Outcomes:
    """So many bad ioctls: the first decides, the others change nothing any more (UIO-087 looks at the log)."""
    refused = replace(answers, request_irq=op.refusal) if op.refusal else answers
    outcomes = raw_ioctl(state, RawIoctl(op.cmd, op.pointer, op.vector, op.fd), refused, profile)
    if op.cmd & COMMAND_MASK != UIO_MSI_IRQ_SET or not is_readable(op.pointer) or op.vector < state.limit:
        return outcomes
    return _because(outcomes, c.NO_SUCH_VECTOR)


def irq_set(state: State, vector: int, fd: int, answers: Answers, profile: Profile) -> Outcomes:
    """UIO_MSI_IRQ_SET with its argument in place.

    an allocation gave NULL            -ENOMEM, whatever else is wrong; or what follows
    argument vanished                  -EFAULT (UIO-004)
    vector >= max_vectors              vec_oob; nothing touched (UIO-009, UIO-010)
    fd < 0                             0; unmapped (UIO-012 to UIO-014)
    fd refused                         its errno; old mapping kept, or lost (UIO-015, UIO-020)
    request_irq refused                its errno; old mapping kept or lost, whole (UIO-021, UIO-022)
    otherwise                          0; mapped to the eventfd (UIO-016, UIO-018)

    Source: uio_msi as posted, uio_msi_ioctl and set_irq_eventfd.
    """
    if state.life == "gone":
        return _after_remove(state)
    if _lacks_memory(answers):
        return _no_memory(state, vector, fd, answers, profile)
    if answers.copy_from_user:
        return Outcome(state, -EFAULT, c.BAD_POINTER, c.BAD_POINTER)
    if vector >= state.limit:
        also = _ORDER if fd < 0 or eventfd_of(state, fd) < 0 else ()
        return Outcome(
            state,
            profile.vec_oob,
            c.NUMBER_OF_VECTORS if vector <= state.config.vectors else c.NO_SUCH_VECTOR,
            c.NO_SUCH_VECTOR_TOUCHES_NOTHING,
            (c.NO_SUCH_VECTOR, *also),
        )
    old = state.wired[vector]
    if fd < 0:
        if old is None:
            because = c.DETACHING_TWICE_IS_FINE if fd == -1 else c.ANY_NEGATIVE_DETACHES
            return Outcome(state, 0, because, c.DETACHING_TWICE_IS_FINE)
        because = c.MINUS_ONE_DETACHES if fd == -1 else c.ANY_NEGATIVE_DETACHES
        return Outcome(_unmapped(state, vector, profile), 0, because, c.SILENT_AFTER_DETACH)
    found = eventfd_of(state, fd)
    refusal = found if found < 0 else answers.eventfd_ctx_fdget
    if refusal:
        return _bad_fd(state, vector, refusal, profile)
    refusal = answers.request_irq
    if refusal:
        return _request_refused(state, vector, refusal, c.REQUEST_ERRNO_FORWARDED, profile)
    return _mapped(state, vector, found, profile)


def _no_memory(state: State, vector: int, fd: int, answers: Answers, profile: Profile) -> Outcomes:
    """A driver may allocate anywhere, before the copy or after the look-up, and may do without what it did not get."""
    rest = replace(answers, kzalloc=0, kcalloc=0, kasprintf=0)
    otherwise = _outcomes(irq_set(state, vector, fd, rest, profile))
    if vector >= state.limit or fd < 0:
        return (*otherwise, _out_of_memory(state))
    refused = _request_refused(state, vector, -ENOMEM, c.NEVER_HALF_MAPPED, profile)
    return (*_outcomes(refused), _out_of_memory(state), *otherwise)


def _lacks_memory(answers: Answers) -> bool:
    return bool(answers.kzalloc or answers.kcalloc or answers.kasprintf)


def _out_of_memory(state: State) -> Outcome:
    """The ioctl ended at an allocation, before it did anything."""
    return Outcome(state, -ENOMEM, c.NEVER_HALF_MAPPED, c.NEVER_HALF_MAPPED)


_ORDER = (c.ORDER_OF_CHECKS,)


def _bad_fd(state: State, vector: int, refusal: Errno, profile: Profile) -> Outcomes:
    if state.wired[vector] is None:
        return Outcome(state, refusal, c.BAD_FD, c.OTHER_VECTORS_UNTOUCHED)
    if profile.bad_fd_replace == "lose":
        return Outcome(_unmapped(state, vector, profile), refusal, c.BAD_FD)
    kept = Outcome(state, refusal, c.BAD_FD, also=(c.BAD_FD_KEEPS_OLD, c.OTHER_VECTORS_UNTOUCHED))
    lost = Outcome(_unmapped(state, vector, profile), refusal, c.BAD_FD, breaches=(c.BAD_FD_KEEPS_OLD,))
    return (kept, lost)


def _request_refused(state: State, vector: int, refusal: Errno, because: Clause, profile: Profile) -> Outcomes:
    also, effect = (c.OTHER_VECTORS_UNTOUCHED,), c.NEVER_HALF_MAPPED
    lost = Outcome(_unmapped(state, vector, profile), refusal, because, effect, also)
    if state.wired[vector] is None or profile.irq_fail_replace == "lose":
        return lost
    kept = Outcome(state, refusal, because, effect, also)
    if not state.msix and profile.intx_unmask == "set":
        return (kept, lost, Outcome(_unmasked(state), refusal, because, effect, also))
    if vector not in state.lost:
        return (kept, lost)
    # The message may have been written again on the way.
    repaired = state._replace(lost=state.lost - {vector})
    return (kept, Outcome(repaired, refusal, because, effect, also), lost)


def _mapped(state: State, vector: int, eventfd: int, profile: Profile) -> Outcomes:
    """The set succeeded: what the hardware held back reaches the new eventfd at once."""
    wired = state.wired
    old = wired[vector]
    effect = c.FD_NAMES_OBJECT if old is None else c.SAME_AGAIN if old == eventfd else c.REPLACING
    also: tuple[Clause, ...] = ()
    if eventfd in wired and old != eventfd:
        also = (c.SHARED_EVENTFD,)
    if old is not None and state.opens > 1:
        also = (*also, c.SHARED_TABLE)
    now = (*wired[:vector], eventfd, *wired[vector + 1 :])
    if not state.msix:
        return _mapped_intx(state, now, eventfd, also, effect, profile)
    counters, pending = state.counters, state.pending
    if pending[vector]:
        effect = c.HELD_EVENT_DELIVERED_ONCE
        pending = (*pending[:vector], False, *pending[vector + 1 :])
        if vector not in state.lost:
            counters = _signalled(counters, eventfd)
    mapped = State(*state[:6], now, pending, state.lost, counters, *state[10:])
    if vector not in state.lost:
        plain = Outcome(mapped, 0, c.SET_RETURNS_ZERO, effect, also)
        if not state.was_reset or old is not None:
            return plain
        # A set that was undone before anybody looked may have left the message as the reset did.
        unwritten = _mapped(state._replace(lost=state.lost | {vector}), vector, eventfd, profile)
        return (plain, *_outcomes(unwritten))
    return _mapped_after_reset(state, mapped, vector, eventfd, effect)


def _mapped_after_reset(state: State, mapped: State, vector: int, eventfd: int, effect: Clause) -> Outcomes:
    """A driver that writes the message again repairs the vector; one that does not leaves it deaf (UIO-032)."""
    repaired = mapped._replace(lost=state.lost - {vector})
    if state.pending[vector]:
        repaired = repaired._replace(counters=_signalled(mapped.counters, eventfd))
    breaches = (c.MESSAGE_REWRITTEN,) if state.wired[vector] is None else ()
    early = Outcome(repaired, 0, c.SET_RETURNS_ZERO, effect, also=(c.MESSAGE_REWRITTEN,))
    never = Outcome(mapped, 0, c.SET_RETURNS_ZERO, effect, breaches=breaches)
    if not state.pending[vector]:
        return (early, never)
    # Written again after the vector was unmasked: the held event is lost.
    late = mapped._replace(lost=repaired.lost)
    return (early, never, Outcome(late, 0, c.SET_RETURNS_ZERO, effect, breaches=(c.MESSAGE_REWRITTEN,)))


def _mapped_intx(
    state: State, now: tuple[int | None, ...], eventfd: int, also: tuple[Clause, ...], effect: Clause, profile: Profile
) -> Outcomes:
    """A set unmasks INTx (UIO-083); a level still asserted signals at once and masks again (UIO-081)."""
    policy = profile.intx_unmask
    if state.user_unmasks and state.masked and state.wired[0] is None:
        # Nobody must unmask here, and who does so for a fresh user does what he should (UIO-084).
        unmasked = _mapped_intx(state._replace(masked=False), now, eventfd, also, effect, profile)
        left = Outcome(state._replace(wired=now), 0, c.SET_RETURNS_ZERO, effect, also)
        return (left, *_outcomes(unmasked))
    if policy == "set" or (policy == "explicit" and state.wired[0] is None):
        masked = False
        also = (*also, c.INTX_UNMASK, c.INTX_LEFT_AS_FOUND)
    else:
        masked = state.masked
    if not state.asserted or masked:
        return Outcome(state._replace(wired=now, masked=masked), 0, c.SET_RETURNS_ZERO, effect, also)
    once = state._replace(wired=now, masked=True, counters=_signalled(state.counters, eventfd))
    signalled = Outcome(once, 0, c.SET_RETURNS_ZERO, c.INTX_UNMASK, also)
    old = state.wired[0]
    if policy == "user" or old == eventfd:
        return signalled
    if old is not None:
        # An assertion that raced with this set may have reached the new eventfd instead of the old one. Counters
        # never go down, so this explains nothing where the assertion came before.
        moved = (*once.counters[:old], max(once.counters[old] - 1, 0), *once.counters[old + 1 :])
        raced = once._replace(counters=_signalled(moved, eventfd))
        outcomes = (signalled, Outcome(raced, 0, c.SET_RETURNS_ZERO, c.INTX_UNMASK, also))
        if once.counters[old] < EVENTFD_MAX:
            return outcomes
        # The old eventfd is full: the signal that moved may never have shown there.
        full = once._replace(counters=_signalled(once.counters, eventfd))
        return (*outcomes, Outcome(full, 0, c.SET_RETURNS_ZERO, c.INTX_UNMASK, also))
    # A driver that unmasks after request_irq, inside which the handler has already signalled, is told again.
    twice = once._replace(counters=_signalled(once.counters, eventfd))
    return (signalled, Outcome(twice, 0, c.SET_RETURNS_ZERO, c.INTX_UNMASK, also))


def _unmapped(state: State, vector: int, profile: Profile) -> State:
    wired = state.wired
    now = (*wired[:vector], None, *wired[vector + 1 :])
    if state.msix:
        return State(*state[:6], now, state.pending, state.lost, *state[9:])
    return state._replace(wired=now, masked=state.masked and profile.intx_unmask == "user")


def _unmasked(state: State) -> State:
    """INTx unmasked on the way to a set that was refused: a level still asserted reaches the old eventfd again."""
    wired = state.wired[0]
    if not state.asserted or wired is None:
        return state._replace(masked=False)
    return state._replace(masked=True, counters=_signalled(state.counters, wired))


def _after_remove(state: State) -> Outcomes:
    """The core answers; which of its errnos depends on its version."""
    return _refusals(state, (-ENODEV, -EIO, -EINVAL), c.MEMORY_SAFE)


def raise_vector(state: State, vector: int) -> Outcome:
    """An event of the function.

    MSI-X off                          nothing (UIO-040)
    vector unmapped                    held in the pending bit (UIO-041)
    vector mapped                      1 more in exactly its eventfd (UIO-033)

    Source: uio_msi as posted, uio_msi_irqhandler; PCI Local Bus 3.0, 6.8.2.
    """
    if not state.msix or not state.opens or state.life != "bound":
        return Outcome(state, 0, c.SILENT_AFTER_RELEASE, c.SILENT_AFTER_RELEASE)
    eventfd = state.wired[vector]
    if eventfd is None:
        pending = state.pending
        held = (*pending[:vector], True, *pending[vector + 1 :])
        return Outcome(State(*state[:7], held, *state[8:]), 0, c.UNMAPPED_EVENT_HELD, c.UNMAPPED_EVENT_HELD)
    if vector in state.lost:
        return Outcome(state, 0, c.MESSAGE_REWRITTEN)
    counters = state.counters
    after = State(*state[:9], _signalled(counters, eventfd), *state[10:])
    return Outcome(after, 0, c.ONE_EVENT_ONE_SIGNAL, None, _delivered(state, eventfd))


def raise_many(state: State, op: RaiseMany) -> Outcome:
    """So many events: a mapped eventfd gains as many, until it saturates (UIO-035); one is held, or none."""
    outcome = raise_vector(state, op.vector)
    if outcome.because is not c.ONE_EVENT_ONE_SIGNAL:
        return outcome
    eventfd = state.wired[op.vector]
    assert eventfd is not None
    counters = state.counters
    count = min(counters[eventfd] + op.count, EVENTFD_MAX)
    after = state._replace(counters=(*counters[:eventfd], count, *counters[eventfd + 1 :]))
    return Outcome(after, 0, c.EVENTS_ADD_UP, c.EVENTS_ADD_UP, (*outcome.also, c.ONE_EVENT_ONE_SIGNAL))


_DELIVERED = (c.MSIX_HANDLED, c.EVENTS_ADD_UP, c.HANDLERS_DO_NOT_SLEEP)


def _delivered(state: State, eventfd: int) -> tuple[Clause, ...]:
    """What one more signal to this eventfd shows besides the signal."""
    also: tuple[Clause, ...] = _DELIVERED
    before = state.counters[eventfd]
    if before:
        also = (*also, c.SATURATION_DROPS if before == EVENTFD_MAX else c.COUNTER_PRESERVED)
    if eventfd not in state.fds:
        also = (*also, c.CLOSED_FD_STILL_SIGNALLED)
    if eventfd < len(state.config.eventfds):
        kind = state.config.eventfds[eventfd]
        if kind.semaphore or not kind.nonblock:
            also = (*also, c.FLAGS_DO_NOT_MATTER)
    return also


def _signalled(counters: tuple[int, ...], eventfd: int) -> tuple[int, ...]:
    """Counters after one signal, saturating."""
    count = counters[eventfd]
    if count == EVENTFD_MAX:
        return counters
    return (*counters[:eventfd], count + 1, *counters[eventfd + 1 :])


def set_intx(state: State, op: SetIntx) -> Outcome:
    """The function's INTx level: with a handler and unmasked, an assertion signals once and masks (UIO-081)."""
    now = state._replace(asserted=op.level)
    wired = state.wired[0]
    if not op.level or state.asserted or state.masked or wired is None:
        silent = c.INTX_NO_SECOND_SIGNAL if state.masked and wired is not None else c.SILENT_AFTER_RELEASE
        return Outcome(now, 0, silent, silent)
    now = now._replace(counters=_signalled(state.counters, wired), masked=True)
    return Outcome(now, 0, c.INTX_MASKED_AND_SIGNALLED, c.INTX_MASKED_AND_SIGNALLED, _delivered(state, wired)[1:])


def other_interrupt(state: State) -> Outcome:
    """Our handler is called for another device's interrupt: never a signal (UIO-080, UIO-082)."""
    if state.wired[0] is None:
        return Outcome(state, 0, c.SILENT_AFTER_DETACH, c.SILENT_AFTER_DETACH)
    clause = c.INTX_NO_SECOND_SIGNAL if state.asserted else c.INTX_NOT_OURS
    return Outcome(state, 0, clause, clause)


def config_intx(state: State, op: ConfigIntx, profile: Profile) -> Outcome:
    """User space writes the disable bit: nothing to MSI-X; with INTx it stays until somebody unmasks.

    Where only user space unmasks, a level still asserted signals once more (UIO-083).
    """
    if state.msix or profile.intx_unmask != "user":
        return Outcome(state, 0, c.INTX_LEFT_AS_FOUND)
    if op.disable:
        return Outcome(state._replace(masked=True), 0, c.INTX_UNMASK)
    return Outcome(_unmasked(state), 0, c.INTX_UNMASK, c.INTX_UNMASK)


def write(state: State, op: Write, profile: Profile) -> Outcomes:
    """irqcontrol.

    INTx mapped, and not 0             0; unmasked; a level still asserted signals at once and masks (UIO-083)
    INTx mapped, and 0                 any answer; masked, unmasked or neither
    MSI-X, or nothing mapped           any answer; nothing happens
    """
    if state.life == "gone":
        return _after_remove(state)
    wired = state.wired[0]
    if profile.intx_unmask == "user":
        return Outcome(state, -ENOSYS, c.INTX_UNMASK)
    if state.msix or wired is None:
        return _refusals(state, _ANY_ANSWER, c.MEMORY_SAFE)
    unmasked = _unmasked(state)
    if op.value:
        return Outcome(unmasked, 0, c.INTX_UNMASK, c.INTX_UNMASK)
    states = dict.fromkeys((state._replace(masked=True), state, unmasked))
    return tuple(Outcome(now, answer, c.MEMORY_SAFE) for now in states for answer in _ANY_ANSWER)


_ANY_ANSWER = (0, -EINVAL, -EIO, -ENODEV, -ENOSYS, -EOPNOTSUPP)
"""What a driver may say where nothing says what it must."""


def read_eventfd(state: State, op: ReadEventfd) -> Outcome:
    """Take the counter, or 1 of it with EFD_SEMAPHORE. What was signalled is there to be read."""
    eventfd = state.fds[op.fd - FIRST_FD]
    count = state.counters[eventfd]
    if not count:
        return Outcome(state, -EAGAIN, c.EVENTS_ADD_UP)
    eventfds = state.config.eventfds
    taken = 1 if eventfd < len(eventfds) and eventfds[eventfd].semaphore else count
    counters = (*state.counters[:eventfd], count - taken, *state.counters[eventfd + 1 :])
    return Outcome(state._replace(counters=counters), taken, c.EVENTS_ADD_UP)


def _with_fd(state: State, fd: int, named: int) -> State:
    slot = fd - FIRST_FD
    return state._replace(fds=(*state.fds[:slot], named, *state.fds[slot + 1 :]))


# -- Blame


def cite(state: State, op: Operation, field: str, expected: View, got: View) -> Clause | None:
    """A clause that names the disagreement better than the outcome's or the field's own."""
    match op:
        case IrqSet(vector) | CompatIrqSet(vector) | RawIoctl(_, _, vector) | CompatIoctl(_, _, vector):
            return _cite_set(state, vector, field, expected, got)
        case Open():
            return c.NUMBER_OF_VECTORS if field == "enabled" and got.enabled and not state.opens else None
        case Close():
            return c.REMOVE_WHILE_OPEN if state.life == "gone" and field == "leftovers" else None
        case _:
            return None


def _cite_set(state: State, vector: int, field: str, expected: View, got: View) -> Clause | None:
    if field == "masked":
        return c.INTX_UNMASK
    if field in ("actions", "pending"):
        want, have = getattr(expected, field), getattr(got, field)
        if any(i != vector and a != b for i, (a, b) in enumerate(zip(want, have, strict=False))):
            return c.OTHER_VECTORS_UNTOUCHED
    if field == "references" and vector < state.limit:
        return c.ONE_REFERENCE_EACH
    return None


def _outcomes(outcomes: Outcomes) -> tuple[Outcome, ...]:
    return (outcomes,) if isinstance(outcomes, Outcome) else outcomes


def _because(outcomes: Outcomes, clause: Clause) -> Outcomes:
    """The same outcomes, decided by another clause."""
    return tuple(replace(o, because=clause, also=(o.because, *o.also), effect=o.effect) for o in _outcomes(outcomes))


def _refusals(state: State, errnos: tuple[Errno, ...], because: Clause) -> Outcomes:
    """Nothing happens, and any of these is the answer."""
    return tuple(Outcome(state, errno, because) for errno in errnos)
