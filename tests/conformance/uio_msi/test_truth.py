"""Right code that is built another way is not accused; wrong code that looks like it still is.

One test for each kind of accusation that once was false: a driver that behaves as described, with the trace that
accused it, and beside it a driver for which the accusation would be true.
"""

from __future__ import annotations

from typing import Any

import pytest

from conformance.candidates.builtin.uio_msi.linux import INTX as INTX_TYPE
from conformance.candidates.builtin.uio_msi.linux import IrqCtx, Linux, Vdev
from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.candidates.defects.uio_msi.upstream import UnservedFromOpen
from conformance.model.step import Fault, Parallel, Step
from conformance.model.uio_msi import Config
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    NEVER_OPENED_FD,
    Close,
    CompatIrqSet,
    ConfigIntx,
    Flood,
    IrqSet,
    Open,
    OtherInterrupt,
    Probe,
    RaiseVector,
    Remove,
    SetIntx,
    Write,
)
from conformance.specs.uio_msi import constants as k
from tests.conformance.peers.linux_uio_msi import PEERS
from tests.conformance.peers.uio_msi.mended import MendedDriver
from tests.conformance.uio_msi.driving import INTX, SECOND, blamed, run

LINUX = {"linux": Linux, **PEERS}
OPENED = (Probe(), Open())
MAPPED = (*OPENED, IrqSet(0, FIRST_FD))
UNMAPPED = (*MAPPED, IrqSet(0, -1))


def accusations(*ops: Any, config: Config | None = None) -> set[str]:
    """What the kernel-shaped drivers are accused of, each in its own profile."""
    reports = {name: run(driver, *ops, config=config, profile=driver.profile) for name, driver in LINUX.items()}
    return {f"{name}: {report.failure.clause.id}" for name, report in reports.items() if report.failure}


class SignalsTheOld(Linux):
    """Keeps the action when INTx is unmapped, and the trigger too, whose reference it has dropped."""

    def _intx_set_signal(self, vdev: Vdev, trigger: int) -> None:
        super()._intx_set_signal(vdev, trigger)
        if not trigger:
            vdev.ctx[0].trigger = self.last
        self.last = trigger

    def _intx_enable(self, vdev: Vdev, trigger: int, masked: bool = False) -> int:
        self.last = trigger
        return super()._intx_enable(vdev, trigger, masked)


class KeepsTheReference(Linux):
    """Keeps action, trigger and reference: nothing is unmapped."""

    def _intx_set_signal(self, vdev: Vdev, trigger: int) -> None:
        if trigger:
            super()._intx_set_signal(vdev, trigger)


def test_action_that_stays_while_unmapped() -> None:
    """VFIO since 18c198c96a81: the trigger is NULL and the action stays."""
    for unmap in (IrqSet(0, -1), CompatIrqSet(0, -1)):
        again = (unmap, SetIntx(True), OtherInterrupt(), SetIntx(False), IrqSet(0, SECOND), SetIntx(True))
        assert not accusations(*MAPPED, *again, Close(), Remove(), config=INTX)

    ops = (*UNMAPPED, SetIntx(True))
    assert blamed(run(SignalsTheOld, *ops, config=INTX, profile="vfio-like")) == "UIO-027"
    assert blamed(run(KeepsTheReference, *ops, config=INTX, profile="vfio-like")) in ("UIO-039", "UIO-017")


def test_line_that_user_space_left_to_itself() -> None:
    """Who clears the disable bit of a device that nobody serves has himself to thank, until it is opened again."""
    for before in ((Probe(), Open(), Close()), (*UNMAPPED, Close())):
        cleared = (*before, ConfigIntx(False))
        for between in ((), (Open(rawio=False),)):
            report = run(Linux, *cleared, *between, SetIntx(True), config=INTX, profile="vfio-like")
            assert (report.failure, report.warnings) == (None, [])

    unserved = (Probe(), ConfigIntx(False), Open(), SetIntx(True))
    assert not accusations(*unserved, config=INTX)
    assert blamed(run(UnservedFromOpen, *unserved, config=INTX)) == "UIO-091"


