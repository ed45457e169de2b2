"""Before the first step: the module is loaded, and the vCPUs of the configuration are brought about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.avic.operations import load_module
from conformance.model import avic as model
from conformance.model.avic import operations as s
from conformance.model.avic.boot import boot
from conformance.specs.avic import clauses as c
from conformance.specs.clause import Clause
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.avic.world import Avic

BOOT_CLAUSES: dict[type, Clause] = {
    s.VmCreate: c.TABLES_BELONG_TO_ONE_VM,
    s.VcpuCreate: c.ACTIVE_IFF_NOTHING_FORBIDS,
    s.VcpuReset: c.REGISTERS_HAVE_RESET_VALUES,
    s.SetApicBase: c.APIC_BASE_REFUSED,
    s.SetLapic: c.ONE_APIC_STATE,
    s.Load: c.IS_RUNNING_TELLS_THE_TRUTH,
    s.VmRun: c.ACTIVE_IFF_NOTHING_FORBIDS,
}
"""Cited when an operation that brings a configured vCPU about is refused."""


def bring_about(world: Avic) -> None:
    """Load the module, bring the configured vCPUs about, and judge what they look like."""
    config, profile = world.config, world.profile
    load_module(world, world.host.loaded)
    ops = boot(config, profile)
    for n, op in enumerate(ops, 1):
        world.booting = n < len(ops)
        result = world.perform(op)
        if result != 0:
            raise Violation(BOOT_CLAUSES[type(op)], f"{op!r} returned {result!r}, not 0", "boot")
    if ops:
        _compare(world, model.initial(config, profile))


def _compare(world: Avic, state: model.State) -> None:
    """What the configured vCPUs look like is judged before anything else happens."""
    expected, got = model.view(state), world.view()
    for name, clause in model.VIEW_CLAUSES.items():
        if getattr(expected, name) != getattr(got, name):
            last = s.SetLapic() if world.config.enabled else s.VcpuReset()
            cited = model.cite(state, last, name, expected, got)
            if name == "regs" and world.config.enabled:
                cited = c.ONE_APIC_STATE
            raise Violation(cited or clause, f"after the start {name} is not as expected", "boot")
