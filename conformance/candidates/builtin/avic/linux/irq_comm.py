"""Who receives a message: the optimised map, and the match of each APIC by itself (irq_comm.c, lapic.c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from conformance.specs.avic.constants import (
    BROADCAST,
    CLUSTER,
    FIXED,
    FLAT,
    LOWEST,
    NO_SHORTHAND,
    OTHERS,
    SELF,
    SPIV_ENABLE,
    X2_BROADCAST,
)

NONE, MAP_FLAT, MAP_CLUSTER, MAP_X2APIC, MAP_DISABLED = range(5)
"""Logical modes of the map."""


@dataclass(frozen=True, slots=True)
class Irq:
    """struct kvm_lapic_irq."""

    vector: int
    mode: int
    dest: int
    logical: bool
    shorthand: int = NO_SHORTHAND
    trigger: bool = False
    """Level-triggered."""
    level: bool = True
    hint: bool = False

    @property
    def is_lowest(self) -> bool:
        """kvm_lowest_prio_delivery: the redirection hint counts, whatever the mode."""
        return self.mode == LOWEST or self.hint


@dataclass(frozen=True, slots=True)
class Apic:
    """What routing looks at in one APIC."""

    index: int
    id: int
    xapic_id: int
    present: bool
    x2: bool
    spiv: int
    ldr: int
    dfr: int

    @property
    def enabled(self) -> bool:
        """By software; whether there is an APIC at all is `present`."""
        return self.spiv >> SPIV_ENABLE & 1 == 1


@dataclass(slots=True)
class ApicMap:
    """struct kvm_apic_map."""

    max_id: int
    physical: dict[int, Apic] = field(default_factory=dict)
    logical_mode: int = NONE
    slots: dict[int, Apic] = field(default_factory=dict)
    """By the cluster shifted left by 4, plus the bit; cluster 0 in flat mode."""


@dataclass(frozen=True, slots=True)
class Routing:
    """The choices that a VM, and this implementation, made."""

    x2apic_format: bool = False
    broadcast_quirk: bool = True
    hashes_unmapped: bool = False
    """Released Linux picks among the bits of the destination, so a lowest-priority message may be lost."""
    x2_by_id: bool = False
    """Released Linux finds members of an x2APIC cluster by id, in whatever mode they are."""
    enabled_only: bool = False
    """Released Linux knows software-enabled APICs alone by logical id, so others get no NMI, SMI, INIT or STARTUP."""
    reaches_wide_ids: bool = False
    """Released Linux takes a destination above 0xFF for an xAPIC whose vCPU has that id."""


RELEASED = Routing(hashes_unmapped=True, x2_by_id=True, enabled_only=True, reaches_wide_ids=True)
"""As Linux has it, and the manuals do not."""


def recalculate_phys_map(map_: ApicMap, apic: Apic, routing: Routing) -> bool:
    """Enter one APIC under its id; False when another one has it."""
    if not routing.x2apic_format:
        key = apic.id if apic.x2 else apic.xapic_id
        return map_.physical.setdefault(key, apic) is apic
    if apic.x2 or apic.id > 0xFF:
        map_.physical[apic.id] = apic
    if not apic.x2:
        map_.physical.setdefault(apic.xapic_id, apic)
    return True


def recalculate_logical_map(map_: ApicMap, apic: Apic) -> None:
    """Enter one APIC under its logical id, or give the logical half up."""
    if map_.logical_mode == MAP_DISABLED or not apic.enabled or not apic.ldr:
        return
    mode = MAP_X2APIC if apic.x2 else MAP_FLAT if apic.dfr == FLAT else MAP_CLUSTER
    if map_.logical_mode == NONE:
        map_.logical_mode = mode
    elif map_.logical_mode != mode:
        map_.logical_mode = MAP_DISABLED
        return
    if apic.x2:
        return
    cluster, members = logical_dest(mode, apic.ldr >> 24)
    if not members:
        return
    slot = cluster << 4 | members.bit_length() - 1
    if members & members - 1 or slot in map_.slots:
        map_.logical_mode = MAP_DISABLED
    else:
        map_.slots[slot] = apic


def logical_dest(mode: int, dest: int) -> tuple[int, int]:
    """Cluster and members that a logical destination names, in an xAPIC mode."""
    return (0, dest & 0xFF) if mode == MAP_FLAT else (dest >> 4 & 0xF, dest & 0xF)


def recalculate_apic_map(apics: Sequence[Apic], routing: Routing) -> tuple[ApicMap | None, bool]:
    """The map, None when two APICs share an id, and whether some xAPIC has a foreign one."""
    present = [apic for apic in apics if apic.present]
    map_ = ApicMap(max([255, *(apic.id for apic in present)]))
    mismatch = False
    for apic in present:
        mismatch = mismatch or (not apic.x2 and apic.xapic_id != apic.id & 0xFF)
        if not recalculate_phys_map(map_, apic, routing):
            return None, mismatch
        recalculate_logical_map(map_, apic)
    return map_, mismatch


def is_broadcast(map_: ApicMap, source: Apic | None, dest: int, routing: Routing) -> bool:
    """Whether the destination means everybody, and so is none for the map."""
    if not routing.broadcast_quirk:
        return dest == X2_BROADCAST or (dest == BROADCAST and map_.logical_mode != MAP_X2APIC)
    return dest == (X2_BROADCAST if source is not None and source.x2 else BROADCAST)


def vector_to_index(vector: int, choices: Sequence[Apic]) -> Apic:
    """Vector hashing: one of the choices."""
    return choices[vector % len(choices)]


def map_targets(map_: ApicMap | None, source: Apic | None, irq: Irq, routing: Routing) -> list[Apic] | None:
    """kvm_apic_map_get_dest_lapic: the receivers, or None for the slow path."""
    if irq.shorthand == SELF and source is not None:
        return [source]
    if irq.shorthand or map_ is None or is_broadcast(map_, source, irq.dest, routing):
        return None
    if not irq.logical:
        found = map_.physical.get(irq.dest)
        return [found] if found is not None else []
    if map_.logical_mode == MAP_DISABLED:
        return None
    if irq.mode not in (FIXED, LOWEST) and not routing.enabled_only:
        return None
    if map_.logical_mode == NONE:
        return []
    named = _members(map_, irq.dest, routing)
    if not irq.is_lowest:
        return [apic for apic in named if apic is not None]
    if not routing.hashes_unmapped:
        named = [apic for apic in named if apic is not None and apic.enabled]
    if not named:
        return []
    chosen = named[irq.vector % len(named)]
    return [] if chosen is None else [chosen]


def _members(map_: ApicMap, dest: int, routing: Routing) -> list[Apic | None]:
    """What stands under each bit of a logical destination."""
    if map_.logical_mode == MAP_X2APIC:
        first = (dest >> 16) * 16
        ids = [first + bit for bit in range(16) if dest >> bit & 1 and first + bit <= map_.max_id]
        found = [map_.physical.get(key) for key in ids]
        return found if routing.x2_by_id else [apic if apic is not None and apic.x2 else None for apic in found]
    cluster, members = logical_dest(map_.logical_mode, dest)
    return [map_.slots.get(cluster << 4 | bit) for bit in range(8) if members >> bit & 1]


def match_physical(apic: Apic, mda: int, routing: Routing) -> bool:
    """kvm_apic_match_physical_addr."""
    if mda == (X2_BROADCAST if apic.x2 else BROADCAST):
        return True
    return mda == (apic.id if apic.x2 or (mda > 0xFF and routing.reaches_wide_ids) else apic.xapic_id)


def match_logical(apic: Apic, mda: int) -> bool:
    """kvm_apic_match_logical_addr."""
    if mda == (X2_BROADCAST if apic.x2 else BROADCAST):
        return True
    if apic.x2:
        return apic.ldr >> 16 == mda >> 16 and apic.ldr & mda & 0xFFFF != 0
    ldr = apic.ldr >> 24
    if apic.dfr == FLAT:
        return ldr & mda != 0
    return apic.dfr == CLUSTER and ldr >> 4 == mda >> 4 and ldr & mda & 0xF != 0


def match_dest(apic: Apic, source: Apic | None, irq: Irq, routing: Routing) -> bool:
    """kvm_apic_match_dest: whether one APIC is meant."""
    if irq.shorthand == SELF:
        return source is not None and apic.index == source.index
    if irq.shorthand:
        return irq.shorthand != OTHERS or source is None or apic.index != source.index
    mda = irq.dest
    if routing.broadcast_quirk and source is None and mda == BROADCAST and apic.x2:
        mda = X2_BROADCAST
    return match_logical(apic, mda) if irq.logical else match_physical(apic, mda, routing)


def slow_targets(
    apics: Sequence[Apic], source: Apic | None, irq: Irq, routing: Routing
) -> tuple[Irq, list[Apic], bool]:
    """The message as it is delivered, its receivers, and whether it counts as matched."""
    if not irq.logical and irq.dest == BROADCAST and irq.is_lowest:
        irq = replace(irq, mode=FIXED if irq.mode == LOWEST else irq.mode)
    matched = [apic for apic in apics if apic.present and match_dest(apic, source, irq, routing)]
    if irq.is_lowest:
        matched = [apic for apic in matched if apic.enabled]
        matched = [vector_to_index(irq.vector, matched)] if matched else []
    return irq, matched, bool(matched)
