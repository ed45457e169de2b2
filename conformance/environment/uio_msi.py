"""The world of a UIO MSI-X driver: a PCI function, the irq core, the UIO core, a process with eventfds.

Simulators behave as the kernel and the hardware do; a misuse is a Violation at the call that
commits it. Nothing here is repaired for a candidate.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn, Protocol

from conformance.environment import eventfd
from conformance.environment.door import Environment, Frame
from conformance.environment.irq import Action, IrqCore
from conformance.environment.memory import UserMemory
from conformance.model import uio_msi as model
from conformance.model.uio_msi import View
from conformance.model.uio_msi.ioctls import is_readable
from conformance.model.uio_msi.operations import (
    DECOY_COUNT,
    DUP_FD,
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
from conformance.model.uio_msi.state import NONE_LOST, number_of_vectors
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import MAPS_TYPE, PORTS_TYPE, Port, Profile
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import EBUSY, EINVAL, EIO, ENODEV, ENOSPC, ENOSYS, PAGE_SIZE
from conformance.subsystem import Check, Record
from conformance.verdict import Breach, Crash, HarnessError, Violation

PDEV_IRQ = 17
"""The function's INTx line, which another device shares."""
FIRST_IRQ = 201
"""Irq numbers of the first enabling start here: no number is ever a vector's."""
IRQ_STEP = 3
"""Irq numbers of neighbouring vectors lie this far apart."""
FIRST_TOKEN = 0x1_0000
"""Allocations lie here and above, one page or more apart; what is below is static data of the module."""
FIRST_IOMAP = 1 << 36
FIRST_CTX = 1 << 40
"""The eventfd context of eventfd i is FIRST_CTX + (i << 8)."""
MSIX_CAP = 0x40
"""Offset of the MSI-X capability in config space."""
LOG_BURST = 10
"""Lines that a rate-limited print lets through."""
FLOOD = 1000
STORM = 4
"""Rounds of an INTx line that nobody silences, after which it counts as a storm."""


class Argument:
    """The argument of an ioctl in progress."""

    __slots__ = ("data", "found", "pointer", "seen")

    def __init__(self, pointer: int, data: bytes) -> None:
        self.pointer = pointer
        self.data = data
        self.seen = 0
        """Bit i: byte i was fetched."""
        self.found: int | None = None
        """The eventfd that was looked up last."""


class Backend(Protocol):
    """What makes the eventfds."""

    def __call__(self, world: eventfd.World, /) -> eventfd.Eventfds:
        """Eventfds for one world."""
        ...