class SignalsUnmapped(Linux):
    """Tells somebody although nobody asked: the eventfd that is mapped first, from open on."""

    def _intx_handler(self, vdev: Vdev, ctx: IrqCtx) -> int:
        handled = super()._intx_handler(vdev, ctx)
        if handled == k.IRQ_HANDLED and ctx.trigger:
            self.port.eventfd_signal(ctx.trigger)
        return handled


def test_action_that_is_requested_at_open() -> None:
    """igb_uio; its handler has nobody to tell before the first set, masks and answers IRQ_HANDLED."""
    assert not accusations(*OPENED, SetIntx(True), OtherInterrupt(), IrqSet(0, FIRST_FD), Close(), config=INTX)
    assert not accusations(SetIntx(True), *OPENED, IrqSet(0, FIRST_FD), Remove(), config=INTX)
    assert not accusations(*UNMAPPED, SetIntx(True), IrqSet(0, FIRST_FD), config=INTX)

    assert blamed(run(SignalsUnmapped, *MAPPED, SetIntx(True), config=INTX, profile="vfio-like")) == "UIO-081"


class RequestedAtProbe(Upstream):
    """Requests INTx at probe and frees it at remove, as uio_pci_generic has the core do it."""

    is_requested = False

    def _allocate_tables(self) -> int:
        err = super()._allocate_tables()
        if not err and not self.msix:
            err = self.port.request_irq(self.irq, k.IRQF_SHARED, self.names[0], self.contexts)
            self.is_requested = not err
            if err:
                self._free_tables()
        return err

    def _free_tables(self) -> None:
        if self.is_requested:
            # The handler masks as long as it is there, so the bit is put back after it.
            self.port.free_irq(self.irq, self.contexts)
            self._set_intx_mask(self.was_masked)
            self.is_requested = False
        super()._free_tables()

    def _switch_on(self) -> int:
        self.irqs = [self.irq]
        return super()._switch_on() if self.msix else self.port.pci_set_master() or 0

    def _attach_intx(self, trigger: int) -> int:
        old, self.triggers[0] = self.triggers[0], trigger
        if old:
            self.port.synchronize_irq(self.irq)
            self.port.eventfd_ctx_put(old)
        self.port.pci_intx(1)
        return 0

    def _detach(self, vector: int) -> None:
        if self.msix:
            super()._detach(vector)
            return
        old, self.triggers[0] = self.triggers[0], 0
        self.port.synchronize_irq(self.irq)
        self.port.eventfd_ctx_put(old)

    def handler(self, irq: int, dev_id: int) -> int:
        if self.msix:
            return super().handler(irq, dev_id)
        trigger = self.triggers[0]
        masked = self.port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE
        if masked or not self.port.pci_check_and_mask_intx():
            return k.IRQ_NONE
        if trigger:
            self.port.eventfd_signal(trigger)
        return k.IRQ_HANDLED


def test_action_that_is_there_from_probe_to_remove() -> None:
    """Nobody is told before the first set, nor after the last release; a refusal at probe is probe's answer."""
    whole = (*MAPPED, SetIntx(True), Close(), SetIntx(False), SetIntx(True), Open(), IrqSet(0, SECOND), Remove())
    refused = Step(Probe(), (Fault("request_irq", -k.EBUSY),))

    for ops in (whole, (SetIntx(True), *whole), (Probe(), SetIntx(True), Remove()), (refused, *whole)):
        report = run(RequestedAtProbe, *ops, config=INTX)
        assert report.failure is None
        assert not report.warnings


class HalfLost(Linux):
    """Drops the reference before the new fd is looked up, and keeps the trigger when that fails."""

    def _set_intx_trigger(self, vdev: Vdev, fd: int) -> int:
        if fd >= 0 and vdev.irq_type == INTX_TYPE:
            self.port.eventfd_ctx_put(vdev.ctx[0].trigger)
        return super()._set_intx_trigger(vdev, fd)


