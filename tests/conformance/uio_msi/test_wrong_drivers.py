"""Drivers that are wrong in one way, each caught by what is about it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.candidates.defects.uio_msi.upstream import MasksWhenRefused
from conformance.model.step import Parallel, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import FIRST_FD, PDEV_IRQ, IrqSet, Open, Probe, RaiseVector
from conformance.specs.uio_msi import PORTS_TYPE, Port
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import EBADF, EINVAL, ENODEV, ENOMEM
from tests.conformance.peers.uio_msi.keeping import KeepingDriver
from tests.conformance.uio_msi.driving import INTX, SECOND, S, blamed, caught, run


class HeldEventToOld(Upstream):
    """The old eventfd stays until the new handler is there, so the event that was held is signalled to it."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        port, irq, old = self.port, self.irqs[vector], self.triggers[vector]
        if not old:
            return super()._attach_msix(vector, trigger)
        dev_id = self.contexts + 0x10 * vector
        port.free_irq(irq, dev_id)
        port.pci_write_msi_msg(irq)
        err = port.request_irq(irq, 0, self.names[vector], dev_id)
        self.triggers[vector] = 0 if err else trigger
        if err:
            port.eventfd_ctx_put(trigger)
        port.eventfd_ctx_put(old)
        return err


class DropsABit(Upstream):
    """Looks at the command without the upper bit of its size."""

    def ioctl(self, cmd: int, arg: int) -> int:
        return super().ioctl(cmd & ~(1 << 29), arg)


class CompatTakesAll(Upstream):
    """The 32-bit entry knows one command and so does not look at it."""

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        return self.ioctl(k.UIO_MSI_IRQ_SET, arg)


class TrustsLateNames(Upstream):
    """Looks at the result of the first five allocations of names."""

    def _allocate_tables(self) -> int:
        self.contexts = self.port.kcalloc(self.max_vectors, 0x10)
        if not self.contexts:
            return -ENOMEM
        self.triggers = [0] * self.max_vectors
        self.names = [self.port.kasprintf(f"vector {vector}") for vector in range(self.max_vectors)]
        if all(self.names[:5]):
            return 0
        self._free_tables()
        return -ENOMEM


class TrustsTheSixthMap(Upstream):
    """Maps every BAR and looks at the result of the first five."""

    def _allocate_tables(self) -> int:
        maps = [self.port.ioremap(start, size) for _, _, start, size in self._bars()]
        if all(maps[:5]):
            return super()._allocate_tables()
        for token in filter(None, maps):
            self.port.iounmap(token)
        return -ENOMEM


class AnswersOne(Upstream):
    """A vector above the third answers 1."""

    def _set(self, vector: int, fd: int) -> int:
        return super()._set(vector, fd) or int(vector > 3)


class ThirtyTwoBits(Upstream):
    """Remembers what is mapped in a mask that has too few bits."""

    mask = 0

    def _set(self, vector: int, fd: int) -> int:
        err = super()._set(vector, fd)
        if vector < self.max_vectors:
            bit = 1 << vector % 32
            self.mask = self.mask | bit if self.triggers[vector] else self.mask & ~bit
        return err

    def _detach(self, vector: int) -> None:
        if self.open_count or self.mask >> vector % 32 & 1:
            super()._detach(vector)


class DropsTheSixtyFourth(Upstream):
    """Loses an event now and then."""

    events = 0

    def handler(self, irq: int, dev_id: int) -> int:
        self.events = (self.events + 1) % 64
        return super().handler(irq, dev_id) if self.events else k.IRQ_HANDLED


class ReadyTooLate(Upstream):
    """Allocates what a set needs once the device is registered."""

    scratch = 0

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        err = super().probe(irq, hdr_type, is_virtfn)
        if not err:
            self.scratch = self.port.kzalloc(8)
        return err

    def _set(self, vector: int, fd: int) -> int:
        if not self.scratch:
            raise RuntimeError("NULL dereference")
        return super()._set(vector, fd)


class EnablesTwice(Upstream):
    """Enables, has second thoughts, and enables again."""

    def _switch_on(self) -> int:
        err = super()._switch_on()
        if err or not self.msix:
            return err
        self.port.pci_disable_msix()
        return super()._switch_on()


