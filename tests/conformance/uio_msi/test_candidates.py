"""The shipped drivers, and correct ones that are built in another way."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.as_posted import AsPosted
from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.lockstep import run_trace
from conformance.model.step import Fault, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    Close,
    Flood,
    IrqSet,
    Open,
    Probe,
    RaiseVector,
    ReadEventfd,
    Remove,
)
from conformance.specs.uio_msi import CLAUSES
from conformance.specs.uio_msi import constants as k
from conformance.specs.uio_msi.constants import EBUSY, EINVAL, ENODEV, ENOMEM, ENOSPC, IRQF_SHARED
from conformance.trace import decode, encode
from tests.conformance.uio_msi.driving import INTX, SECOND, S, blamed, explored, run, steps, walks, warned


def test_upstream_walks_silently() -> None:
    """Random walks over all worlds find nothing, not even a warning, on the default environment."""
    for trace in walks(60, seed=11):
        report = run_trace(S, trace, Upstream)
        assert report.failure is None
        assert not report.warnings


def test_scopes_have_their_pinned_counts() -> None:
    """The correct driver reaches exactly the states that the model has, and breaks nothing."""
    context = explored(Upstream, "upstream")

    assert not context.failures
    assert not context.warnings
    for name, scope in S.scopes.items():
        if scope.in_gate and scope.states is not None and not scope.profiles:
            assert context.notes[f"{name}: states"] == scope.states, name
            assert context.notes[f"{name}: transitions"] == scope.transitions, name


class VfioLike(Upstream):
    """The correct driver with VFIO's choices."""

    profile = "vfio-like"

    def _set(self, vector: int, fd: int) -> int:
        if vector >= self.max_vectors:
            return -EINVAL
        if fd >= 0 and self.triggers[vector]:
            trigger = self.port.eventfd_ctx_fdget(fd)
            if trigger < 0 or self.msix:
                self._detach(vector)
            if trigger < 0:
                return trigger
            self.port.eventfd_ctx_put(trigger)
        return super()._set(vector, fd)

    def _attach_intx(self, trigger: int) -> int:
        old = self.triggers[0]
        if not old:
            return super()._attach_intx(trigger)
        self.triggers[0] = trigger
        self.port.synchronize_irq(self.irq)
        self.port.eventfd_ctx_put(old)
        return 0


