"""Whoever holds an event that comes before its eventfd, it is told of once, and nothing of it stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from conformance.candidates.builtin.uio_msi.upstream import Upstream
from conformance.candidates.load import Candidate
from conformance.engines import explore
from conformance.engines.context import Context
from conformance.model.step import Fault, Parallel, Step
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    NEVER_OPENED_FD,
    Close,
    ConfigIntx,
    DeviceReset,
    IrqSet,
    Open,
    OtherInterrupt,
    Probe,
    RaiseMany,
    RaiseVector,
    SetIntx,
)
from conformance.specs.uio_msi.constants import EBUSY, ENOSPC, IRQ_NONE, IRQF_SHARED
from tests.conformance.peers.uio_msi.keeping import KeepingDriver
from tests.conformance.peers.uio_msi.mended import MendedDriver
from tests.conformance.uio_msi.driving import INTX, SECOND, S, blamed, run, warned

OPENED = (Probe(), Open())
EARLY = (*OPENED, RaiseVector(0))


def test_a_driver_may_keep_early_events() -> None:
    """UIO-041 and UIO-042 ask for the event, not for the bit in which it waits."""
    scopes = {name: S.scopes[name] for name in ("1,1,1", "reset", "short", "many", "handled", "inside-open")}
    candidate = Candidate("keeping", KeepingDriver, KeepingDriver.profile, KeepingDriver.capabilities)
    context = Context(replace(S, scopes=scopes), candidate, candidate.profile)

    explore.run(context)

    assert [failure.signature for failure in (*context.failures, *context.warnings)] == []


class Forgets(KeepingDriver):
    """Keeps no event that came before the first eventfd."""

    def _tell_late(self, vector: int, trigger: int) -> None:
        self.early.remove(vector)


class TellsTwice(KeepingDriver):
    """Tells of it, and keeps it."""

    def _tell_late(self, vector: int, trigger: int) -> None:
        self.port.eventfd_signal(trigger)


class Counts(KeepingDriver):
    """Tells of each event by itself, though a pending bit has room for one."""

    def _forget(self) -> None:
        super()._forget()
        self.many = 0

    def handler(self, irq: int, dev_id: int) -> int:
        self.many += self.msix and not any(self.triggers)
        return super().handler(irq, dev_id)

    def _tell_late(self, vector: int, trigger: int) -> None:
        self.early.remove(vector)
        for _ in range(self.many):
            self.port.eventfd_signal(trigger)


class KeepsOverClose(KeepingDriver):
    """Tells the next user of what came for the last one."""

    def _drop_early(self) -> None:
        pass


class LeavesTheMessage(KeepingDriver):
    """Swaps the eventfd and does not write the message again."""

    def _attach_msix(self, vector: int, trigger: int) -> int:
        self._swap(vector, trigger)
        return 0


@pytest.mark.parametrize(
    ("driver", "ops"),
    [
        (Forgets, (*EARLY, IrqSet())),
        (TellsTwice, (*EARLY, IrqSet(), IrqSet(0, SECOND))),
        (Counts, (*OPENED, RaiseMany(0, 3), IrqSet())),
        (KeepsOverClose, (*EARLY, Close(), Open(), IrqSet())),
    ],
)
def test_an_early_event_is_told_of_once(driver: type[KeepingDriver], ops: tuple[object, ...]) -> None:
    """UIO-042, whoever held it."""
    assert run(KeepingDriver, *ops).failure is None
    assert blamed(run(driver, *ops)) == "UIO-042"


def test_a_message_is_written_again_though_the_action_stays() -> None:
    """UIO-032: the vector is deaf after a reset, and until it is set."""
    ops = (*OPENED, DeviceReset(), RaiseVector(0), IrqSet(), RaiseVector(0))

    assert run(KeepingDriver, *ops).failure is None
    assert warned(run(LeavesTheMessage, *ops)) == {"UIO-032"}


def test_an_event_that_the_driver_holds_survives_a_reset() -> None:
    """It is told of, once, though the message is not written again: that breaks UIO-032 alone."""
    ops = (*EARLY, DeviceReset(), IrqSet())

    assert run(KeepingDriver, *ops).failure is None
    assert warned(run(LeavesTheMessage, *ops, RaiseVector(0))) == {"UIO-032"}
    assert blamed(run(TellsTwice, *ops, IrqSet(0, SECOND))) == "UIO-042"


def test_an_event_beside_the_set_that_tells_of_it() -> None:
    """Kept before the swap and told by it, or told by the handler."""
    for at in range(24):
        for left, right in ((IrqSet(), RaiseVector(0)), (RaiseVector(0), IrqSet())):
            step = Step(Parallel(Step(left), Step(right), (at, at + 2)))
            assert run(KeepingDriver, *OPENED, step, RaiseVector(0)).failure is None


class OneVectorLess(KeepingDriver):
    """Counts its vectors from 0."""

    def _set(self, vector: int, fd: int) -> int:
        return super()._set(vector + (vector == self.max_vectors - 1), fd)


def test_a_vector_that_is_there_is_never_out_of_range() -> None:
    """Whatever else the set is about: UIO-065 names how many there are."""
    for ops in ((IrqSet(1),), (IrqSet(0), IrqSet(1)), (IrqSet(1, -1),)):
        assert blamed(run(OneVectorLess, *OPENED, *ops)) == "UIO-065"


def test_intx_beside_msix_is_no_interrupt() -> None:
    """Where a trial was refused at probe, the function may drive its pin, whichever of the two its driver chose."""
    refused = Step(Probe(), (Fault("pci_enable_msix", -ENOSPC),))
    for driver in (KeepingDriver, TriesAgain):
        ops = (refused, SetIntx(True), Open(), IrqSet(), OtherInterrupt(), SetIntx(False), SetIntx(True), Close())
        report = run(driver, *ops, SetIntx(False), SetIntx(True))
        assert (report.failure, report.warnings) == (None, [])


class TriesAgain(KeepingDriver):
    """Takes a refused trial for bad luck."""

    def _msix_works(self) -> bool:
        return super()._msix_works() or True


class SignalsTwice(KeepingDriver):
    """Its INTx handler signals once more where another thread's set is under way."""

    setting = False

    def ioctl(self, cmd: int, arg: int) -> int:
        self.setting = True
        err = super().ioctl(cmd, arg)
        self.setting = False
        return err

    def handler(self, irq: int, dev_id: int) -> int:
        handled = super().handler(irq, dev_id)
        if not self.msix and self.setting and handled and self.triggers[0]:
            self.port.eventfd_signal(self.triggers[0])
        return handled


