"""The memory attributes: which gfns are private."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from conformance.environment.simulator import Simulator
from conformance.environment.tdp_mirror.gfns import natural
from conformance.environment.tdp_mirror.guest_memory import GuestMemory
from conformance.environment.tdp_mirror.invalidation import Invalidation
from conformance.environment.tdp_mirror.meaning import Meaning
from conformance.environment.tdp_mirror.slots_lock import SlotsLock
from conformance.environment.tdp_mirror.threads import Threads
from conformance.environment.tdp_mirror.vm import Vm
from conformance.model.tdp_mirror import Config
from conformance.model.tdp_mirror.state import Gfns
from conformance.specs.clause import Clause
from conformance.specs.tdp_mirror import clauses as c
from conformance.specs.tdp_mirror.constants import ATTRIBUTE_PRIVATE
from conformance.verdict import Violation

if TYPE_CHECKING:
    from conformance.environment.door import Environment


class Attributes(Simulator):
    """The attribute PRIVATE of each gfn; it changes under slots_lock, inside an invalidation of the range.

    Not modelled: other attributes, and the tree that must be reserved before it can be stored into.
    """

    CLAUSES: ClassVar[tuple[Clause, ...]] = (
        c.NO_ALIAS_IN_CALLS,
        c.CONVERSION_ZAPS_OLD,
        c.STRADDLING_HUGE,
    )

    def __init__(
        self,
        door: Environment,
        config: Config,
        threads: Threads,
        slots_lock: SlotsLock,
        invalidation: Invalidation,
        guest_memory: GuestMemory,
        meaning: Meaning,
        vm: Vm,
    ) -> None:
        super().__init__(door)
        self.config = config
        self.bits = config.direct_bits
        self.threads = threads
        self.slots_lock = slots_lock
        self.invalidation = invalidation
        self.guest_memory = guest_memory
        self.meaning = meaning
        self.vm = vm
        self.private = Gfns.of(*config.private_gfns)
        self.seen: list[tuple[tuple[int, int], ...]] = threads.own(())
        """gfns whose attributes were read so far in this operation, each with what they were."""

    def _judge_stored(self, gfns: range, value: int) -> None:
        """Nothing is mapped any more in the half that the range leaves (TDP-089, 092)."""
        for gfn, level, *_ in self.meaning.half(mirror=not value):
            if gfn < gfns.stop and gfns.start < gfn + self.config.cover(level):
                straddles = self.door.scheduler is not None and level > 1
                clause = c.STRADDLING_HUGE if straddles else c.CONVERSION_ZAPS_OLD
                raise Violation(clause, f"gfn {gfn:#x} is still mapped in its old half")

    # -- environment calls

    def attributes(self, gfn: int) -> int:
        """Attributes of a gfn."""
        natural(gfn, self.bits, "attributes")
        self.guest_memory.attributes_read()
        value = ATTRIBUTE_PRIVATE if gfn in self.private else 0
        me = self.threads.me
        if (gfn, value) not in self.seen[me]:
            if any(seen == gfn for seen, _ in self.seen[me]):
                self.door.frame.given["attributes_changed"] = 1
            else:
                self.seen[me] += ((gfn, value),)
        return value

    def range_has_attributes(self, start: int, end: int, value: int) -> int:
        """Whether a whole range has these attributes."""
        natural(start, self.bits, "range_has_attributes")
        return int(self.private.has_all(start, end, bool(value)))

    def reserve_attributes(self, start: int, end: int) -> int:
        """Reserve; start and end only matter to a real tree."""
        natural(start, self.bits, "reserve_attributes")
        return self.door.refused("reserve_attributes")

    def store_attributes(self, start: int, end: int, value: int) -> None:
        """Store: inside an invalidation of what can be mapped, after the other half was zapped (TDP-089)."""
        self.slots_lock.needed("store_attributes")
        nameable = self.bits or self.config.cover(self.config.levels + 1)
        for _, base, npages, _ in self.guest_memory.slots.by_id.values():
            lo, hi = max(start, base), min(end, base + npages, nameable)
            if lo < hi and not self.invalidation.covers(lo, hi):
                raise Violation(
                    c.CONVERSION_ZAPS_OLD, f"attributes of {lo:#x} to {hi:#x} change outside an invalidation of them"
                )
        if self.config.mirror and not self.vm.bugged:
            self._judge_stored(range(start, min(end, self.config.max_gfn + 1)), value)
        self.door.hold(c.CONVERSION_ZAPS_OLD)
        self.private = self.private.with_range(start, end, bool(value))