class SixPorts(Upstream):
    """Has room for as many port regions as there are BARs."""

    def _ports(self, bars: list[tuple[int, int, int, int]]) -> PORTS_TYPE:
        return tuple(
            (f"BAR{bar}", start, size, k.UIO_PORT_X86) for bar, flags, start, size in bars if flags & k.IORESOURCE_IO
        )


class FetchesFirst(Upstream):
    """Fetches the argument, and only then looks at the command."""

    def ioctl(self, cmd: int, arg: int) -> int:
        if cmd != k.UIO_MSI_IRQ_SET:
            self.port.copy_from_user(arg, 8)
        return super().ioctl(cmd, arg)


class LocksTwice(Upstream):
    """Its handler takes a spinlock that it holds."""

    def handler(self, irq: int, dev_id: int) -> int:
        for _ in range(2):
            self.port.spin_lock_irqsave(0x200)
        handled = super().handler(irq, dev_id)
        for _ in range(2):
            self.port.spin_unlock_irqrestore(0x200)
        return handled


class UnlocksAnother(Upstream):
    """Takes one spinlock and gives another one back."""

    def _detach(self, vector: int) -> None:
        self.port.spin_lock_irqsave(0x300)
        self.port.spin_unlock_irqrestore(0x308)
        super()._detach(vector)


class KeepsTheSpinlock(Upstream):
    """Its handler returns with a spinlock held."""

    def handler(self, irq: int, dev_id: int) -> int:
        self.port.spin_lock_irqsave(0x200)
        return super().handler(irq, dev_id)


class ControlsNothing(Upstream):
    """Its irqcontrol follows a trigger that need not be there."""

    def irqcontrol(self, on: int) -> int:
        if not self.triggers[0]:
            raise RuntimeError("NULL dereference")
        return super().irqcontrol(on)


class UnmasksForOneOnly(Upstream):
    """Takes every number but 1 for a request to mask."""

    def irqcontrol(self, on: int) -> int:
        return super().irqcontrol(int(on == 1))


class Registers:
    """The port, with another irq for the UIO core."""

    def __init__(self, port: Port, irq: int) -> None:
        self.port = port
        self.irq = irq

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)

    def uio_register_device(self, name: str, version: str, _irq: int, *rest: Any) -> int:
        """Register with that irq."""
        return self.port.uio_register_device(name, version, self.irq, *rest)


class HasNoIrq(Upstream):
    """Tells the core that there is no interrupt, so that nobody can write."""

    def __init__(self, port: Port) -> None:
        super().__init__(Registers(port, k.UIO_IRQ_NONE))


class CoreTakesTheIrq(Upstream):
    """Has the core request the line, without a handler for it to call."""

    def __init__(self, port: Port) -> None:
        super().__init__(Registers(port, PDEV_IRQ))


class MasksAtProbe(Upstream):
    """Masks INTx at probe, and leaves it so when a later step fails."""

    def _set_up(self, irq: int) -> int:
        err = super()._set_up(irq)
        if not self.msix:
            self.port.pci_intx(0)
        return err


class SmallTable(Upstream):
    """Takes fds above 1023 for a mistake of its own kind."""

    def _set(self, vector: int, fd: int) -> int:
        return -EINVAL if vector < self.max_vectors and 1024 <= fd < 2**17 else super()._set(vector, fd)


class ComplainsOfFds(Upstream):
    """Prints a line for each fd that is none."""

    def _set(self, vector: int, fd: int) -> int:
        err = super()._set(vector, fd)
        if err == -EBADF:
            self.port.dev_err("bad fd")
        return err


class KeepsMastering(Upstream):
    """Leaves bus mastering on when MSI-X cannot be enabled."""

    def _switch_on(self) -> int:
        err = super()._switch_on()
        if err:
            self.port.pci_set_master()
        return err


class TakesZeroForNone(Upstream):
    """Unmaps for fd 0 as well, which is the standard input of most processes and may be an eventfd."""

    def _set(self, vector: int, fd: int) -> int:
        return super()._set(vector, fd or -1)


class ComplainsOfCommands(Upstream):
    """Prints a line for each command that it does not know."""

    def ioctl(self, cmd: int, arg: int) -> int:
        err = super().ioctl(cmd, arg)
        if err == -k.ENOTTY:
            self.port.dev_err("unknown command")
        return err


