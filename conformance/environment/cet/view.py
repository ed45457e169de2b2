"""What can be observed from outside after a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.environment.cet.registers import S
from conformance.model.cet import View
from conformance.model.cet.state import Words
from conformance.model.cet.view import Crs
from conformance.specs.cet.constants import SMRAM_SSP

if TYPE_CHECKING:
    from conformance.environment.cet.world import Cet


def view(world: Cet) -> View:
    """Registers of the host, and what memory holds for each vCPU."""
    crs: list[Crs | None] = []
    smram: list[int | None] = []
    area: list[Words | None] = []
    for thread in world.threads.slots:
        if thread is None:
            crs.append(None)
            smram.append(None)
            area.append(None)
        else:
            vcpu = thread.number
            crs.append(None if world.events.parts[vcpu].shutdown else world.crs.bits(vcpu))
            smram.append(world.memory.parts[vcpu].smram.get(SMRAM_SSP, 0))
            area.append(None if thread.l2 else world.memory.words(vcpu))
    return View(tuple(regs[S] for regs in world.processors.files), tuple(crs), tuple(smram), tuple(area))