def test_a_handler_is_judged_beside_other_threads_too() -> None:
    """As long as nobody moved level or mask under it (UIO-081)."""
    blamed_on = set()
    for at in range(16):
        step = Step(Parallel(Step(IrqSet(0, SECOND)), Step(SetIntx(True)), (at,)))
        assert run(KeepingDriver, *OPENED, IrqSet(0, FIRST_FD), step, config=INTX).failure is None
        report = run(SignalsTwice, *OPENED, IrqSet(0, FIRST_FD), step, config=INTX)
        blamed_on |= {report.failure.clause.id} if report.failure else set()

    assert blamed_on == {"UIO-081"}


class Overlaps(KeepingDriver):
    """Requests INTx for the new eventfd before it frees the old one; of two handlers the one that is meant serves."""

    def _attach_intx(self, trigger: int) -> int:
        port, old = self.port, self.triggers[0]
        if old == trigger:
            port.eventfd_ctx_put(trigger)
        else:
            self.triggers[0] = self.triggers[0] or trigger
            err = port.request_irq(self.irq, IRQF_SHARED, 0, trigger)
            if err:
                self.triggers[0] = old
                port.eventfd_ctx_put(trigger)
                return err
            self.triggers[0] = trigger
            if old:
                port.free_irq(self.irq, old)
                port.eventfd_ctx_put(old)
        port.pci_intx(1)
        return 0

    def _detach(self, vector: int) -> None:
        trigger, self.triggers[0] = self.triggers[0], 0
        self.port.pci_intx(0)
        self.port.free_irq(self.irq, trigger)
        self.port.eventfd_ctx_put(trigger)

    def handler(self, irq: int, dev_id: int) -> int:
        return super().handler(irq, dev_id) if dev_id == self.triggers[0] else IRQ_NONE


class NeitherServes(Overlaps):
    """Of its two handlers each leaves the line to the other."""

    def handler(self, irq: int, dev_id: int) -> int:
        return IRQ_NONE if len(self.dev_ids) > 1 else super().handler(irq, dev_id)

    def _attach_intx(self, trigger: int) -> int:
        self.dev_ids = {self.triggers[0] or trigger, trigger}
        err = super()._attach_intx(trigger)
        self.dev_ids = {trigger}
        return err


