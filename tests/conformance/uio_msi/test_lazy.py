"""A driver that acquires at open, tries again, and puts back is right; what it may forget on the way is found."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.model.step import Fault, Parallel, Step
from conformance.model.uio_msi.operations import (
    FIRST_FD,
    Close,
    ConfigIntx,
    IrqSet,
    Open,
    Probe,
    RaiseVector,
    Remove,
    SetIntx,
)
from conformance.specs.uio_msi import constants as k
from tests.conformance.peers.uio_msi.lazy import SLOT, LazyDriver
from tests.conformance.uio_msi.driving import INTX, SECOND, blamed, caught, run


class StaysPowered(LazyDriver):
    """Leaves the function enabled when an open fails later."""

    def _give_power_back(self) -> None:
        pass


class LosesTheOld(LazyDriver):
    """Forgets the old reference when its mapping cannot be put back."""

    def _replace(self, vector: int, trigger: int) -> tuple[int, int]:
        self.port = Without(self.port)
        outcome = super()._replace(vector, trigger)
        self.port = self.port.port
        return outcome


class Without:
    """The port, on which references are not dropped."""

    def __init__(self, port: Any) -> None:
        self.port = port

    def __getattr__(self, name: str) -> Any:
        return getattr(self.port, name)

    def eventfd_ctx_put(self, ctx: int) -> None:
        """Keep it."""


SCOPES = ("1,1,1", "intx-1,1", "probes", "intx-probes")


def test_lazy_driver_is_not_accused() -> None:
    """Not by what is refused at open, nor by the order in which remove gives back what an open acquired.

    Where MSI-X is there and broken it should have been found by probe: a SHOULD, of which it is told.
    """
    assert caught(LazyDriver, *SCOPES) == {"UIO-068"}


def test_lazy_driver_beside_user_space_is_not_accused() -> None:
    """User space unmasks while a set has the action out of the way."""
    mapped = (Probe(), Open(), IrqSet(0, FIRST_FD), SetIntx(True))
    for left, right in ((IrqSet(0, SECOND), ConfigIntx(False)), (ConfigIntx(False), IrqSet(0, FIRST_FD))):
        for points in ((0,), (2, 3), (4, 5), (6, 7)):
            race = Parallel(Step(left), Step(right), points)
            assert run(LazyDriver, *mapped, race, Close(), Remove(), config=INTX).failure is None


class ForgetsFirst(LazyDriver):
    """Forgets its mappings before it has freed their actions."""

    def _power_down(self) -> None:
        self.wired, kept = {}, self.wired
        for vector in kept:
            self.port.free_irq(self._irq(vector), self.slots + SLOT * vector)
        super()._power_down()


def test_a_handler_that_runs_during_the_last_close_has_its_mapping() -> None:
    """The irq is the driver's until free_irq returns."""
    trace = (Probe(), Open(), IrqSet(0, FIRST_FD))

    for point in range(6):
        closed = Step(Close(), (), ((point, Step(SetIntx(True))),))
        assert run(LazyDriver, *trace, closed, config=INTX).failure is None
    assert blamed(run(ForgetsFirst, *trace, Step(Close(), (), ((2, Step(SetIntx(True))),)), config=INTX)) == "UIO-078"


@pytest.mark.parametrize("call", ["pci_enable_device", "pci_request_regions", "kcalloc", "pci_enable_msix"])
def test_refused_open_leaves_nothing(call: str) -> None:
    """Whatever it met, the next one works."""
    refused = Step(Open(), (Fault(call, -k.EBUSY if call == "pci_request_regions" else -k.ENOMEM),))

    assert run(LazyDriver, Probe(), refused, Open(), IrqSet(0), RaiseVector(0), Close(), Remove()).failure is None


def test_power_that_a_refused_open_left_is_found() -> None:
    """At remove, whose one pci_disable_device is no longer enough."""
    assert "UIO-074" in caught(StaysPowered, "probes") or "UIO-075" in caught(StaysPowered, "probes")


def test_reference_that_nobody_puts_back_is_found() -> None:
    """Four refusals: of the new mapping, and of the old one."""
    four = tuple(Fault("request_irq", -k.EBUSY, nth) for nth in (1, 2, 3, 4))
    ops = (Probe(), Open(), IrqSet(0, FIRST_FD), Step(IrqSet(0, SECOND), four))

    assert run(LazyDriver, *ops, RaiseVector(0), Close()).failure is None
    assert blamed(run(LosesTheOld, *ops, RaiseVector(0))) == "UIO-033"
