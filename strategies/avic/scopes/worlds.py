"""The small worlds that are explored without gaps."""

from __future__ import annotations

from dataclasses import replace

from conformance.model.avic import Config
from conformance.model.avic import operations as s
from conformance.specs.avic.constants import APIC_LVTT, CPUID_X2AVIC_EXT
from conformance.strategies.avic.domains import RESET, RUNNING, THREE, X2, X2AVIC_HOST, steps
from conformance.strategies.avic.scopes.company import ENDED_INSIDE, ENDING, INSIDE, TOGETHER
from conformance.strategies.avic.scopes.lifecycle import (
    BIG,
    COMING_ROUND,
    CREATING,
    FAILING,
    FIRST_TAGS,
    FREED,
    LIFECYCLE,
    PASSING_TAGS,
    RELOADED,
    TAGS,
    TWO_VMS,
)
from conformance.strategies.avic.scopes.pure import HELPED, SETUPS, routed, signalled
from conformance.strategies.avic.scopes.running import (
    ACCESSES,
    BIG_IDS,
    CHANGES_MODE,
    DERIVED,
    DISABLED_APIC,
    ERRATUM,
    HELD_BACK,
    HYBRID,
    IPI,
    IPI_MORE,
    LAST_BITS,
    LEVEL,
    LOGICAL,
    LOGICAL_MORE,
    MODES,
    MOVED,
    POSTED,
    POSTED_WIDE,
    REASONS,
    RESTORED,
    SLEEPER,
    SOFTWARE,
    SOFTWARE_DISABLED,
    SPELLED,
    UNNAMED,
    WIDE,
    X2AVIC,
    X2AVIC_MORE,
)
from conformance.strategies.domain import Scope

PINNED = {
    "helpers": (1, 888),
    "setup": (7, 4936),
    "failures, one after the other": (3, 6),
    "sleeper": (77, 249),
    "routing": (1, 11523),
    "lifecycle": (29, 378),
    "tagged addresses": (4, 4),
    "off": (10, 129),
    "no irqchip": (5, 11),
    "loaded anew": (28, 63),
    "ids": (352, 1322),
    "wide ids": (112, 314),
    "tags": (9, 154),
    "wrapping tags": (9, 154),
    "first tags": (4, 5),
    "first wide tags": (4, 5),
    "tags come round": (3, 5),
    "tags come round to a guest's": (2, 4),
    "two VMs": (488, 1513),
    "freed vCPUs": (648, 2111),
    "creation beside creation": (7, 1101),
    "logical table": (648, 2318),
    "interrupts to three": (921, 3126),
    "modes and inhibits": (357, 889),
    "reasons": (180, 1060),
    "busy ICRs": (299, 594),
    "derived reasons": (45, 223),
    "big xAPIC ids": (234, 593),
    "last bits of x2APIC clusters": (231, 550),
    "LVTs": (7, 6),
    "x2avic": (294, 902),
    "x2avic, all accesses": (18, 39),
    "x2avic, wide ids": (15, 37),
    "x2apic without x2avic": (183, 687),
    "levels and priorities": (325, 964),
    "eoi cleared by hardware": (325, 964),
    "accesses": (335, 4046),
    "posted": (209, 1105),
    "posted to one": (8, 111),
    "two at once": (8, 128),
    "end beside an interrupt": (8, 83),
    "two routes": (57, 188),
    "two routes to whom is freed": (18, 42),
    "reset in x2APIC mode": (6, 10),
    "races": (37, 727),
    "erratum 1235": (109, 240),
    "flat, spelled otherwise": (26, 147),
    "nobody's logical id": (36, 90),
    "an x2APIC among xAPICs": (252, 958),
    "posted, wide ids": (63, 162),
    "restored": (63, 289),
    "a disabled APIC": (238, 923),
    "held back": (40, 203),
    "software APIC": (65, 366),
    "software-disabled": (144, 396),
    "other cores": (71, 168),
    "an xAPIC becomes an x2APIC": (35, 104),
}
"""Reachable states and legal transitions of the gate's worlds, for the correct driver."""

_T = frozenset({"layer-t"})
_E = frozenset({"layer-t", "exits"})