class UioMsi(Environment):
    """One PCI function, one process, one driver."""

    PORT = Port
    TWO_CPUS = True
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {
        "copy_from_user": (c.ARGUMENT_FETCHED_ONCE, c.ARGUMENT_IS_EIGHT_BYTES),
        "free_irq": (c.FREE_MATCHES_REQUEST,),
        "request_irq": (c.CURRENT_IRQ_NUMBERS, c.NO_REQUEST_WHILE_DISABLED),
        "eventfd_signal": (c.REFERENCE_OUTLIVES_HANDLER,),
        "iounmap": (c.NOTHING_RELEASED_TWICE,),
        "kfree": (c.NOTHING_RELEASED_TWICE,),
        "pci_release_regions": (c.NOTHING_RELEASED_TWICE,),
        "pci_disable_device": (c.NOTHING_RELEASED_TWICE,),
        "uio_unregister_device": (c.NOTHING_RELEASED_TWICE,),
    }

    def __init__(self, config: model.Config, profile: Profile, backend: Backend = eventfd.RealEventfds) -> None:
        super().__init__()
        self.config = config
        self.profile = profile
        self.old_core = config.core_41 or profile.core == "4.1"
        kinds = [eventfd.Kind(e.count, e.semaphore, e.nonblock) for e in config.eventfds]
        kinds.append(eventfd.Kind(DECOY_COUNT, False, True))
        world = eventfd.World(kinds, DUP_FD, O_PATH_FD, NOT_EVENTFDS)
        self.eventfds = backend(world)
        self.memory = UserMemory(((PAGE, PAGE_END),))
        self.arguments: dict[Frame, Argument] = {}
        """Arguments of the ioctls in progress, by the operation that made them."""
        self.copied_under_mutex: bool | None = None
        """Whether the last ioctl fetched its argument with a mutex held; None when it fetched nothing."""
        # -- the UIO core
        self.bound = False
        self.probing = False
        self.registered = False
        self.opens = 0
        self.mem: MAPS_TYPE = ()
        self.port_regions: PORTS_TYPE = ()
        self.has_irqcontrol = False
        self.core_irq = k.UIO_IRQ_CUSTOM
        """What the driver registered as its irq."""
        self.info_lock: Frame | None = None
        """Who is inside a callback of the driver; the 6.x core excludes others."""
        self.unprivileged: set[Frame] = set()
        """Opens in progress by a process without CAP_SYS_RAWIO."""
        # -- the function
        self.irqs = IrqCore()
        self.irqs.add_line(PDEV_IRQ)
        self.irq_of: dict[int, int] = {}
        """irq number of each enabled vector."""
        self.vector_of: dict[int, int] = {}
        self.order: tuple[int, ...] = ()
        """Enabled vectors in the order asked for."""
        self.next_irq = FIRST_IRQ
        vectors = number_of_vectors(config)
        self.counts = [0] * vectors
        """Actions by vector."""
        self.pending = [False] * vectors
        self.lost: set[int] = set()
        self.window: set[int] = set()
        """Vectors with an event that came while an ioctl had them unmapped."""
        self.master = False
        self.disable_bit = config.left_masked
        self.found_disable_bit = config.left_masked
        self.asserted = False
        # -- what the driver holds
        self.device_enabled = 0
        self.regions = False
        self.next_token = FIRST_TOKEN
        self.allocations: dict[int, int] = {}
        self.of_module: set[int] = set()
        """Allocations made when the module was loaded; they outlive a binding."""
        self.freed: set[int] = set()
        self.next_iomap = FIRST_IOMAP
        self.iomaps: set[int] = set()
        self.references = [0] * len(kinds)
        self.drvdata = 0
        self.mutexes: dict[int, Frame | None] = {}
        self.locked = 0
        """Mutexes and spinlocks held."""
        self.spinlocks: dict[int, Frame] = {}
        """Who holds which spinlock."""
        self.config_lock: Frame | None = None
        self.acquired: list[str] = []
        self.disorder = ""
        """What was released out of order in this operation."""
        # -- interrupt context
        self.handling: set[Frame] = set()
        self.signals = 0
        self.signalled: dict[Frame, list[int]] = {}
        """Eventfds signalled by the handlers inside a request_irq, while somebody wants to know."""
        self.config_writes = 0
        self.lines_printed = 0
        self.limited_lines = 0
        self.request_refusal = 0
        """What every request_irq answers while a flood says so."""

    def close(self) -> None:
        """Close the eventfds."""
        self.eventfds.close()

    def view(self) -> View:
        """What can be observed from outside."""
        masked = self.disable_bit and not self.irq_of and self.counts[0] > 0
        return View(
            () if self.bound else self._leftovers(),
            self.registered,
            len(self.order),
            tuple(self.counts),
            self.eventfds.references(),
            self.eventfds.counters(),
            tuple(self.pending),
            masked,
            frozenset([v for v in self.lost if self.counts[v]]) if self.lost else NONE_LOST,
        )

    def _leftovers(self) -> tuple[str, ...]:
        """What the driver holds, by name; nothing while it is not bound."""
        if not self.device_enabled and len(self.allocations) == len(self.of_module) and not self.iomaps:
            if not (self.regions or self.config_lock or self.order or any(self.references) or any(self.counts)):
                return ()
        held = {
            "pci_enable_device": self.device_enabled,
            "pci_request_regions": self.regions,
            "pci_enable_msix": self.order,
            "request_irq": sum(self.counts),
            "eventfd_ctx_fdget": sum(self.references),
            "ioremap": self.iomaps,
            "kzalloc": self.allocations.keys() - self.of_module,
            "pci_cfg_access_lock": self.config_lock,
        }
        return tuple(name for name, value in held.items() if value)

    def can_interrupt(self, op: Any) -> bool:
        """Hardware and user space act at any time; a callback only where no lock keeps it out.

        Two events of a vector within the gap of one replacement are one, which no order of the three explains.
        """
        if type(op) is RaiseVector and op.vector in self.window:
            return False
        if type(op) not in CALLBACKS:
            return True
        if type(op) is Remove and self.arguments and not self.old_core:
            return False
        return not self.locked and self.info_lock is None and self.config_lock is None

    def can_run_beside(self, left: Any, right: Any) -> bool:
        """An ioctl or a write keeps its file open, so what is released meanwhile is another handle."""
        kinds = {type(left), type(right)}
        return Close not in kinds or not kinds & KEEP_OPEN or self.opens > 1

    # -- operations

    def _probe(self, _op: Probe) -> int:
        self.probing = True
        self.disorder = ""
        self.found_disable_bit = self.disable_bit
        hdr_type = k.PCI_HEADER_TYPE_BRIDGE if self.config.bridge else 0
        result = self.enter_int(self.driver.probe, PDEV_IRQ, hdr_type, self.config.virtfn)
        self.probing = False
        self.bound = result == 0
        if result:
            self.drvdata = 0
        self._at_exit(c.MEMORY_SAFE)
        return result

    def _remove(self, _op: Remove) -> int:
        self.disorder = ""
        self.enter(self.driver.remove)
        self.bound = False
        self.drvdata = 0
        self._at_exit(c.MEMORY_SAFE)
        return 0

    def _open(self, op: Open) -> int:
        if not self.registered:
            return -ENODEV
        self._take_info_lock()
        if not self.registered:
            self._drop_info_lock()
            return -EINVAL
        if not op.rawio:
            self.unprivileged.add(self.frame)
        if self.probing:
            result = self._open_while_probing()
        else:
            result = self.enter_int(self.driver.open)
        if result == 0:
            self.opens += 1
        self._drop_info_lock()
        self._at_exit(c.MEMORY_SAFE)
        return result

    def _open_while_probing(self) -> int:
        """An open right after registration: all it needs must be there (UIO-064)."""
        try:
            result = self.enter_int(self.driver.open)
        except (Crash, Violation) as breach:
            self._blame(breach, c.REGISTERED_LAST, "open during probe")
        if result == 0:
            self._detach_while_probing()
        elif not (self.frame in self.unprivileged or self.frame.given or self.config.msix_broken):
            raise self.remember(Violation(c.REGISTERED_LAST, f"open during probe returned {result}"))
        self.hold(c.REGISTERED_LAST)
        return result

    def _detach_while_probing(self) -> None:
        """The first ioctl may follow such an open at once; this one has nothing to do."""
        try:
            result = self._irq_set(IrqSet(0, -1))
        except (Crash, Violation) as breach:
            self._blame(breach, c.REGISTERED_LAST, "ioctl during probe")
        if result:
            raise self.remember(Violation(c.REGISTERED_LAST, f"unmapping vector 0 during probe returned {result}"))

    def _close(self, _op: Close) -> int:
        if not self.registered and not self.old_core:
            self.opens -= 1
            return 0
        self._take_info_lock()
        result = 0
        if self.registered:
            result = self.enter_int(self.driver.release)
        elif self.old_core:
            try:
                result = self.enter_int(self.driver.release)
            except (Crash, Violation) as breach:
                self._blame(breach, c.CLOSE_AFTER_REMOVE, "release after remove")
        self.opens -= 1
        self._drop_info_lock()
        self._at_exit(c.MEMORY_SAFE)
        return result

    def _irq_set(self, op: IrqSet) -> int:
        return self._ioctl(self.driver.ioctl, k.UIO_MSI_IRQ_SET, PAGE, struct.pack("=Ii", op.vector, op.fd))

    def _compat_irq_set(self, op: CompatIrqSet) -> int:
        return self._ioctl(self.driver.compat_ioctl, k.UIO_MSI_IRQ_SET, PAGE, struct.pack("=Ii", op.vector, op.fd))

    def _raw_ioctl(self, op: RawIoctl | Flood) -> int:
        data = struct.pack("=Ii", op.vector, op.fd)
        return self._ioctl(self.driver.ioctl, op.cmd & k.COMMAND_MASK, op.pointer, data)

    def _compat_ioctl(self, op: CompatIoctl) -> int:
        data = struct.pack("=Ii", op.vector, op.fd)
        return self._ioctl(self.driver.compat_ioctl, op.cmd & k.COMMAND_MASK, op.pointer, data)

    def _flood(self, op: Flood) -> int:
        """The result of all of them, or the first that differs from the one before."""
        self.lines_printed = 0
        self.request_refusal = op.refusal
        first = self._raw_ioctl(op)
        others = (self._raw_ioctl(op) for _ in range(FLOOD - 1))
        result = next((result for result in others if result != first), first)
        self.request_refusal = 0
        return result

    def _ioctl(self, entry: Callable[[int, int], int], cmd: int, pointer: int, data: bytes) -> int:
        if not self.registered:
            return -ENODEV
        frame = self.frame
        self.arguments[frame] = Argument(pointer, data)
        self.copied_under_mutex = None
        result = self.enter_int(entry, cmd, pointer)
        del self.arguments[frame]
        if self.locked:
            self._at_exit(c.BAD_POINTER if result == -k.EFAULT else c.MEMORY_SAFE)
        return result

    def _write(self, op: Write) -> int:
        if not self.registered:
            return -EIO
        self._take_info_lock()
        result = -EIO
        if self.registered and self.core_irq != k.UIO_IRQ_NONE:
            result = self.enter_int(self.driver.irqcontrol, op.value) if self.has_irqcontrol else -ENOSYS
        self._drop_info_lock()
        self._at_exit(c.MEMORY_SAFE)
        return result

    def _raise_vector(self, op: RaiseVector | RaiseMany) -> int:
        vector = op.vector
        irq = self.irq_of.get(vector)
        if irq is None or not self.master:
            return 0
        actions = self.irqs.lines[irq]
        if not actions:
            self.pending[vector] = True
            if self.arguments:
                self.window.add(vector)
        elif vector not in self.lost:
            for action in actions:
                self._run_msix(action)
        return 0

    def _raise_many(self, op: RaiseMany) -> int:
        for _ in range(op.count):
            self._raise_vector(op)
        return 0

    def _set_intx(self, op: SetIntx) -> int:
        self.asserted = op.level
        self._evaluate_line()
        return 0

    def _other_interrupt(self, _op: OtherInterrupt) -> int:
        self._run_core_handler()
        for action in tuple(self.irqs.lines[PDEV_IRQ]):
            self._run_intx(action)
        return 0

    def _config_intx(self, op: ConfigIntx) -> int:
        self.disable_bit = op.disable
        self._evaluate_line()
        return 0

    def _close_fd(self, op: CloseFd) -> int:
        return self.eventfds.close_number(op.fd)

    def _reuse_fd(self, op: ReuseFd) -> int:
        self.eventfds.reuse_number(op.fd, None if op.pipe else len(self.config.eventfds))
        return 0

    def _read_eventfd(self, op: ReadEventfd) -> int:
        return self.eventfds.read(op.fd)

    def _device_reset(self, _op: DeviceReset) -> int:
        self.lost = set(self.order)
        return 0

    def _list_interrupts(self, _op: ListInterrupts) -> int:
        for action in self.irqs.actions():
            if action.name in self.freed:
                clause = c.MEMORY_SAFE if self.bound else c.REMOVE_WHILE_OPEN
                raise self.remember(Violation(clause, f"/proc/interrupts reads the freed name of irq {action.irq}"))
        return 0

    OPERATIONS: ClassVar[Mapping[type, Callable[[Any, Any], Any]]] = {
        Probe: _probe,
        Remove: _remove,
        Open: _open,
        Close: _close,
        IrqSet: _irq_set,
        CompatIrqSet: _compat_irq_set,
        RawIoctl: _raw_ioctl,
        CompatIoctl: _compat_ioctl,
        RaiseVector: _raise_vector,
        RaiseMany: _raise_many,
        SetIntx: _set_intx,
        OtherInterrupt: _other_interrupt,
        ConfigIntx: _config_intx,
        Write: _write,
        CloseFd: _close_fd,
        ReuseFd: _reuse_fd,
        ReadEventfd: _read_eventfd,
        DeviceReset: _device_reset,
        ListInterrupts: _list_interrupts,
        Flood: _flood,
    }

    # -- the UIO core's own lock, and what must hold when a callback returns
    #
    # The 6.x core excludes open, release and write from one another and from removal. How the patch that
    # forwards ioctls excluded them is not known: here removal waits for them, and they run side by side.

    def _take_info_lock(self) -> None:
        if self.old_core:
            return
        if self.info_lock is not None:
            if self.scheduler is None:
                raise HarnessError("a callback was entered while another one was under way")
            self.scheduler.block("info_lock of the UIO core", lambda: self.info_lock is None)
        self.info_lock = self.frame

    def _drop_info_lock(self) -> None:
        if not self.old_core:
            self.info_lock = None

    def _at_exit(self, clause: Clause) -> None:
        """No lock stays held."""
        if not self.locked:
            return
        for mutex, owner in self.mutexes.items():
            if owner is self.frame:
                raise self.remember(Violation(clause, f"mutex {mutex:#x} is still held on return"))
        if self.frame in self.spinlocks.values():
            raise self.remember(Violation(clause, "a spinlock is still held on return"))

    def _may_sleep(self, call: str) -> None:
        """Refuse calls that sleep in a handler or under a spinlock."""
        if self.handling and self.frame in self.handling:
            raise Violation(c.HANDLERS_DO_NOT_SLEEP, f"{call} in an interrupt handler")
        if self.atomic and (self.scheduler is None or self.frame in self.spinlocks.values()):
            raise Violation(c.MEMORY_SAFE, f"{call} while a spinlock is held")

    # -- handlers

    def _run(self, action: Action) -> int:
        """Call the handler of one action."""
        if action.dev_id >= FIRST_TOKEN and self._is_freed(action.dev_id):
            clause = c.MEMORY_SAFE if self.bound else c.REMOVE_WHILE_OPEN
            raise self.remember(Violation(clause, f"the handler of irq {action.irq} is given a freed dev_id"))
        frame = self.frame
        alone = self.scheduler is None
        if action.running and not alone:
            # The irq core never runs the handlers of one irq on two CPUs at once.
            self.scheduler.block(f"handlers of irq {action.irq}", lambda: not action.running)
        action.running += 1
        self.handling.add(frame)
        # Beside another thread a handler runs on its own CPU: the other one goes on.
        if alone:
            self.atomic += 1
        result = self.enter_int(self.driver.handler, action.irq, action.dev_id)
        if self.spinlocks and frame in self.spinlocks.values():
            raise self.remember(Violation(c.MEMORY_SAFE, "the handler returned with a spinlock held"))
        if alone:
            self.atomic -= 1
        self.handling.discard(frame)
        action.running -= 1
        return result

    def _run_msix(self, action: Action) -> None:
        result = self._run(action)
        if result != k.IRQ_HANDLED:
            raise self.remember(Violation(c.MSIX_HANDLED, f"the MSI-X handler returned {result}"))

    def _run_inside_request(self, run: Callable[[], None]) -> None:
        """The handler runs before request_irq returns: all it needs must be there (UIO-028)."""
        try:
            run()
        except (Crash, Violation) as breach:
            self._blame(breach, c.READY_BEFORE_REQUEST, "handler inside request_irq")
        self.hold(c.READY_BEFORE_REQUEST)

    def _blame(self, breach: Breach, clause: Clause, where: str) -> NoReturn:
        """Raise what broke memory safety as a breach of the clause that says why it was unsafe there."""
        if breach.clause not in (None, c.MEMORY_SAFE, c.REFERENCE_OUTLIVES_HANDLER):
            raise breach
        self.breach = None
        raise self.remember(Violation(clause, f"{where}: {breach.detail}", breach.kind)) from None

    def _evaluate_line(self) -> None:
        """Run the line's handlers while the function drives it; under a spinlock, once that is released."""
        frame = self.frame
        if self.handling and frame in self.handling:
            return
        if self.atomic and (self.scheduler is None or frame in self.spinlocks.values()):
            return
        if self.asserted and not self.disable_bit:
            self._run_core_handler()
        actions = self.irqs.lines[PDEV_IRQ]
        for _ in range(STORM):
            if not self.asserted or self.disable_bit or not actions:
                return
            for action in tuple(actions):
                self._run_intx(action)
        raise self.remember(Violation(c.INTX_MASKED_AND_SIGNALLED, "INTx storms: no handler masks it"))

    def _run_core_handler(self) -> None:
        """The core requests the irq that it is given, and its handler calls info.handler."""
        if self.core_irq == PDEV_IRQ:
            raise self.remember(
                Violation(c.MEMORY_SAFE, f"registered with irq {PDEV_IRQ}, so the core calls info.handler: NULL")
            )

    def _run_intx(self, action: Action) -> None:
        """One call of our handler on the shared line, and what it may do then."""
        asserted, masked = self.asserted, self.disable_bit
        signals, writes = self.signals, self.config_writes
        result = self._run(action)
        if self.scheduler is not None:
            return
        signals, writes = self.signals - signals, self.config_writes - writes
        did = f"the INTx handler returned {result}, signalled {signals} times"
        if not asserted:
            holds = result == k.IRQ_NONE and not signals and not writes
            self.require(c.INTX_NOT_OURS, holds, f"{did} and wrote config space {writes} times with status clear")
        elif masked:
            self.require(c.INTX_NO_SECOND_SIGNAL, not signals, f"{did} while INTx was masked")
        else:
            # In the middle of a set or a teardown there may be nobody to tell; the level stays for the next set.
            once = signals == 1 or (not signals and self.frame.outer is not None)
            holds = result == k.IRQ_HANDLED and once and self.disable_bit
            self.require(c.INTX_MASKED_AND_SIGNALLED, holds, f"{did}, and the disable bit is {self.disable_bit}")

    # -- PCI

    def pci_enable_device(self) -> int:
        """As the port says."""
        refusal = self.refused("pci_enable_device")
        if refusal:
            return refusal
        self.device_enabled += 1
        self.acquired.append("pci_enable_device")
        return 0

    def pci_disable_device(self) -> None:
        """As the port says."""
        if not self.device_enabled:
            raise Violation(c.NOTHING_RELEASED_TWICE, "pci_disable_device of a device that is not enabled")
        if self.order or sum(self.counts):
            clause = c.FAILED_PROBE_LEAVES_NOTHING if self.probing else c.REMOVE_WHILE_OPEN
            raise Violation(clause, "pci_disable_device while MSI-X is on or an action is installed")
        self.device_enabled -= 1
        if not self.device_enabled:
            self.master = False
        self._released("pci_enable_device")

    def pci_request_regions(self, name: str) -> int:
        """As the port says."""
        if self.regions:
            return -EBUSY
        refusal = self.refused("pci_request_regions")
        if refusal:
            return refusal
        self.regions = True
        self.acquired.append("pci_request_regions")
        return 0

    def pci_release_regions(self) -> None:
        """As the port says."""
        if not self.regions:
            raise Violation(c.NOTHING_RELEASED_TWICE, "pci_release_regions of regions that are not held")
        self.regions = False
        self._released("pci_request_regions")

    def _released(self, what: str) -> None:
        """Note a release that is not the reverse of the acquisition (UIO-063)."""
        if self.acquired[-1] != what:
            self.disorder = f"what {what} gave is released before what {self.acquired[-1]} gave"
        self.acquired.remove(what)

    def _needs_device(self, call: str) -> None:
        if not self.device_enabled:
            raise Violation(c.MEMORY_SAFE, f"{call} on a device that is not enabled")

    def pci_set_master(self) -> None:
        """As the port says."""
        self._needs_device("pci_set_master")
        self.master = True

    def pci_clear_master(self) -> None:
        """As the port says."""
        self._needs_device("pci_clear_master")
        self.master = False

    def _bar(self, bar: int) -> Bar:
        if not 0 <= bar < k.PCI_BARS:
            raise Violation(c.MEMORY_SAFE, f"BAR {bar} of a function that has 0 to {k.PCI_BARS - 1}")
        return self.config.bars[bar] if bar < len(self.config.bars) else Bar()

    def pci_resource_start(self, bar: int) -> int:
        """As the port says."""
        return self._bar(bar).start

    def pci_resource_len(self, bar: int) -> int:
        """As the port says."""
        return self._bar(bar).size

    def pci_resource_flags(self, bar: int) -> int:
        """As the port says."""
        resource = self._bar(bar)
        if not resource.size:
            return 0
        return k.IORESOURCE_IO if resource.io else k.IORESOURCE_MEM

    def pci_find_capability(self, cap: int) -> int:
        """As the port says."""
        return MSIX_CAP if cap == k.PCI_CAP_ID_MSIX and self.config.vectors else 0

    def pci_read_config(self, where: int, size: int) -> int:
        """As the port says."""
        if size not in (1, 2, 4) or not 0 <= where <= 256 - size:
            raise Violation(c.MEMORY_SAFE, f"{size} bytes at {where:#x} of config space")
        return int.from_bytes(self._config_space()[where : where + size], "little")

    def _config_space(self) -> bytes:
        space = bytearray(256)
        command = (
            (3 if self.device_enabled else 0)
            | (k.PCI_COMMAND_MASTER if self.master else 0)
            | (k.PCI_COMMAND_INTX_DISABLE if self.disable_bit else 0)
        )
        status = (0x10 if self.config.vectors else 0) | (k.PCI_STATUS_INTERRUPT if self.asserted else 0)
        struct.pack_into("<HHHH", space, 0, 0x1AF4, 0x1041, command, status)
        space[k.PCI_HEADER_TYPE] = int(self.config.bridge)
        if self.config.vectors:
            space[k.PCI_CAPABILITY_LIST] = MSIX_CAP
            flags = self.config.vectors - 1 | (k.PCI_MSIX_FLAGS_ENABLE if self.order else 0)
            table = self.config.table_offset | self.config.table_bar
            pba = self.config.pba_offset | self.config.pba_bar
            struct.pack_into("<BBHII", space, MSIX_CAP, k.PCI_CAP_ID_MSIX, 0, flags, table, pba)
        return bytes(space)

    def pci_write_config(self, where: int, size: int, value: int) -> None:
        """As the port says; of what is written only the command register has an effect."""
        self._needs_device("pci_write_config")
        low, high = (where <= byte < where + size for byte in (k.PCI_COMMAND, k.PCI_COMMAND + 1))
        if not low and not high:
            return
        if self.config_lock is not self.frame:
            raise Violation(c.MEMORY_SAFE, "the command register is written without pci_cfg_access_lock")
        command = value << 8 * where >> 8 * k.PCI_COMMAND
        self.config_writes += 1
        self.master = bool(command & k.PCI_COMMAND_MASTER) if low else self.master
        self.disable_bit = bool(command & k.PCI_COMMAND_INTX_DISABLE) if high else self.disable_bit
        self._evaluate_line()

    def pci_cfg_access_lock(self) -> None:
        """As the port says."""
        self._may_sleep("pci_cfg_access_lock")
        if self.config_lock is not None:
            if self.scheduler is None or self.config_lock is self.frame:
                raise Violation(c.MEMORY_SAFE, "pci_cfg_access_lock: deadlock, it is held")
            self.scheduler.block("pci_cfg_access_lock", lambda: self.config_lock is None)
        self.config_lock = self.frame

    def pci_cfg_access_unlock(self) -> None:
        """As the port says."""
        if self.config_lock is not self.frame:
            raise Violation(c.MEMORY_SAFE, "pci_cfg_access_unlock by who does not hold it")
        self.config_lock = None

    def pci_reset_function(self) -> int:
        """As the port says."""
        self._needs_device("pci_reset_function")
        self.lost = set(self.order)
        self.disable_bit = False
        return 0

    def pci_set_drvdata(self, data: int) -> None:
        """As the port says."""
        self.drvdata = data

    def pci_get_drvdata(self) -> int:
        """As the port says."""
        return self.drvdata

    # -- MSI-X

    def pci_msix_vec_count(self) -> int:
        """As the port says."""
        return self.config.vectors or -EINVAL

    def pci_enable_msix(self, entries: tuple[int, ...]) -> int:
        """As the port says."""
        answer = self._may_enable(tuple(entries))
        if answer:
            return answer
        planned = self._planned_enable()
        if 0 < planned < len(entries) or planned < 0:
            return self.refused("pci_enable_msix")
        return self._enable(tuple(entries))

    def pci_enable_msix_range(self, entries: tuple[int, ...], minvec: int, maxvec: int) -> int:
        """As the port says."""
        return self._enable_range("pci_enable_msix_range", tuple(entries), minvec, maxvec)

    def pci_alloc_irq_vectors(self, min_vecs: int, max_vecs: int) -> int:
        """As the port says."""
        entries = tuple(range(min(max_vecs, self.config.vectors)))
        return self._enable_range("pci_alloc_irq_vectors", entries, min_vecs, max_vecs)

    def _enable_range(self, call: str, entries: tuple[int, ...], least: int, most: int) -> int:
        """Between `least` and `most` vectors. A refusal planned for pci_enable_msix is met here as well."""
        self.frame.made["pci_enable_msix"] = self.frame.made.get("pci_enable_msix", 0) + 1
        if least < 1 or most < least:
            return -k.ERANGE
        entries = entries[:most]
        answer = self._may_enable(entries)
        if answer > 0:
            entries = entries[:answer]
        elif answer:
            return answer
        planned = self._planned_enable()
        if planned < 0:
            return self.refused("pci_enable_msix")
        if 0 < planned < len(entries):
            entries = entries[: self.refused("pci_enable_msix")]
        if len(entries) < least:
            return -ENOSPC
        self._enable(entries)
        return len(entries)

    def _planned_enable(self) -> int:
        """The refusal that the step plans for this attempt; it is met only where it decides."""
        frame = self.frame
        return frame.plan.get(("pci_enable_msix", frame.made["pci_enable_msix"]), 0) if frame.plan else 0

    def _may_enable(self, entries: tuple[int, ...]) -> int:
        """0, or what the kernel answers to this request in any case."""
        self._may_sleep("pci_enable_msix")
        self._needs_device("pci_enable_msix")
        if self.order:
            raise Violation(c.FIRST_OPEN_ENABLES, "pci_enable_msix while MSI-X is enabled")
        vectors = self.config.vectors
        if self.config.msix_broken or not vectors or not entries or len(set(entries)) < len(entries):
            return -EINVAL
        if len(entries) > vectors:
            return vectors
        return -EINVAL if any(not 0 <= entry < vectors for entry in entries) else 0

    def _enable(self, entries: tuple[int, ...]) -> int:
        self.order = entries
        for entry in entries:
            irq = self.next_irq
            self.next_irq = irq + IRQ_STEP
            self.irq_of[entry] = irq
            self.vector_of[irq] = entry
            self.irqs.add_line(irq)
        # The next enabling starts elsewhere, and a decoy device gets the numbers in between.
        self.next_irq += 1
        self.disable_bit = True
        self.lost = set()
        return 0

    def pci_disable_msix(self) -> None:
        """As the port says."""
        self._may_sleep("pci_disable_msix")
        if not self.order:
            return
        self.require(
            c.DISABLED_AFTER_LAST_FREE,
            not any(self.irqs.lines[irq] for irq in self.vector_of),
            "pci_disable_msix while a vector has an action: the kernel stops with BUG",
        )
        for irq in self.vector_of:
            self.irqs.drop_line(irq)
        self.irq_of, self.vector_of, self.order = {}, {}, ()
        self.pending = [False] * len(self.pending)
        self.lost = set()
        self.window = set()
        self.disable_bit = False

    def pci_free_irq_vectors(self) -> None:
        """As the port says."""
        self.pci_disable_msix()

    def pci_irq_vector(self, nr: int) -> int:
        """As the port says."""
        return self.irq_of[self.order[nr]] if 0 <= nr < len(self.order) else -EINVAL

    def pci_write_msi_msg(self, irq: int) -> None:
        """As the port says."""
        vector = self.vector_of.get(irq)
        if vector is None:
            raise Violation(c.CURRENT_IRQ_NUMBERS, f"pci_write_msi_msg of irq {irq}, which is not this device's")
        self.lost.discard(vector)

    # -- INTx

    def pci_intx_mask_supported(self) -> int:
        """As the port says."""
        self._needs_device("pci_intx_mask_supported")
        return int(self.config.intx)

    def pci_check_and_mask_intx(self) -> int:
        """As the port says."""
        self._needs_device("pci_check_and_mask_intx")
        if not self.asserted:
            return 0
        if not self.disable_bit:
            self.disable_bit = True
            self.config_writes += 1
        return 1

    def pci_check_and_unmask_intx(self) -> int:
        """As the port says."""
        self._needs_device("pci_check_and_unmask_intx")
        if self.asserted:
            return 0
        self.disable_bit = False
        self.config_writes += 1
        return 1

    def pci_intx(self, enable: int) -> None:
        """As the port says."""
        self._needs_device("pci_intx")
        self.disable_bit = not enable
        self.config_writes += 1
        self._evaluate_line()

    # -- memory

    def ioremap(self, addr: int, size: int) -> int:
        """As the port says."""
        self._may_sleep("ioremap")
        if self.refused("ioremap"):
            return 0
        token = self.next_iomap
        self.next_iomap += (size + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE + PAGE_SIZE
        self.iomaps.add(token)
        return token

    def iounmap(self, token: int) -> None:
        """As the port says."""
        if token not in self.iomaps:
            raise Violation(c.NOTHING_RELEASED_TWICE, f"iounmap of {token:#x}, which is not mapped")
        self.iomaps.remove(token)

    def kzalloc(self, size: int) -> int:
        """As the port says."""
        return self._allocate("kzalloc", size)

    def kcalloc(self, n: int, size: int) -> int:
        """As the port says."""
        return self._allocate("kcalloc", n * size)

    def kasprintf(self, text: str) -> int:
        """As the port says."""
        return self._allocate("kasprintf", len(text) + 1)

    def _allocate(self, call: str, size: int) -> int:
        if self.handling and self.frame in self.handling:
            raise Violation(c.HANDLERS_DO_NOT_SLEEP, f"{call} in an interrupt handler")
        if self.refused(call):
            return 0
        token = self.next_token
        self.next_token += _whole_pages(size)
        self.allocations[token] = size
        if self.driver is None:
            self.of_module.add(token)
        return token

    def kfree(self, token: int) -> None:
        """As the port says."""
        if not token:
            return
        if token in self.freed:
            raise Violation(c.NOTHING_RELEASED_TWICE, f"kfree of {token:#x}, which is free already")
        if token not in self.allocations:
            raise Violation(c.MEMORY_SAFE, f"kfree of {token:#x}, which was never allocated")
        size = self.allocations.pop(token)
        self.freed.add(token)
        for mutex in [m for m in self.mutexes if token <= m < token + max(size, 1)]:
            if self.mutexes[mutex] is not None:
                raise Violation(c.MEMORY_SAFE, f"kfree of {token:#x}, in which a mutex is held")
            del self.mutexes[mutex]

    def _is_held(self, address: int) -> bool:
        """Whether an address lies in memory that the driver holds; offsets beyond its size are not looked at."""
        if address & -PAGE_SIZE in self.allocations:
            return True
        return any(token <= address < token + _whole_pages(size) for token, size in self.allocations.items())

    def _is_freed(self, address: int) -> bool:
        """Whether an address lies in memory that the driver held once."""
        return address < self.next_token and not self._is_held(address)

    def copy_from_user(self, src: int, n: int) -> bytes:
        """As the port says."""
        self._may_sleep("copy_from_user")
        argument = self.arguments.get(self.frame)
        if argument is None:
            raise Violation(c.MEMORY_SAFE, "copy_from_user outside of an ioctl")
        at = src - argument.pointer
        if at < 0 or n < 0 or at + n > k.IRQ_SET_SIZE:
            raise Violation(c.ARGUMENT_IS_EIGHT_BYTES, f"copy_from_user of bytes {at} to {at + n} of the argument")
        bits = ((1 << n) - 1) << at
        if argument.seen & bits:
            raise Violation(c.ARGUMENT_FETCHED_ONCE, "the same bytes of the argument are fetched twice")
        argument.seen |= bits
        self.copied_under_mutex = self.locked > 0 and self.frame in self.mutexes.values()
        memory = self.memory
        memory.place(argument.pointer, argument.data)
        data = memory.fetch(src, n)
        if len(data) == n:
            missing = self.refused("copy_from_user")
            return data[: n - min(n, missing)] if missing else data
        return data

    def capable(self, cap: int) -> int:
        """As the port says."""
        return int(self.frame not in self.unprivileged or cap != k.CAP_SYS_RAWIO)

    # -- irqs

    def request_irq(self, irq: int, flags: int, name: int, dev_id: int) -> int:
        """As the port says."""
        self._may_sleep("request_irq")
        if name and name not in self.allocations:
            raise Violation(c.MEMORY_SAFE, f"request_irq: the name {name:#x} is not allocated")
        if irq == PDEV_IRQ and (not self.config.vectors or self.config.msix_broken):
            return self._request_intx(flags, name, dev_id)
        vector = self.vector_of.get(irq)
        if vector is None:
            if not self.config.vectors:
                raise Violation(c.INTX_REQUEST, f"request_irq of irq {irq}, the function's is {PDEV_IRQ}")
            clause = c.CURRENT_IRQ_NUMBERS if self.order else c.NO_REQUEST_WHILE_DISABLED
            raise Violation(clause, f"request_irq of irq {irq}, which is not this device's now")
        if self.irqs.lines[irq] and not flags & k.IRQF_SHARED:
            return -EBUSY
        refusal = self.request_refusal or self.refused("request_irq")
        if refusal:
            return refusal
        action = self.irqs.request(irq, flags, name, dev_id)
        if type(action) is int:
            return action
        assert isinstance(action, Action)
        self.counts[vector] += 1
        if self.pending[vector]:
            self.pending[vector] = False
            replaced = vector in self.window
            self.window.discard(vector)
            if vector not in self.lost and self.master:
                self._deliver_held(action, replaced)
        return 0

    def _deliver_held(self, action: Action, replaced: bool) -> None:
        """Run the handler for the event that was held; one that came meanwhile is the new mapping's (UIO-043)."""
        frame = self.frame
        argument = self.arguments.get(frame)
        # After a refusal the old mapping is put back, and the event is its own.
        if not replaced or argument is None or frame.given:
            self._run_inside_request(lambda: self._run_msix(action))
            return
        self.signalled[frame] = []
        self._run_inside_request(lambda: self._run_msix(action))
        got = self.signalled.pop(frame)
        self.require(
            c.EVENT_WHILE_REPLACING,
            got == [argument.found],
            f"an event while the vector was unmapped signalled eventfds {got}, the new one is {argument.found}",
        )

    def _request_intx(self, flags: int, name: int, dev_id: int) -> int:
        line = self.irqs.lines[PDEV_IRQ]
        unique = dev_id != 0 and all(action.dev_id != dev_id for action in line)
        self.require(
            c.INTX_REQUEST,
            bool(flags & k.IRQF_SHARED) and unique,
            f"request_irq of INTx with flags {flags:#x} and dev_id {dev_id:#x}",
        )
        refusal = self.request_refusal or self.refused("request_irq")
        if refusal:
            return refusal
        self.irqs.request(PDEV_IRQ, flags, name, dev_id)
        self.counts[0] += 1
        if self.asserted and not self.disable_bit:
            self._run_inside_request(self._evaluate_line)
        return 0

    def free_irq(self, irq: int, dev_id: int) -> None:
        """As the port says. A shared handler is called once more, as with the kernel's debug option."""
        self._may_sleep("free_irq")
        action = self.irqs.find(irq, dev_id)
        if action is None:
            raise Violation(c.FREE_MATCHES_REQUEST, f"free_irq({irq}, {dev_id:#x}): no action has that dev_id")
        self.irqs.lines[irq].remove(action)
        self.counts[self.vector_of.get(irq, 0)] -= 1
        if action.running:
            if self.scheduler is None:
                raise Violation(c.MEMORY_SAFE, f"free_irq({irq}) waits for a handler that it interrupted")
            self.scheduler.block(f"handlers of irq {irq}", lambda: not action.running)
        if action.flags & k.IRQF_SHARED and irq == PDEV_IRQ and (self.disable_bit or not self.asserted):
            self._run_intx(action)

    def synchronize_irq(self, irq: int) -> None:
        """As the port says."""
        self._may_sleep("synchronize_irq")
        quiet = self.irqs.is_quiet(irq)
        if not quiet():
            if self.scheduler is None:
                raise Violation(c.MEMORY_SAFE, f"synchronize_irq({irq}) waits for a handler that it interrupted")
            self.scheduler.block(f"handlers of irq {irq}", quiet)

    # -- eventfds

    def eventfd_ctx_fdget(self, fd: int) -> int:
        """As the port says."""
        if self.handling and self.frame in self.handling:
            raise Violation(c.HANDLERS_DO_NOT_SLEEP, "eventfd_ctx_fdget in an interrupt handler")
        found = -EINVAL if fd in STANDARD_FDS else self.eventfds.fdget(fd)
        if found < 0:
            return found
        refusal = self.refused("eventfd_ctx_fdget")
        if refusal:
            self.eventfds.put(found)
            return refusal
        self.references[found] += 1
        argument = self.arguments.get(self.frame)
        if argument is not None:
            argument.found = found
        return FIRST_CTX + (found << 8)

    def eventfd_ctx_put(self, ctx: int) -> None:
        """As the port says."""
        eventfd = ctx - FIRST_CTX >> 8
        if not 0 <= eventfd < len(self.references) or not self.references[eventfd]:
            raise Violation(c.ONE_REFERENCE_EACH, f"eventfd_ctx_put of {ctx:#x}, to which no reference is held")
        self.references[eventfd] -= 1
        self.eventfds.put(eventfd)

    def eventfd_signal(self, ctx: int) -> None:
        """As the port says."""
        eventfd = ctx - FIRST_CTX >> 8
        if not 0 <= eventfd < len(self.references):
            raise Violation(c.MEMORY_SAFE, f"eventfd_signal of {ctx:#x}, which is no eventfd")
        if not self.references[eventfd]:
            raise Violation(c.REFERENCE_OUTLIVES_HANDLER, "eventfd_signal after the reference was dropped")
        self.signals += 1
        if self.signalled and self.frame in self.signalled:
            self.signalled[self.frame].append(eventfd)
        self.eventfds.signal(eventfd)

    # -- locks

    def mutex_init(self, mutex: int) -> None:
        """As the port says."""
        if mutex >= FIRST_TOKEN and not self._is_held(mutex):
            raise Violation(c.MEMORY_SAFE, f"mutex_init({mutex:#x}): not in allocated memory")
        self.mutexes[mutex] = None

    def mutex_lock(self, mutex: int) -> None:
        """As the port says."""
        if self.handling or self.atomic:
            self._may_sleep("mutex_lock")
        frame = self.frame
        mutexes = self.mutexes
        if mutex not in mutexes:
            self._know_mutex(mutex)
        owner = mutexes[mutex]
        if owner is not None:
            if owner is frame or self.scheduler is None:
                raise Violation(c.MEMORY_SAFE, f"mutex_lock({mutex:#x}): deadlock, the caller holds it")
            self.scheduler.block(f"mutex {mutex:#x}", lambda: mutexes.get(mutex) is None)
            if mutex not in mutexes:
                self._know_mutex(mutex)
        mutexes[mutex] = frame
        self.locked += 1

    def _know_mutex(self, mutex: int) -> None:
        """A static mutex is known when it is first used; any other must have been initialised, and not freed."""
        if not 0 < mutex < PAGE_SIZE:
            raise Violation(c.MEMORY_SAFE, f"mutex_lock({mutex:#x}): there is no mutex, or no longer")
        self.mutexes[mutex] = None

    def mutex_unlock(self, mutex: int) -> None:
        """As the port says."""
        if self.mutexes.get(mutex) is not self.frame:
            raise Violation(c.MEMORY_SAFE, f"mutex_unlock({mutex:#x}) by who does not hold it")
        self.mutexes[mutex] = None
        self.locked -= 1

    def spin_lock_irqsave(self, lock: int) -> None:
        """As the port says."""
        if lock >= FIRST_TOKEN and not self._is_held(lock):
            raise Violation(c.MEMORY_SAFE, f"spin_lock_irqsave({lock:#x}): not in allocated memory")
        owner = self.spinlocks.get(lock)
        if owner is not None:
            if owner is self.frame or self.scheduler is None:
                raise Violation(c.MEMORY_SAFE, f"spin_lock_irqsave({lock:#x}): deadlock, the caller holds it")
            self.scheduler.block(f"spinlock {lock:#x}", lambda: lock not in self.spinlocks)
        self.spinlocks[lock] = self.frame
        self.atomic += 1
        self.locked += 1

    def spin_unlock_irqrestore(self, lock: int) -> None:
        """As the port says."""
        if self.spinlocks.get(lock) is not self.frame:
            raise Violation(c.MEMORY_SAFE, f"spin_unlock_irqrestore({lock:#x}) by who does not hold it")
        del self.spinlocks[lock]
        self.atomic -= 1
        self.locked -= 1
        if not self.config.vectors or self.config.msix_broken:
            self._evaluate_line()

    # -- the UIO core

    def uio_register_device(
        self, name: str, version: str, irq: int, irqcontrol: bool, mem: MAPS_TYPE, port: PORTS_TYPE
    ) -> int:
        """As the port says."""
        self._may_sleep("uio_register_device")
        if self.registered or not name or not version:
            return -EINVAL
        if irq not in (k.UIO_IRQ_CUSTOM, k.UIO_IRQ_NONE, PDEV_IRQ):
            # The core requests it, and there is no such irq.
            return -EINVAL
        self.require(
            c.AT_MOST_FIVE,
            len(mem) <= k.MAX_UIO_MAPS and len(port) <= k.MAX_UIO_PORT_REGIONS,
            f"{len(mem)} memory and {len(port)} port entries",
        )
        refusal = self.refused("uio_register_device")
        if refusal:
            return refusal
        self.mem, self.port_regions, self.has_irqcontrol = tuple(mem), tuple(port), irqcontrol
        self.core_irq = irq
        self.registered = True
        self.acquired.append("uio_register_device")
        return 0

    def uio_unregister_device(self) -> None:
        """As the port says. The 6.x core waits for callbacks under way."""
        self._may_sleep("uio_unregister_device")
        if not self.registered:
            raise Violation(c.NOTHING_RELEASED_TWICE, "uio_unregister_device of a device that is not registered")
        self._take_info_lock()
        if self.arguments and not self.old_core:
            if self.scheduler is None:
                raise HarnessError("the device was unregistered in the middle of an ioctl")
            self.scheduler.block("ioctls under way", lambda: not self.arguments)
        self.registered = False
        self.core_irq = k.UIO_IRQ_CUSTOM
        self._drop_info_lock()
        self._released("uio_register_device")

    def uio_event_notify(self) -> None:
        """As the port says."""

    # -- printing

    def dev_err(self, text: str) -> None:
        """As the port says."""
        self.lines_printed += 1

    def dev_warn(self, text: str) -> None:
        """As the port says."""
        self.lines_printed += 1

    def dev_info(self, text: str) -> None:
        """As the port says."""
        self.lines_printed += 1

    def dev_err_ratelimited(self, text: str) -> None:
        """As the port says."""
        self.limited_lines += 1
        if self.limited_lines <= LOG_BURST:
            self.lines_printed += 1


def _whole_pages(size: int) -> int:
    return (max(size, 1) + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE


CALLBACKS = frozenset(
    {
        Probe,
        Remove,
        Open,
        Close,
        IrqSet,
        CompatIrqSet,
        RawIoctl,
        CompatIoctl,
        Write,
        Flood,
    }
)
"""Operations that enter the driver from process context."""

KEEP_OPEN = frozenset({IrqSet, CompatIrqSet, Write})
"""System calls on a handle, which cannot be released meanwhile."""

ENVIRONMENT = UioMsi
"""Eventfds of the running kernel."""


class FastUioMsi(UioMsi):
    """The same world with eventfds in memory."""

    PORT = Port

    def __init__(self, config: model.Config, profile: Profile) -> None:
        super().__init__(config, profile, eventfd.FastEventfds)


FAST = FastUioMsi
"""For runs in which the system calls of real eventfds would dominate."""


# -- What neither result nor view shows


def _exports_bars(record: Record) -> bool | str:
    """mem[] and port[] follow the BARs (UIO-069); BARs with the MSI-X table may be left out, or split around it."""
    if record.result:
        return False
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    wrong = _wrong_ports(env) or _wrong_maps(env)
    return wrong or True


def _wrong_ports(env: UioMsi) -> str:
    ports = [(i, bar) for i, bar in enumerate(env.config.bars) if bar.start and bar.size and bar.io]
    wanted = [(f"BAR{i}", bar.start, bar.size, k.UIO_PORT_X86) for i, bar in ports][: k.MAX_UIO_PORT_REGIONS]
    got = [tuple(port) for port in env.port_regions]
    return "" if got == wanted else f"port[] is {got}, expected {wanted}"


def _wrong_maps(env: UioMsi) -> str:
    guarded = _guarded(env)
    rest = [tuple(entry) for entry in env.mem]
    expected = [(i, bar) for i, bar in enumerate(env.config.bars) if bar.start and bar.size and not bar.io]
    for i, bar in expected:
        if len(env.mem) - len(rest) >= k.MAX_UIO_MAPS:
            break
        mine = [entry for entry in rest if entry[0] == f"BAR{i}"]
        if rest[: len(mine)] != mine:
            return f"mem[] is {list(env.mem)}: BAR{i} is not in its place"
        rest = rest[len(mine) :]
        if any(not _lies_within(entry, bar) for entry in mine):
            return f"mem[] has {mine} for BAR{i} at {bar.start:#x}, {bar.size:#x} bytes"
        if i not in guarded and (len(mine) != 1 or not _is_whole(mine[0], bar)):
            return f"mem[] has {mine} for BAR{i} at {bar.start:#x}, {bar.size:#x} bytes"
    return f"mem[] has {rest} for no BAR" if rest else ""


def _guarded(env: UioMsi) -> set[int]:
    """BARs that need not be exported whole, because the MSI-X table or the pending bits lie in them."""
    if not env.config.vectors or env.profile.security == "posted":
        return set()
    return {env.config.table_bar, env.config.pba_bar}


def _is_whole(entry: Any, bar: Bar) -> bool:
    """As the resource says, or widened to whole pages with an offset (UIO-071)."""
    _, addr, offs, size, kind = entry
    if kind != k.UIO_MEM_PHYS:
        return False
    if (addr, offs, size) == (bar.start, 0, bar.size):
        return True
    return bool((addr, offs, size) == _pages(bar))


def _pages(bar: Bar) -> tuple[int, int, int]:
    first = bar.start & -PAGE_SIZE
    end = bar.start + bar.size + PAGE_SIZE - 1 & -PAGE_SIZE
    return first, bar.start - first, end - first


def _lies_within(entry: Any, bar: Bar) -> bool:
    _, addr, _, size, kind = entry
    first, _, length = _pages(bar)
    return bool(kind == k.UIO_MEM_PHYS and size > 0 and first <= addr and addr + size <= first + length)


def _hides_table(record: Record) -> bool | str:
    """No exported page holds MSI-X table or pending bits (UIO-085)."""
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    config = env.config
    if record.result or not config.vectors or config.remapping or env.profile.security == "posted":
        return False
    for name, bar, offset, size in (
        ("MSI-X table", config.table_bar, config.table_offset, config.vectors * k.PCI_MSIX_ENTRY_SIZE),
        ("pending bits", config.pba_bar, config.pba_offset, (config.vectors + 63) // 64 * 8),
    ):
        start = config.bars[bar].start + offset
        first, end = start & -PAGE_SIZE, start + size + PAGE_SIZE - 1 & -PAGE_SIZE
        for entry in env.mem:
            if entry[1] < end and first < entry[1] + entry[3]:
                return f"mem[] exports {entry}, which overlaps the {name} at {start:#x}"
    return True


def _maps_small_bars(record: Record) -> bool | str:
    """Unaligned BARs, and those smaller than a page, are widened to pages (UIO-071)."""
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    if record.result:
        return False
    small = False
    for entry in env.mem:
        bar = env.config.bars[int(entry[0].removeprefix("BAR"))]
        if bar.start % PAGE_SIZE or bar.size % PAGE_SIZE:
            small = True
            if entry[1] % PAGE_SIZE or entry[3] % PAGE_SIZE:
                return f"mem[] has {entry}, which the core refuses to map"
    return small


def _released_in_order(record: Record) -> bool | str:
    """What was acquired last goes first (UIO-063)."""
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    return env.disorder or type(record.op) is Remove or record.result != 0


def _leaves_intx_as_found(record: Record) -> bool | str:
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    if env.config.vectors and record.before.msix is not False:
        return False
    if env.disable_bit == env.found_disable_bit:
        return True
    return f"the disable bit is {env.disable_bit} after remove and was {env.found_disable_bit} at probe"


def _failed_probe_keeps_intx(record: Record) -> bool | str:
    """A failed probe leaves the disable bit as it was (UIO-061); the kernel itself moves it for MSI-X."""
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    if record.result == 0 or (env.config.vectors and not env.config.msix_broken):
        return False
    if env.disable_bit == env.found_disable_bit:
        return True
    return f"the disable bit is {env.disable_bit} after a failed probe and was {env.found_disable_bit} before"


_ENABLING = frozenset({"pci_enable_msix", "pci_enable_msix_range", "pci_alloc_irq_vectors"})
_DISABLING = frozenset({"pci_disable_msix", "pci_free_irq_vectors"})


def _enables_once(record: Record) -> bool | str:
    """The first open enables MSI-X once and leaves it so; later ones do neither (UIO-047)."""
    before = record.before
    if record.result or record.given or before.life != "bound" or not record.after.msix:
        return False
    touched = [name for name, _, result in record.calls if _enabled(name, result) or name in _DISABLING]
    if len(touched) == (0 if before.opens else 1):
        return True
    which = "a further" if before.opens else "the first"
    return f"{which} open called {', '.join(touched) or 'nothing that enables MSI-X'}"


def _enabled(name: str, result: int) -> bool:
    return name in _ENABLING and (result == 0 if name == "pci_enable_msix" else result > 0)


_HARMLESS = frozenset(
    {
        *("mutex_init", "mutex_lock", "mutex_unlock", "spin_lock_irqsave", "spin_unlock_irqrestore"),
        *("dev_err", "dev_warn", "dev_info", "dev_err_ratelimited", "capable", "pci_get_drvdata"),
    }
)
"""Calls that change nothing and look at nothing of the caller's."""


def _ignores_unknown_commands(record: Record) -> bool | str:
    """An unknown command is refused before anything is fetched, looked up or changed (UIO-001)."""
    if _command(record) == k.UIO_MSI_IRQ_SET or record.before.life != "bound":
        return False
    made = {call[0] for call in record.calls} - _HARMLESS
    return f"it called {', '.join(sorted(made))}" if made else True


def _command(record: Record) -> int:
    return int(record.op.cmd & k.COMMAND_MASK)


def _if_it_is_one(check: Check) -> Check:
    """A check of UIO_MSI_IRQ_SET, for ioctls that may be something else or have no argument."""

    def holds(record: Record) -> bool | str:
        if _command(record) != k.UIO_MSI_IRQ_SET or not is_readable(record.op.pointer):
            return False
        return check.holds(record)

    return Check(check.clause, holds)


def _dma_follows_opens(record: Record) -> bool | str:
    """Bus mastering is on exactly while the device is open (UIO-057)."""
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    if record.before.life != "bound":
        return False
    if env.master == (record.after.opens > 0):
        return True
    return f"bus mastering is {'on' if env.master else 'off'} with {record.after.opens} handles open"


def _does_not_reset(record: Record) -> bool | str:
    if record.before.life != "bound":
        return False
    return "the function was reset" if any(call[0] == "pci_reset_function" for call in record.calls) else True


def _keeps_codes_inside(record: Record) -> bool | str:
    return f"returned {record.result}" if -record.result in k.KERNEL_INTERNAL else True


def _copies_outside_mutex(record: Record) -> bool | str:
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    if env.copied_under_mutex is None:
        return False
    return "copy_from_user while the mutex is held" if env.copied_under_mutex else True


_TOUCHING = frozenset(
    {"eventfd_ctx_fdget", "eventfd_ctx_put", "eventfd_signal", "request_irq", "free_irq", "synchronize_irq"}
)


def _touches_nothing_out_of_range(record: Record) -> bool | str:
    """No look-up and no irq call for a vector that is not there (UIO-010)."""
    if record.op.vector < record.before.limit or record.before.life != "bound":
        return False
    touched = {call[0] for call in record.calls} & _TOUCHING
    return f"it called {', '.join(sorted(touched))}" if touched else True


def _detaches_nothing(record: Record) -> bool | str:
    """No effect for fd -1 on an unmapped vector (UIO-013)."""
    op, before = record.op, record.before
    if op.fd >= 0 or op.vector >= before.limit or before.life != "bound" or before.wired[op.vector] is not None:
        return False
    touched = {call[0] for call in record.calls} & _TOUCHING
    return f"it called {', '.join(sorted(touched))}" if touched else True


def _wakes_pollers(record: Record) -> bool | str:
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    before, after = record.before.counters, record.after.counters
    if before == after:
        return False
    eventfd = next(i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b)
    return True if env.eventfds.woken(eventfd) else f"nobody waiting for eventfd {eventfd} was woken"


def _limits_its_log(record: Record) -> bool | str:
    env: UioMsi = record.env  # type: ignore[assignment]  # the only environment of this subsystem
    printed = env.lines_printed
    return f"{printed} lines for {FLOOD} bad ioctls" if printed > LOG_BURST else True


_ON_SET = (
    Check(c.COPY_OUTSIDE_MUTEX, _copies_outside_mutex),
    Check(c.NO_SUCH_VECTOR_TOUCHES_NOTHING, _touches_nothing_out_of_range),
    Check(c.DETACHING_TWICE_IS_FINE, _detaches_nothing),
    Check(c.NO_INTERNAL_CODES, _keeps_codes_inside),
)
_ON_IOCTL = (Check(c.UNKNOWN_COMMAND, _ignores_unknown_commands), *map(_if_it_is_one, _ON_SET))

CHECKS: Mapping[type, tuple[Check, ...]] = {
    Probe: (
        Check(c.BARS_EXPORTED, _exports_bars),
        Check(c.NO_MSIX_TABLE_MAPPED, _hides_table),
        Check(c.SMALL_BARS_MAPPABLE, _maps_small_bars),
        Check(c.REVERSE_ORDER, _released_in_order),
        Check(c.FAILED_PROBE_LEAVES_NOTHING, _failed_probe_keeps_intx),
    ),
    Remove: (
        Check(c.REVERSE_ORDER, _released_in_order),
        Check(c.INTX_LEFT_AS_FOUND, _leaves_intx_as_found),
    ),
    Open: (
        Check(c.FIRST_OPEN_ENABLES, _enables_once),
        Check(c.NO_IMPLICIT_RESET, _does_not_reset),
        Check(c.NO_INTERNAL_CODES, _keeps_codes_inside),
        Check(c.NO_DMA_WHILE_CLOSED, _dma_follows_opens),
    ),
    Close: (
        Check(c.NO_IMPLICIT_RESET, _does_not_reset),
        Check(c.NO_INTERNAL_CODES, _keeps_codes_inside),
        Check(c.NO_DMA_WHILE_CLOSED, _dma_follows_opens),
    ),
    IrqSet: _ON_SET,
    CompatIrqSet: _ON_SET,
    RawIoctl: _ON_IOCTL,
    CompatIoctl: _ON_IOCTL,
    RaiseVector: (Check(c.POLLERS_WOKEN, _wakes_pollers),),
    Flood: (Check(c.LOG_LIMITED, _limits_its_log),),
}
