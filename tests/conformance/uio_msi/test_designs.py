"""Designs that nobody here had when the suite was written, and wrong code of the same kind."""

from __future__ import annotations

import pytest

from conformance.candidates.builtin.uio_msi.linux import Linux
from conformance.candidates.builtin.uio_msi.upstream import STATE_MUTEX, Upstream
from conformance.candidates.load import load
from conformance.model.step import Fault, Parallel, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    PAGE,
    Close,
    CompatIoctl,
    FloodOpens,
    FloodWrites,
    IrqSet,
    Open,
    Probe,
    RawIoctl,
    Remove,
    SetIntx,
    Write,
)
from conformance.specs.uio_msi import constants as k
from conformance.strategies.uio_msi.domains import COMPAT_POINTER, POINTER
from tests.conformance.uio_msi.driving import INTX, S, blamed, run, warned

OPENED = (Probe(), Open())
UP = (*OPENED, IrqSet(0, FIRST_FD), SetIntx(True))
SHORT = (Probe(), Step(Open(), (Fault("pci_enable_msix", 1),)), Close())


class TornDownFirst(Upstream):
    """Lets those who find it torn down, but still registered, do nothing, and knows no vector then."""

    def irqcontrol(self, on: int) -> int:
        return max(super().irqcontrol(on), 0)

    def ioctl(self, cmd: int, arg: int) -> int:
        err = super().ioctl(cmd, arg)
        return err if self.bound else -k.ERANGE


class SignalsTheDead(TornDownFirst):
    """Asks before the mutex who is to be told, and tells him."""

    def irqcontrol(self, on: int) -> int:
        trigger = self.triggers[0]
        self.port.mutex_lock(STATE_MUTEX)
        if trigger:
            self.port.eventfd_signal(trigger)
        self.port.mutex_unlock(STATE_MUTEX)
        return 0


def test_remove_may_tear_down_before_it_unregisters() -> None:
    """Who is let in between finds nothing mapped, and any answer will do; nobody is told any more."""
    for at in range(12):
        write = Parallel(Step(Write(1)), Step(Remove()), (at,))
        assert run(TornDownFirst, *UP, write, config=INTX).failure is None
        ioctl = Parallel(Step(IrqSet(0, FIRST_FD + 1)), Step(Remove()), (at,))
        assert run(TornDownFirst, *UP[:-1], ioctl).failure is None
    assert blamed(run(SignalsTheDead, *UP, Parallel(Step(Write(1)), Step(Remove()), (0,)), config=INTX)) == "UIO-027"


class Quiet(Upstream):
    """Says once that it was opened."""

    said = False

    def open(self) -> int:
        err = super().open()
        if not err and not self.said:
            self.port.dev_info("opened")
            self.said = True
        return err


class Refuses(Upstream):
    """Says who was not let in."""

    def open(self) -> int:
        err = super().open()
        if err:
            self.port.dev_warn("not for you")
        return err


class Writes(Upstream):
    """Says what was written."""

    def irqcontrol(self, on: int) -> int:
        self.port.dev_info(f"irqcontrol({on})")
        return super().irqcontrol(on)


@pytest.mark.parametrize("opens", [(), (Open(),)])
def test_every_call_of_user_space_may_flood_the_log(opens: tuple[Open, ...]) -> None:
    """Ioctls are not the only ones (UIO-087)."""
    floods = (FloodOpens(), FloodOpens(rawio=False))
    for driver in (Upstream, Linux, Quiet):
        for flood in floods:
            assert not warned(run(driver, Probe(), *opens, flood, profile=driver.profile))
    logs = load("builtin:UIO-L15", S).factory
    assert warned(run(logs, Probe(), *opens, FloodOpens())) == {"UIO-087"}
    assert warned(run(Refuses, Probe(), *opens, FloodOpens(rawio=False))) == {"UIO-087"}


def test_writes_may_flood_the_log() -> None:
    """With MSI-X, and with INTx while nothing is mapped."""
    for config in (Config(), INTX):
        assert not warned(run(Upstream, *OPENED, FloodWrites(), config=config))
        assert warned(run(Writes, *OPENED, FloodWrites(-1), config=config)) == {"UIO-087"}


