"""The world of uio_msi, what can happen in it, and what the environment may refuse."""

from __future__ import annotations

from dataclasses import dataclass

from conformance.specs.uio_msi.constants import IRQ_NOTCONNECTED, PAGE_SIZE, UIO_MSI_IRQ_SET

PDEV_IRQ = 17
"""The function's INTx line, which another device shares."""


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
    irq: int = PDEV_IRQ
    """pdev->irq; 0 or IRQ_NOTCONNECTED where the pin leads nowhere. Always 0 for a VF, which has no pin."""
    bridge: bool = False
    """A PCI-to-PCI bridge."""
    cardbus: bool = False
    """A CardBus bridge: header type 2."""
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
DECOY_COUNT = 500
"""Counter of the decoy at the start."""
PAGE = 0x1_0000
"""The one page of user memory that is mapped."""
PAGE_END = PAGE + PAGE_SIZE


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
    """User space writes the disable bit of the command register through sysfs, at any time."""

    disable: bool = True


@dataclass(frozen=True, slots=True)
class Write:
    """User space writes a number to /dev/uioN: irqcontrol(value)."""

    value: int = 1
    """s32; 0 masks INTx, 1 unmasks it, and others unmask it or are refused."""


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


@dataclass(frozen=True, slots=True)
class FloodOpens:
    """User space opens the device a thousand times, and closes each handle it gets."""

    rawio: bool = True
    """Whether the process has CAP_SYS_RAWIO."""


@dataclass(frozen=True, slots=True)
class FloodWrites:
    """User space writes a number to /dev/uioN a thousand times, where that does nothing."""

    value: int = 1


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
    FloodOpens,
    FloodWrites,
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
    | FloodOpens
    | FloodWrites
)
_COMPAT = frozenset({"compat"})
_IRQCONTROL = frozenset({"irqcontrol", "intx"})
NEEDS = {CompatIrqSet: _COMPAT, CompatIoctl: _COMPAT, Write: _IRQCONTROL, FloodWrites: _IRQCONTROL}


def has_line(config: Config) -> bool:
    """Whether the function can interrupt by INTx: a pin that leads somewhere, and a disable bit."""
    return config.intx and not config.virtfn and config.irq not in (0, IRQ_NOTCONNECTED)


def requires(config: Config) -> frozenset[str]:
    """Capabilities without which a driver cannot be held to this world."""
    intx = {"intx"} if not config.vectors and has_line(config) else set()
    return frozenset(intx | ({"core-4.1"} if config.core_41 else set()))


Errno = int
"""0, or the negative errno a Linux entry point returns."""


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
    refused_again: int = 0
    """The errno of a further request_irq that was refused, too."""
    granted_again: int = 0
    """1 where a further request_irq was granted."""
    message_written: int = 0
    """1 where an event met a set that had written the message again, and not yet replaced the eventfd."""
    unmask_coalesced: int = 0
    """1 where an unmask of INTx met another one, or an assertion, of which the handler was still under way: a level
    has no memory, so the two are one interrupt."""


NOTHING_REFUSED = Answers()
