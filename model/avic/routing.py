"""Layer R: which APICs accept a message, as the manuals have it and as KVM does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from conformance.specs.avic import clauses as c
from conformance.specs.avic.constants import (
    ALL,
    BROADCAST,
    CLUSTER,
    EXTINT,
    FIXED,
    FLAT,
    INIT,
    LOWEST,
    NMI,
    NO_SHORTHAND,
    OTHERS,
    SELF,
    SMI,
    SPIV_ENABLE,
    STARTUP,
    X2_BROADCAST,
    X2_ICR_RESERVED,
)
from conformance.specs.clause import Clause

DISABLED, XAPIC, X2APIC = range(3)
"""Modes of a local APIC: AE=0, AE=1, AE=1 with EXTD=1."""


@dataclass(frozen=True, slots=True)
class Apic:
    """What routing needs of one local APIC."""

    id: int
    """The vCPU's id: the 32-bit x2APIC id, and its low 8 bits are the default xAPIC id."""
    mode: int = XAPIC
    spiv: int = 0x1FF
    ldr: int = 0
    """The whole register: bits 31:24 hold the logical id in xAPIC mode, all 32 in x2APIC mode."""
    dfr: int = FLAT
    xid: int = -1
    """The 8-bit xAPIC ID where the guest changed it; -1 for the default."""

    @property
    def eight_bit_id(self) -> int:
        """ID[31:24] in xAPIC mode."""
        return self.id & 0xFF if self.xid < 0 else self.xid

    @property
    def is_enabled(self) -> bool:
        """Hardware-enabled and software-enabled."""
        return self.mode != DISABLED and self.spiv >> SPIV_ENABLE & 1 == 1


@dataclass(frozen=True, slots=True)
class Message:
    """An IPI, or an MSI as an APIC sees it."""

    dest: int
    sender: int = -1
    """Position of the sender; -1 for an MSI."""
    logical: bool = False
    shorthand: int = NO_SHORTHAND
    mode: int = FIXED
    vector: int = 0x41
    level: bool = False
    """Level-triggered."""
    asserted: bool = True
    hint: bool = False
    """Redirection hint of an MSI."""
    wide: bool = False
    """KVM_X2APIC_API_USE_32BIT_IDS."""
    no_quirk: bool = False
    """KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK."""
    reserved: int = 0
    """Reserved bits of ICR that an x2APIC sender set."""


def x2_ldr(apic_id: int) -> int:
    """LDR of an x2APIC: the cluster in bits 31:16, one bit for the member (APM 16.14)."""
    return apic_id >> 4 << 16 | 1 << (apic_id & 15)


def matches_physical(apic: Apic, dest: int) -> bool:
    """Whether a physical destination names this APIC (AVIC-096)."""
    if apic.mode == X2APIC:
        return dest in (X2_BROADCAST, apic.id)
    return dest in (BROADCAST, apic.eight_bit_id)


def matches_logical(apic: Apic, dest: int) -> bool:
    """Whether a logical destination names this APIC (AVIC-097, AVIC-098)."""
    if apic.mode == X2APIC:
        return dest == X2_BROADCAST or (dest >> 16 == apic.ldr >> 16 and dest & apic.ldr & 0xFFFF != 0)
    if dest == BROADCAST:
        return True
    if dest >> 8:
        return False
    ldr = apic.ldr >> 24 & 0xFF
    if apic.dfr >> 28 & 0xF == 0xF:
        return ldr & dest != 0
    return ldr >> 4 == dest >> 4 and ldr & dest & 0xF != 0


def named(apics: Sequence[Apic], message: Message) -> list[int]:
    """Positions of the present APICs that shorthand or destination name, whether or not they accept."""
    present = [n for n, apic in enumerate(apics) if apic.mode != DISABLED]
    match message.shorthand:
        case 1:  # SELF
            return [n for n in present if n == message.sender]
        case 2:  # ALL
            return present
        case 3:  # OTHERS
            return [n for n in present if n != message.sender]
    if message.logical:
        return [n for n in present if matches_logical(apics[n], message.dest)]
    return [n for n in present if matches_physical(apics[n], message.dest)]


def mask(positions: Sequence[int]) -> int:
    """Bit mask of positions."""
    bits = 0
    for n in positions:
        bits |= 1 << n
    return bits


