"""The zoo of uio_msi: drivers that are right but for one known defect.

Most defects are those of the driver posted in 2015 (UIO-D01 and on), the rest come from its
relatives (UIO-U01 and on). INTx defects live in drivers whose probe of INTx works.
"""

from __future__ import annotations

import struct

from conformance.candidates.builtin.uio_msi.upstream import SIZEOF_CONTEXT, STATE_MUTEX, Upstream
from conformance.candidates.defect import Defect
from conformance.specs.uio_msi import MAPS_TYPE, Port
from conformance.specs.uio_msi.constants import (
    EBUSY,
    EFAULT,
    EINVAL,
    ENODEV,
    ENOMEM,
    ENOSPC,
    EOPNOTSUPP,
    IORESOURCE_MEM,
    IRQ_HANDLED,
    IRQ_NONE,
    IRQF_SHARED,
    MAX_MSIX_VECTORS,
    PCI_BARS,
    PCI_COMMAND,
    PCI_COMMAND_INTX_DISABLE,
    PCI_HEADER_TYPE_BRIDGE,
    UIO_MSI_IRQ_SET,
)


class CountLeaksOnFailedOpen(Upstream):
    """Counts the open before enabling, and keeps the count when that fails."""

    def open(self) -> int:
        self.port.mutex_lock(STATE_MUTEX)
        self.open_count += 1
        err = self._switch_on() if self.open_count == 1 else 0
        self.port.mutex_unlock(STATE_MUTEX)
        return err


class PositiveFromOpen(Upstream):
    """Returns what pci_enable_msix returned, also when that is a number of vectors."""

    def _switch_on(self) -> int:
        self.port.pci_set_master()
        if not self.msix:
            return super()._switch_on()
        count = self.port.pci_enable_msix(tuple(range(self.max_vectors)))
        if count:
            return count
        self.irqs = [self.port.pci_irq_vector(vector) for vector in range(self.max_vectors)]
        return 0


class SetWithoutMsix(Upstream):
    """Does not ask whether MSI-X is on, and uses the irq numbers it remembers."""

    def ioctl(self, cmd: int, arg: int) -> int:
        self.bound, bound = True, self.bound
        err = super().ioctl(cmd, arg)
        self.bound = bound and self.bound
        return err

    def _shut_down(self) -> None:
        irqs = self.irqs
        super()._shut_down()
        self.irqs = irqs


class StaleIrqNumbers(Upstream):
    """Asks for the irq numbers at the first enabling only."""

    def _switch_on(self) -> int:
        irqs = self.irqs
        err = super()._switch_on()
        self.irqs = irqs or self.irqs
        return err

    def _shut_down(self) -> None:
        irqs = self.irqs
        super()._shut_down()
        self.irqs = irqs


class IntxProbeWithoutEntries(Upstream):
    """Fills in MSI-X entries also where there is no array of them."""

    def _allocate_tables(self) -> int:
        entries = [0] * self.max_vectors if self.msix else None
        for vector in range(self.max_vectors):
            entries[vector] = vector  # type: ignore[index]  # the defect: NULL in INTx mode
        return super()._allocate_tables()


class IntxSetWithoutEntries(Upstream):
    """Takes the irq number of a set from the MSI-X entries also in INTx mode."""

    def _attach_intx(self, trigger: int) -> int:
        self.irq, irq = 0, self.irq
        err = super()._attach_intx(trigger)
        self.irq = irq
        return err


class IntxReleaseWithoutEntries(Upstream):
    """Reads the MSI-X entries at the last release also in INTx mode."""

    def _shut_down(self) -> None:
        entries = self.irqs if self.msix else None
        for vector in range(self.max_vectors):
            _ = entries[vector]  # type: ignore[index]  # the defect: NULL in INTx mode
        super()._shut_down()


class IntxFreedByEventfd(Upstream):
    """Requests INTx with the device's dev_id and frees it with the eventfd's."""

    def _detach(self, vector: int) -> None:
        if self.msix:
            super()._detach(vector)
            return
        self.port.free_irq(self.irq, self.triggers[vector])
        self.port.eventfd_ctx_put(self.triggers[vector])
        self.triggers[vector] = 0


class IntxTriggerPublishedLate(Upstream):
    """Tells the handler its eventfd only after request_irq."""

    def _attach_intx(self, trigger: int) -> int:
        if self.triggers[0]:
            return super()._attach_intx(trigger)
        self.port.pci_intx(1)
        err = self.port.request_irq(self.irq, IRQF_SHARED, self.names[0], self.contexts)
        if err:
            self.port.eventfd_ctx_put(trigger)
            return err
        self.triggers[0] = trigger
        return 0