class ComplainsOfRefusals(Upstream):
    """Prints a line when request_irq fails."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        err = super()._attach_msix(vector, trigger)
        if err:
            self.port.dev_warn("request_irq failed")
        return err


class HandlesByCapability(Upstream):
    """Takes every interrupt of a function with the MSI-X capability for a message, also after falling back."""

    def handler(self, irq: int, dev_id: int) -> int:
        if self.port.pci_msix_vec_count() < 0:
            return super().handler(irq, dev_id)
        self.port.eventfd_signal(self.triggers[0])
        return k.IRQ_HANDLED


class RemembersTheFirstMask(Upstream):
    """Restores what the first probe found, whatever a later one finds."""

    first: int | None = None

    def _set_intx_mask(self, masked: bool) -> None:
        if self.first is None:
            self.first = masked
        super()._set_intx_mask(bool(self.first))


class CountsBrokenOpens(Upstream):
    """Counts an open before it enables, and forgets to take one kind of failure back."""

    def open(self) -> int:
        err = super().open()
        if err == -k.EIO:
            self.open_count += 1
        return err


class SharesItsNotes(Upstream):
    """Keeps the vector that interrupted in one place for all handlers."""

    vector = 0

    def handler(self, irq: int, dev_id: int) -> int:
        if not self.msix:
            return super().handler(irq, dev_id)
        self.vector = (dev_id - self.contexts) // 0x10
        self.port.uio_event_notify()
        self.port.eventfd_signal(self.triggers[self.vector])
        return k.IRQ_HANDLED


class ReadySoon(Upstream):
    """Says that it is bound once the device is registered, so that an open that follows at once fails."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.is_probed = False

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        self.is_probed = False
        err = super().probe(irq, hdr_type, is_virtfn)
        self.is_probed = not err
        return err

    def open(self) -> int:
        return super().open() if self.is_probed else -ENODEV


class CompatWithoutMutex(Upstream):
    """Takes the mutex for 64-bit callers only."""

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        if cmd != k.UIO_MSI_IRQ_SET:
            return -k.ENOTTY
        data = self.port.copy_from_user(arg, 8)
        if len(data) < 8:
            return -k.EFAULT
        return self._set(*struct.unpack("=Ii", data)) if self.bound else -ENODEV


class RollsBackOneLess(KeepingDriver):
    """An open that is refused one of its irqs gives back one too few."""

    def _switch_off(self, requested: int) -> None:
        super()._switch_off(requested if requested == self.max_vectors else max(0, requested - 1))


WRONG: tuple[tuple[type[Upstream], str, str], ...] = (
    (HeldEventToOld, "UIO-043", "inside"),
    (DropsABit, "UIO-003", "inputs"),
    (CompatTakesAll, "UIO-007", "inputs"),
    (TrustsLateNames, "UIO-060", "probes-64"),
    (TrustsTheSixthMap, "UIO-060", "probes-six-bars"),
    (AnswersOne, "UIO-016", "vectors"),
    (ThirtyTwoBits, "UIO-054", "vectors-far"),
    (DropsTheSixtyFourth, "UIO-035", "many"),
    (ReadyTooLate, "UIO-064", "open-inside-probe"),
    (EnablesTwice, "UIO-047", "1,1,1"),
    (SixPorts, "UIO-070", "world-20"),
    (FetchesFirst, "UIO-001", "inputs"),
    (LocksTwice, "UIO-078", "many"),
    (UnlocksAnother, "UIO-078", "1,1,1"),
    (KeepsTheSpinlock, "UIO-078", "many"),
    (ControlsNothing, "UIO-078", "inputs"),
    (UnmasksForOneOnly, "UIO-083", "intx-writes"),
    (HasNoIrq, "UIO-083", "intx-writes"),
    (CoreTakesTheIrq, "UIO-078", "intx-writes"),
    (MasksAtProbe, "UIO-061", "intx-probes"),
    (SmallTable, "UIO-015", "inputs"),
    (ComplainsOfFds, "UIO-087", "flood"),
    (KeepsMastering, "UIO-057", "probes"),
    (TakesZeroForNone, "UIO-015", "inputs"),
    (ComplainsOfCommands, "UIO-087", "flood"),
    (ComplainsOfRefusals, "UIO-087", "flood"),
    (HandlesByCapability, "UIO-081", "intx-fallback"),
    (RemembersTheFirstMask, "UIO-084", "intx-bindings"),
    (CountsBrokenOpens, "UIO-048", "probes"),
    (ReadySoon, "UIO-064", "open-inside-probe"),
    (RollsBackOneLess, "UIO-054", "probes"),
    (MasksWhenRefused, "UIO-021", "intx-inputs"),
)
"""(driver, clause it breaks, scope that shows it)."""