def _deciding(apics: Sequence[Apic], message: Message) -> Clause:
    """The clause that says who is named."""
    if message.shorthand != NO_SHORTHAND:
        return c.SHORTHAND_OVERRIDES
    if not message.logical:
        return c.PHYSICAL_DESTINATION
    if any(apic.mode == X2APIC for apic in apics):
        return c.LOGICAL_DESTINATION_X2APIC
    return c.LOGICAL_DESTINATION_XAPIC


def faults(apics: Sequence[Apic], message: Message) -> bool:
    """Whether writing this ICR gives #GP (AVIC-105)."""
    sends_x2 = message.sender >= 0 and apics[message.sender].mode == X2APIC
    return sends_x2 and message.reserved & X2_ICR_RESERVED != 0


def route(apics: Sequence[Apic], message: Message) -> tuple[tuple[tuple[int, ...], ...], Clause, tuple[Clause, ...]]:
    """Who accepts, by the manuals.

    Returns:
        the allowed sets of positions, plainest first; the clause that decides; further clauses met
    """
    positions = named(apics, message)
    because = _deciding(apics, message)
    also: tuple[Clause, ...] = ()
    if any(apic.mode == DISABLED for apic in apics):
        awake = [replace(apic, mode=XAPIC) if apic.mode == DISABLED else apic for apic in apics]
        if named(awake, message) != positions:
            because, also = c.DISABLED_APIC_RECEIVES_NOTHING, (because,)
    sender = apics[message.sender].mode if message.sender >= 0 else DISABLED
    unclear = [n for n in range(len(apics)) if _is_unclear(apics[n], message, sender)]
    if unclear:
        certain = [n for n in positions if n not in unclear]
        sides = [sorted((*certain, *some)) for k in range(len(unclear) + 1) for some in combinations(unclear, k)]
    else:
        sides = [positions]
    sets: dict[tuple[int, ...], None] = {}
    for side in sides:
        accepted, because, more = _accepting(apics, message, side, because)
        sets.update(dict.fromkeys(accepted))
        also += tuple(clause for clause in more if clause not in also)
    return tuple(sets), because, also


def _is_unclear(apic: Apic, message: Message, sender: int) -> bool:
    """Whether the manuals leave open if a destination names this APIC; `sender` is the sender's mode.

    They do for reserved DFR models, for cluster 15, for logical destinations of more than 8 bits, for an IPI to
    everybody where target and sender differ in mode (KVM asks the target, bhyve and AVIC's tables the sender), and for
    an x2APIC's IPI to 0xFF, which names one APIC to the sender and all to an xAPIC; KVM's two paths disagree on it.
    """
    if message.shorthand != NO_SHORTHAND:
        return False
    if apic.mode == X2APIC:
        to_all = sender == XAPIC and message.dest == BROADCAST
        return to_all and not (matches_logical if message.logical else matches_physical)(apic, message.dest)
    if apic.mode != XAPIC:
        return False
    if sender == X2APIC and message.dest == BROADCAST:
        return message.logical or apic.eight_bit_id != BROADCAST
    if sender == X2APIC and message.dest == X2_BROADCAST:
        return True
    if not message.logical or message.dest == BROADCAST:
        return False
    model = apic.dfr >> 28 & 0xF
    return message.dest >> 8 != 0 or model not in (0, 0xF) or (model == 0 and apic.ldr >> 28 & 0xF == 0xF)


def _accepting(
    apics: Sequence[Apic], message: Message, positions: Sequence[int], because: Clause
) -> tuple[tuple[tuple[int, ...], ...], Clause, tuple[Clause, ...]]:
    """Which of the APICs that are named accept; the allowed sets."""
    also: tuple[Clause, ...] = ()
    mode = message.mode
    if message.hint and message.sender < 0 and mode not in (FIXED, LOWEST):
        return _redirected(apics, message, positions, because)
    if mode in (NMI, STARTUP) or (mode == INIT and (message.asserted or not message.level)):
        if not all(apics[n].spiv >> SPIV_ENABLE & 1 for n in positions):
            return (tuple(positions),), c.FIXED_NEEDS_SOFTWARE_ENABLE, (because,)
        return (tuple(positions),), because, (*also, c.FIXED_NEEDS_SOFTWARE_ENABLE)
    if mode == SMI:  # an implementation may have no SMM
        return (tuple(positions), ()), because, also
    if mode == EXTINT:  # neither manual defines it as an IPI; only a disabled APIC is certain not to accept
        return (tuple(positions), ()), because, also
    if mode == INIT:
        return ((),), c.DEASSERT_DELIVERS_NOTHING, (because,)
    if mode not in (FIXED, LOWEST):
        return ((),), because, also
    if message.vector < 16:
        return ((),), c.LOW_VECTORS_ILLEGAL, also
    if message.level and not message.asserted:
        return ((),), c.DEASSERT_DELIVERS_NOTHING, also
    enabled = tuple(n for n in positions if apics[n].spiv >> SPIV_ENABLE & 1)
    if len(enabled) < len(positions):
        because, also = c.FIXED_NEEDS_SOFTWARE_ENABLE, (because,)
    if mode == FIXED and not (message.hint and message.sender < 0):
        return (enabled,), because, also
    choices: tuple[tuple[int, ...], ...] = tuple((n,) for n in enabled) or ((),)
    is_logical = message.shorthand == NO_SHORTHAND and message.logical
    if len(enabled) > 1 and not is_logical and mode == LOWEST:
        choices += (enabled,)  # a broadcast, which may be treated as fixed
    return choices, c.LOWEST_PRIORITY_PICKS_ONE, (because, *also)


