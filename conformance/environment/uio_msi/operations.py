"""What each operation does: to the driver, or in the world around it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from conformance.environment.uio_msi.blame import blame
from conformance.environment.uio_msi.process import Argument
from conformance.model.uio_msi.operations import (
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
from conformance.specs.clause import Clause
from conformance.specs.uio_msi import clauses as c
from conformance.specs.uio_msi.constants import (
    COMMAND_MASK,
    EFAULT,
    EINVAL,
    EIO,
    ENODEV,
    ENOSYS,
    UIO_IRQ_NONE,
    UIO_MSI_IRQ_SET,
)
from conformance.verdict import Crash, Violation

if TYPE_CHECKING:
    from conformance.environment.uio_msi.world import UioMsi

FLOOD = 1000

# -- Callbacks of the driver


def _probe(world: UioMsi, _op: Probe) -> int:
    device, intx = world.device, world.intx
    device.probing = True
    device.disorder = ""
    intx.found_disable_bit = intx.disable_bit
    intx.is_used = not world.config.vectors or world.config.msix_broken
    hdr_type = world.config_space.header_type
    irq = 0 if world.config.virtfn else world.config.irq
    result = world.enter_int(world.driver.probe, irq, hdr_type, world.config.virtfn)
    device.probing = False
    device.bound = result == 0
    if result:
        device.drvdata = 0
    _at_exit(world, c.MEMORY_SAFE)
    return result


def _remove(world: UioMsi, _op: Remove) -> int:
    device = world.device
    device.disorder = ""
    world.enter(world.driver.remove)
    device.bound = False
    device.drvdata = 0
    _at_exit(world, c.MEMORY_SAFE)
    return 0


def _open(world: UioMsi, op: Open) -> int:
    uio = world.uio
    if not uio.registered:
        return -ENODEV
    uio.take_info_lock()
    if not uio.registered:
        uio.drop_info_lock()
        return -EINVAL
    was_users = world.intx.is_users
    if not uio.opens:
        # From here on the disable bit is the driver's affair, but for what user space writes later.
        world.intx.is_users = False
    if not op.rawio:
        world.process.unprivileged.add(world.frame)
    if world.device.probing:
        result = _open_while_probing(world)
    else:
        result = world.enter_int(world.driver.open)
    if result == 0:
        uio.opens += 1
    elif was_users:
        world.intx.is_users = True
    uio.drop_info_lock()
    _at_exit(world, c.MEMORY_SAFE)
    return result


def _open_while_probing(world: UioMsi) -> int:
    """An open right after registration: all it needs must be there (UIO-064)."""
    try:
        result = world.enter_int(world.driver.open)
    except (Crash, Violation) as breach:
        blame(world, breach, c.REGISTERED_LAST, "open during probe")
    if result == 0:
        _detach_while_probing(world)
    elif not (world.frame in world.process.unprivileged or world.frame.given or world.config.msix_broken):
        raise Violation(c.REGISTERED_LAST, f"open during probe returned {result}")
    world.hold(c.REGISTERED_LAST)
    return result


def _detach_while_probing(world: UioMsi) -> None:
    """The first ioctl may follow such an open at once; this one has nothing to do."""
    try:
        result = _irq_set(world, IrqSet(0, -1))
    except (Crash, Violation) as breach:
        blame(world, breach, c.REGISTERED_LAST, "ioctl during probe")
    if result:
        raise Violation(c.REGISTERED_LAST, f"unmapping vector 0 during probe returned {result}")


def _close(world: UioMsi, _op: Close) -> int:
    uio = world.uio
    if not uio.registered and not uio.is_old:
        uio.opens -= 1
        return 0
    uio.take_info_lock()
    result = 0
    if uio.registered:
        result = world.enter_int(world.driver.release)
    elif uio.is_old:
        try:
            result = world.enter_int(world.driver.release)
        except (Crash, Violation) as breach:
            blame(world, breach, c.CLOSE_AFTER_REMOVE, "release after remove")
    uio.opens -= 1
    uio.drop_info_lock()
    _at_exit(world, c.MEMORY_SAFE)
    return result


def _write(world: UioMsi, op: Write) -> int:
    uio = world.uio
    if not uio.registered:
        return -EIO
    uio.take_info_lock()
    result = -EIO
    if uio.registered and uio.irq != UIO_IRQ_NONE:
        result = world.enter_int(world.driver.irqcontrol, op.value) if uio.has_irqcontrol else -ENOSYS
    uio.drop_info_lock()
    _at_exit(world, c.MEMORY_SAFE)
    return result


def _at_exit(world: UioMsi, clause: Clause) -> None:
    """No lock stays held when a callback returns."""
    if world.mutexes.locks.owners or world.spinlocks.locks.owners:
        world.mutexes.must_be_free(clause)
        world.spinlocks.must_be_free(clause)


# -- Ioctls


def _irq_set(world: UioMsi, op: IrqSet) -> int:
    return _ioctl(world, world.driver.ioctl, UIO_MSI_IRQ_SET, PAGE, struct.pack("=Ii", op.vector, op.fd))


def _compat_irq_set(world: UioMsi, op: CompatIrqSet) -> int:
    return _ioctl(world, world.driver.compat_ioctl, UIO_MSI_IRQ_SET, PAGE, struct.pack("=Ii", op.vector, op.fd))


def _raw_ioctl(world: UioMsi, op: RawIoctl | Flood) -> int:
    data = struct.pack("=Ii", op.vector, op.fd)
    return _ioctl(world, world.driver.ioctl, op.cmd & COMMAND_MASK, op.pointer, data)


def _compat_ioctl(world: UioMsi, op: CompatIoctl) -> int:
    data = struct.pack("=Ii", op.vector, op.fd)
    return _ioctl(world, world.driver.compat_ioctl, op.cmd & COMMAND_MASK, op.pointer, data)


def _flood(world: UioMsi, op: Flood) -> int:
    world.log.printed = 0
    world.irqs.refusal = op.refusal
    result = _repeat(lambda: _raw_ioctl(world, op))
    world.irqs.refusal = 0
    return result


def _flood_opens(world: UioMsi, op: FloodOpens) -> int:
    world.log.printed = 0
    return _repeat(lambda: _open_and_close(world, Open(op.rawio)))


def _open_and_close(world: UioMsi, op: Open) -> int:
    return _open(world, op) or _close(world, Close())


def _flood_writes(world: UioMsi, op: FloodWrites) -> int:
    world.log.printed = 0
    return _repeat(lambda: _write(world, Write(op.value)))


def _repeat(call: Callable[[], int]) -> int:
    """The result of all of them, or the first that differs from the one before."""
    first = call()
    others = (call() for _ in range(FLOOD - 1))
    return next((result for result in others if result != first), first)


def _ioctl(world: UioMsi, entry: Callable[[int, int], int], cmd: int, pointer: int, data: bytes) -> int:
    if not world.uio.registered:
        return -ENODEV
    process, frame = world.process, world.frame
    if any(world.eventfds.references):
        # What is unmapped now, the driver has to mask, whoever unmasked it.
        world.intx.is_users = False
    argument = process.begin(Argument(pointer, data))
    process.copied_under_mutex = None
    references = sum(world.eventfds.references)
    result = world.enter_int(entry, cmd, pointer)
    del process.arguments[frame]
    if world.msix.order and cmd == UIO_MSI_IRQ_SET:
        _note_mapping(world, argument, result, references)
    _at_exit(world, c.BAD_POINTER if result == -EFAULT else c.MEMORY_SAFE)
    return result


def _note_mapping(world: UioMsi, argument: Argument, result: int, references: int) -> None:
    """Which vectors have an eventfd, for those whose action stays where they have none."""
    msix, vector = world.msix, argument.vector
    if vector not in msix.irq_of:
        return
    if not result and argument.fd >= 0:
        msix.mapped(vector)
    elif not result or (not argument.beside and sum(world.eventfds.references) < references):
        msix.unmapped(vector, alone=not argument.beside)
    if not result:
        (msix.unsure.add if vector in argument.beside else msix.unsure.discard)(vector)


# -- The function, and who else is there


def _raise_vector(world: UioMsi, op: RaiseVector) -> int:
    world.msix.raise_vector(op.vector)
    return 0


def _raise_many(world: UioMsi, op: RaiseMany) -> int:
    for _ in range(op.count):
        world.msix.raise_vector(op.vector)
    return 0


def _set_intx(world: UioMsi, op: SetIntx) -> int:
    world.intx.set_level(op.level)
    return 0


def _other_interrupt(world: UioMsi, _op: OtherInterrupt) -> int:
    world.intx.interrupt_of_another()
    return 0


def _config_intx(world: UioMsi, op: ConfigIntx) -> int:
    world.config_space.keep_user_out()
    world.intx.is_users = not op.disable
    world.intx.set_disable_bit(op.disable)
    return 0


def _device_reset(world: UioMsi, _op: DeviceReset) -> int:
    world.msix.lose_messages()
    return 0


def _list_interrupts(world: UioMsi, _op: ListInterrupts) -> int:
    world.handlers.list_interrupts()
    return 0


# -- The process's own descriptors


def _close_fd(world: UioMsi, op: CloseFd) -> int:
    return world.eventfds.files.close_number(op.fd)


def _reuse_fd(world: UioMsi, op: ReuseFd) -> int:
    world.eventfds.files.reuse_number(op.fd, None if op.pipe else len(world.config.eventfds))
    return 0


def _read_eventfd(world: UioMsi, op: ReadEventfd) -> int:
    return world.eventfds.files.read(op.fd)


OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
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
    FloodOpens: _flood_opens,
    FloodWrites: _flood_writes,
}