class ShortUntilClosed(Upstream):
    """Takes as many vectors as can be had, and asks for all of them again at the next open."""

    def _switch_on(self) -> int:
        if not self.msix:
            return super()._switch_on()
        self.port.pci_set_master()
        self.max_vectors = len(self.names)
        got = self.port.pci_enable_msix_range(tuple(range(self.max_vectors)), 1, self.max_vectors)
        if got < 0:
            self.port.pci_clear_master()
            return got
        self.max_vectors = got
        self.irqs = [self.port.pci_irq_vector(vector) for vector in range(got)]
        return 0


def test_few_vectors_last_until_the_last_release() -> None:
    """A driver that never asks for more again breaks UIO-050."""
    assert not warned(run(ShortUntilClosed, *SHORT, Open(), IrqSet(1, FIRST_FD)))
    assert warned(run(load("builtin:UIO-L17", S).factory, *SHORT, Open())) == {"UIO-050"}


@pytest.mark.parametrize("size", [129, 257, 513, 1025])
def test_each_bit_of_the_table_size_counts(size: int) -> None:
    """A table of 1025 entries has more than 64 (UIO-065)."""
    wrong = load("builtin:UIO-L18", S).factory
    ops = (*OPENED, IrqSet(63, FIRST_FD))

    report = run(wrong, *ops, config=Config(vectors=size))

    assert (report.failure is not None) == (size == 1025)
    assert run(Upstream, *ops, config=Config(vectors=size)).failure is None


class AsksNotForItsIrq(Upstream):
    """Falls back to whatever irq there is, and requests it at open."""

    def _set_up(self, irq: int) -> int:
        self.requested = False
        err = super()._set_up(irq or 1)
        if err:
            self.msix, self.max_vectors = False, 1
            err = self._allocate_tables()
        self.irq = irq
        return err

    def _switch_on(self) -> int:
        err = super()._switch_on()
        if err or self.msix:
            return err
        err = self.port.request_irq(self.irq, k.IRQF_SHARED, self.names[0], self.contexts)
        if err:
            self.port.pci_clear_master()
        return err


@pytest.mark.parametrize("vectors", [0, 2])
def test_without_an_irq_open_may_fail(vectors: int) -> None:
    """No set succeeds then (UIO-094); where MSI-X was given up, no open that fails for good is as it should be."""
    refused = Step(Probe(), (Fault("pci_enable_msix", -k.ENOSPC),) if vectors else ())
    away = Config(vectors=vectors, irq=k.IRQ_NOTCONNECTED)

    assert warned(run(AsksNotForItsIrq, refused, Open(), Open(), config=away)) == ({"UIO-068"} if vectors else set())
    assert blamed(run(AsksNotForItsIrq, refused, Open(), config=Config(vectors=vectors, irq=0))) == "UIO-094"


class DropsBits(Upstream):
    """Takes for a pointer of a 32-bit process what s390 does, and for one of a 64-bit process 32 bits."""

    def ioctl(self, cmd: int, arg: int) -> int:
        return super().ioctl(cmd, arg & 0xFFFF_FFFF)

    def compat_ioctl(self, cmd: int, arg: int) -> int:
        return super().ioctl(cmd, arg & 0x7FFF_FFFF)


@pytest.mark.parametrize(
    "op", [RawIoctl(pointer=PAGE | 1 << 32, fd=FIRST_FD), CompatIoctl(pointer=PAGE | 1 << 31, fd=FIRST_FD)]
)
def test_each_bit_of_a_pointer_counts(op: RawIoctl | CompatIoctl) -> None:
    """What is mapped lies elsewhere than what differs from it in one bit; both are among the inputs tried."""
    assert blamed(run(DropsBits, *OPENED, op)) in ("UIO-004", "UIO-006", "UIO-007")
    assert run(Upstream, *OPENED, op).failure is None
    assert op.pointer in (*POINTER.values, *COMPAT_POINTER.values)


class ResetsAtProbe(Upstream):
    """Begins with a function that was reset."""

    def _set_up(self, irq: int) -> int:
        self.port.pci_reset_function()
        return super()._set_up(irq)


def test_reset_at_probe_keeps_the_disable_bit() -> None:
    """pci_restore_state gives back what it was; only open and release must not reset (UIO-058)."""
    refused = Step(Probe(), (Fault("uio_register_device", -k.ENOMEM),))
    masked = Config(vectors=0, left_masked=True)

    assert run(ResetsAtProbe, refused, *UP, Close(), Remove(), config=masked).failure is None
    assert blamed(run(load("builtin:UIO-U04", S).factory, *OPENED)) == "UIO-058"