class IntxNeverUnmasked(Upstream):
    """Never clears the disable bit."""

    capabilities = frozenset(Upstream.capabilities - {"irqcontrol"})

    def _attach_intx(self, trigger: int) -> int:
        old, self.triggers[0] = self.triggers[0], trigger
        if old:
            self.port.synchronize_irq(self.irq)
            self.port.eventfd_ctx_put(old)
            return 0
        err = self.port.request_irq(self.irq, IRQF_SHARED, self.names[0], self.contexts)
        if err:
            self.triggers[0] = 0
            self.port.eventfd_ctx_put(trigger)
        return err


class IntxSignalledWhileMasked(Upstream):
    """Trusts pci_check_and_mask_intx, which is true also while INTx is masked already."""

    def handler(self, irq: int, dev_id: int) -> int:
        if self.msix:
            return super().handler(irq, dev_id)
        if not self.port.pci_check_and_mask_intx():
            return IRQ_NONE
        self.port.eventfd_signal(self.triggers[0])
        return IRQ_HANDLED


class IntxMaskLeaks(Upstream):
    """Unmasks for a user who replaces the eventfd, but leaves the mask to the next user and the next driver."""

    def _attach_intx(self, trigger: int) -> int:
        if self.triggers[0]:
            return super()._attach_intx(trigger)
        self.triggers[0] = trigger
        err = self.port.request_irq(self.irq, IRQF_SHARED, self.names[0], self.contexts)
        if err:
            self.triggers[0] = 0
            self.port.eventfd_ctx_put(trigger)
        return err

    def _set_intx_mask(self, masked: bool) -> None:
        pass


class Remaps(Upstream):
    """Right, and maps every memory BAR although nothing uses the mappings."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.iomaps: list[int] = []

    def _allocate_tables(self) -> int:
        err = self._map_bars() or super()._allocate_tables()
        if err:
            self._unmap_bars()
        return err

    def _map_bars(self) -> int:
        port = self.port
        for bar in range(PCI_BARS):
            start, size = port.pci_resource_start(bar), port.pci_resource_len(bar)
            if start and size and port.pci_resource_flags(bar) & IORESOURCE_MEM:
                token = port.ioremap(start, size)
                if not token:
                    return self._unmapped()
                self.iomaps.append(token)
        return 0

    def _unmapped(self) -> int:
        return -ENOMEM

    def _unmap_bars(self) -> None:
        for token in self.iomaps:
            self.port.iounmap(token)
        self.iomaps = []

    def _free_tables(self) -> None:
        super()._free_tables()
        self._unmap_bars()


class UnmapsTwice(Remaps):
    """Unmaps where mapping fails, and again on the error path of probe."""

    def _unmapped(self) -> int:
        for token in self.iomaps:
            self.port.iounmap(token)
        return -ENOMEM


class ProbeSucceedsWithoutMemory(Upstream):
    """Leaves err at 0 when an allocation fails in INTx mode."""

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        err = super().probe(irq, hdr_type, is_virtfn)
        return 0 if err == -ENOMEM and self.port.pci_msix_vec_count() < 0 else err


class RemoveWhileOpenLeaks(Upstream):
    """Leaves actions, references and MSI-X to a release that does not come."""

    def remove(self) -> None:
        self.open_count = 0
        super().remove()


class MutexFreedWithDevice(Upstream):
    """Keeps its mutex in the device, which remove frees."""

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        err = super().probe(irq, hdr_type, is_virtfn)
        if not err:
            self.mutex = self.device + 0x100
            self.port.mutex_init(self.mutex)
        return err

    def ioctl(self, cmd: int, arg: int) -> int:
        if cmd != UIO_MSI_IRQ_SET:
            return super().ioctl(cmd, arg)
        data = self.port.copy_from_user(arg, 8)
        if len(data) < 8:
            return -EFAULT
        vector, fd = struct.unpack("=Ii", data)
        self.port.mutex_lock(self.mutex)
        self.port.mutex_lock(STATE_MUTEX)
        err = self._set(vector, fd) if self.bound else -ENODEV
        self.port.mutex_unlock(STATE_MUTEX)
        self.port.mutex_unlock(self.mutex)
        return err


class MasterFromProbe(Upstream):
    """Turns bus mastering on at probe and leaves it on."""

    def _allocate_tables(self) -> int:
        self.port.pci_set_master()
        return super()._allocate_tables()

    def _shut_down(self) -> None:
        super()._shut_down()
        self.port.pci_set_master()


class ExportsTable(Upstream):
    """Exports the BAR with the MSI-X table like any other."""

    def _table_bars(self) -> set[int]:
        return set()


class BadFdLosesMapping(Upstream):
    """Takes the old mapping away before it looks the new fd up."""

    def _set(self, vector: int, fd: int) -> int:
        if vector < self.max_vectors and fd >= 0 and self.triggers[vector]:
            self._detach(vector)
        return super()._set(vector, fd)


class UnknownIsNotSupported(Upstream):
    """Answers -EOPNOTSUPP to an unknown command."""

    def ioctl(self, cmd: int, arg: int) -> int:
        return super().ioctl(cmd, arg) if cmd == UIO_MSI_IRQ_SET else -EOPNOTSUPP


class DecidesByCapability(Upstream):
    """Takes MSI-X mode wherever the capability is, whether it can be enabled or not."""

    def _msix_works(self) -> bool:
        return True


class RemapFailureIsInvalid(Remaps):
    """Answers -EINVAL when a needless ioremap fails."""

    def _unmapped(self) -> int:
        return -EINVAL


class SmallBarsAsTheyAre(Upstream):
    """Exports address and size of a BAR as they are, in pages or not."""

    def _maps(self, bars: list[tuple[int, int, int, int]]) -> MAPS_TYPE:
        sizes = {bar: size for bar, _, _, size in bars}
        return tuple(
            (name, addr + offs, 0, sizes[int(name[3:])], kind) for name, addr, offs, _, kind in super()._maps(bars)
        )


class LogsEachRefusal(Upstream):
    """Prints a line for every bad set."""

    def _set(self, vector: int, fd: int) -> int:
        err = super()._set(vector, fd)
        if err:
            self.port.dev_err(f"set failed: {err}")
        return err


class BindsBridges(Upstream):
    """Does not look at the header type."""

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        return super().probe(irq, 0, is_virtfn)


class NoMessageRewritten(Upstream):
    """Trusts the message in the table."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        port, self.port = self.port, _Without(self.port, "pci_write_msi_msg")  # type: ignore[assignment]
        err = super()._attach_msix(vector, trigger)
        self.port = port
        return err