@pytest.mark.parametrize(("factory", "clause", "scope"), WRONG, ids=lambda value: getattr(value, "__name__", None))
def test_wrong_driver_is_caught(factory: type[Upstream], clause: str, scope: str) -> None:
    """By the scope that is about it, and under the clause's own name."""
    assert clause in caught(factory, scope)


def test_handlers_of_two_vectors_at_once() -> None:
    """What one of them notes down the other must not overwrite."""
    both = (Probe(), Open(), IrqSet(0, FIRST_FD), IrqSet(1, SECOND))
    race = Parallel(Step(RaiseVector(0)), Step(RaiseVector(1)), (0,))

    assert run(Upstream, *both, race).failure is None
    assert blamed(run(SharesItsNotes, *both, race)) == "UIO-033"


def test_compat_calls_exclude_others_too() -> None:
    """UIO-007: found among the races."""
    race = S.races["compat-set"]
    found = {
        blamed(report)
        for k in range(30)
        if (report := run(CompatWithoutMutex, *race.steps, Parallel(race.left, race.right, (k,)))).failure
    }

    assert found & {"UIO-026", "UIO-007", "UIO-017"}


class StoresUnlocked(Upstream):
    """Its handler reads the eventfd under a spinlock, and whoever swaps it does without."""

    def _attach_intx(self, trigger: int) -> int:
        old = self.triggers[0]
        if not old:
            return super()._attach_intx(trigger)
        self.triggers[0] = trigger
        self.port.eventfd_ctx_put(old)
        self.port.pci_intx(1)
        return 0

    def handler(self, irq: int, dev_id: int) -> int:
        self.port.spin_lock_irqsave(0x80)
        handled = super().handler(irq, dev_id)
        self.port.spin_unlock_irqrestore(0x80)
        return handled


def test_spinlock_of_a_handler_keeps_nobody_else_out() -> None:
    """UIO-027: another CPU goes on while the handler holds it."""
    race = S.races["replace-intx"]
    found = {
        blamed(report)
        for k in range(12)
        for n in range(1, 10)
        if (
            report := run(StoresUnlocked, *race.steps, Parallel(race.right, race.left, (k, k + n)), config=INTX)
        ).failure
    }

    assert "UIO-027" in found


def test_falling_back_needs_intx() -> None:
    """Without it, there is no mode left in which an open could succeed (UIO-066, UIO-068)."""

    class FallsBackToNothing(Upstream):
        """Falls back where MSI-X fails, whether INTx can be masked or not."""

        def _set_up(self, irq: int) -> int:
            err = super()._set_up(irq)
            if not err or self.msix:
                return err
            self.max_vectors = 1
            return self._allocate_tables()

    broken = Config(msix_broken=True, intx=False)

    assert blamed(run(FallsBackToNothing, Probe(), Open(), config=broken)) == "UIO-068"


def test_driver_that_does_nothing_fails() -> None:
    """At once: probe says 0 and nothing is registered."""

    class Nothing:
        """Returns 0 from everything."""

        def __init__(self, port: Port) -> None:
            pass

        def __getattr__(self, name: str) -> Callable[..., int]:
            return lambda *_: 0

    assert blamed(run(Nothing, Probe())) == "UIO-059"


def test_fetching_twice_is_a_breach() -> None:
    """UIO-005."""

    class Twice(Upstream):
        """Fetches the argument once for the range check and again for use."""

        def ioctl(self, cmd: int, arg: int) -> int:
            if cmd == k.UIO_MSI_IRQ_SET:
                self.port.copy_from_user(arg, 4)
            return super().ioctl(cmd, arg)

    assert blamed(run(Twice, Probe(), Open(), IrqSet(0, FIRST_FD))) == "UIO-005"