_WORLDS: dict[str, Scope] = {
    "helpers": Scope(Config(), HELPED, depth=1, needs=frozenset({"helpers"})),
    "setup": Scope(Config(), SETUPS, depth=1, needs=_T),
    "routing": Scope(Config(), routed(), depth=1, needs=frozenset({"layer-r"})),
    "return values": Scope(Config(), signalled(), depth=1, needs=frozenset({"kvm-return"})),
    "lifecycle": Scope(Config(), LIFECYCLE, depth=4, needs=_T),
    "tagged addresses": Scope(Config(tagged=True), steps(s.VmCreate(), s.VcpuCreate(0), s.Enter(0)), depth=3, needs=_T),
    "failures, one after the other": Scope(Config(), FAILING, depth=2, needs=_T, sequences=3),
    "off": Scope(Config(avic=0), LIFECYCLE, depth=3, needs=_T),
    "no irqchip": Scope(
        Config(),
        steps(s.VmCreate(irqchip=False), s.VcpuCreate(0), s.Enter(0), s.VcpuReset(0), s.VmDestroy()),
        depth=4,
        needs=_T,
    ),
    "loaded anew": Scope(Config(vcpus=(), running=True, edx=X2AVIC_HOST), RELOADED, depth=6, needs=_E),
    "ids": Scope(Config(), BIG, depth=4, needs=_T),
    "wide ids": Scope(Config(edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT), BIG, depth=3, needs=_T),
    "tags": Scope(Config(next_tag=0xFFFFF), TAGS, depth=4, needs=_T),
    "wrapping tags": Scope(Config(next_tag=0xFFFFFFFF), TAGS, depth=4, needs=_T),
    "first tags": Scope(Config(next_tag=0xFFFFF), FIRST_TAGS, depth=1, needs=_T, sequences=4),
    "first wide tags": Scope(Config(next_tag=0xFFFFFFFF), FIRST_TAGS, depth=1, needs=_T, sequences=4),
    "tags come round": Scope(Config(), PASSING_TAGS, depth=1, needs=_T, sequences=4),
    "tags come round to a guest's": Scope(Config(vcpus=(0,), next_tag=0), COMING_ROUND, depth=1, needs=_T, sequences=3),
    "two VMs": Scope(RUNNING, TWO_VMS, depth=5, needs=frozenset({"layer-t", "exits", "posted"})),
    "freed vCPUs": Scope(THREE, FREED, depth=4, needs=frozenset({"layer-t", "exits", "posted"})),
    "creation beside creation": Scope(Config(), CREATING, depth=3, needs=_T),
    "logical table": Scope(RESET, LOGICAL, depth=3, needs=_E),
    "sleeper": Scope(RUNNING, SLEEPER, depth=5, needs=_E),
    "interrupts to three": Scope(THREE, IPI, depth=3, needs=_E),
    "busy ICRs": Scope(replace(THREE, busy_sticky=True), (*IPI, *IPI_MORE), depth=2, needs=_E),
    "modes and inhibits": Scope(RUNNING, MODES, depth=3, needs=_E),
    "reasons": Scope(RUNNING, REASONS, depth=3, needs=_E),
    "derived reasons": Scope(RUNNING, DERIVED, depth=4, needs=_E),
    "reset in x2APIC mode": Scope(
        X2, steps(s.Exit(1), s.VcpuReset(1), s.VcpuReset(1, init=True), s.VmRun(1)), depth=3, needs=_E
    ),
    "x2avic": Scope(X2, X2AVIC, depth=3, needs=_E),
    "x2avic, all accesses": Scope(X2, (*X2AVIC, *X2AVIC_MORE), depth=1, needs=_E),
    "x2avic, wide ids": Scope(
        Config(vcpus=(0, 1, 300), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST, ecx=1 << CPUID_X2AVIC_EXT),
        WIDE,
        depth=3,
        needs=_E,
    ),
    "big xAPIC ids": Scope(Config(vcpus=(0, 128, 254), running=True), BIG_IDS, depth=3, needs=_E),
    "last bits of x2APIC clusters": Scope(
        Config(vcpus=(0, 15, 16, 31), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST),
        LAST_BITS,
        depth=3,
        needs=_E,
    ),
    "x2apic without x2avic": Scope(
        Config(vcpus=(0, 1, 17), running=True, enabled=True, x2apic=True), (*X2AVIC, *X2AVIC_MORE), depth=2, needs=_E
    ),
    "levels and priorities": Scope(RUNNING, LEVEL, depth=3, needs=_E),
    "eoi cleared by hardware": Scope(
        Config(vcpus=(0, 1), running=True, enabled=True, eoi_cleared=True, busy_sticky=True), LEVEL, depth=3, needs=_E
    ),
    "LVTs": Scope(
        RUNNING, steps(*(s.GuestWrite(0, n, 0xFFF900EF) for n in range(APIC_LVTT, 0x380, 0x10))), depth=1, needs=_E
    ),
    "accesses": Scope(RUNNING, ACCESSES, depth=2, needs=_E),
    "posted": Scope(RUNNING, POSTED, depth=4, needs=frozenset({"layer-t", "exits", "posted"})),
    "posted to one": Scope(
        Config(vcpus=(0,), running=True, enabled=True),
        (*steps(s.UpdateIrte(0, 0), s.Exit(0), s.Block(0)), *ENDED_INSIDE),
        depth=4,
        needs=frozenset({"layer-t", "exits", "posted"}),
    ),
    "two at once": Scope(RUNNING, TOGETHER, depth=1, needs=frozenset({"layer-t", "exits", "posted"})),
    "two routes to whom is freed": Scope(
        RUNNING, steps(*(s.UpdateIrte(irq, 1) for irq in (0, 1)), s.Put(1), s.VcpuFree(1)), depth=4, needs=_E
    ),
    "two routes": Scope(
        Config(vcpus=(0,), running=True, enabled=True),
        steps(
            *(s.UpdateIrte(irq, 0, 0x51 + 16 * irq) for irq in (0, 1)),
            *(op(0) for op in (s.Exit, s.Block, s.Unblock, s.VmRun)),
            s.IommuPost(0),
            s.IommuPost(1),
        ),
        depth=5,
        needs=frozenset({"layer-t", "exits", "posted"}),
    ),
    "end beside an interrupt": Scope(
        Config(vcpus=(0,), running=True, enabled=True),
        ENDING,
        depth=4,
        needs=frozenset({"layer-t", "exits", "posted"}),
    ),
    "races": Scope(RUNNING, INSIDE, depth=2, needs=_E),
    "erratum 1235": Scope(
        Config(vcpus=(0, 1, 2), running=True, enabled=True, family=0x17, stale_running=True),
        ERRATUM,
        depth=3,
        needs=_E,
    ),
    "flat, spelled otherwise": Scope(RESET, SPELLED, depth=4, needs=_E),
    "nobody's logical id": Scope(RUNNING, UNNAMED, depth=4, needs=_E),
    "an x2APIC among xAPICs": Scope(Config(vcpus=(0, 1), running=True, edx=X2AVIC_HOST), HYBRID, depth=5, needs=_E),
    "posted, wide ids": Scope(
        Config(vcpus=(0, 1, 257), running=True, enabled=True, x2apic=True, edx=X2AVIC_HOST),
        POSTED_WIDE,
        depth=4,
        needs=frozenset({"layer-t", "exits", "posted"}),
    ),
    "restored": Scope(RUNNING, RESTORED, depth=5, needs=_E),
    "a disabled APIC": Scope(RUNNING, DISABLED_APIC, depth=4, needs=_E),
    "held back": Scope(RUNNING, HELD_BACK, depth=4, needs=_E),
    "other cores": Scope(RUNNING, MOVED, depth=6, needs=_E),
    "software-disabled": Scope(RUNNING, SOFTWARE_DISABLED, depth=3, needs=_E),
    "an xAPIC becomes an x2APIC": Scope(
        Config(vcpus=(0, 1), running=True, enabled=True, edx=X2AVIC_HOST), CHANGES_MODE, depth=4, needs=_E
    ),
    "software APIC": Scope(
        Config(vcpus=(0, 1), avic=0, software=True), SOFTWARE, depth=3, needs=frozenset({"layer-t", "exits", "posted"})
    ),
    "logical table, deep": Scope(RESET, (*LOGICAL, *LOGICAL_MORE), depth=4, needs=_E, in_gate=False),
    "modes and inhibits, deep": Scope(RUNNING, MODES, depth=5, needs=_E, in_gate=False),
    "interrupts to three, deep": Scope(THREE, (*IPI, *IPI_MORE), depth=4, needs=_E, in_gate=False),
    "x2avic, deep": Scope(X2, (*X2AVIC, *X2AVIC_MORE), depth=3, needs=_E, in_gate=False),
}
SCOPES: dict[str, Scope] = {
    name: replace(scope, states=PINNED[name][0], transitions=PINNED[name][1]) if name in PINNED else scope
    for name, scope in _WORLDS.items()
}