class _Without:
    """A port on which one call does nothing."""

    def __init__(self, port: Port, call: str) -> None:
        self._port = port
        self._call = call

    def __getattr__(self, name: str) -> object:
        return (lambda *_: 0) if name == self._call else getattr(self._port, name)


class InfoIsNotFirst(Upstream):
    """Takes drvdata for the address of a member that is not the first."""

    def remove(self) -> None:
        self.device = self.port.pci_get_drvdata() + 0x40
        super().remove()


class DrvdataSetLate(Upstream):
    """Finds the device through drvdata, which is set only after registration."""

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        port, self.port = self.port, _Without(self.port, "pci_set_drvdata")  # type: ignore[assignment]
        err = super().probe(irq, hdr_type, is_virtfn)
        self.port = port
        if not err:
            port.pci_set_drvdata(self.device)
        return err

    def open(self) -> int:
        device = self.port.pci_get_drvdata()
        if self.bound and not device:
            raise TypeError("NULL pointer dereference of drvdata")
        return super().open()


class OpenForAll(Upstream):
    """Asks nobody for a privilege."""

    def open(self) -> int:
        port, self.port = self.port, _Privileged(self.port)  # type: ignore[assignment]
        err = super().open()
        self.port = port
        return err


class _Privileged:
    """A port on which every process has every capability."""

    def __init__(self, port: Port) -> None:
        self._port = port

    def __getattr__(self, name: str) -> object:
        return (lambda *_: 1) if name == "capable" else getattr(self._port, name)


class ReleaseTearsDownAgain(Upstream):
    """Lets a release that comes after remove tear the device down once more."""

    def remove(self) -> None:
        opens = self.open_count
        super().remove()
        self.late = opens

    def release(self) -> int:
        if self.bound:
            return super().release()
        self.late -= 1
        if not self.late:
            self._shut_down()
        return 0


class EnabledAtProbe(Upstream):
    """Enables MSI-X once and for all at probe."""

    def _allocate_tables(self) -> int:
        err = super()._allocate_tables()
        if not err and self.msix:
            self.port.pci_set_master()
            err = self.port.pci_enable_msix(tuple(range(self.max_vectors)))
            if err:
                self._free_tables()
                return err if err < 0 else -ENOSPC
        return err

    def _free_tables(self) -> None:
        self.port.pci_disable_msix()
        super()._free_tables()

    def _switch_on(self) -> int:
        self.irqs = (
            [self.port.pci_irq_vector(vector) for vector in range(self.max_vectors)] if self.msix else [self.irq]
        )
        return 0

    def _shut_down(self) -> None:
        for vector in range(self.max_vectors):
            if self.triggers[vector]:
                self._detach(vector)
        self.irqs = []


class ResetsOnOpen(Upstream):
    """Resets the function when it is opened first."""

    def _switch_on(self) -> int:
        self.port.pci_reset_function()
        return super()._switch_on()


class ResetsOnRelease(Upstream):
    """Resets the function when it is closed last."""

    def _shut_down(self) -> None:
        super()._shut_down()
        self.port.pci_reset_function()


