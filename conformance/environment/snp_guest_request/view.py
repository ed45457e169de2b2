"""What can be observed of a world of either kind: the same record as the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.model.snp_guest_request.view import View

if TYPE_CHECKING:
    from conformance.environment.snp_guest_request.world import World


def view(world: World) -> View:
    """Firmware's side, guest memory and the RMP of a machine; the counters and the keys of a guest."""
    if world.of_guest:
        return View(numbers=world.honest.counts, wiped=world.secrets.wiped)
    states, counts = world.contexts.view()
    labels, bugged = world.contents.labels, world.vms.bugged
    return View(states, counts, world.rmp.view(), (labels[0], labels[1]), (bugged[0], bugged[1]), world.mailbox.dead)