@pytest.mark.gates
def test_vfio_like_driver_is_not_accused() -> None:
    """In its own profile; the default one minds what it loses."""
    context = explored(VfioLike, "vfio-like", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


class LinuxLike(Upstream):
    """Another correct driver: modern calls, swapped eventfds, the mutex taken late, one fetch per field."""

    def _switch_on(self) -> int:
        self.port.pci_set_master()
        self.irqs = [self.irq]
        if self.msix:
            count = self.port.pci_alloc_irq_vectors(1, self.max_vectors)
            if count < 0:
                self.port.pci_clear_master()
                return count
            self.irqs = [self.port.pci_irq_vector(vector) for vector in range(count)]
        else:
            self.port.pci_intx(0)
        return 0

    def ioctl(self, cmd: int, arg: int) -> int:
        if cmd != k.UIO_MSI_IRQ_SET:
            return -k.ENOTTY
        vector, fd = self.port.copy_from_user(arg, 4), self.port.copy_from_user(arg + 4, 4)
        if len(vector) + len(fd) < 8:
            return -k.EFAULT
        number = int.from_bytes(vector, "little")
        self.port.mutex_lock(0x100)
        if not self.bound:
            err = -ENODEV
        elif number >= len(self.irqs):
            err = -k.ERANGE
        else:
            err = self._set(number, struct.unpack("=i", fd)[0])
        self.port.mutex_unlock(0x100)
        return err

    def _attach_msix(self, vector: int, trigger: int) -> int:
        old = self.triggers[vector]
        if not old:
            return super()._attach_msix(vector, trigger)
        self.triggers[vector] = trigger
        self.port.synchronize_irq(self.irqs[vector])
        self.port.eventfd_ctx_put(old)
        return 0


@pytest.mark.gates
def test_another_correct_driver_is_not_accused() -> None:
    """Fewer vectors when there are fewer, swapping instead of freeing, fields fetched one by one."""
    context = explored(LinuxLike, "upstream", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


class UnregistersFirst(Upstream):
    """A correct driver for the 6.x core alone, which keeps callbacks out once the device is unregistered."""

    capabilities = frozenset(Upstream.capabilities - {"core-4.1"})

    def remove(self) -> None:
        port = self.port
        port.uio_unregister_device()
        if self.open_count:
            self._shut_down()
        if not self.msix:
            self._set_intx_mask(self.was_masked)
        self._free_tables()
        port.pci_release_regions()
        port.pci_disable_device()
        port.kfree(self.device)
        self._forget()


@pytest.mark.gates
def test_driver_that_relies_on_the_new_core_is_not_accused() -> None:
    """Removal needs no exclusion of its own there."""
    context = explored(UnregistersFirst, "upstream", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


class NamesAtSet(Upstream):
    """A correct driver that allocates a vector's name when it is mapped, under a spinlock-guarded table."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        name = self.port.kasprintf(f"vector {vector}")
        if not name:
            self.port.eventfd_ctx_put(trigger)
            return -ENOMEM
        old, self.names[vector] = self.names[vector], name
        err = super()._attach_msix(vector, trigger)
        if not err or not self.triggers[vector]:
            self.port.kfree(old)
            return err
        # The old action was installed again with the new name.
        self.port.kfree(old)
        return err

    def handler(self, irq: int, dev_id: int) -> int:
        self.port.spin_lock_irqsave(0x80)
        handled = super().handler(irq, dev_id)
        self.port.spin_unlock_irqrestore(0x80)
        return handled


@pytest.mark.gates
def test_driver_that_allocates_late_is_not_accused() -> None:
    """A set that meets no memory fails and keeps the old mapping; handlers may hold a spinlock."""
    context = explored(NamesAtSet, "upstream", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


class IntxUnderLock(Upstream):
    """A correct driver that masks under a spinlock, and puts the old eventfd back when it must."""

    def _set_masked(self, masked: bool) -> None:
        self.port.spin_lock_irqsave(0x80)
        self.port.pci_intx(0 if masked else 1)
        self.port.spin_unlock_irqrestore(0x80)

    def _attach_intx(self, trigger: int) -> int:
        port, old = self.port, self.triggers[0]
        if old:
            port.free_irq(self.irq, self.contexts)
        self.triggers[0] = trigger
        self._set_masked(False)
        err = port.request_irq(self.irq, IRQF_SHARED, self.names[0], self.contexts)
        if not err:
            if old:
                port.eventfd_ctx_put(old)
            return 0
        port.eventfd_ctx_put(trigger)
        self.triggers[0] = old
        if old and port.request_irq(self.irq, IRQF_SHARED, self.names[0], self.contexts):
            self.triggers[0] = 0
            port.eventfd_ctx_put(old)
        if not self.triggers[0]:
            self._set_masked(True)
        return err

    def _detach(self, vector: int) -> None:
        if not self.msix:
            self._set_masked(True)
        super()._detach(vector)

    def irqcontrol(self, on: int) -> int:
        self.port.mutex_lock(0x100)
        err = -ENODEV
        if self.bound and self.open_count:
            if not self.msix and self.triggers[0]:
                self._set_masked(not on)
            err = 0
        self.port.mutex_unlock(0x100)
        return err

    def handler(self, irq: int, dev_id: int) -> int:
        if self.msix:
            return super().handler(irq, dev_id)
        self.port.spin_lock_irqsave(0x80)
        masked = self.port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE
        mine = not masked and self.port.pci_check_and_mask_intx()
        self.port.spin_unlock_irqrestore(0x80)
        if not mine:
            return k.IRQ_NONE
        self.port.eventfd_signal(self.triggers[0])
        return k.IRQ_HANDLED


@pytest.mark.gates
def test_driver_that_masks_under_a_spinlock_is_not_accused() -> None:
    """What comes meanwhile is taken once the lock is released; a refused set may unmask on the way."""
    context = explored(IntxUnderLock, "upstream", 15_000)

    assert [failure.signature for failure in context.failures] == []
    assert [warning.signature for warning in context.warnings] == []


def test_traces_survive_their_files() -> None:
    """What is written is what is read, for random traces of every world."""
    for trace in walks(40, seed=3):
        assert decode(encode(trace), {"uio_msi": S.config}, {"uio_msi": S.operations}) == trace


class MsixOnly(Upstream):
    """A correct driver that can do no more than it must."""

    capabilities = frozenset()

    def _set_up(self, irq: int) -> int:
        return super()._set_up(irq) if self.port.pci_msix_vec_count() > 0 else -ENODEV


@pytest.mark.gates
def test_driver_without_capabilities_is_judged_by_the_rest() -> None:
    """Every clause that applies to it is exercised, and none is broken."""
    context = explored(MsixOnly, "upstream", 15_000)
    applicable = {c for c in CLAUSES if c.applies("upstream", frozenset()) and not c.untestable}

    assert [failure.signature for failure in context.failures] == []
    assert applicable <= context.tally.clauses.keys()


ENABLE_FAILS = Step(Open(), (Fault("pci_enable_msix", -ENOMEM),))
NO_MEMORY = Step(Probe(), (Fault("kcalloc", -ENOMEM),))


@pytest.mark.parametrize(
    ("clause", "config", "ops"),
    [
        ("UIO-048", Config(), (Probe(), ENABLE_FAILS, Open())),
        ("UIO-049", Config(), (Probe(), Step(Open(), (Fault("pci_enable_msix", 1),)))),
        ("UIO-078", INTX, (Probe(),)),
        ("UIO-060", INTX, (NO_MEMORY,)),
        ("UIO-062", Config(), (Step(Probe(), (Fault("ioremap", -ENOMEM, 2),)),)),
        ("UIO-075", Config(), (Probe(), Open(), IrqSet(0, FIRST_FD), Remove())),
    ],
)
def test_posted_driver_fails(clause: str, config: Config, ops: tuple[Any, ...]) -> None:
    """The shortest traces of its defects, judged by what it meant to do."""
    assert blamed(run(AsPosted, *ops, config=config, profile="as-posted")) == clause


def test_posted_driver_works_where_nothing_is_refused() -> None:
    """Mapping, replacing, delivery and the last release are right in MSI-X mode."""
    ops = (Probe(), Open(), IrqSet(0, FIRST_FD), RaiseVector(0), IrqSet(0, SECOND), RaiseVector(0))
    report = run(AsPosted, *ops, ReadEventfd(SECOND), IrqSet(0, -1), Close(), Remove(), profile="as-posted")

    assert warned(report) == {"UIO-057"}


def test_posted_driver_floods_the_log() -> None:
    """UIO-087."""
    assert "UIO-087" in warned(run(AsPosted, Probe(), Open(), Flood(), profile="as-posted"))


class TriesAgain(Upstream):
    """A correct driver that is content with one vector when it cannot have all."""

    def _switch_on(self) -> int:
        err = super()._switch_on()
        if not err or not self.msix or self.port.pci_enable_msix((0,)):
            return err
        self.port.pci_set_master()
        self.irqs = [self.port.pci_irq_vector(0)]
        return 0

    def _set(self, vector: int, fd: int) -> int:
        return super()._set(vector, fd) if vector < len(self.irqs) else -k.ERANGE


@pytest.mark.parametrize("refusal", [-ENOMEM, -ENOSPC, 1, 3])
def test_a_further_attempt_may_enable_fewer(refusal: int) -> None:
    """UIO-050, UIO-051: nothing is forwarded where in the end nothing failed."""
    refused = Step(Open(), (Fault("pci_enable_msix", refusal),))
    ops = (Probe(), refused, IrqSet(0, FIRST_FD), RaiseVector(0), IrqSet(1, FIRST_FD), Close(), Open())

    report = run(TriesAgain, *ops, config=Config(vectors=4))

    assert report.failure is None
    assert warned(report) == set()


@pytest.mark.parametrize("refusal", [-ENOMEM, 1, 3])
def test_a_further_attempt_may_enable_all(refusal: int) -> None:
    """Somebody else gave vectors back meanwhile; who then uses fewer than he has breaks UIO-065 or UIO-009."""

    class AsksTwice(Upstream):
        """Asks for all vectors once more."""

        def _switch_on(self) -> int:
            return super()._switch_on() and super()._switch_on()

    class BelievesTheFirst(AsksTwice):
        """Keeps to what the first attempt could have had."""

        def _set(self, vector: int, fd: int) -> int:
            return super()._set(vector, fd) if vector < 1 else -k.ERANGE

    refused = Step(Open(), (Fault("pci_enable_msix", refusal),))
    ops = (Probe(), refused, IrqSet(3, FIRST_FD), RaiseVector(3), Close(), Open())

    assert run(AsksTwice, *ops, config=Config(vectors=4)).failure is None
    assert blamed(run(BelievesTheFirst, *ops, config=Config(vectors=4))) == "UIO-065"


def test_shortage_by_another_name() -> None:
    """UIO-050 is a SHOULD, and what VFIO answers is as good as -ENOSPC."""

    class SaysBusy(Upstream):
        """Answers -EBUSY when there are too few vectors."""

        def open(self) -> int:
            err = super().open()
            return -EBUSY if err == -ENOSPC else err

    short = Step(Open(), (Fault("pci_enable_msix", 1),))

    assert warned(run(SaysBusy, Probe(), short)) == {"UIO-050"}


def test_unprivileged_open_may_be_denied_by_another_errno() -> None:
    """UIO-089 names none."""

    class DeniesAccess(Upstream):
        """Answers -EACCES."""

        def open(self) -> int:
            err = super().open()
            return -k.EACCES if err == -k.EPERM else err

    report = run(DeniesAccess, Probe(), Open(rawio=False), Open())

    assert report.failure is None
    assert warned(report) == set()


def test_open_that_is_refused_during_probe_is_no_fault_of_the_driver() -> None:
    """UIO-064 asks that what an open needs is there, not that it succeeds."""
    for point in range(60):
        for inner in (Open(rawio=False), Step(Open(), (Fault("pci_enable_msix", -ENOMEM),))):
            (step,) = steps(inner)
            assert run(Upstream, Step(Probe(), during=((point, step),))).failure is None


def test_locks_may_lie_anywhere_in_a_large_allocation() -> None:
    """Not in its first page only."""

    class LocksFarOut(Upstream):
        """Keeps a spinlock behind two pages of data."""

        def _allocate_tables(self) -> int:
            self.block = self.port.kcalloc(64, 128)
            return super()._allocate_tables()

        def _free_tables(self) -> None:
            super()._free_tables()
            self.port.kfree(self.block)

        def handler(self, irq: int, dev_id: int) -> int:
            self.port.spin_lock_irqsave(self.block + 0x1800)
            handled = super().handler(irq, dev_id)
            self.port.spin_unlock_irqrestore(self.block + 0x1800)
            return handled

    assert run(LocksFarOut, Probe(), Open(), IrqSet(0, FIRST_FD), RaiseVector(0), Close(), Remove()).failure is None