class RefusesPortOnly(Upstream):
    """Wants at least one memory BAR."""

    def _set_up(self, irq: int) -> int:
        flags = [self.port.pci_resource_flags(bar) for bar in range(PCI_BARS)]
        return super()._set_up(irq) if IORESOURCE_MEM in flags else -ENODEV


class CommandWrittenUnlocked(Upstream):
    """Reads, changes and writes the command register without the lock of config space."""

    def _attach_intx(self, trigger: int) -> int:
        command = self.port.pci_read_config(PCI_COMMAND, 2)
        self.port.pci_write_config(PCI_COMMAND, 2, command & ~PCI_COMMAND_INTX_DISABLE)
        return super()._attach_intx(trigger)


class EveryOpenEnables(Upstream):
    """Enables interrupts for every opener, and the first release turns them off for all."""

    def open(self) -> int:
        self.port.mutex_lock(STATE_MUTEX)
        err = self._switch_on()
        if not err:
            self.open_count += 1
        self.port.mutex_unlock(STATE_MUTEX)
        return err


class MasterLeftOn(Upstream):
    """Does not turn bus mastering off at the last release."""

    def _shut_down(self) -> None:
        super()._shut_down()
        self.port.pci_set_master()


class OpenWithoutMutex(Upstream):
    """Looks at the count of opens before it takes the mutex."""

    def open(self) -> int:
        first = self.open_count == 0
        self.port.mutex_lock(STATE_MUTEX)
        err = -ENODEV
        if self.bound:
            err = self._switch_on() if first else 0
            if not err:
                self.open_count += 1
        self.port.mutex_unlock(STATE_MUTEX)
        return err


class PutBeforeSynchronised(Upstream):
    """Drops the old eventfd while a handler may still be about to signal it."""

    def _attach_intx(self, trigger: int) -> int:
        old = self.triggers[0]
        if not old:
            return super()._attach_intx(trigger)
        self.triggers[0] = trigger
        self.port.eventfd_ctx_put(old)
        self.port.synchronize_irq(self.irq)
        self.port.pci_intx(1)
        return 0


class UnmasksUnlocked(Upstream):
    """Unmasks as VFIO does, signalling where the level is still up, but without the mutex."""

    def irqcontrol(self, on: int) -> int:
        if not on or self.msix or not self.open_count:
            return super().irqcontrol(on)
        trigger = self.triggers[0]
        if trigger and not self.port.pci_check_and_unmask_intx():
            self.port.eventfd_signal(trigger)
        return 0


class VectorIsSigned(Upstream):
    """Compares the vector as a signed number."""

    def _set(self, vector: int, fd: int) -> int:
        return super()._set(vector - (1 << 32) if vector >= 1 << 31 else vector, fd)


class NamesLeakOnError(Upstream):
    """Forgets the names when probe fails after they were allocated."""

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        self.failing = True
        err = super().probe(irq, hdr_type, is_virtfn)
        self.failing = False
        return err

    def _free_tables(self) -> None:
        if self.failing:
            self.names = []
        super()._free_tables()


class UnservedOnceUnmapped(Upstream):
    """Frees the INTx action without masking the function first, so that nobody serves the line."""

    def _detach(self, vector: int) -> None:
        self.port.free_irq(self.irqs[vector], self.contexts + vector * SIZEOF_CONTEXT)
        self.port.eventfd_ctx_put(self.triggers[vector])
        self.triggers[vector] = 0


class UnservedFromOpen(Upstream):
    """Leaves INTx as it is when it is opened, with nobody on the line before the first set."""

    def _switch_on(self) -> int:
        if self.msix:
            return super()._switch_on()
        self.port.pci_set_master()
        self.irqs = [self.irq]
        return 0


class UnmasksForNobody(Upstream):
    """Lets irqcontrol unmask also while no handler is there."""

    def irqcontrol(self, on: int) -> int:
        self.port.mutex_lock(STATE_MUTEX)
        if self.bound and not self.msix:
            self.port.pci_intx(1 if on else 0)
        self.port.mutex_unlock(STATE_MUTEX)
        return 0


class UnservedOnceClosed(Upstream):
    """Puts the disable bit back as it was at the last release, when the function may still assert INTx."""

    def _shut_down(self) -> None:
        super()._shut_down()
        if not self.msix:
            self._set_intx_mask(self.was_masked)


class NeverMasks(Upstream):
    """Takes every number written to the device for a request to unmask."""

    def irqcontrol(self, on: int) -> int:
        return super().irqcontrol(1)


class IgnoresZero(Upstream):
    """Takes irqcontrol for a call that unmasks, and a 0 for nothing."""

    def irqcontrol(self, on: int) -> int:
        return super().irqcontrol(on) if on else 0


class TrustsIrq(Upstream):
    """Does not look whether the function has an irq."""

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        self.given = irq
        return super().probe(irq, hdr_type, is_virtfn)

    def _set_up(self, irq: int) -> int:
        err = super()._set_up(irq or 1)
        self.irq = self.given
        return err