def _redirected(
    apics: Sequence[Apic], message: Message, positions: Sequence[int], because: Clause
) -> tuple[tuple[tuple[int, ...], ...], Clause, tuple[Clause, ...]]:
    """A redirection hint in another mode than fixed: heeded, among all targets or the enabled ones, or not."""
    plain, because, also = _accepting(apics, replace(message, hint=False), positions, because)
    if plain == ((),):
        return plain, because, also
    one: tuple[tuple[int, ...], ...] = tuple((n,) for n in positions)
    if not any(apics[n].spiv >> SPIV_ENABLE & 1 for n in positions):
        one += ((),)
    return (*plain, *(some for some in one if some not in plain)), because, also


# -- KVM


@dataclass(frozen=True, slots=True)
class KvmMap:
    """KVM's optimised map of one VM."""

    physical: dict[int, int] | None
    """Physical id -> position; None when an id is taken twice."""
    logical_mode: int
    """0 none yet, 1 flat, 2 cluster, 3 x2APIC, 4 disabled."""
    logical: dict[int, int]
    """Flat: bit number; cluster: 16 * cluster + bit -> position."""
    max_id: int


def kvm_map(apics: Sequence[Apic], wide: bool) -> KvmMap:
    """Build the map as kvm_recalculate_apic_map does, over the present APICs in creation order."""
    physical: dict[int, int] | None = {}
    max_id = 255
    for n, apic in enumerate(apics):
        if apic.mode == DISABLED:
            continue
        max_id = max(max_id, apic.id)
        key = apic.id if apic.mode == X2APIC else apic.eight_bit_id
        if physical is None:
            continue
        if not wide:
            if key in physical:
                physical = None
            else:
                physical[key] = n
            continue
        if apic.mode == X2APIC or apic.id > BROADCAST:
            physical[apic.id] = n
        if apic.mode == XAPIC and apic.eight_bit_id not in physical:
            physical[apic.eight_bit_id] = n
    mode, logical = _kvm_logical_map(apics)
    return KvmMap(physical, mode, logical, max_id)


def _kvm_logical_map(apics: Sequence[Apic]) -> tuple[int, dict[int, int]]:
    mode = 0
    slots: dict[int, int] = {}
    for n, apic in enumerate(apics):
        if not apic.is_enabled or apic.ldr == 0:
            continue
        own = 3 if apic.mode == X2APIC else 1 if apic.dfr == FLAT else 2
        if mode not in (0, own):
            return 4, {}
        mode = own
        if own == 3:
            continue
        ldr = apic.ldr >> 24 & 0xFF
        bits, cluster = (ldr, 0) if own == 1 else (ldr & 0xF, ldr >> 4)
        if bits == 0:
            continue
        slot = 16 * cluster + bits.bit_length() - 1
        if bits & (bits - 1) or slot in slots:
            return 4, {}
        slots[slot] = n
    return mode, slots


def logical_map_is_aliased(apics: Sequence[Apic]) -> bool:
    """Whether software-enabled APICs mix modes, have several LDR bits or share one (AVIC-086)."""
    return _kvm_logical_map(apics)[0] == 4


def names_somebody(apic: Apic) -> bool:
    """Whether its LDR is a logical id: not without a member's bit, nor in cluster 15, which is reserved."""
    if apic.mode == X2APIC:
        return True
    ldr = apic.ldr >> 24 & 0xFF
    return ldr != 0 if apic.dfr == FLAT else ldr & 0xF != 0 and ldr >> 4 != 0xF


