"""The Hypothesis machine of uio_msi: one rule per operation."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from conformance.machines.base import Machine
from conformance.model.step import Fault, Step
from conformance.model.uio_msi import operations as model
from conformance.strategies import uio_msi as ops

Faults = tuple[Fault, ...]
During = tuple[tuple[int, Step], ...]


class UioMsi(Machine):
    """Drive a UIO MSI-X driver and the model with the same operations."""

    SUBSYSTEM = "uio_msi"

    @initialize(config=ops.configs())
    def start(self, config: model.Config) -> None:
        """Load the driver into a world."""
        if model.requires(config) <= type(self).capabilities:
            self.begin(config)

    @rule(faults=ops.faults(model.Probe), during=ops.during(model.Probe))
    def probe(self, faults: Faults, during: During) -> None:
        """Bind the driver."""
        self.take(model.Probe(), faults, during)

    @rule(during=ops.during(model.Remove))
    def remove(self, during: During) -> None:
        """Unbind the driver, with handles open or not."""
        self.take(model.Remove(), (), during)

    @rule(op=ops.operations(model.Open), faults=ops.faults(model.Open), during=ops.during(model.Open))
    def open(self, op: Any, faults: Faults, during: During) -> None:
        """Open a handle."""
        self.take(op, faults, during)

    @rule(during=ops.during(model.Close))
    def close(self, during: During) -> None:
        """Close a handle."""
        self.take(model.Close(), (), during)

    @rule(op=ops.operations(model.IrqSet), faults=ops.faults(model.IrqSet), during=ops.during(model.IrqSet))
    def irq_set(self, op: Any, faults: Faults, during: During) -> None:
        """Map, replace or unmap a vector, with events and closed fds in the middle."""
        self.take(op, faults, during)

    @rule(op=ops.operations(model.CompatIrqSet), faults=ops.faults(model.CompatIrqSet))
    def compat_irq_set(self, op: Any, faults: Faults) -> None:
        """The same from a 32-bit process."""
        self.take(op, faults)

    @rule(op=st.one_of(ops.operations(model.RawIoctl), ops.operations(model.CompatIoctl)))
    def raw_ioctl(self, op: Any) -> None:
        """Any command with any pointer."""
        self.take(op)

    @rule(op=st.one_of(ops.operations(model.RaiseVector), ops.operations(model.RaiseMany)))
    def raise_vector(self, op: Any) -> None:
        """An event of an MSI-X vector."""
        self.take(op)

    @rule(op=ops.operations(model.SetIntx))
    def set_intx(self, op: Any) -> None:
        """Assert or deassert INTx."""
        self.take(op)

    @rule()
    def other_interrupt(self) -> None:
        """Another device interrupts on the shared line."""
        self.take(model.OtherInterrupt())

    @rule(op=st.one_of(ops.operations(model.ConfigIntx), ops.operations(model.Write)))
    def mask_or_unmask(self, op: Any) -> None:
        """User space edits the disable bit, or writes 1 to the device."""
        self.take(op)

    @rule(op=st.one_of(*(ops.operations(kind) for kind in (model.CloseFd, model.ReuseFd, model.ReadEventfd))))
    def user_fds(self, op: Any) -> None:
        """User space closes, reuses or reads an eventfd's number."""
        self.take(op)

    @precondition(lambda self: self.state is not None and self.state.opens)
    @rule()
    def reset(self) -> None:
        """The function is reset behind the driver's back."""
        self.take(model.DeviceReset())

    @rule()
    def list_interrupts(self) -> None:
        """Somebody reads /proc/interrupts."""
        self.take(model.ListInterrupts())


MACHINE = UioMsi
