"""What of uio_msi can be asked of vfio-pci, and seen."""

from __future__ import annotations

import struct
from functools import cached_property
from typing import Any

from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    NEVER_OPENED_FD,
    PAGE_END,
    Close,
    CloseFd,
    IrqSet,
    ListInterrupts,
    Open,
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
from conformance.real.adapter import Rate, rate
from conformance.real.guest.adapter import GuestAdapter, round_trips
from conformance.real.guest.channel import call
from conformance.real.guest.functions import SIZES
from conformance.real.guest.world import outside
from conformance.real.linux_vfio.bench import VfioBench
from conformance.real.linux_vfio.world import SET_IRQS_SIZE, TRIGGER_EVENTFD, TRIGGER_NONE, Vfio
from conformance.specs.uio_msi.constants import COMMAND_MASK, IRQ_SET_SIZE, UIO_MSI_IRQ_SET

_OTHERS = ((0x3B00, 0x3BFF), (0x5400, 0x54FF))
"""Low halves of commands that VFIO or the system call itself knows."""


class LinuxVfio(GuestAdapter):
    """vfio-pci of a Debian kernel."""

    title = "vfio-pci of Linux"
    world = Vfio
    scripts = "linux_vfio"
    profile = "vfio-like"
    capabilities = frozenset({"intx", "irqcontrol"})
    operations = frozenset({
        Probe, Remove, Open, Close, IrqSet, RawIoctl, RaiseVector, RaiseMany, SetIntx, Write, CloseFd, ReuseFd,
        ReadEventfd, ListInterrupts,
    })  # fmt: skip
    view_fields = frozenset({"registered", "enabled", "counters", "pending", "masked"})
    clauses = frozenset(
        f"UIO-{n:03}"
        for n in (
            *range(1, 5), 6, *range(9, 17), 18, 19, 20, 23, 24, 25, 33, 34, 35, *range(39, 43), 44, 45, 47, 52, 53, 55,
            56, 59, 67, 72, 74, 77, 78, 81, 82, 83, 84, 91,
        )
    )  # fmt: skip

    def environment(self, config: Config, profile: Any) -> Vfio:
        """A function that is not bound yet, and the process's eventfds."""
        del profile
        return Vfio(self.kernel, config, self.keeps_intx)

    @cached_property
    def keeps_intx(self) -> bool:
        """Whether a refused eventfd leaves INTx as it was, found by trying."""
        with outside(Vfio(self.kernel, Config(vectors=0), keeps_intx=True)) as world:
            for op in (Probe(), Open(), IrqSet(0, FIRST_FD), IrqSet(0, NEVER_OPENED_FD)):
                world.perform(op)
            before = world.view().counters
            world.perform(SetIntx(level=True))
            return bool(world.view().counters != before)

    def bench(self) -> VfioBench:
        """A function, once one is bound."""
        return VfioBench(self.kernel)

    def builds(self, config: Config) -> bool:
        """Functions of the sizes that the machine has, or one that has INTx alone."""
        odd = config.bridge or config.cardbus or config.virtfn or config.left_masked or config.core_41
        line = config.intx and config.irq not in (0, 0x8000_0000)
        return not odd and not config.msix_broken and (config.vectors in SIZES or (not config.vectors and line))

    def legal(self, state: Any, op: Any) -> bool:
        """VFIO waits with an unbinding until the last handle is closed; its argument is longer than 8 bytes."""
        match op:
            case Remove():
                return not state.opens
            case Open(rawio):
                return bool(rawio)
            case Write(value):
                return value in (0, 1)
            case RawIoctl(cmd, pointer):
                low = cmd & 0xFFFF
                if cmd & COMMAND_MASK != UIO_MSI_IRQ_SET:
                    return not any(least <= low <= most for least, most in _OTHERS)
                return not PAGE_END - SET_IRQS_SIZE < pointer <= PAGE_END - IRQ_SET_SIZE
            case _:
                return True

    def rates(self) -> tuple[Rate, ...]:
        """Events raised outside, and by the driver itself, and read inside; vectors enabled and disabled."""
        with outside(Vfio(self.kernel, Config(vectors=4))) as world:
            for op in (Probe(), Open(), IrqSet(0, FIRST_FD)):
                world.perform(op)
            channel, files = world.channel, world.files

            def fired() -> None:
                world.doorbell.ring(0)
                files.read_ready(FIRST_FD)

            looped = [world.setting(TRIGGER_NONE, 0, 1, b""), *files.reading(FIRST_FD)]
            several = struct.pack("<4i", *(FIRST_FD, -1, -1, -1))
            switched = [world.setting(TRIGGER_NONE, 0, 0, b""), world.setting(TRIGGER_EVENTFD, 0, 4, several)]
            told = (
                *round_trips(channel),
                rate("event, driver, read of the eventfd", 2400, fired),
                rate("event by the driver, read of the eventfd", 1160, lambda: channel.ask(looped)),
                rate("4 vectors disabled and enabled", 400, lambda: channel.ask(switched)),
            )
        with outside(Vfio(self.kernel, Config(vectors=64))) as world:
            world.perform(Probe())
            return (*told, rate("handle opened, 16 vectors enabled, one set, closed", 120, lambda: _visit(world)))


def _visit(world: Vfio) -> None:
    """A handle that does not stay."""
    world.handles.append(world.channel.must(world.opening_handle()))
    sixteen = struct.pack("<16i", *(-1,) * 16)
    world.channel.must_all([
        world.setting(TRIGGER_EVENTFD, 0, 16, sixteen),
        world.setting(TRIGGER_EVENTFD, 0, 1, sixteen[:4]),
        call("close", world.handles.pop()),
    ])  # fmt: skip