MASK_LOCK = 0x300
"""Static spinlock of a flag beside the disable bit."""


class MaskFlag(Upstream):
    """Remembers in a flag whether INTx is masked, and does not look at the bit that user space may have written."""

    masked = True

    def handler(self, irq: int, dev_id: int) -> int:
        if self.msix:
            return super().handler(irq, dev_id)
        if self.masked or not self.port.pci_check_and_mask_intx():
            return IRQ_NONE
        self.masked = True
        self.port.eventfd_signal(self.triggers[0])
        return IRQ_HANDLED

    def _mask(self, masked: bool) -> None:
        self.port.spin_lock_irqsave(MASK_LOCK)
        self.masked = masked
        self.port.pci_intx(int(not masked))
        self.port.spin_unlock_irqrestore(MASK_LOCK)

    def _attach_intx(self, trigger: int) -> int:
        old, self.triggers[0] = self.triggers[0], trigger
        err = 0
        if old:
            self.port.synchronize_irq(self.irq)
            self.port.eventfd_ctx_put(old)
        else:
            err = self.port.request_irq(self.irq, IRQF_SHARED, self.names[0], self.contexts)
        if err:
            self.triggers[0] = 0
            self.port.eventfd_ctx_put(trigger)
        else:
            self._mask(False)
        return err

    def _detach(self, vector: int) -> None:
        if not self.msix:
            self._mask(True)
        super()._detach(vector)

    def irqcontrol(self, on: int) -> int:
        self.port.mutex_lock(STATE_MUTEX)
        if self.bound and not self.msix and self.triggers[0]:
            self._control(bool(on))
        self.port.mutex_unlock(STATE_MUTEX)
        return 0

    def _control(self, on: bool) -> None:
        self._mask(not on)


class UnmasksByFlag(MaskFlag):
    """Looks at the bit when it is interrupted, and at a flag when it is asked to unmask."""

    def handler(self, irq: int, dev_id: int) -> int:
        handled = Upstream.handler(self, irq, dev_id)
        self.masked = self.masked or handled == IRQ_HANDLED
        return handled

    def _control(self, on: bool) -> None:
        if on == self.masked:
            self._mask(not on)


class IrqsRemembered(Upstream):
    """Finds the vector of an irq number in a table from which nothing is ever taken out."""

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self.vector_of: dict[int, int] = {}

    def _switch_on(self) -> int:
        err = super()._switch_on()
        for vector, irq in enumerate(self.irqs):
            self.vector_of.setdefault(irq, vector)
        return err

    def handler(self, irq: int, dev_id: int) -> int:
        if not self.msix:
            return super().handler(irq, dev_id)
        trigger = self.triggers[self.vector_of[irq]]
        if trigger:
            self.port.eventfd_signal(trigger)
        return IRQ_HANDLED


class StaticDevId(Upstream):
    """Requests INTx with static data of the module for its dev_id, the same for every function that it drives."""

    def _allocate_tables(self) -> int:
        err = super()._allocate_tables()
        if not err and not self.msix:
            self.port.kfree(self.contexts)
            self.contexts = 0x200
        return err

    def _free_tables(self) -> None:
        if self.contexts == 0x200:
            self.contexts = 0
        super()._free_tables()


class MapOfThirtyTwo(Upstream):
    """Remembers the mapped vectors in 32 bits, and believes them at an unmap."""

    mapped = 0

    def _set(self, vector: int, fd: int) -> int:
        if vector >= self.max_vectors:
            return super()._set(vector, fd)
        bit = 1 << vector % 32
        if fd < 0 and not self.mapped & bit:
            return 0
        err = super()._set(vector, fd)
        self.mapped = self.mapped | bit if self.triggers[vector] else self.mapped & ~bit
        return err


class FallsBackWithAllVectors(Upstream):
    """Falls back to INTx where a trial of MSI-X fails, and keeps the number of vectors."""

    def _set_up(self, irq: int) -> int:
        err = super()._set_up(irq)
        count = self.port.pci_msix_vec_count()
        if not err and not self.msix and count > 1:
            self._free_tables()
            self.max_vectors = min(count, MAX_MSIX_VECTORS)
            err = self._allocate_tables()
        return err


class TrialLosesErrno(Upstream):
    """Takes a trial of MSI-X that failed for a reason to fail, and forgets which."""

    def _set_up(self, irq: int) -> int:
        err = super()._set_up(irq)
        if err or self.msix or self.port.pci_msix_vec_count() < 0:
            return err
        self._free_tables()
        return -EBUSY


class LogsOpens(Upstream):
    """Prints a line at each open."""

    def open(self) -> int:
        self.port.dev_info("opened")
        return super().open()


class BindsCardbus(Upstream):
    """Refuses header type 1 alone."""

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        return super().probe(irq, int(hdr_type == PCI_HEADER_TYPE_BRIDGE), is_virtfn)