def test_bad_fd_may_keep_the_old_mapping_everywhere() -> None:
    """VFIO loses it with MSI-X, and keeps it with INTx."""
    for config in (INTX, Config()):
        bad = (CompatIrqSet(0, NEVER_OPENED_FD), SetIntx(True) if config is INTX else RaiseVector(0))
        assert not accusations(*MAPPED, *bad, IrqSet(0, SECOND), config=config)

    report = run(HalfLost, *MAPPED, IrqSet(0, NEVER_OPENED_FD), SetIntx(True), config=INTX, profile="vfio-like")
    assert blamed(report) == "UIO-027"


class LosesOpensErrno(PEERS["requested-at-open"]):  # type: ignore[misc]  # a class from a table
    """Requests INTx at open, and answers -EIO whatever that met."""

    def open(self) -> int:
        err: int = super().open()
        return -k.EIO if err else 0


class CountsRefusedOpens(PEERS["requested-at-open"]):  # type: ignore[misc]  # as above
    """Requests INTx at open, and counts the open also when that is refused."""

    def open(self) -> int:
        err: int = super().open()
        self.vdev.refcnt += bool(err)
        return err


@pytest.mark.parametrize(
    ("call", "value"), [("request_irq", -k.EBUSY), ("kasprintf", -k.ENOMEM), ("kzalloc", -k.ENOMEM)]
)
def test_refusal_met_by_an_open(call: str, value: int) -> None:
    """Its errno is what the open returns, and the next one tries again."""
    refused = Step(Open(), (Fault(call, value),))

    assert not accusations(Probe(), refused, Open(), IrqSet(0, FIRST_FD), SetIntx(True), config=INTX)
    assert blamed(run(LosesOpensErrno, Probe(), refused, config=INTX, profile="vfio-like")) == "UIO-048"

    ops = (Probe(), refused, Open(), IrqSet(0, FIRST_FD), Close())
    assert blamed(run(CountsRefusedOpens, *ops, config=INTX, profile="vfio-like")) == "UIO-053"


