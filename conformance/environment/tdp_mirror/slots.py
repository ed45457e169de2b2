"""The memory slots of the VM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.gfns import natural
from conformance.environment.tdp_mirror.slots_lock import SlotsLock
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror import operations as ops
from conformance.model.tdp_mirror.operations import Slot
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import EEXIST, SLOT_INVALID

if TYPE_CHECKING:
    from conformance.environment.door import Environment


_FROM_OUTSIDE = (ops.SlotCreate, ops.SlotMove)
"""Operations whose gfns user space made up: what is there is looked up before it is known whether they are any."""


class Slots(Simulator):
    """Memory slots by id: gfn ranges that do not overlap, with flags; they change under slots_lock.

    Not modelled: the two sets of slots of the kernel; readers see a change at once.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (c.NO_ALIAS_IN_CALLS,)
    CALL_CLAUSES: ClassVar[Mapping[str, tuple[Clause, ...]]] = {"memslot": (c.NO_ALIAS_IN_CALLS,)}

    def __init__(self, door: Environment, config: Config, slots_lock: SlotsLock) -> None:
        super().__init__(door)
        self.bits = config.direct_bits
        self.slots_lock = slots_lock
        self.by_id: dict[int, Slot] = {slot[0]: slot for slot in config.slots}

    def of(self, gfn: int) -> Slot | None:
        """Slot of a gfn."""
        return next((s for s in self.by_id.values() if s[1] <= gfn < s[1] + s[2]), None)

    def has(self, slot: int, gfn: int) -> bool:
        """Whether a gfn lies in a slot."""
        _, base, npages, _ = self.by_id.get(slot, (slot, 0, 0, 0))
        return base <= gfn < base + npages

    def _told(self, slot: tuple[int, ...]) -> tuple[int, ...]:
        """A slot on its way to the candidate: beside its deletion that may decide what the candidate does."""
        if slot and slot[3] & SLOT_INVALID and self.door.scheduler is not None:
            self.door.frame.given.setdefault("slot_invalid", 1)
        return slot

    # -- environment calls

    def memslot(self, gfn: int) -> tuple[int, ...]:
        """Slot of a gfn."""
        if type(self.slots_lock.threads.op) not in _FROM_OUTSIDE:
            natural(gfn, self.bits, "memslot")
        return self._told(self.of(gfn) or ())

    def memslots(self, start: int, end: int) -> tuple[tuple[int, ...], ...]:
        """Slots of a range, in the order of their bases."""
        if type(self.slots_lock.threads.op) not in _FROM_OUTSIDE:
            natural(start, self.bits, "memslots")
        found = sorted((s for s in self.by_id.values() if s[1] < end and start < s[1] + s[2]), key=_base)
        return tuple(self._told(slot) for slot in found)

    def memslot_by_id(self, slot: int) -> tuple[int, ...]:
        """Slot of an id."""
        return self._told(self.by_id.get(slot, ()))

    def memslot_install(self, slot: int, base: int, npages: int, flags: int) -> int:
        """Add or replace."""
        self.slots_lock.needed("memslot_install")
        for other, start, count, _ in self.by_id.values():
            if other != slot and base < start + count and start < base + npages:
                return -EEXIST
        self.by_id[slot] = (slot, base, npages, flags)
        return 0

    def memslot_remove(self, slot: int) -> None:
        """Remove."""
        self.slots_lock.needed("memslot_remove")
        self.by_id.pop(slot, None)


def _base(slot: Slot) -> int:
    return slot[1]