class ShortForGood(Upstream):
    """Takes as many vectors as can be had, and never asks for more again."""

    def _switch_on(self) -> int:
        if not self.msix:
            return super()._switch_on()
        count = self.port.pci_enable_msix_range(tuple(range(self.max_vectors)), 1, self.max_vectors)
        if count < 0:
            return count
        self.port.pci_set_master()
        self.max_vectors = count
        self.irqs = [self.port.pci_irq_vector(vector) for vector in range(count)]
        return 0


class TableOfTenBits(Upstream):
    """Takes the table's size for a field of ten bits."""

    def _set_up(self, irq: int) -> int:
        err = super()._set_up(irq)
        if not err and self.msix:
            self._free_tables()
            self.max_vectors = min((self.port.pci_msix_vec_count() - 1 & 0x3FF) + 1, MAX_MSIX_VECTORS)
            err = self._allocate_tables()
        return err


class TriesItsIrqs(Upstream):
    """Looks whether its irqs can be had when it is opened, and gives back one too few where one cannot."""

    def _switch_on(self) -> int:
        err = super()._switch_on()
        if err or not self.msix:
            return err
        for vector, irq in enumerate(self.irqs):
            err = self.port.request_irq(irq, 0, 0, self.contexts)
            if err:
                self._give_back(vector - 1)
                self.port.pci_disable_msix()
                self.port.pci_clear_master()
                return err
        self._give_back(len(self.irqs))
        return 0

    def _give_back(self, count: int) -> None:
        for irq in self.irqs[: max(0, count)]:
            self.port.free_irq(irq, self.contexts)


class MasksWhenRefused(Upstream):
    """Masks INTx where a set is refused, although the old mapping is still there."""

    def _set(self, vector: int, fd: int) -> int:
        err = super()._set(vector, fd)
        if err and not self.msix:
            self.port.pci_intx(0)
        return err