class IgnoresRequest(Upstream):
    """Takes a set for successful whatever request_irq says."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        super()._attach_msix(vector, trigger)
        return 0


class ForgetsTheNew(Upstream):
    """Replaces by unmapping first, and forgets the new reference when the request is refused then."""

    def _attach_intx(self, trigger: int) -> int:
        if not self.triggers[0]:
            return super()._attach_intx(trigger)
        self._detach(0)
        err = self.port.request_irq(self.irq, k.IRQF_SHARED, self.names[0], self.contexts)
        if err:
            return err
        self.triggers[0] = trigger
        self.port.pci_intx(1)
        return 0


def test_half_of_a_mapping_is_not_called_a_mask() -> None:
    """The reference that is left looks like the old mapping, but for the mask: it is UIO-021, not UIO-083."""
    refused = Step(IrqSet(0, FIRST_FD), (Fault("request_irq", -k.EBUSY),))
    report = run(ForgetsTheNew, *MAPPED, refused, config=INTX)

    assert blamed(report) == "UIO-021"


def test_flood_that_meets_no_refusal() -> None:
    """Who has the action already calls no request_irq that could be refused."""
    flood = Flood(0, FIRST_FD, refusal=-k.EBUSY)

    assert not accusations(*OPENED, flood, SetIntx(True), config=INTX)
    assert not accusations(*MAPPED, flood, SetIntx(True), config=INTX)
    assert not accusations(*MAPPED, flood, RaiseVector(0))

    assert blamed(run(IgnoresRequest, *OPENED, flood)) == "UIO-022"


class UnmasksWithoutResend(Upstream):
    """Unmasks as VFIO does, and forgets who waits where the level is still up."""

    def irqcontrol(self, on: int) -> int:
        if not on or self.msix or not self.triggers[0]:
            return super().irqcontrol(on)
        self.port.pci_check_and_unmask_intx()
        return 0


def test_two_unmasks_are_one_interrupt_where_they_meet() -> None:
    """A level has no memory: the handler that runs for the one masks what the other unmasked."""
    up = (*MAPPED, SetIntx(True))
    for left, right in ((IrqSet(0, SECOND), Write(1)), (Write(1), IrqSet(0, FIRST_FD)), (Write(1), Write(1))):
        for at in range(18):
            assert not accusations(*up, Parallel(Step(left), Step(right), (at,)), config=INTX)

    assert blamed(run(UnmasksWithoutResend, *up, Write(1), config=INTX)) == "UIO-083"
    assert blamed(run(UnmasksWithoutResend, *up, IrqSet(0, SECOND), Write(1), config=INTX)) == "UIO-083"


class UnmasksAfresh(MendedDriver):
    """Unmasks INTx when it is mapped, after the request."""

    def _set(self, vector: int, fd: int) -> int:
        is_fresh = vector or not self.ctx[0]
        err = super()._set(vector, fd)
        if not err and fd >= 0 and not self.is_msix and is_fresh:
            self.port.pci_intx(1)
        return err


class UnmasksAgain(MendedDriver):
    """Unmasks INTx at every set."""

    def _set(self, vector: int, fd: int) -> int:
        err = super()._set(vector, fd)
        if not err and fd >= 0 and not self.is_msix:
            self.port.pci_intx(1)
        return err


def test_fresh_set_that_unmasks_where_user_space_does() -> None:
    """It is told of a level once by request_irq, and again by its own unmask (UIO-084); a later set is not."""
    ops = (SetIntx(True), *OPENED, ConfigIntx(False), IrqSet(0, FIRST_FD))

    assert run(UnmasksAfresh, *ops, IrqSet(0, SECOND), config=INTX, profile="as-posted").failure is None
    report = run(UnmasksAgain, *ops, IrqSet(0, SECOND), config=INTX, profile="as-posted")
    assert blamed(report) in ("UIO-019", "UIO-083")


def test_bar_of_the_table_is_private_in_every_profile() -> None:
    """As posted it may be exported, and need not be."""

    class HidesAnother(Upstream):
        """Takes the first BAR for that of the table."""

        def _table_bars(self) -> set[int]:
            return {0} if super()._table_bars() else set()

    assert run(Upstream, Probe(), profile="as-posted").failure is None
    assert blamed(run(HidesAnother, Probe(), profile="as-posted")) == "UIO-069"


class TriesTwice(Upstream):
    """Asks for the irq once more where it is refused."""

    def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
        self.port = Twice(self.port) if not isinstance(self.port, Twice) else self.port
        return super().probe(irq, hdr_type, is_virtfn)


class Twice:
    """The port, on which each request is made again when it is refused."""

    def __init__(self, port: Any) -> None:
        self.port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)

    def request_irq(self, irq: int, flags: int, name: int, dev_id: int) -> int:
        """As the port says."""
        err: int = self.port.request_irq(irq, flags, name, dev_id)
        return err and int(self.port.request_irq(irq, flags, name, dev_id))


class RollsBackAndSaysDone(Upstream):
    """Puts the old eventfd back where the request is refused, and returns what that request returned: 0."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        old = self.triggers[vector]
        super()._attach_msix(vector, trigger)
        return 0 if self.triggers[vector] in (old, trigger) else -k.EBUSY


def test_request_that_is_granted_at_the_second_attempt() -> None:
    """The set succeeds: an errno that a further attempt mended need not be returned."""
    for fd in (FIRST_FD, SECOND):
        refused = Step(IrqSet(0, fd), (Fault("request_irq", -k.EBUSY),))
        for config in (INTX, Config()):
            raised = SetIntx(True) if config is INTX else RaiseVector(0)
            for before in (OPENED, MAPPED):
                assert run(TriesTwice, *before, refused, raised, Close(), config=config).failure is None

    refused = Step(IrqSet(0, SECOND), (Fault("request_irq", -k.EBUSY),))
    assert blamed(run(RollsBackAndSaysDone, *MAPPED, refused)) in ("UIO-019", "UIO-022", "UIO-017")
    assert blamed(run(IgnoresRequest, *OPENED, refused)) == "UIO-022"


class MasksToReplace(Upstream):
    """Masks INTx and frees the action before it requests it for the new eventfd."""

    def _attach_intx(self, trigger: int) -> int:
        if self.triggers[0]:
            self._detach(0)
        return super()._attach_intx(trigger)