def test_two_actions_of_a_line_may_leave_it_to_one_of_them() -> None:
    """UIO-081 asks one handler of the line to mask it, not each."""
    mapped = (*OPENED, IrqSet(0, FIRST_FD))
    found = set()
    for at in range(20):
        for step in (
            Step(Parallel(Step(IrqSet(0, SECOND)), Step(SetIntx(True)), (at,))),
            Step(IrqSet(0, SECOND), during=((at, Step(SetIntx(True))),)),
        ):
            assert run(Overlaps, *mapped, step, IrqSet(0, -1), config=INTX).failure is None
            report = run(NeitherServes, *mapped, step, config=INTX)
            found |= {report.failure.clause.id} if report.failure else set()

    assert found == {"UIO-081"}


class MasksForNobody(MendedDriver):
    """Requests INTx at open: its handler masks, and has nobody to tell before the first set."""

    def _enable(self) -> int:
        error = super()._enable()
        if not error and not self.is_msix:
            error = self.port.request_irq(self.line, IRQF_SHARED, 0, self.contexts)
            self.irqs = [] if error else self.irqs
        return error

    def _tear_down(self) -> None:
        if not self.is_msix:
            self.port.free_irq(self.line, self.contexts)
        super()._tear_down()

    def _unmap(self, vector: int) -> None:
        if self.is_msix:
            super()._unmap(vector)
        elif self.ctx[0]:
            ctx, self.ctx[0] = self.ctx[0], 0
            self.port.synchronize_irq(self.line)
            self.port.eventfd_ctx_put(ctx)

    def _set(self, vector: int, fd: int) -> int:
        if self.is_msix or vector or fd < 0:
            return super()._set(vector, fd)
        self._unmap(0)
        ctx = self.port.eventfd_ctx_fdget(fd)
        self.ctx[0] = max(ctx, 0)
        return min(ctx, 0)

    def handler(self, irq: int, dev_id: int) -> int:
        if self.is_msix or self.ctx[0]:
            return super().handler(irq, dev_id)
        return self.port.pci_check_and_mask_intx()


class MasksAndForgets(MasksForNobody):
    """Masks a second time what it tells somebody, once the first set has come."""

    def _set(self, vector: int, fd: int) -> int:
        error = super()._set(vector, fd)
        if not self.is_msix and self.ctx[0]:
            self.port.pci_intx(0)
        return error


def test_a_handler_may_mask_before_the_first_set_where_only_user_space_unmasks() -> None:
    """Whoever comes then clears the disable bit first; a set that masks by itself is another matter."""
    for before in ((SetIntx(True), *OPENED), (*OPENED, SetIntx(True)), (*OPENED, SetIntx(True), ConfigIntx(False))):
        ops = (*before, IrqSet(), ConfigIntx(False), SetIntx(False), ConfigIntx(False), SetIntx(True))
        for driver in (MendedDriver, MasksForNobody):
            assert run(driver, *ops, config=INTX, profile="as-posted").failure is None

    assert run(MasksAndForgets, *OPENED, IrqSet(), config=INTX, profile="as-posted").failure is not None


@pytest.mark.parametrize("driver", [KeepingDriver, Upstream])
def test_what_stays_of_a_vector_beside_other_sets(driver: type[Upstream]) -> None:
    """An event inside open is held; a reset is told of mapped vectors alone, whichever of two sets came last."""
    for at in range(16):
        inside = Step(Open(), during=((at, Step(RaiseVector(1))),))
        both = Step(Parallel(Step(IrqSet(0, SECOND)), Step(IrqSet(1, -1)), (at,)))
        same = Step(Parallel(Step(IrqSet(1, -1)), Step(IrqSet(1, SECOND)), (at,)))
        assert run(driver, Probe(), inside, IrqSet(1)).failure is None
        for race in (both, same):
            for before in ((), (DeviceReset(),)):
                ops = (*OPENED, IrqSet(1), *before, race, DeviceReset(), RaiseVector(1), IrqSet(1, SECOND))
                assert run(driver, *ops).failure is None


def test_a_driver_that_requests_at_open_leaves_no_clause_open() -> None:
    """It meets refused requests there, and has no gap in which an event could come; that is right as well."""
    ops = (Step(Open(), (Fault("request_irq", -EBUSY),)), Open(), IrqSet(), IrqSet(0, NEVER_OPENED_FD))
    inside = Step(IrqSet(0, SECOND), during=((4, Step(RaiseVector(0))),))

    report = run(KeepingDriver, Probe(), *ops, inside)

    assert report.failure is None
    assert {"UIO-021", "UIO-022", "UIO-043"} <= {clause.id for clause, n in report.tally.clauses.items() if n}
