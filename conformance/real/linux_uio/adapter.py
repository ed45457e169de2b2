"""What of uio_msi can be asked of uio_pci_generic, and seen."""

from __future__ import annotations

from typing import Any

from conformance.model.uio_msi import Config
from conformance.model.uio_msi.eventfds import eventfd_of
from conformance.model.uio_msi.operations import FIRST_FD, IrqSet, Open, Probe, Remove
from conformance.real.adapter import Rate, rate
from conformance.real.guest.adapter import GuestAdapter
from conformance.real.guest.functions import ACKNOWLEDGE, INTX_DISABLE, MEMORY, RAISE
from conformance.real.guest.world import outside
from conformance.real.linux_uio.bench import UioBench
from conformance.real.linux_uio.world import Uio
from conformance.verdict import HarnessError


class LinuxUio(GuestAdapter):
    """uio_pci_generic of a Debian kernel."""

    title = "uio_pci_generic of Linux"
    world = Uio
    scripts = "linux_uio"
    profile = "as-posted"
    capabilities = frozenset({"intx", "irqcontrol"})
    operations = frozenset(Uio.OPERATIONS)
    view_fields = frozenset({"registered", "counters", "masked"})
    clauses = frozenset(
        f"UIO-{n:03}"
        for n in (
            12, 13, 14, 16, 18, 19, 24, 33, 35, 39, 40, 44, 45, 52, 53, 55, 56, 59, 67, 72, 74, 77, 78, 81, 82, 83, 95,
        )
    )  # fmt: skip
    forgets_event = False

    def environment(self, config: Config, profile: Any) -> Uio:
        """A function that is not bound yet, and the process's eventfds."""
        del profile
        return Uio(self.kernel, config, forgets_event=self.forgets_event)

    def bench(self) -> UioBench:
        """A function, once one is bound."""
        return UioBench(self.kernel)

    def builds(self, config: Config) -> bool:
        """A function with INTx alone."""
        odd = config.bridge or config.cardbus or config.virtfn or config.left_masked or config.core_41
        return not odd and not config.vectors and config.intx and config.irq not in (0, 0x8000_0000)

    def legal(self, state: Any, op: Any) -> bool:
        """Sets are the reader's own, so they are of vector 0, and name an eventfd or none."""
        match op:
            case IrqSet(vector, fd):
                return not vector and (fd < 0 or eventfd_of(state, fd) >= 0)
            case Remove():
                return not state.opens
            case Open(rawio):
                return bool(rawio)
            case _:
                return True

    def visible(self, view: Any) -> Any:
        """The view with all that it cannot see hidden."""
        return super().visible(view)._replace(enabled=0, pending=(False,))

    def rates(self) -> tuple[Rate, ...]:
        """Raise, read, acknowledge, unmask."""
        with outside(Uio(self.kernel, Config(vectors=0))) as world:
            for begin in (Probe(), Open(), IrqSet(0, FIRST_FD)):
                world.perform(begin)
            function, channel = world.function, world.channel
            unmasked = function.command() & ~INTX_DISABLE | MEMORY
            cycle = [
                f"p {function.registers + RAISE} 1", world.reading(), f"p {function.registers + ACKNOWLEDGE} 1",
                function.writing(unmasked),
            ]  # fmt: skip

            def once() -> None:
                if channel.ask(cycle)[1].value < 0:
                    raise HarnessError("the driver does not see an event that edu has raised")

            return (rate("raise, read, unmask", 830, once),)