class WritesWhatDiffers(Upstream):
    """Leaves the disable bit alone where it finds it as it should be."""

    def _attach_intx(self, trigger: int) -> int:
        old = self.triggers[0]
        if not old:
            return super()._attach_intx(trigger)
        self.triggers[0] = trigger
        self.port.synchronize_irq(self.irq)
        self.port.eventfd_ctx_put(old)
        return self._unmask_if_masked()

    def irqcontrol(self, on: int) -> int:
        return self._unmask_if_masked() if on and self.triggers[0] else super().irqcontrol(on)

    def _unmask_if_masked(self) -> int:
        if self.port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE:
            self.port.pci_intx(1)
        return 0


class LeavesItToTheSet(Upstream):
    """Unmasks nothing while a set is under way, which will unmask anyhow, or already has."""

    is_setting = False

    def ioctl(self, cmd: int, arg: int) -> int:
        self.is_setting = True
        err = super().ioctl(cmd, arg)
        self.is_setting = False
        return err

    def irqcontrol(self, on: int) -> int:
        return 0 if on and self.is_setting else super().irqcontrol(on)


def test_unmask_that_the_handler_never_came_to_see() -> None:
    """Another operation masks first, or finds INTx unmasked and leaves it so: the level is signalled once for both."""
    up = (*MAPPED, SetIntx(True))
    for driver in (MasksToReplace, WritesWhatDiffers):
        for left, right in ((IrqSet(0, FIRST_FD), ConfigIntx(False)), (ConfigIntx(False), IrqSet(0, SECOND))):
            for points in ((0,), (3, 4), (4, 5), (6, 7), (7, 8)):
                race = Parallel(Step(left), Step(right), points)
                assert run(driver, *up, race, OtherInterrupt(), Write(1), config=INTX).failure is None

    blames = set()
    for at in range(12):
        report = run(LeavesItToTheSet, *up, Parallel(Step(IrqSet(0, FIRST_FD)), Step(Write(1)), (at,)), config=INTX)
        blames.add(report.failure and report.failure.clause.id)
    assert "UIO-083" in blames


@pytest.mark.parametrize("value", [-k.ENOSPC, -k.EIO, -k.ENOMEM])
def test_refused_trial_of_msix(value: int) -> None:
    """igb_uio 4094930e55 falls back to INTx; without it probe returns the errno, or open tries again."""
    refused = Step(Probe(), (Fault("pci_enable_msix", value),))
    intx = (Open(), IrqSet(0, FIRST_FD), SetIntx(True), IrqSet(1, SECOND), Close(), Remove())

    assert not accusations(refused, *intx, *MAPPED, RaiseVector(0))
    assert not accusations(refused, Step(Open(), (Fault("pci_enable_msix", value),)), Open())
    assert not accusations(refused, config=Config(intx=False))
    assert not accusations(refused, *MAPPED, RaiseVector(0), config=Config(virtfn=True))


class SwallowsTrial(Upstream):
    """Binds a function with neither MSI-X that works nor INTx, and says so at every set."""

    def _set_up(self, irq: int) -> int:
        err = super()._set_up(irq)
        if err == -k.EINVAL:
            self.max_vectors = 1
            err = self._allocate_tables()
        return err


def test_refused_trial_without_another_interrupt_is_a_refusal() -> None:
    """Who binds nevertheless, and not for MSI-X, is accused at the first open at the latest."""
    refused = Step(Probe(), (Fault("pci_enable_msix", -k.EIO),))

    report = run(SwallowsTrial, refused, Open(), config=Config(intx=False))

    assert blamed(report) in ("UIO-047", "UIO-060")


@pytest.mark.parametrize("irq", [0, k.IRQ_NOTCONNECTED])
def test_function_without_an_irq(irq: int) -> None:
    """It is refused, or bound without interrupts."""
    ops = (*MAPPED, IrqSet(0, -1), Close(), Remove())

    class Binds(Upstream):
        """Binds what cannot interrupt, for its BARs, and refuses every set."""

        def _set_up(self, irq: int) -> int:
            self.is_deaf = irq in (0, k.IRQ_NOTCONNECTED)
            return super()._set_up(1 if self.is_deaf else irq)

        def _set(self, vector: int, fd: int) -> int:
            return -k.ENODEV if self.is_deaf and fd >= 0 else super()._set(vector, fd)

    assert not accusations(*ops, config=Config(vectors=0, irq=irq))
    assert run(Binds, *ops, config=Config(vectors=0, irq=irq)).failure is None