def _kvm_is_broadcast(apics: Sequence[Apic], message: Message, map_: KvmMap) -> bool:
    if not message.no_quirk:
        x2_sender = message.sender >= 0 and apics[message.sender].mode == X2APIC
        return message.dest == (X2_BROADCAST if x2_sender else BROADCAST)
    return message.dest == X2_BROADCAST or (message.dest == BROADCAST and map_.logical_mode != 3)


def _kvm_fast(message: Message, map_: KvmMap) -> list[int] | None:
    """Positions by the map, before acceptance; None when the map cannot tell."""
    dest = message.dest
    assert map_.physical is not None
    if not message.logical:
        n = map_.physical.get(dest) if dest <= map_.max_id else None
        return [] if n is None else [n]
    if map_.logical_mode == 4:
        return None
    slots: list[int | None] = []
    if map_.logical_mode == 1:
        slots = [map_.logical.get(b) for b in range(8) if dest >> b & 1]
    elif map_.logical_mode == 2:
        cluster = dest >> 4 & 0xF
        slots = [map_.logical.get(16 * cluster + b) for b in range(4) if dest >> b & 1]
    elif map_.logical_mode == 3:
        first = (dest >> 16) * 16
        ids = [first + b for b in range(16) if dest >> b & 1 and first + b <= map_.max_id]
        slots = [map_.physical.get(i) for i in ids]
    if (message.mode == LOWEST or message.hint) and slots:
        slots = [slots[message.vector % len(slots)]]
    return [n for n in slots if n is not None]


def _kvm_matches(apic: Apic, message: Message) -> bool:
    """Whether the slow path counts this present APIC among the targets."""
    dest = message.dest
    if message.sender < 0 and not message.no_quirk and dest == BROADCAST and apic.mode == X2APIC:
        dest = X2_BROADCAST
    if dest == (X2_BROADCAST if apic.mode == X2APIC else BROADCAST):
        return True
    if not message.logical:
        return dest == (apic.id if apic.mode == X2APIC or dest > BROADCAST else apic.eight_bit_id)
    if apic.mode == X2APIC:
        return dest >> 16 == apic.ldr >> 16 and dest & apic.ldr & 0xFFFF != 0
    ldr = apic.ldr >> 24
    if apic.dfr == FLAT:
        return ldr & dest != 0
    return apic.dfr == CLUSTER and ldr >> 4 == dest >> 4 and ldr & dest & 0xF != 0


def kvm_named(apics: Sequence[Apic], message: Message) -> tuple[list[int], Clause]:
    """Positions that KVM's map names, or its slow path where the map cannot tell; and which of them it was.

    In x2APIC logical mode the map goes by ids, so that an xAPIC without a logical id is named by its number as well.
    """
    map_ = kvm_map(apics, message.wide)
    if message.shorthand == NO_SHORTHAND and map_.physical is not None and not _kvm_is_broadcast(apics, message, map_):
        fast = _kvm_fast(message, map_)
        if fast is not None:
            return fast, c.KVM_FAST_PATH
    if message.shorthand in (SELF, ALL, OTHERS):
        return named(apics, message), c.KVM_SLOW_PATH
    slow = [n for n, apic in enumerate(apics) if apic.mode != DISABLED and _kvm_matches(apic, message)]
    return slow, c.KVM_SLOW_PATH


def kvm_route(apics: Sequence[Apic], message: Message) -> tuple[tuple[int, ...], int, Clause]:
    """Who accepts in KVM, what KVM_SIGNAL_MSI returns, and which path decides. Fixed and lowest modes."""
    if message.shorthand == SELF:
        accepting = tuple(n for n in (message.sender,) if apics[n].is_enabled)
        return accepting, len(accepting), c.KVM_FAST_PATH
    positions, because = kvm_named(apics, message)
    if because is c.KVM_FAST_PATH:
        accepting = tuple(n for n in positions if apics[n].is_enabled)
        return accepting, len(accepting), because
    enabled = [n for n in positions if apics[n].is_enabled]
    lowest = message.mode == LOWEST or message.hint
    if message.mode == LOWEST and not message.logical and message.dest == BROADCAST:
        lowest = message.hint  # a physical broadcast is sent as fixed; a redirection hint is not
    if lowest:
        if not enabled:
            return (), -1, c.KVM_SLOW_PATH
        return (enabled[message.vector % len(enabled)],), 1, c.KVM_SLOW_PATH
    return tuple(enabled), len(enabled) if positions else -1, c.KVM_SLOW_PATH