DEFECTS: tuple[Defect, ...] = (
    Defect("UIO-D01", "A failed open is counted.", CountLeaksOnFailedOpen, ("UIO-048",), 3),
    Defect("UIO-D02", "open returns a positive number of vectors.", PositiveFromOpen, ("UIO-049", "UIO-050"), 2),
    Defect(
        "UIO-D03",
        "A set does not ask whether MSI-X is enabled.",
        SetWithoutMsix,
        ("UIO-030", "UIO-029"),
        4,
        note="Alone it shows only where a set meets remove, since the count leaked by UIO-D01 is reported first.",
    ),
    Defect("UIO-D04", "irq numbers of an earlier enabling are used.", StaleIrqNumbers, ("UIO-029",), 8),
    Defect("UIO-D05", "Probe in INTx mode dereferences NULL.", IntxProbeWithoutEntries, ("UIO-067", "UIO-078"), 1),
    Defect("UIO-D06", "A set in INTx mode takes the irq of MSI-X entries.", IntxSetWithoutEntries, ("UIO-079",), 3),
    Defect("UIO-D07", "The last release in INTx mode dereferences NULL.", IntxReleaseWithoutEntries, ("UIO-078",), 3),
    Defect("UIO-D08", "INTx is freed with another dev_id.", IntxFreedByEventfd, ("UIO-026", "UIO-027", "UIO-040"), 5),
    Defect(
        "UIO-D09", "The INTx handler may run before its eventfd is known.", IntxTriggerPublishedLate, ("UIO-028",), 4
    ),
    Defect("UIO-D10", "INTx is never unmasked.", IntxNeverUnmasked, ("UIO-083",), 6),
    Defect("UIO-D11", "A masked INTx is signalled again.", IntxSignalledWhileMasked, ("UIO-082",), 5),
    Defect(
        "UIO-D12",
        "The INTx mask is left to the next user and the next driver.",
        IntxMaskLeaks,
        ("UIO-084", "UIO-083"),
        8,
        note="That a fresh set unmasks is UIO-083 in the default profile.",
    ),
    Defect("UIO-D13", "BARs are unmapped twice when a mapping fails.", UnmapsTwice, ("UIO-062",), 1),
    Defect(
        "UIO-D14",
        "Probe succeeds without memory in INTx mode.",
        ProbeSucceedsWithoutMemory,
        ("UIO-059", "UIO-060"),
        1,
    ),
    Defect("UIO-D15", "remove with open handles leaks.", RemoveWhileOpenLeaks, ("UIO-075",), 4),
    Defect("UIO-D16", "The mutex is freed under a callback.", MutexFreedWithDevice, ("UIO-078",), 3),
    Defect("UIO-D17", "Bus mastering is on from probe and never off.", MasterFromProbe, ("UIO-057",), 3),
    Defect("UIO-D18", "The MSI-X table is exported.", ExportsTable, ("UIO-085",), 1),
    Defect("UIO-D19", "A bad fd loses the old mapping.", BadFdLosesMapping, ("UIO-020",), 5),
    Defect(
        "UIO-D20",
        "A refused request_irq loses the old mapping.",
        why_not="UIO-021 allows the old mapping to be lost then, so this is no breach.",
    ),
    Defect("UIO-D21", "-EOPNOTSUPP for unknown commands.", UnknownIsNotSupported, ("UIO-001", "UIO-002", "UIO-003"), 3),
    Defect(
        "UIO-D22",
        "Every negative fd unmaps, where the comment promises -1 only.",
        why_not="UIO-014 asks for just that in every profile: the defect is in the comment.",
    ),
    Defect(
        "UIO-D23",
        "The header cannot be used from user space.",
        why_not="It shows only when the header is compiled, not through the driver's interface.",
    ),
    Defect(
        "UIO-D24",
        "User space cannot learn max_vectors.",
        why_not="The interface has no call for it; UIO-065 fixes the limit that probing with sets finds.",
    ),
    Defect("UIO-D25", "Unusable MSI-X makes every open fail.", DecidesByCapability, ("UIO-068",), 2),
    Defect(
        "UIO-D26",
        "All vectors are asked for, or none can be had.",
        why_not="UIO-050 allows open to fail with -ENOSPC when vectors are short.",
    ),
    Defect("UIO-D27", "A needless mapping fails probe with -EINVAL.", RemapFailureIsInvalid, ("UIO-060",), 1),
    Defect("UIO-D28", "Small or unaligned BARs cannot be mapped.", SmallBarsAsTheyAre, ("UIO-071",), 1),
    Defect(
        "UIO-D29",
        "The sixth memory BAR is dropped.",
        why_not="UIO-070 asks for it: the UIO core has room for five.",
    ),
    Defect(
        "UIO-D30",
        "read and poll of the device never report an interrupt.",
        why_not="No clause asks for it: interrupts are reported through the eventfds.",
    ),
    Defect(
        "UIO-D31",
        "One opener can replace another's mapping.",
        why_not="UIO-031 allows it, since the callbacks carry no identity of the opener.",
    ),
    Defect("UIO-D32", "User space can flood the log.", LogsEachRefusal, ("UIO-087",), 3),
    Defect(
        "UIO-D33",
        "Region reservation keeps sysfs from mapping the BARs.",
        why_not="It is a matter of the kernel's configuration outside the driver's interface.",
    ),
    Defect("UIO-D34", "Bridges are bound.", BindsBridges, ("UIO-073",), 1),
    Defect("UIO-D35", "The message is not written again before unmasking.", NoMessageRewritten, ("UIO-032",), 4),
    Defect("UIO-D36", "remove takes drvdata for another structure.", InfoIsNotFirst, ("UIO-078", "UIO-062"), 2),
    Defect("UIO-D37", "drvdata is set after registration.", DrvdataSetLate, ("UIO-064",), 1),
    Defect("UIO-D38", "Opening needs no privilege.", OpenForAll, ("UIO-089",), 2),
    Defect(
        "UIO-D39",
        "-EINVAL rather than -ENODEV without a usable interrupt.",
        why_not="UIO-066 accepts both.",
    ),
    Defect(
        "UIO-U01",
        "igb_uio: the count leaks when open cannot enable.",
        CountLeaksOnFailedOpen,
        ("UIO-048",),
        3,
        note="The same defect as UIO-D01, in a relative.",
    ),
    Defect(
        "UIO-U02",
        "igb_uio: release after remove tears down again.",
        ReleaseTearsDownAgain,
        ("UIO-076",),
        4,
    ),
    Defect("UIO-U03", "igb_uio: interrupts are enabled at probe.", EnabledAtProbe, ("UIO-047",), 1),
    Defect("UIO-U04", "igb_uio: open and release reset the function.", ResetsOnOpen, ("UIO-058",), 2),
    Defect("UIO-U04b", "igb_uio: release resets the function.", ResetsOnRelease, ("UIO-058",), 3),
    Defect("UIO-U05", "igb_uio: functions without memory BARs are refused.", RefusesPortOnly, ("UIO-072",), 1),
    Defect("UIO-U06", "igb_uio: the command register is written unlocked.", CommandWrittenUnlocked, ("UIO-078",), 3),
    Defect(
        "UIO-U07",
        "igb_uio: no fallback from interrupts that do not work.",
        DecidesByCapability,
        ("UIO-068",),
        2,
        note="The same defect as UIO-D25, in a relative.",
    ),
    Defect("UIO-U08", "igb_uio: every open enables again.", EveryOpenEnables, ("UIO-047", "UIO-052"), 3),
    Defect(
        "UIO-U09",
        "UIO core: unregistration with open handles leads to an oops at close.",
        why_not="The defect is in the UIO core, which is part of the environment here.",
    ),
    Defect(
        "UIO-U10",
        "UIO core: a minor is reused before its sysfs node is gone.",
        why_not="The defect is in the UIO core, which is part of the environment here.",
    ),
    Defect(
        "UIO-U11",
        "UIO core: poll returns an errno as an event mask.",
        why_not="The defect is in the UIO core, which is part of the environment here.",
    ),
    Defect("UIO-U12", "uio_pci_generic: bus mastering stays on after close.", MasterLeftOn, ("UIO-057",), 3),
    Defect(
        "UIO-U13", "VFIO: open, release and remove are not one critical section.", OpenWithoutMutex, ("UIO-047",), 2
    ),
    Defect("UIO-U14", "VFIO: an eventfd is dropped under the INTx handler.", PutBeforeSynchronised, ("UIO-027",), 4),
    Defect(
        "UIO-U14b",
        "VFIO: unmasking does not exclude the ioctl.",
        UnmasksUnlocked,
        ("UIO-027", "UIO-078", "UIO-091"),
        5,
    ),
    Defect(
        "UIO-U15",
        "VFIO: two ways of shutting an eventfd down race.",
        why_not="This interface has one way only: closing the user's fd does not shut anything down.",
    ),
    Defect("UIO-U16", "VFIO: the range check of vectors overflows.", VectorIsSigned, ("UIO-009", "UIO-078"), 3),
    Defect("UIO-U17", "uio_hv_generic: probe leaks on its error paths.", NamesLeakOnError, ("UIO-061",), 1),
    Defect(
        "UIO-U18",
        "DPDK: the consumer masks and reads wrongly.",
        why_not="The mistakes are the consumer's; that a driver survives them is asked of every candidate.",
    ),
    Defect("UIO-L01", "An unmapped INTx drives a line that nobody serves.", UnservedOnceUnmapped, ("UIO-091",), 5),
    Defect("UIO-L02", "INTx drives a line that nobody serves from open on.", UnservedFromOpen, ("UIO-091",), 3),
    Defect("UIO-L03", "irqcontrol unmasks INTx with no handler there.", UnmasksForNobody, ("UIO-091",), 4),
    Defect("UIO-L04", "igb_uio: INTx drives the line after the last release.", UnservedOnceClosed, ("UIO-092",), 4),
    Defect("UIO-L05", "irqcontrol(0) unmasks.", NeverMasks, ("UIO-093",), 4),
    Defect("UIO-L06", "irqcontrol(0) does nothing.", IgnoresZero, ("UIO-093",), 4),
    Defect("UIO-L07", "irq 0 is requested for a function that has none.", TrustsIrq, ("UIO-094",), 3),
    Defect(
        "UIO-L08",
        "VFIO: a flag says that INTx is masked, where user space has cleared the disable bit.",
        MaskFlag,
        ("UIO-095", "UIO-081", "UIO-082", "UIO-083"),
        5,
        note="VFIO can keep a flag because it virtualises config space; here user space writes the register itself.",
    ),
    Defect(
        "UIO-L09",
        "A flag keeps irqcontrol from masking or unmasking.",
        UnmasksByFlag,
        ("UIO-083", "UIO-093", "UIO-095"),
        6,
    ),
    Defect(
        "UIO-L10",
        "irq numbers of an earlier enabling name their former vectors.",
        IrqsRemembered,
        ("UIO-033", "UIO-034", "UIO-041", "UIO-078"),
        6,
    ),
    Defect("UIO-L11", "Two functions on one line share a dev_id.", StaticDevId, ("UIO-079",), 3),
    Defect(
        "UIO-L12",
        "Vectors 32 apart share a bit.",
        MapOfThirtyTwo,
        ("UIO-012", "UIO-017", "UIO-039"),
        6,
    ),
    Defect("UIO-L13", "INTx has as many vectors as MSI-X had.", FallsBackWithAllVectors, ("UIO-009", "UIO-065"), 3),
    Defect("UIO-L14", "A refused trial of MSI-X loses its errno.", TrialLosesErrno, ("UIO-060",), 1),
    Defect("UIO-L15", "Each open prints a line.", LogsOpens, ("UIO-087",), 2),
    Defect("UIO-L16", "CardBus bridges are bound.", BindsCardbus, ("UIO-073",), 1),
    Defect("UIO-L17", "Vectors that were not to be had once are never asked for again.", ShortForGood, ("UIO-050",), 4),
    Defect("UIO-L18", "The table's size is read without its highest bit.", TableOfTenBits, ("UIO-065",), 2),
    Defect("UIO-L19", "A refused open gives back one irq too few.", TriesItsIrqs, ("UIO-054",), 2),
    Defect("UIO-L20", "A refused set masks the mapping that stays.", MasksWhenRefused, ("UIO-021",), 4),
)