def test_request_of_irq_notconnected_says_so() -> None:
    """request_threaded_irq answers -ENOTCONN, so a driver need not look; irq 0 is another's."""

    class Forwards(Upstream):
        """Requests whatever irq the function has."""

        def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
            self.given = irq
            return super().probe(irq, hdr_type, is_virtfn)

        def _set_up(self, irq: int) -> int:
            err = super()._set_up(1)
            self.irq = self.given
            return err

    assert run(Forwards, *MAPPED, config=Config(vectors=0, irq=k.IRQ_NOTCONNECTED)).failure is None
    assert blamed(run(Forwards, *MAPPED, config=Config(vectors=0, irq=0))) == "UIO-094"


def test_other_numbers_than_0_and_1_may_be_refused() -> None:
    """Nothing says what they mean: a driver that refuses them leaves all as it is."""

    class Strict(Upstream):
        """irqcontrol of 0 and 1."""

        def irqcontrol(self, on: int) -> int:
            return super().irqcontrol(on) if on in (0, 1) else -k.EINVAL

    class Confused(Upstream):
        """Refuses what it has done."""

        def irqcontrol(self, on: int) -> int:
            err = super().irqcontrol(on)
            return err if on in (0, 1) else -k.EINVAL

    up = (*MAPPED, SetIntx(True))
    for value in (2, -1):
        assert run(Strict, *up, Write(value), Write(1), config=INTX).failure is None
        assert blamed(run(Confused, *up, Write(value), config=INTX)) == "UIO-083"


def test_config_space_answers_before_the_device_is_enabled() -> None:
    """Only what needs power asks for it: bus mastering, MSI-X."""

    class MasksEarly(Upstream):
        """Masks INTx before it enables the device, and puts the bit back after it disabled it."""

        def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
            self.found = self.port.pci_read_config(k.PCI_COMMAND, 2) & k.PCI_COMMAND_INTX_DISABLE
            if self.port.pci_intx_mask_supported():
                self.port.pci_intx(0)
            err = super().probe(irq, hdr_type, is_virtfn)
            if err:
                self.port.pci_intx(int(not self.found))
            return err

        def remove(self) -> None:
            super().remove()
            self.port.pci_intx(int(not self.found))

    class MastersEarly(Upstream):
        """Turns bus mastering on before it enables the device."""

        def probe(self, irq: int, hdr_type: int, is_virtfn: bool) -> int:
            self.port.pci_set_master()
            return super().probe(irq, hdr_type, is_virtfn)

    for config in (INTX, Config(vectors=0, left_masked=True)):
        assert run(MasksEarly, *MAPPED, SetIntx(True), Close(), Remove(), Probe(), config=config).failure is None
    assert blamed(run(MastersEarly, Probe())) == "UIO-078"


def test_waiting_for_handlers_is_no_effect() -> None:
    """Of fd -1 on an unmapped vector; freeing or requesting is."""

    class Synchronises(Linux):
        """Waits for handlers whenever INTx is unmapped."""

        def _intx_set_signal(self, vdev: Vdev, trigger: int) -> None:
            super()._intx_set_signal(vdev, trigger)
            self.port.synchronize_irq(vdev.irq)

    class RequestsAgain(Linux):
        """Frees the action whenever INTx is unmapped, and requests it for nobody."""

        def _set_intx_trigger(self, vdev: Vdev, fd: int) -> int:
            if fd < 0 and vdev.irq_type == INTX_TYPE and not vdev.ctx[0].trigger:
                self._intx_disable(vdev)
                return self._intx_enable(vdev, 0)
            return super()._set_intx_trigger(vdev, fd)

    ops = (*UNMAPPED, IrqSet(0, -1))
    assert run(Synchronises, *ops, config=INTX, profile="vfio-like").failure is None
    assert blamed(run(RequestsAgain, *ops, config=INTX, profile="vfio-like")) == "UIO-013"
